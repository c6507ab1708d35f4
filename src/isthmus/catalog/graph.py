"""An HNSW graph over unit vectors (FAISS), searched with as much effort as the wanted recall needs, by measurement.

FAISS is imported here alone, and after torch: each of them brings an OpenMP runtime of its own.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.catalog.embed import Vectors
from isthmus.catalog.trial import SAMPLE, TOP, halfway, kth_best, recall_of, trial_queries
from isthmus.errors import IsthmusError, need_extra

LINKS = 32
BUILD_EFFORT = 100
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)
ADDED = 4096  # rows between two looks at whether to stop
BLOCK = 16_384
MANY = 64  # fewer queries than that are searched by one thread: starting others takes longer
BYTES = 2 * LINKS * 4 + 60  # of the graph, an item
Numbers = np.ndarray[Any, Any]


class StoppedError(Exception):
    """The graph is no longer wanted."""


@dataclass(frozen=True)
class Graph:
    """A finished graph; never changed, so that threads may search it side by side.

    Attributes:
        index: FAISS's.
        vectors: float32 (n, dim), the graph's own memory and no copy: alive as long as the graph.
        effort: candidates that a search keeps open (`efSearch`) to reach the wanted recall.
        recall: at 10, measured with that effort.
        seconds: that building took.
        threads: for many queries at once.
    """

    index: Any
    vectors: Vectors
    effort: int
    recall: float
    seconds: float
    threads: int

    def search(self, queries: Vectors, count: int, effort: int) -> Numbers:
        """Rows int64 (q, count) of the nearest vectors, best first; -1 where fewer were found."""
        return _search(self.index, queries, count, effort, self.threads)


def load_faiss() -> Any:
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    import torch  # noqa: F401  (its OpenMP first: the other order is the one that was seen to hang)

    try:
        import faiss
    except ImportError:
        raise need_extra("fast", "faiss") from None
    return faiss


@functools.cache
def has_faiss() -> bool:
    """Whether FAISS can be imported."""
    try:
        load_faiss()
    except IsthmusError:
        return False
    return True


def build_graph(
    parts: Iterable[Vectors], dim: int, wanted: float, threads: int, stop: threading.Event | None = None
) -> Graph | None:
    """A graph over vectors, in their order.

    Args:
        parts: some of the vectors (n, dim) each, taken one after the other.
        dim: width of a vector.
        wanted: recall@10 against exact search, in (0, 1].
        threads: of building, and of searches for many queries.
        stop: set by another thread when the graph is no longer wanted.

    Returns:
        None where no effort reaches the wanted recall.

    Raises:
        StoppedError: `stop` was set.
    """
    faiss = load_faiss()
    start = time.perf_counter()
    index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_EFFORT
    _use_threads(faiss, threads)
    for part in parts:
        vectors = np.ascontiguousarray(part, np.float32)
        for first in range(0, len(vectors), ADDED):
            if stop is not None and stop.is_set():
                raise StoppedError
            _own(index, "add")(vectors[first : first + ADDED])
    storage = faiss.downcast_index(index.storage)
    stored: Vectors = faiss.rev_swig_ptr(storage.get_xb(), index.ntotal * dim).reshape(index.ntotal, dim)
    effort, recall = _least_effort(index, stored, halfway(wanted), threads)
    if recall < wanted:
        return None
    return Graph(index, stored, effort, recall, time.perf_counter() - start, threads)


def _least_effort(index: Any, vectors: Vectors, wanted: float, threads: int) -> tuple[int, float]:
    rows = np.unique(np.linspace(0, len(vectors) - 1, SAMPLE).astype(np.int64))
    queries, count = trial_queries(vectors[rows]), min(TOP, len(vectors))
    best = kth_best(queries, (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK)), count)
    recall = 0.0
    for effort in EFFORTS:
        found = [vectors[slots[slots >= 0]] for slots in _search(index, queries, count, effort, threads)]
        halves = (slice(0, len(rows)), slice(len(rows), None))
        recall = min(recall_of(queries[half], found[half], best[half], count) for half in halves)
        if recall >= wanted:
            break
    return effort, recall


def _search(index: Any, queries: Vectors, count: int, effort: int, threads: int) -> Numbers:
    faiss = load_faiss()
    _use_threads(faiss, threads if len(queries) >= MANY else 1)
    params = faiss.SearchParametersHNSW(efSearch=max(effort, count))
    found: Numbers = _own(index, "search")(np.ascontiguousarray(queries, np.float32), count, params=params)[1]
    return found


def _own(index: Any, method: str) -> Any:
    """FAISS' own method: `faiss.contrib.torch_utils`, which others import (pytorch-metric-learning does), puts one in
    its place that takes tensors and knows no search parameters."""
    return getattr(index, f"{method}_numpy", None) or getattr(index, method)


def _use_threads(faiss: Any, threads: int) -> None:
    # OpenMP keeps the number for each thread of the program: set once at the start it would hold for that one alone.
    if faiss.omp_get_max_threads() != threads:
        faiss.omp_set_num_threads(threads)
