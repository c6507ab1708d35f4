"""Random histories of a catalog against a dictionary: whatever was done, search is brute force over what is there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from catalog_tools import FakeModel, brute_force, picture
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isthmus import Catalog
from isthmus.data.manifest import Manifest, Row

NAMES = [f"{folder}{number}.png" for folder in ("", "a/", "b/") for number in range(5)]
names = st.sampled_from(NAMES)
seeds = st.integers(0, 12)  # few, so that files often have the same content
prices = st.sampled_from([None, 0.0, 10.0, 50.0])


class History(RuleBasedStateMachine):
    """`disk` is what the folder holds (name -> seed), `items` what the catalog should (name -> seed, price)."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.folder = self.home / "photos"
        self.folder.mkdir()
        self.model = FakeModel()
        self.disk: dict[str, int] = {}
        self.items: dict[str, tuple[int, float | None]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @initialize(started=st.dictionaries(names, seeds, min_size=1, max_size=6))
    def start(self, started: dict[str, int]) -> None:
        self.catalog = Catalog.create(self.home / "catalog", self.model)
        self.catalog.items.make_columns({"price": "number"})
        for name, seed in started.items():
            self.write(name, seed)

    @rule(name=names, seed=seeds)
    def write(self, name: str, seed: int) -> None:
        picture(self.folder / name, seed)
        self.disk[name] = seed

    @rule(name=names)
    def unlink(self, name: str) -> None:
        if name in self.disk and len(self.disk) > 1:
            (self.folder / name).unlink()
            del self.disk[name]

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if old in self.disk and old != new:
            (self.folder / new).parent.mkdir(exist_ok=True)
            (self.folder / old).rename(self.folder / new)
            self.disk[new] = self.disk.pop(old)

    @rule(thorough=st.booleans())
    def sync(self, thorough: bool) -> None:
        before, known = dict(self.items), {seed for seed, _ in self.items.values()}
        self.model.encoded.clear()
        changes = self.catalog.sync(self.folder, thorough=thorough)
        assert changes.bad == [] and len(self.model.encoded) == changes.embedded
        assert changes.embedded == len({seed for seed in self.disk.values() if seed not in known})
        new = {name for name in self.disk if name not in before}
        gone = {name for name in before if name not in self.disk}
        assert changes.added + changes.moved == len(new)
        assert changes.removed + changes.moved == len(gone)
        same = {name for name in self.disk if name in before and before[name][0] == self.disk[name]}
        assert changes.unchanged + changes.refreshed == len(same)
        assert changes.updated == len(self.disk) - len(new) - len(same)
        stored = {row["id"].removeprefix("photo/"): row["price"] for row in self.catalog.rows()}
        # A moved file may bring the price of any item that is gone and had its content.
        for name in new:
            candidates = {before[old][1] for old in gone if before[old][0] == self.disk[name]} | {None}
            assert stored[name] in candidates
        self.items = {
            name: (seed, before[name][1] if name in before else stored[name]) for name, seed in self.disk.items()
        }

    @rule(chosen=st.lists(names, max_size=4), price=prices)
    def add(self, chosen: list[str], price: float | None) -> None:
        rows = [
            Row(f"photo/{name}", str(self.folder / name), "photo")
            for name in dict.fromkeys(chosen)
            if name in self.disk
        ]
        if not rows:
            return
        values = {row.id: {"price": price} for row in rows}
        self.catalog.add(Manifest(rows), metadata=values)
        for row in rows:
            name = row.id.removeprefix("photo/")
            self.items[name] = (self.disk[name], price)

    @rule(chosen=st.lists(names, max_size=3))
    def delete(self, chosen: list[str]) -> None:
        there = {name for name in chosen if name in self.items}
        assert self.catalog.delete([f"photo/{name}" for name in chosen]) == len(there)
        for name in there:
            del self.items[name]

    @rule(bound=st.sampled_from([5.0, 20.0]))
    def delete_where(self, bound: float) -> None:
        there = {name for name, (_, price) in self.items.items() if price is not None and price > bound}
        assert self.catalog.delete(where=f"price > {bound}") == len(there)
        for name in there:
            del self.items[name]

    @precondition(lambda self: self.items)
    @rule(data=st.data(), price=prices)
    def update(self, data: Any, price: float | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.items)))
        self.catalog.update({f"photo/{name}": {"price": price}})
        self.items[name] = (self.items[name][0], price)

    @rule()
    def compact(self) -> None:
        self.catalog.items.table.optimize()

    @rule()
    def reopen(self) -> None:
        self.catalog = Catalog.open(self.home / "catalog", self.model)

    @invariant()
    def search_is_brute_force(self) -> None:
        if not hasattr(self, "catalog"):
            return
        assert len(self.catalog) == len(self.items)
        query = np.random.default_rng(len(self.items)).normal(size=FakeModel.dim)
        query = query / np.linalg.norm(query)
        for where, keep in (
            (None, lambda price: True),
            ("price < 30", lambda price: price is not None and price < 30),
            ("price IS NULL OR NOT price = 0", lambda price: price is None or price != 0),
        ):
            gallery = {f"photo/{name}": self.vector(seed) for name, (seed, price) in self.items.items() if keep(price)}
            expected = brute_force(query, gallery, 4)
            hits = self.catalog.search(query, k=4, where=where)
            assert [round(hit.score, 6) for hit in hits] == [round(score, 6) for _, score in expected]
            assert [hit.id for hit in hits] == [id for id, _ in expected]

    def vector(self, seed: int) -> np.ndarray[Any, Any]:
        if seed not in self._vectors:
            path = picture(self.home / "one.png", seed)
            vector = FakeModel().encode([path], domain="photo")[0]
            self._vectors[seed] = (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float32)
        return self._vectors[seed]

    _vectors: dict[int, np.ndarray[Any, Any]] = {}  # noqa: RUF012 - the same in every history


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=6, stateful_step_count=20, deadline=None)
