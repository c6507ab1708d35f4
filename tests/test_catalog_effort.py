"""The table's own index looks as hard as the wanted recall takes; what was chosen stands with the catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from catalog_tools import FakeModel
from cli_zoo import call
from test_catalog_search import fill

from isthmus import Catalog, IsthmusError
from isthmus.catalog import effort as effort_module
from isthmus.catalog.effort import STEPS, USUAL, Effort, ask_index, choose_effort, keep_effort
from isthmus.catalog.trial import TOP, halfway, kth_best, recall_of, trial_queries

DIM, COUNT = FakeModel.dim, 3000


def scattered(count: int, seed: int = 7) -> dict[str, np.ndarray]:
    """Without clusters: the hardest for a graph."""
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return dict(zip((f"item{n}" for n in range(count)), vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
                    strict=True))  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("effort") / "catalog"
    catalog = Catalog.create(place, FakeModel(), index_above=1000, recall=0.99)
    fill(catalog, scattered(COUNT))
    assert catalog.items.tidy(1000, 0.99) == "built the approximate index"
    return place


def slow_recall(catalog: Catalog, effort: Effort, queries: np.ndarray) -> float:
    """Of the first ten, one query after the other, by a sort of everything."""
    rows = {row["id"] for row in catalog.rows()}
    everything = catalog.items.fetch(rows)
    ids, vectors = [row["id"] for row in everything[0]], everything[1].astype(np.float64)
    shares = []
    for query in queries:
        true = {ids[place] for place in np.argsort(-(vectors @ query))[:TOP]}
        hits = ask_index(catalog.items, query, TOP, effort)[0]["id"].to_pylist()
        shares.append(len(true & set(hits[:TOP])) / TOP)
    return float(np.mean(shares))


def test_the_least_effort_that_reaches_the_wanted_recall_is_taken(place: Path) -> None:
    catalog = Catalog.open(place, FakeModel())
    chosen = catalog.items.effort()
    assert chosen.wanted == 0.99 and chosen.items == COUNT and (chosen.open, chosen.refine) in STEPS
    assert chosen.recall is not None and chosen.recall >= halfway(0.99)
    # Other queries than those it was chosen on.
    own = np.stack(list(scattered(COUNT).values())[100:160])
    draw = own + 3 * np.stack(list(scattered(60, 5).values()))
    draw = (draw / np.linalg.norm(draw, axis=1, keepdims=True)).astype(np.float32)
    assert slow_recall(catalog, chosen, draw) >= 0.98
    step = STEPS.index((chosen.open, chosen.refine))
    assert step > 0, "even the cheapest does it: the test says nothing"
    cheaper = Effort(*STEPS[step - 1])
    assert slow_recall(catalog, cheaper, draw) < slow_recall(catalog, chosen, draw)


def test_less_is_wanted_and_kept(place: Path) -> None:
    catalog, version = Catalog.open(place, FakeModel()), Catalog.open(place).items.version
    before = catalog.items.effort()
    tuned = catalog.tune(0.9)
    assert tuned.open < before.open and tuned.recall is not None and tuned.recall < before.recall  # type: ignore[operator]
    assert Catalog.open(place).items.effort() == catalog.items.effort() == tuned
    assert catalog.info()["effort"]["wanted"] == 0.9
    catalog.rollback(version)  # it is of the version that it was chosen in
    assert catalog.items.effort() == before
    said = call("catalog", "recall", place, "--tune", 0.95)
    assert said.exit_code == 0 and "recall@10" in said.stdout and "table index: recall@10" in said.stdout
    assert Catalog.open(place).items.effort().wanted == 0.95


def test_a_catalog_that_grows_is_measured_again(tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "catalog", FakeModel(), index_above=500, recall=0.8)
    fill(catalog, scattered(600))
    catalog.items.tidy(500, 0.8)
    first = catalog.items.effort()
    fill(catalog, {f"more{n}": v for n, v in enumerate(scattered(300, 1).values())})
    catalog.items.tidy(500, 0.8)
    assert catalog.items.effort() == first  # half as many more: what was measured still holds
    fill(catalog, {f"many{n}": v for n, v in enumerate(scattered(1500, 2).values())})
    catalog.items.tidy(500, 0.8)
    assert catalog.items.effort().items == 2400 and catalog.items.effort().wanted == 0.8


def test_what_can_not_be_reached_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort_module, "STEPS", STEPS[:1])
    catalog = Catalog.open(place, FakeModel())
    effort = choose_effort(catalog.items, 1.0)
    assert effort.recall is not None and effort.recall < 1 and effort.wanted == 1.0
    assert "no effort raises to 1.0" in call("catalog", "recall", place, "--tune", 1.0).stdout
    keep_effort(catalog.items, Effort(64, 3))


def test_a_small_catalog_has_nothing_to_tune(tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    fill(catalog, scattered(50))
    assert catalog.items.tidy(50_000) is None and catalog.items.effort() == USUAL
    with pytest.raises(IsthmusError, match="no index to tune"):
        catalog.tune()
    for wrong in (0, 1.1, -1):
        with pytest.raises(IsthmusError, match="recall"):
            Catalog.create(tmp_path / "other", FakeModel(), recall=wrong)


def test_a_note_that_can_not_be_read_is_the_usual_effort(tmp_path: Path) -> None:
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    table = catalog.items.to_write()
    table.replace_field_metadata("vector", {"isthmus.effort": "{"})
    assert Catalog.open(tmp_path / "catalog").items.effort() == USUAL


def test_deep_pages_ask_for_enough(place: Path) -> None:
    catalog = Catalog.open(place, FakeModel())
    query = np.random.default_rng(1).normal(size=DIM)
    assert len(catalog.search(query, k=50, offset=400)) == 50


def test_recall_by_hand() -> None:
    vectors = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0, 0], [0, 0.8, 0.6]], np.float32)
    best = kth_best(queries, [vectors[:2], vectors[2:]], 2)
    assert best.tolist() == pytest.approx([0.0, 0.6])
    assert recall_of(queries, [vectors[:2], vectors[:2]], best, 2) == pytest.approx(0.75)  # the third is missing once
    assert recall_of(queries[1:], [vectors[1:]], best[1:], 2) == 1
    apart = trial_queries(vectors)
    assert apart.shape == (6, 3) and np.allclose(np.linalg.norm(apart, axis=1), 1)
    assert np.allclose(apart[:3], vectors)
