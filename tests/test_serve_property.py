"""Random histories over HTTP against a dictionary: whatever was added, changed and deleted, search is brute force."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from catalog_tools import FakeModel, brute_force
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from PIL import Image
from serve_zoo import TOKEN, WRITES, noise, png, served

from isthmus.catalog.store import Catalog

ids = st.sampled_from(["a", "photo/a", "../b", "c d", "e'; DROP", "ü"])
seeds = st.integers(0, 5)  # few, so that items often have the same image
prices = st.sampled_from([None, 0, 10, 50.5])
Item = tuple[int, float | None]
FILTERS: list[tuple[Any, Callable[[str, float | None], bool]]] = [
    (None, lambda id, price: True),
    ({"column": "price", "is": "<", "value": 30}, lambda id, price: price is not None and price < 30),
    (
        {"any": [{"column": "price", "missing": True}, {"not": {"column": "price", "is": "=", "value": 0}}]},
        lambda id, price: price is None or price != 0,
    ),
    (
        {"all": [{"column": "id", "in": ["a", "e'; DROP", "nobody"]}, {"column": "price", "is": ">=", "value": 10}]},
        lambda id, price: id in ("a", "e'; DROP") and price is not None and price >= 10,
    ),
]


def vector(seed: int) -> np.ndarray[Any, Any]:
    """What the catalog stores of a picture."""
    found = FakeModel().one(Image.open(io.BytesIO(png(noise(seed)))).convert("RGB"), "photo").astype(np.float32)
    return (found / np.linalg.norm(found.astype(np.float64))).astype(np.float32)


VECTORS = {seed: vector(seed) for seed in range(8)}


class History(RuleBasedStateMachine):
    """`items` is what the catalog should hold: id -> seed of the image, price."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.home)
        catalog = Catalog.create(self.home / "catalog", FakeModel())
        catalog.items.make_columns({"price": "number"})
        self.client = self.stack.enter_context(served(catalog, token=TOKEN))
        self.items: dict[str, Item] = {}
        self.version = self.turn = 0

    def teardown(self) -> None:
        self.stack.close()

    @rule(id=ids, seed=seeds, price=prices)
    def add(self, id: str, seed: int, price: float | None) -> None:
        item = json.dumps({"id": id, "metadata": {"price": price}})
        answer = self.client.post("/api/items", files={"image": png(noise(seed))}, data={"item": item}, headers=WRITES)
        assert answer.status_code == 201, answer.text
        assert answer.json()["id"] == id and answer.json()["added"] is (id not in self.items)
        self.items[id] = (seed, price)
        self.moved(answer)

    @rule(id=ids, price=prices)
    def change(self, id: str, price: float | None) -> None:
        answer = self.client.patch("/api/items", json={"id": id, "metadata": {"price": price}}, headers=WRITES)
        assert answer.status_code == (200 if id in self.items else 404), answer.text
        if id in self.items:
            self.items[id] = (self.items[id][0], price)
            self.moved(answer)

    @rule(id=ids)
    def delete(self, id: str) -> None:
        answer = self.client.delete("/api/items", params={"id": id}, headers=WRITES)
        assert answer.json()["deleted"] == (id in self.items)
        self.items.pop(id, None)
        self.moved(answer)

    @rule(id=ids)
    def look(self, id: str) -> None:
        answer = self.client.get("/api/items", params={"id": id})
        picture = self.client.get("/api/items/thumbnail", params={"id": id})
        assert answer.status_code == picture.status_code == (200 if id in self.items else 404)
        if id in self.items:
            assert answer.json()["metadata"].get("price") == self.items[id][1]

    @rule(id=ids, where=st.sampled_from(FILTERS))
    def search_like(self, id: str, where: Any) -> None:
        answer = self.client.post("/api/search", json={"id": id, "k": 3, "where": where[0]})
        if id not in self.items:
            assert answer.status_code == 404
            return
        self.compare(answer.json(), VECTORS[self.items[id][0]], where[1], 3, 0, without=id)

    def moved(self, answer: Any) -> None:
        """Each change is told with a version that never goes back."""
        assert answer.json()["version"] >= self.version
        self.version = answer.json()["version"]

    @invariant()
    def search_is_brute_force(self) -> None:
        self.turn += 1
        for number in (0, 1 + self.turn % (len(FILTERS) - 1)):
            where, keep = FILTERS[number]
            offset = self.turn % 2
            options = json.dumps({"k": 3, "offset": offset, "domain": "photo", "where": where})
            files = {"image": png(noise(6 + number % 2))}
            answer = self.client.post("/api/search/image", files=files, data={"options": options})
            assert answer.status_code == 200, answer.text
            self.compare(answer.json(), VECTORS[6 + number % 2], keep, 3, offset)
        about = self.client.get("/api/catalog").json()
        assert about["items"] == len(self.items) and about["version"] >= self.version

    def compare(
        self, found: Any, query: Any, keep: Callable[[str, float | None], bool], k: int, offset: int, without: str = ""
    ) -> None:
        gallery = {id: VECTORS[seed] for id, (seed, price) in self.items.items() if keep(id, price) and id != without}
        everything = brute_force(query, gallery, len(gallery))
        expected = everything[offset : offset + k]
        assert [hit["id"] for hit in found["hits"]] == [id for id, _ in expected]
        assert [round(hit["score"], 5) for hit in found["hits"]] == [round(score, 5) for _, score in expected]
        assert [hit["metadata"].get("price") for hit in found["hits"]] == [self.items[id][1] for id, _ in expected]
        assert found["more"] is (len(everything) > offset + k)


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=2, stateful_step_count=12, deadline=None)
