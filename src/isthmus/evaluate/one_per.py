"""The gallery of one photo for each sketch: one item of each label or identity, drawn again and again.

Papers on fine-grained retrieval ask among photos of which each has its sketch, one of each thing. With several images
of a thing, or of a class, that gallery is a draw: here it is repeated, with mean and sample standard deviation (n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus import ops
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.intervals import mean_std
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.evaluate.sides import Vectors

REPEATS = 10
SMALL = Cutoffs(precision=(), micro=(), average=(), recall=(1, 5, 10), gain=())
_SHOWN = ("mAP@all", "R@1", "R@5", "R@10")


@dataclass(frozen=True, slots=True)
class OnePer:
    """Figures of the small gallery.

    Attributes:
        scores: name -> mean and standard deviation over the draws (NaN for a single one).
        chance: name -> of a random order.
        n_gallery: items, one of each label or identity.
        repeats: draws.
        seed: of them.
    """

    scores: dict[str, tuple[float, float]]
    chance: dict[str, float]
    n_gallery: int
    repeats: int
    seed: int


def drawn_items(keys: Sequence[str | None], ids: Sequence[str], seed: int, repeat: int) -> list[int]:
    """One item of each label or identity: that whose id, with seed and repeat, has the smallest hash.

    Args:
        keys: n labels or identities; an item of None takes no part.
        ids: n ids.
        seed, repeat: name the draw; the items' order plays no part in it.

    Returns:
        Positions, ascending.

    Example:
        >>> drawn_items(["a", None, "b", "b"], ["1", "2", "3", "4"], 0, 0)[0]
        0
    """
    hashes = ops.tie_keys([f"{seed}/{repeat}/{name}" for name in ids]).tolist()
    chosen: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key is not None and (key not in chosen or hashes[place] < hashes[chosen[key]]):
            chosen[key] = place
    return sorted(chosen.values())


def one_per_key(
    query: Vectors,
    gallery: Vectors,
    query_keys: Sequence[str | None],
    gallery_keys: Sequence[str | None],
    *,
    gallery_ids: Sequence[str],
    seed: int = 0,
    repeats: int = REPEATS,
) -> OnePer:
    """Ask all queries of galleries with one item of each label or identity.

    Args:
        query, gallery, query_keys, gallery_keys, gallery_ids: as of `retrieval_metrics`.
        seed: of the draws.
        repeats: draws, at least 1.

    Raises:
        IsthmusError: see `retrieval_metrics`.
    """
    found: dict[str, list[float]] = {name: [] for name in _SHOWN}
    for repeat in range(repeats):
        at = drawn_items(gallery_keys, gallery_ids, seed, repeat)
        result = retrieval_metrics(
            query, gallery[at], query_keys, [gallery_keys[i] for i in at], gallery_ids=[gallery_ids[i] for i in at],
            ks=SMALL, bootstrap=0,
        )  # fmt: skip
        for name, values in found.items():
            values.append(result.scores[name])
    scores = {name: mean_std(values) for name, values in found.items()}
    return OnePer(scores, {name: result.chance[name] for name in _SHOWN}, len(at), repeats, seed)
