"""Search against brute force: ties, pages, filters that leave few, the approximate index and what changes under it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel, brute_force

from isthmus import Catalog
from isthmus.catalog import search as search_module

DIM = FakeModel.dim


def fill(catalog: Catalog, vectors: dict[str, Any], **columns: list[Any]) -> None:
    """Write vectors past the model."""
    if columns:
        catalog.items.make_columns(dict.fromkeys(columns, "number"))
    rows = [
        {"id": id, "path": f"/{id}", "hash": id, "domain": "photo", "size": 1, "mtime": 1}
        | {name: float(values[place]) for name, values in columns.items()}
        for place, id in enumerate(vectors)
    ]
    catalog.items.upsert(rows, np.stack(list(vectors.values())).astype(np.float32))


def clustered(count: int, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(40, DIM))
    vectors = centres[draw.integers(0, 40, count)] + 0.5 * draw.normal(size=(count, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return {f"item{number}": vector for number, vector in enumerate(vectors)}


def found(catalog: Catalog, query: Any, **options: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in catalog.search(query, **options)]


def same(hits: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [id for id, _ in hits] == [id for id, _ in expected]
    assert [score for _, score in hits] == pytest.approx([score for _, score in expected], abs=1e-7)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.create(tmp_path / "catalog", FakeModel(), index_above=2500)


def test_exact_search_is_brute_force_on_every_path(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = clustered(2000)
    prices = np.random.default_rng(1).integers(0, 400, 2000)
    monkeypatch.setattr(search_module, "BLOCK", 300)
    fill(catalog, gallery, price=list(prices))
    draw = np.random.default_rng(2)
    for round in range(12):  # the first asks the table, later ones the memory
        query = draw.normal(size=DIM)
        query /= np.linalg.norm(query)
        bound = [0, 1, 5, 50, 400][round % 5]
        allowed = {id: gallery[id] for id, price in zip(gallery, prices, strict=True) if price < bound}
        expected = brute_force(query, allowed, 10)
        assert len(expected) == min(10, len(allowed))
        same(found(catalog, query, where=f"price < {bound}"), expected)
        same(found(catalog, query), brute_force(query, gallery, 10))
        same(found(catalog, query, k=7, offset=5), brute_force(query, gallery, 12)[5:])
    monkeypatch.setattr(search_module, "MEMORY", 0)
    same(found(catalog, query, k=3000), brute_force(query, gallery, 3000))
    same(found(catalog, query, offset=1995), brute_force(query, gallery, 2000)[1995:])


def test_ties_are_ordered_by_the_hash_and_pages_do_not_overlap(catalog: Catalog) -> None:
    vector = np.ones(DIM, np.float32) / np.float32(np.sqrt(DIM))
    gallery = {f"same{number}": vector for number in range(700)} | clustered(300)
    fill(catalog, gallery)
    expected = brute_force(vector, gallery, 60)
    for _ in range(2):
        same(found(catalog, vector, k=60), expected)
        pages = [found(catalog, vector, k=20, offset=offset) for offset in (0, 20, 40)]
        assert [id for page in pages for id, _ in page] == [id for id, _ in expected]
    again = Catalog.create(Path(catalog.path).parent / "again", FakeModel())
    fill(again, dict(reversed(list(gallery.items()))))
    same(found(again, vector, k=60), expected)


def test_the_index_is_built_above_a_size_and_stays_right(catalog: Catalog) -> None:
    gallery = clustered(4000)
    shop = list(np.arange(4000) % 1000)
    fill(catalog, gallery, shop=shop)
    assert catalog.items.tidy(catalog.facts.index_above) == "built the approximate index"
    assert catalog.items.tidy(catalog.facts.index_above) is None
    assert catalog.info()["search"] == "approximate"
    draw = np.random.default_rng(5)
    queries = [gallery[f"item{draw.integers(4000)}"] + 0.05 * draw.normal(size=DIM) for _ in range(15)]
    queries = [query / np.linalg.norm(query) for query in queries]

    def recall(where: str | None, allowed: dict[str, Any]) -> float:
        shares = []
        for query in queries:
            expected = brute_force(query, allowed, 10)
            hits = found(catalog, query, where=where)
            assert len(hits) == min(10, len(allowed))  # the index never gives too few
            assert {id for id, _ in hits} <= set(allowed)
            shares.append(len({id for id, _ in hits} & {id for id, _ in expected}) / len(expected))
        return float(np.mean(shares))

    assert recall(None, gallery) > 0.95
    same(found(catalog, queries[0], exact=True), brute_force(queries[0], gallery, 10))
    few = {id: vector for (id, vector), number in zip(gallery.items(), shop, strict=True) if number < 2}
    assert recall("shop < 2", few) == 1.0  # 8 items are left: fewer than k
    # Deleted and replaced items must not come back out of the index, new ones must be found without it.
    gone = [id for id in gallery if id.endswith("7")]
    catalog.delete(gone)
    new = {f"new{number}": vector for number, vector in enumerate(clustered(300, seed=9).values())}
    moved = {"item0": gallery["item1"], "item2": -gallery["item2"]}
    fill(catalog, {**new, **moved}, shop=[0] * 302)
    state = {id: vector for id, vector in {**gallery, **new, **moved}.items() if id not in set(gone)}
    assert catalog.items.indexed() is not None and catalog.items.indexed()[1] == 302  # type: ignore[index]
    assert recall(None, state) > 0.95
    for id in (*list(new)[:20], "item0", "item2"):
        assert id in dict(found(catalog, state[id], k=5))
    assert catalog.verify().sound


def test_a_wide_filter_over_an_index_finds_enough(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "FEW", 5)
    gallery = clustered(3000)
    fill(catalog, gallery, number=list(range(3000)))
    catalog.items.tidy(1000)
    query = gallery["item2999"]  # the filter leaves out the whole neighbourhood that the index would look at first
    far = sorted(gallery, key=lambda id: float(gallery[id] @ query))[:40]
    where = "id IN (" + ", ".join(f"'{id}'" for id in far) + ")"
    hits = found(catalog, query, k=30, where=where)
    assert len(hits) == 30 and {id for id, _ in hits} <= set(far)


def test_what_another_process_writes_is_found_at_once(catalog: Catalog) -> None:
    gallery = clustered(50)
    fill(catalog, gallery)
    reader = Catalog.open(catalog.path)
    query = gallery["item3"]
    for _ in range(3):
        assert found(reader, query, k=1)[0][0] == "item3"
    catalog.delete("item3")
    same(found(reader, query), brute_force(query, {id: v for id, v in gallery.items() if id != "item3"}, 10))
    fill(catalog, {"again": query})
    assert found(reader, query, k=1)[0][0] == "again"
    catalog.items.table.optimize()
    assert found(reader, query, k=1)[0][0] == "again"
    assert len(reader) == 50


def test_many_queries_equal_one_by_one(catalog: Catalog) -> None:
    fill(catalog, clustered(200))
    queries = np.random.default_rng(3).normal(size=(260, DIM))
    together = catalog.search_many(queries, k=5)
    assert len(together) == 260
    for number in (0, 255, 256, 259):
        assert together[number] == catalog.search(queries[number], k=5)
