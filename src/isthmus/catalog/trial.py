"""Queries that a catalog is tried with: how much of exact search an index finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.catalog.embed import Vectors
from isthmus.io import stable_hash

if TYPE_CHECKING:
    from isthmus.catalog.items import Items

SAMPLE = 200
TOP = 10
APART = 3.0
SAME = 1e-6  # an equal score is as good a hit
Numbers = np.ndarray[Any, Any]


def own_items(items: Items, count: int) -> tuple[list[str], Vectors]:
    """Ids and vectors (n, dim) of at most so many of a catalog's items, drawn by a hash of their ids."""
    ids = [id for batch in items.scan(["id"]) for id in batch.column("id").to_pylist()]
    rows, vectors = items.fetch(sorted(ids, key=lambda id: stable_hash("recall", id))[: max(0, count)])
    return [row["id"] for row in rows], vectors


def trial_queries(own: Vectors) -> Vectors:
    """Unit vectors (2n, dim): items (n, dim), and as many that lie apart from all items.

    A drawing is no item: its cosine with the items that it means may be .4, and what lies apart from all items is
    harder to find the neighbours of. So the others are items with three times their length of noise: a cosine of .32.
    """
    noise = np.random.default_rng(0).standard_normal(own.shape)
    apart = own + APART * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    return np.concatenate([own, apart]).astype(np.float32)


def kth_best(queries: Vectors, blocks: Iterable[Vectors], count: int) -> Numbers:
    """The score (q,) of each query's `count`-th nearest vector, over blocks (n, dim) of all vectors."""
    best = np.empty((len(queries), 0), np.float32)
    for block in blocks:
        best = np.concatenate([best, queries @ block.T], axis=1)
        if best.shape[1] > count:
            best = np.partition(best, -count, axis=1)[:, -count:]
    result: Numbers = best.min(axis=1)
    return result


def recall_of(queries: Vectors, found: Sequence[Vectors], best: Numbers, count: int) -> float:
    """Mean share of the `count` nearest that were found.

    Args:
        queries: unit vectors (q, dim).
        found: for each the vectors (n, dim) that were found.
        best: `kth_best`.
        count: hits that there should be.
    """
    shares = [
        (vectors @ query >= score - SAME).sum() / count
        for query, vectors, score in zip(queries, found, best, strict=True)
    ]
    return float(np.mean(shares))


def halfway(wanted: float) -> float:
    """Between the wanted recall and 1: what is measured on a sample is not quite what the next queries get."""
    return wanted + (1 - wanted) / 2
