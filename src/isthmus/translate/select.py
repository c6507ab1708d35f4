"""Which images a run translates, in which batches, and which of them a translator may look at beforehand."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from isthmus.data.files import ImageError
from isthmus.data.images import load_image
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash
from isthmus.translate.base import Samples
from isthmus.translate.record import Request
from isthmus.translate.work import Item

SAMPLE = 48  # images of each domain that a translator may look at
Shard = tuple[int, int]


def samples(rows: Sequence[Row], request: Request, target: Manifest | None) -> Samples:
    """A seeded sample of both domains; images that can't be read are passed over."""
    return Samples(
        _read_some(rows, request.seed),
        _read_some(target.select(real=True).rows, request.seed) if target is not None else (),
        request.target,
    )


def _read_some(rows: Sequence[Row], seed: int) -> tuple[Image.Image, ...]:
    found: list[Image.Image] = []
    for row in sorted(rows, key=lambda row: stable_hash("sample", seed, row.id))[: 2 * SAMPLE]:
        if len(found) == SAMPLE:
            break
        try:
            found.append(load_image(row.path, min_side=256))
        except ImageError:
            continue
    return tuple(found)


def chosen_rows(source: Manifest, request: Request, limit: int | None) -> list[Row]:
    """The real images of `source`, sorted by id; with `limit` a seeded choice of them."""
    rows = list(source.select(real=True))
    if not rows:
        raise IsthmusError("There is no image to translate: the source is empty or holds counterparts only.")
    domains = {row.domain for row in rows}
    if len(domains) > 1:
        raise IsthmusError(f"A translation has one source domain, not {', '.join(sorted(domains))}: name one of them.")
    if request.target in domains:
        raise IsthmusError(f"Source and target are both {request.target!r}: name another target domain.")
    if limit is not None:
        if limit < 1:
            raise IsthmusError(f"--limit {limit}: at least one image has to be translated.")
        rows = random.Random(request.seed).sample(sorted(rows, key=lambda row: row.id), min(limit, len(rows)))
    return sorted(rows, key=lambda row: row.id)


def form_batches(items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    """Whole batches of the id-sorted list: the composition that shards and restarts keep."""
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def deal(batches: Sequence[tuple[Item, ...]], shard: Shard) -> list[tuple[Item, ...]]:
    """The batches of shard i of n, by a hash of their first id.

    Example:
        >>> batches = form_batches([Item(f"photo/{i}", "", None) for i in range(10)], 2)
        >>> sum(len(deal(batches, (i, 3))) for i in (1, 2, 3))
        5
    """
    number, count = shard
    if not 1 <= number <= count:
        raise IsthmusError(f"--shard {number}/{count}: write i/n with i from 1 to n, for example 1/4.")
    return [batch for batch in batches if stable_hash(batch[0].id) % count == number - 1]
