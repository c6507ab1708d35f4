"""A way to search, and FAISS as the package loads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import Array, recall

EFFORTS = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768, 1024, 2048)
LINKS, BUILD_EFFORT = 32, 100  # the same as the catalog's graph has


class System:
    """One way to search; `ask` answers one unit vector with the rows found, best first."""

    metadata = False
    dedup = False
    effort: int | None = None

    def __init__(self, settings: argparse.Namespace, place: Path) -> None:
        self.settings, self.place = settings, place

    def build(self) -> dict[str, Any]:
        return {}

    def ask(self, query: Array) -> list[int]:
        raise NotImplementedError

    def only_nearest(self, query: Array) -> None:
        """The search without reading metadata, where that can be told apart."""

    def tune(self, wanted: float, queries: Array, right: Array) -> float:
        """The least effort that reaches a recall, and the recall."""
        reached = 0.0
        for self.effort in EFFORTS:
            reached = recall([self.ask(query) for query in queries], right)
            if reached >= wanted:
                break
        return reached


def faiss(settings: argparse.Namespace) -> Any:
    """FAISS with the wanted threads, after torch, as the package loads it."""
    from isthmus.catalog.graph import load_faiss

    module = load_faiss()
    module.omp_set_num_threads(settings.threads)
    return module
