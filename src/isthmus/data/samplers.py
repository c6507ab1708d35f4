"""Which images make up each step: functions of the seed and the epoch alone, so a resumed run draws the same."""

from __future__ import annotations

import numpy as np

from isthmus.io import stable_hash


def epoch_batches(count: int, batch_size: int, steps: int, *, seed: int, epoch: int, name: str) -> list[list[int]]:
    """`steps` batches of positions in [0, count), each without a repeat, from fresh shuffles one after the other.

    A set smaller than the batch gives batches of its own size. The rest of a shuffle that fills no batch is dropped:
    a batch across two shuffles could hold an image twice.

    Example:
        >>> [len(batch) for batch in epoch_batches(10, 4, 3, seed=0, epoch=0, name="a")]
        [4, 4, 4]
    """
    size = min(batch_size, count)
    per_shuffle = count // size
    batches: list[list[int]] = []
    cycle = 0
    while len(batches) < steps:
        order = np.random.default_rng(stable_hash("order", name, seed, epoch, cycle)).permutation(count).tolist()
        batches += [order[i * size : (i + 1) * size] for i in range(per_shuffle)]
        cycle += 1
    return batches[:steps]


def local_part(batch: list[int], rank: int, world: int) -> list[int]:
    """The share of a batch that process `rank` of `world` works on; shares are equal, a rest is dropped."""
    size = len(batch) // world
    return batch[rank * size : (rank + 1) * size]


def pick(count: int, wanted: int, *draw: str | int) -> list[int]:
    """`wanted` positions in [0, count), without a repeat as long as there are others; a function of `draw` alone.

    The K of P x K sampling: an identity with fewer images gives some of them again, in another view.

    Example:
        >>> sorted(pick(2, 4, "id", 0))
        [0, 0, 1, 1]
    """
    rng = np.random.default_rng(stable_hash("pick", *draw))
    positions: list[int] = []
    while len(positions) < wanted:
        positions += rng.permutation(count).tolist()
    return positions[:wanted]
