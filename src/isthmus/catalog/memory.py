"""A catalog's vectors in memory for quick search: a cache of one version that can be thrown away at any moment.

The table stays the truth. Whenever its version moves the cache is brought up to date, in the foreground or behind the
searches' back; until it is, they go to the table, so that no result is of an older version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isthmus.catalog.embed import Vectors
from isthmus.catalog.graph import BYTES, StoppedError, build_graph, has_faiss, load_faiss
from isthmus.catalog.items import Items
from isthmus.catalog.memory_settings import MemorySettings, State
from isthmus.catalog.search import BLOCK, DEEP, Found
from isthmus.catalog.snapshot import Part, Snapshot, joined, read_snapshot
from isthmus.errors import IsthmusError
from isthmus.process import release_memory

if TYPE_CHECKING:
    from isthmus.catalog.store import Catalog

ROW = 150  # bytes an item beside its vector: id, checksum, place, masks
LATE = 2000  # items outside the graph, compared one by one
LATE_SHARE = 0.05
DEAD_SHARE = 0.2


def use_memory(catalog: Catalog, settings: MemorySettings | None = None) -> Memory:
    """Let a catalog search in memory from now on; `close` of what comes back ends it.

    Example:
        >>> memory = use_memory(catalog, MemorySettings(recall=0.99))                       # doctest: +SKIP
        >>> catalog.search("cat.png", k=10), memory.state().kind                            # doctest: +SKIP
    """
    searcher = catalog._searcher
    if searcher.memory is not None:
        searcher.memory.close()
    searcher.memory = Memory(catalog.items, settings or MemorySettings())
    return searcher.memory


class Memory:
    """The cache of one catalog. Searches may come from several threads.

    Raises:
        MissingExtraError: `kind="hnsw"` and FAISS is not installed.
    """

    def __init__(self, items: Items, settings: MemorySettings) -> None:
        if settings.kind == "hnsw":
            load_faiss()
        self.items, self.settings = items, settings
        self._snapshot: Snapshot | None = None
        self._failed: int | None = None  # the version that can't be kept
        self._no_graph = 0  # so many items there were when a graph could not be had
        self._note = ""
        self._renewing = threading.RLock()
        self._threads: dict[str, threading.Thread] = {}
        self._starting = threading.Lock()
        self._stop = threading.Event()

    def nearest(self, queries: Vectors, need: int, sql: str | None, *, exact: bool = False) -> list[Found] | None:
        """As `Searcher.nearest`; None where the cache is not of the table's version, or the catalog does not fit."""
        snapshot = self._ready()
        passed = snapshot.passed(self.items, sql) if snapshot is not None else None
        if snapshot is None or passed is None:
            return None
        need = min(need, sum(passed.counts))
        if need == 0:
            return [Found() for _ in queries]
        found = None
        if not exact and need <= DEEP:
            found = snapshot.near(queries, need, passed, self.items.place)
        if found is None:
            found = snapshot.exact(queries, need, passed, self.items.place)
        return [replace(one, known=snapshot.known) for one in found]

    def state(self) -> State:
        """What is in memory now."""
        snapshot = self._snapshot
        building = any(thread.is_alive() for thread in self._threads.values())
        if snapshot is None:
            return State("off", None, 0, 0, 0.0, None, None, None, building, self._note)
        graph = snapshot.graph
        rows = sum(len(part) for part in snapshot.parts)
        size = rows * (self.items.dim * 4 + ROW) + (len(snapshot.parts[0]) * BYTES if graph else 0)
        size += snapshot.known.nbytes if snapshot.known is not None else 0
        return State(
            kind="hnsw" if graph else "flat",
            version=snapshot.version,
            items=len(snapshot),
            late=sum(len(part) for part in snapshot.parts[1:]),
            megabytes=round(size / 2**20, 1),
            effort=graph.effort if graph else None,
            recall=graph.recall if graph else None,
            seconds=round(graph.seconds, 2) if graph else None,
            building=building,
            note=self._note,
        )

    def wait(self, seconds: float | None = None) -> State:
        """Bring the cache up to date and wait until nothing is being built."""
        self._ready()
        while alive := [thread for thread in list(self._threads.values()) if thread.is_alive()]:
            alive[0].join(seconds)
            if seconds is not None and alive[0].is_alive():
                break
            self._ready()
        return self.state()

    def close(self) -> None:
        """Stop building and free the memory; searches go to the table."""
        self._stop.set()
        for thread in list(self._threads.values()):
            thread.join()
        self._snapshot = None

    def _ready(self) -> Snapshot | None:
        if self._stop.is_set():
            return None
        version, snapshot = self.items.version, self._snapshot
        if snapshot is None or snapshot.version != version:
            if version == self._failed:
                return None
            self._do("renew", self._renew)
            snapshot = self._snapshot
        if snapshot is not None and self._due(snapshot):
            self._do("grow", self._grow)
            snapshot = self._snapshot
        return snapshot if snapshot is not None and snapshot.version == version else None

    def _do(self, name: str, work: Callable[[], None]) -> None:
        if not self.settings.background:
            with self._renewing:
                work()
            return
        with self._starting:
            thread = self._threads.get(name)
            if (thread is None or not thread.is_alive()) and not self._stop.is_set():
                self._threads[name] = threading.Thread(target=work, name=f"isthmus-memory-{name}", daemon=True)
                self._threads[name].start()

    def _renew(self) -> None:
        with self._renewing:
            version = self.items.version
            if self._snapshot is not None and self._snapshot.version == version:
                return
            try:
                if self._fits(self.items.count(), graph=False):
                    self._publish(self._snapshot.parts if self._snapshot is not None else ())
                    return
            except (IsthmusError, MemoryError) as error:
                self._note = str(error) or "the memory ran out"
            self._snapshot, self._failed = None, version

    def _publish(self, parts: tuple[Part, ...]) -> None:
        found = read_snapshot(self.items, parts, self.settings.max_mb * 2**20)
        if found is None:
            return  # another change came in between: the next search asks again
        if found.graph is None and _worn(found):
            found = Snapshot(found.version, (joined(found.parts),), found.known)
        self._snapshot, self._failed = found, None
        release_memory()  # what reading took beside

    def _due(self, snapshot: Snapshot) -> bool:
        if snapshot.graph is not None and not _worn(snapshot):
            return False
        kind, count = self.settings.kind, len(snapshot)
        if abs(count - self._no_graph) < DEAD_SHARE * self._no_graph:
            return False  # it would fail again
        if kind == "flat" or count < 2 or (kind == "auto" and count <= self.settings.flat_below):
            return False
        if not has_faiss():
            self._note = "FAISS is not installed (pip install 'isthmus[fast]'): every item is compared with."
            return False
        return self._fits(count, graph=True)

    def _fits(self, count: int, *, graph: bool) -> bool:
        each = self.items.dim * 4 + ROW
        needed = count * (2 * (each + BYTES) if graph else each)  # a new graph is built beside what there is
        if needed <= self.settings.max_mb * 2**20:
            return True
        what = "A graph" if graph else "The catalog"
        self._note = f"{what} needs {needed / 2**20:.0f} MB of memory, over the limit of {self.settings.max_mb}."
        return False

    def _grow(self) -> None:
        snapshot = self._snapshot
        if snapshot is None or not self._due(snapshot):
            return
        try:
            graph = build_graph(
                _pieces(snapshot), self.items.dim, self.settings.recall, self._thread_count(), self._stop
            )
            note = "" if graph else f"No graph reaches a recall of {self.settings.recall}: every item is compared with."
        except StoppedError:
            return
        except (RuntimeError, MemoryError) as error:
            graph, note = None, f"The graph could not be built ({error}): every item is compared with."
        self._note = note
        if graph is None:
            self._no_graph = len(snapshot)
            return
        whole = joined([replace(part, vectors=part.vectors[:, :0]) for part in snapshot.parts])
        grown = replace(whole, vectors=graph.vectors, graph=graph)
        with self._renewing:
            # The table may have moved on since: what stands in the graph is brought up to date, not thrown away.
            self._snapshot = Snapshot(snapshot.version, (grown,), snapshot.known)
            self._renew()
        release_memory()  # what building took beside

    def _thread_count(self) -> int:
        import torch

        if self.settings.threads:
            return self.settings.threads
        return max(1, torch.get_num_threads() // (2 if self.settings.background else 1))


def _pieces(snapshot: Snapshot) -> Iterator[Vectors]:
    """The live vectors in blocks: a copy of all of them would be one too many."""
    for part in snapshot.parts:
        live = np.flatnonzero(part.live)
        for start in range(0, len(live), BLOCK):
            yield part.vectors[live[start : start + BLOCK]]


def _worn(snapshot: Snapshot) -> bool:
    """Whether so much was added or deleted since that starting afresh pays."""
    first = len(snapshot.parts[0])
    late = sum(len(part) for part in snapshot.parts[1:])
    dead = first - snapshot.parts[0].count
    return late > max(LATE, LATE_SHARE * first) or dead > DEAD_SHARE * first
