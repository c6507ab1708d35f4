"""How much of exact search the quick search finds, and how much quicker it is: as numbers, on the catalog itself."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.catalog.embed import Vectors
from isthmus.catalog.search import Found
from isthmus.catalog.trial import own_items
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.store import Catalog

SAME = 1e-9  # an equal score is as good a hit


@dataclass(frozen=True)
class RecallReport:
    """Quick search beside exact search.

    Attributes:
        items: in the catalog.
        queries: how many were asked.
        k: hits compared.
        way: what answered: memory hnsw, memory flat, table index or exact.
        recall: mean share of the k exact hits that the quick search found.
        worst: the least share of a query.
        perfect: share of queries whose hits were all found.
        quick_ms, exact_ms: median of one search, without reading the hits' metadata.
    """

    items: int
    queries: int
    k: int
    way: str
    recall: float
    worst: float
    perfect: float
    quick_ms: float
    exact_ms: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def recall_report(catalog: Catalog, queries: int | Vectors = 200, *, k: int = 10) -> RecallReport:
    """Compare the search that is in use with exact search.

    Args:
        catalog: as it is used, such as after `use_memory`.
        queries: how many of its own items ask (drawn by a hash of their ids; each is left out of its own hits), or
            vectors (n, dim) that ask: those of real drawings are the better test.
        k: hits to compare.

    Raises:
        IsthmusError: no items, or no queries.

    Example:
        >>> recall_report(catalog, 200).recall                                              # doctest: +SKIP
        0.994
    """
    items, searcher = catalog.items, catalog._searcher
    ids, vectors = own_items(items, queries) if isinstance(queries, int) else (None, np.asarray(queries, np.float32))
    own = ids is not None
    if vectors.ndim != 2 or vectors.shape[1] != items.dim or not len(vectors) or not np.isfinite(vectors).all():
        raise IsthmusError(f"The queries are finite vectors (n, {items.dim}), at least one, not {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    count = items.count()
    need = min(count, k + own)
    if k < 1 or need <= own:
        raise IsthmusError(f"The catalog {items.place} has {count} items; a recall needs more, and k of at least 1.")
    if searcher.memory is not None:
        searcher.memory.wait()
    searcher.nearest(vectors[:1], need, None)  # what is paid once is not counted
    searcher.nearest(vectors[:1], need, None, exact=True)
    shares: list[float] = []
    seconds: tuple[list[float], list[float]] = ([], [])
    for number, vector in enumerate(vectors):
        found = []
        for place, exact in enumerate((False, True)):
            start = time.perf_counter()
            found.append(searcher.nearest(vector[None], need, None, exact=exact)[0])
            seconds[place].append(time.perf_counter() - start)
        quick, true = (_scores(one, ids[number] if ids is not None else None, need - own) for one in found)
        shares.append(int((quick >= true[-1] - SAME).sum()) / (need - own))
    state = searcher.memory.state() if searcher.memory is not None else None
    if state is not None and state.kind != "off":
        way = f"memory {state.kind}"
    else:
        way = "table index" if items.indexed() is not None else "exact"
    return RecallReport(
        items=count,
        queries=len(vectors),
        k=need - own,
        way=way,
        recall=float(np.mean(shares)),
        worst=float(np.min(shares)),
        perfect=float(np.mean([share == 1 for share in shares])),
        quick_ms=1000 * float(np.median(seconds[0])),
        exact_ms=1000 * float(np.median(seconds[1])),
    )


def _scores(found: Found, without: str | None, count: int) -> np.ndarray[Any, Any]:
    keep = np.array([id != without for id in found.ids], bool)
    scores: np.ndarray[Any, Any] = found.scores[keep][:count]
    return scores
