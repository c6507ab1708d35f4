"""Filters, deletions, changes and versions against brute force, with the index in memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import BRANDS, Array, K, asked, copy_of, gallery, number_of, price_of, row_of

QUERIES = 10
KINDS: tuple[Literal["flat", "hnsw"], ...] = ("flat", "hnsw")
FILTERS: dict[str, tuple[str, Callable[[Array, Array], Array]]] = {
    "half": ("price < 500", lambda price, brand: price < 500),
    "1 in 50": ("brand = 'brand 7'", lambda price, brand: brand == 7),
    "1 in 1,000": ("price < 1", lambda price, brand: price < 1),
    "two of either": (
        "price >= 900 OR brand IN ('brand 1', 'brand 2')",
        lambda price, brand: (price >= 900) | (brand == 1) | (brand == 2),
    ),
}


class World:
    """What the catalog ought to hold: vectors by item, compared one with each."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.vectors = gallery(settings.items, settings.dim)
        self.there = np.ones(settings.items, bool)
        self.price = np.array([price_of(number) for number in range(settings.items)])

    def nearest(self, query: Array, allowed: Array) -> list[int]:
        """The K best rows, in float64 where it is close."""
        scores = np.where(allowed & self.there, self.vectors @ query, -np.inf)
        near = np.argpartition(-scores, min(4 * K, len(scores) - 1))[: 4 * K]
        wide = self.vectors[near].astype(np.float64) @ query.astype(np.float64)
        wide[~np.isfinite(scores[near])] = -np.inf
        order = np.argsort(-wide, kind="stable")[:K]
        return [int(near[place]) for place in order if np.isfinite(wide[place])]


def check_exact(settings: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Counts of what was compared, and of what was wrong (which ought to be none).

    Flat and `exact=True` must give brute force's hits. The graph may miss a neighbour, so its recall is told; but
    nothing that a filter forbids, that was deleted or that is of another version may ever be among its hits.
    """
    from isthmus.catalog.memory import use_memory
    from isthmus.catalog.memory_settings import MemorySettings
    from isthmus.catalog.store import Catalog

    queries = asked(QUERIES, settings.dim, seed=2)
    counts: dict[str, Any] = {"searches": 0, "forbidden_hits": 0, "differ_from_brute_force": 0, "graph_recall": {}}
    for kind in KINDS:
        copy = copy_of(place, "changing")
        catalog, world = Catalog.open(copy), World(settings)
        memory = use_memory(catalog, MemorySettings(kind=kind, max_mb=1 << 20))
        memory.wait()

        def look(step: str, kind: str = kind, catalog: Any = catalog, world: World = world) -> None:
            brand = np.arange(len(world.price)) % BRANDS
            for name, (where, rule) in [("none", (None, None)), *FILTERS.items()]:
                passes = np.ones(len(brand), bool) if rule is None else rule(world.price, brand)
                shares = []
                for query in queries:
                    right = world.nearest(query, passes)
                    for exact in (False, True):
                        found = [number_of(hit.id) for hit in catalog.search(query, k=K, where=where, exact=exact)]
                        counts["searches"] += 1
                        counts["forbidden_hits"] += sum(not (passes & world.there)[row] for row in found)
                        if exact or kind == "flat":
                            counts["differ_from_brute_force"] += found != right
                        else:
                            shares.append(len(set(found) & set(right)) / max(1, len(right)))
                if shares:
                    counts["graph_recall"][f"{step}, filter {name}"] = round(float(np.mean(shares)), 4)

        look("as built")
        before = int(catalog.items.version)
        whole = world.there.copy()
        gone = {row for query in queries for row in world.nearest(query, whole)[:3]}
        catalog.delete([f"item{row}" for row in sorted(gone)])
        world.there[sorted(gone)] = False
        look("after deletions")
        # New items exactly where queries are: each must be its query's first hit at once.
        rows = sorted(gone)[: len(queries)]
        catalog.items.upsert([row_of(row) for row in rows], queries[: len(rows)].copy())
        old = world.vectors[rows].copy()
        world.vectors[rows], world.there[rows] = queries[: len(rows)], True
        look("after additions")
        changed = rows[:10]
        catalog.update({f"item{row}": {"price": 0.5} for row in changed})
        old_price = world.price[changed].copy()
        world.price[changed] = 0.5
        look("after changes of metadata")
        catalog.rollback(before)
        world.vectors[rows], world.price[changed], world.there = old, old_price, whole
        look("after the rollback")
        memory.close()
    counts["wrong"] = counts["forbidden_hits"] + counts["differ_from_brute_force"]
    return counts
