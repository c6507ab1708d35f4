"""What hits show comes from memory where it is there, and is never of another version than the hits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel, photos

from isthmus import Catalog
from isthmus.catalog.known import read_known
from isthmus.catalog.memory import MemorySettings, use_memory
from isthmus.catalog.search import Searcher

COUNT = 40


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog.create(tmp_path / "catalog", FakeModel())
    times = [dt.datetime(2026, 1, 1 + number % 28, tzinfo=dt.timezone.utc) for number in range(COUNT)]
    rows = {
        f"photo/{number:03}.png": {"price": number / 4, "new": number % 3 == 0, "made": times[number], "brand": "Ü"}
        for number in range(0, COUNT, 2)
    }
    made.add(photos(tmp_path / "photos", COUNT), metadata=rows, workers=0)
    return made


def refuse(*args: Any) -> Any:
    raise AssertionError("the table was asked")


def hits(catalog: Catalog, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    query = np.random.default_rng(seed).normal(size=48)
    return [hit.to_dict() for hit in catalog.search(query, k=9, **more)]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_hits_are_those_of_the_table_and_it_is_not_asked(
    catalog: Catalog, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [hits(catalog, seed, offset=seed, where=where) for seed in range(4) for where in (None, "price < 6")]
    assert any("made" in hit["metadata"] for part in wanted for hit in part)
    memory = use_memory(catalog, MemorySettings(kind))
    memory.wait()
    monkeypatch.setattr(Searcher, "_take", refuse)
    monkeypatch.setattr(Searcher, "_by_id", refuse)
    found = [hits(catalog, seed, offset=seed, where=where) for seed in range(4) for where in (None, "price < 6")]
    assert found == wanted
    like = catalog.search(id="photo/003.png", k=5)
    assert len(like) == 5 and "photo/003.png" not in [hit.id for hit in like]


def test_a_change_of_metadata_is_seen_at_once(catalog: Catalog) -> None:
    use_memory(catalog, MemorySettings("flat")).wait()
    first = hits(catalog)[0]["id"]
    Catalog.open(catalog.path, FakeModel()).update({first: {"price": 77.5, "brand": None, "colour": "red"}})
    assert hits(catalog)[0]["id"] == first
    assert hits(catalog)[0]["metadata"] | {"made": None, "new": None} == {
        "price": 77.5, "colour": "red", "made": None, "new": None,
    }  # fmt: skip
    catalog.delete([first])
    assert first not in [hit["id"] for hit in hits(catalog)]


def test_what_is_too_large_is_read_from_the_table(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = hits(catalog)
    whole = read_known(catalog.items, 10**9)
    assert whole is not None and len(whole.places) == COUNT
    assert read_known(catalog.items, 2 * whole.nbytes // 3) is None
    monkeypatch.setattr("isthmus.catalog.snapshot.read_known", lambda items, limit: None)
    memory = use_memory(catalog, MemorySettings("flat"))
    assert hits(catalog) == wanted and memory.state().kind == "flat"
    assert whole.of(whole.places[-1:] + 1) is None  # a place that is not there is not guessed


def test_an_empty_catalog_has_nothing_to_show(tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    use_memory(catalog, MemorySettings("flat"))
    assert hits(catalog) == []
