"""How much the hits of two models differ: the same items as queries, their first 10 before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from isthmus.catalog.items import Items
from isthmus.catalog.query import Queries, search
from isthmus.catalog.search import Searcher

K = 10
PERSISTENCE = 0.9  # the usual choice: the first 10 ranks have 86% of the weight of an endless list


@dataclass(frozen=True)
class Overlap:
    """How the first 10 hits of a sample of items changed.

    Attributes:
        queries: items asked with.
        share: mean share of the first 10 hits that both have (overlap@10), 0 to 1.
        rank_biased: mean rank-biased overlap of the first 10, 0 to 1; 1 only where the order is the same too.
        same: share of queries whose first 10 are the same in the same order.
        most_changed: ids of the queries that changed most, most changed first; at most 5.
    """

    queries: int
    share: float
    rank_biased: float
    same: float
    most_changed: list[str]


def compare(old: Items, new: Items, sample: int) -> Overlap | None:
    """Search both tables with the same items as queries, exactly; the items are chosen by a hash of their ids.

    Args:
        old: items with the old model's vectors.
        new: items with the new model's.
        sample: at most so many queries.

    Returns:
        None where fewer than two items are in both.
    """
    from isthmus.ops import tie_keys

    both = {row["id"] for row in old.read(["id"])} & {row["id"] for row in new.read(["id"])}
    ids = sorted(both)
    if len(ids) < 2:
        return None
    keys = tie_keys(ids).tolist()
    chosen = [id for _, id in sorted(zip(keys, ids, strict=True))[:sample]]
    before, after = _first(old, chosen), _first(new, chosen)
    shares = {id: overlap(before[id], after[id]) for id in chosen}
    biased = {id: rank_biased_overlap(before[id], after[id]) for id in chosen}
    changed = [id for id in sorted(chosen, key=lambda id: biased[id]) if before[id] != after[id]]
    same = fmean(before[id] == after[id] for id in chosen)
    return Overlap(len(chosen), fmean(shares.values()), fmean(biased.values()), same, changed[:5])


def _first(items: Items, ids: Sequence[str]) -> dict[str, list[str]]:
    rows, vectors = items.fetch(ids)
    queries = Queries(len(rows), items.dim)
    queries.vectors[:] = vectors
    queries.without = [row["id"] for row in rows]
    found = search(Searcher(items), queries, K, None, 0, True)
    return {row["id"]: [hit.id for hit in hits] for row, hits in zip(rows, found, strict=True)}


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the longer list's entries that both lists have; 1 for two empty ones.

    Example:
        >>> overlap(["a", "b"], ["b", "c"])
        0.5
    """
    longest = max(len(first), len(second))
    return len(set(first) & set(second)) / longest if longest else 1.0


def rank_biased_overlap(first: Sequence[str], second: Sequence[str], persistence: float = PERSISTENCE) -> float:
    """Mean overlap of the lists' beginnings, of each length, weighted so that the first ranks count most.

    After Webber, Moffat and Zobel, A similarity measure for indefinite rankings, TOIS 2010, equation 4, cut at the
    length of the longer list and divided by the weight up to there, so that equal lists have 1.

    Args:
        first: distinct ids, best first.
        second: likewise.
        persistence: weight of a rank relative to the one before it, above 0 and below 1.

    Example:
        >>> rank_biased_overlap(["a", "b"], ["a", "b"]), round(rank_biased_overlap(["a", "b"], ["b", "a"]), 3)
        (1.0, 0.474)
    """
    depth = max(len(first), len(second))
    if not depth:
        return 1.0
    weights = [persistence**rank for rank in range(depth)]
    agreed = [len(set(first[:rank]) & set(second[:rank])) / rank for rank in range(1, depth + 1)]
    return sum(weight * share for weight, share in zip(weights, agreed, strict=True)) / sum(weights)
