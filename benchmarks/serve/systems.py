"""Each way to search, in a process of its own, so that memory is told apart and no two share a thread pool."""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from clip_back import ClipBack
from common import Array, K, clocked, gallery, memory_mb, number_of
from system import BUILD_EFFORT, LINKS, System, faiss


class Table(System):
    """The catalog as it is on disk: LanceDB's index."""

    metadata = True
    kind: str | None = None

    def build(self) -> dict[str, Any]:
        from isthmus.catalog.store import Catalog

        self.catalog = Catalog.open(self.place)
        if self.kind is None:
            return {}
        from isthmus.catalog.memory import use_memory
        from isthmus.catalog.memory_settings import MemorySettings

        wanted: Any = {"kind": self.kind, "max_mb": 1 << 20, "threads": os.cpu_count() or 1}
        self.memory = use_memory(self.catalog, MemorySettings(**wanted))
        state = self.memory.wait()
        if state.kind != self.kind:
            raise RuntimeError(f"no {self.kind} index in memory: {state.note}")
        self.effort = state.effort
        return {"state": state.to_dict()}

    def ask(self, query: Array) -> list[int]:
        return [number_of(hit.id) for hit in self.catalog.search(query, k=K) if hit.metadata]

    def only_nearest(self, query: Array) -> None:
        self.catalog._searcher.nearest(query[None], K, None)


class Flat(Table):
    kind = "flat"


class Graph(Table):
    kind = "hnsw"


class FaissFlat(System):
    """FAISS, every vector compared."""

    def build(self) -> dict[str, Any]:
        self.index = faiss(self.settings).IndexFlatIP(self.settings.dim)
        self.index.add(gallery(self.settings.items, self.settings.dim))
        return {}

    def ask(self, query: Array) -> list[int]:
        found: list[int] = self.index.search(query[None], K)[1][0].tolist()
        return found


class FaissGraph(System):
    """FAISS' HNSW graph over whole vectors."""

    def build(self) -> dict[str, Any]:
        module = faiss(self.settings)
        self.index = module.IndexHNSWFlat(self.settings.dim, LINKS, module.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = BUILD_EFFORT
        module.omp_set_num_threads(os.cpu_count() or 1)
        self.index.add(gallery(self.settings.items, self.settings.dim))
        module.omp_set_num_threads(self.settings.threads)
        return {}

    def ask(self, query: Array) -> list[int]:
        self.index.hnsw.efSearch = max(K, self.effort or 0)
        found: list[int] = self.index.search(query[None], K)[1][0].tolist()
        return found


class Hnswlib(System):
    """hnswlib."""

    def build(self) -> dict[str, Any]:
        import hnswlib  # type: ignore[import-untyped]

        self.index = hnswlib.Index(space="ip", dim=self.settings.dim)
        self.index.init_index(max_elements=self.settings.items, ef_construction=BUILD_EFFORT, M=LINKS)
        vectors = gallery(self.settings.items, self.settings.dim)
        self.index.add_items(vectors, np.arange(len(vectors)), num_threads=os.cpu_count() or 1)
        self.index.set_num_threads(self.settings.threads)
        return {}

    def ask(self, query: Array) -> list[int]:
        self.index.set_ef(max(K, self.effort or 0))
        found: list[int] = self.index.knn_query(query[None], K)[0][0].tolist()
        return found


SYSTEMS: dict[str, type[System]] = {
    "catalog, table index": Table,
    "catalog, memory flat": Flat,
    "catalog, memory hnsw": Graph,
    "FAISS flat": FaissFlat,
    "FAISS HNSW": FaissGraph,
    "hnswlib": Hnswlib,
    "clip-retrieval's steps": ClipBack,
}


def _serve(pipe: Any, name: str, settings: argparse.Namespace, place: Path) -> None:
    try:
        import isthmus.ops  # noqa: F401  (torch, so that the memory before building holds all that is imported)

        system, before = SYSTEMS[name](settings, place), memory_mb()
        seconds, told = clocked(system.build)
        after = memory_mb()
        pipe.send({"build_s": round(seconds, 2), "imports_mb": before["resident"], "memory": after, **told})
        while (asked := pipe.recv()) is not None:
            verb, *more = asked
            if verb == "ask":
                pairs = [clocked(system.ask, query) for query in more[0]]
                pipe.send(([seconds for seconds, _ in pairs], [rows for _, rows in pairs]))
            elif verb == "nearest":
                pipe.send([clocked(system.only_nearest, query)[0] for query in more[0]])
            elif verb == "dedup":
                system.dedup = True
                pipe.send([clocked(system.ask, query)[0] for query in more[0]])
                system.dedup = False
            elif verb == "tune":
                pipe.send((system.tune(*more), system.effort))
            elif verb == "memory":
                pipe.send(memory_mb())
    except Exception:
        pipe.send({"failed": traceback.format_exc().strip().splitlines()[-1]})


class Worker:
    """A system in its process."""

    def __init__(self, name: str, settings: argparse.Namespace, place: Path) -> None:
        context = mp.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, name, settings, place), daemon=True)
        self._process.start()
        other.close()
        self.told: dict[str, Any] = self._pipe.recv()
        self.metadata = SYSTEMS[name].metadata

    @property
    def failed(self) -> bool:
        return "failed" in self.told

    def do(self, *asked: Any) -> Any:
        self._pipe.send(asked)
        answer = self._pipe.recv()
        if isinstance(answer, dict) and "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self) -> None:
        if self._process.is_alive() and not self.failed:
            self._pipe.send(None)
        self._process.join(20)
