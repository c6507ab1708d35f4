"""The data-free benchmark's table: its differences, the gap that is closed, and its words, by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from isthmus.benchmark.data_free_grids import data_free_grids, data_free_markdown, notes_of
from isthmus.benchmark.data_free_measure import METRICS
from isthmus.benchmark.data_free_table import DataFreeResults, compile_data_free
from isthmus.benchmark.page import write_data_free_page

FORTH, BACK = "sketch->photo", "photo->sketch"
Lists = tuple[list[float], list[float]]


def record(row: str, seed: int, known: Lists, apart: Lists, *, data_free: bool = True) -> dict[str, Any]:
    """A result with these average precisions."""
    sides = []
    for setting, lists in (("known", known), ("held-out", apart)):
        for direction, values in zip((FORTH, BACK), lists, strict=True):
            mean = sum(values) / len(values)
            sides.append({
                "direction": direction, "setting": setting, "scores": dict.fromkeys(METRICS, mean),
                "chance": dict.fromkeys(METRICS, 0.125), "cut": 60 if direction == FORTH else 200,
                "n_gallery": 60, "precision": values,
            })  # fmt: skip
    return {
        "row": row, "split": "test", "seed": seed, "setting": "known", "sides": sides, "steps": 10,
        "data_free": data_free, "start": "teachers", "date": "2025-01-01", "machine": "here",
        "seconds": {"wall": 3.0, "cpu": 90.0, "step_1": {"cpu": 30.0}},
        "needs": {
            "data_free.photo": {"photo": {"accuracy": 0.9 + seed / 10}},
            "data_free.sketch": {"sketch": {"accuracy": 0.8}},
            "data_free.modality": {"photo": {"accuracy": 0.1}, "sketch": {"accuracy": 0.1}},
        },
    }  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> DataFreeResults:
    """Own features .2, the method .5, the upper bound .8 on known classes; on held-out ones nothing is gained."""
    folder = tmp_path / "independent"
    flat: Lists = ([0.25, 0.25], [0.25])
    made = [
        record("data-free", 0, ([0.25, 0.75], [0.5]), flat),
        record("data-free", 1, ([0.75, 0.25], [0.5]), flat),
        record("own-features", 0, ([0.25, 0.25], [0.25]), flat),
        record("own-features", 1, ([0.25, 0.25], [0.25]), flat),
        record("posteriors", 0, ([0.75, 1.0], [0.625]), ([0.0, 0.0], [0.25])),
        record("upper-bound", 0, ([1.0, 0.5], [0.75]), flat, data_free=False),
        record("upper-bound", 1, ([1.0, 0.5], [0.75]), flat, data_free=False),
    ]
    for one in made:
        file = folder / one["row"] / f"{one['seed']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(one))
    queries = {FORTH: {"ids": ["a", "b"], "identities": ["a", "b"]}, BACK: {"ids": ["c"], "identities": ["c"]}}
    (folder / "splits").mkdir()
    (folder / "splits" / "test.json").write_text(json.dumps({"known": queries, "held-out": queries}))
    about = {
        "domains": ["sketch", "photo"], "known": ["x", "y"], "held_out": ["z"], "overlap": 0.5, "backbone": "net",
        "image_size": 64, "teachers_start": "w.safetensors", "one_initialisation": True,
        "test_images": {"known": [2, 1], "held-out": [2, 1]},
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))
    found = DataFreeResults.read(folder)
    assert found is not None
    return found


def test_figures_by_hand(results: DataFreeResults) -> None:
    lines = {line.row.name: line for line in compile_data_free(results, draws=200)}
    assert list(lines) == ["data-free", "own-features", "posteriors", "upper-bound"]
    method = lines["data-free"]
    assert method.n == 2 and method.teachers == {"photo": pytest.approx(0.95), "sketch": pytest.approx(0.8)}
    assert method.gains == {"known": None, "held-out": None}
    assert method.scores["known"][FORTH]["mAP@all"].mean == 0.5
    own = lines["own-features"].gains["known"]
    # Each direction counts alike: sketches gain (.5 - .25), the one photo as much.
    assert own is not None and own.mean == pytest.approx(0.25) and own.low > 0 and own.seeds == (2, 2)
    rival = lines["posteriors"].gains["known"]  # of the one seed that it has
    assert rival is not None and rival.mean == pytest.approx(((0.5 - 0.875) + (0.5 - 0.625)) / 2)
    assert rival.seeds == (1, 1)
    held = lines["posteriors"].gains["held-out"]
    assert held is not None and held.mean == pytest.approx(0.25 / 2)
    assert method.closed["known"] == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    assert lines["own-features"].closed["known"] == 0 and lines["upper-bound"].closed["known"] == 1
    assert lines["posteriors"].closed["known"] == pytest.approx((0.75 - 0.25) / 0.5)  # over its own seed
    assert method.closed["held-out"] is None  # the upper bound is no better there
    assert [line.data_free for line in lines.values()] == [True, True, True, False]


def test_the_better_of_two_upper_bounds_closes_the_gap(results: DataFreeResults, tmp_path: Path) -> None:
    flat: Lists = ([0.25, 0.25], [0.25])
    for name, best in (("below", 0.5), ("above", 1.0)):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "independent", folder)
        (folder / "upper-maps").mkdir()
        for seed in (0, 1):
            made = record("upper-maps", seed, ([best, best], [best]), flat, data_free=False)
            (folder / "upper-maps" / f"{seed}.json").write_text(json.dumps(made))
        found = DataFreeResults.read(folder)
        assert found is not None
        lines = {line.row.name: line for line in compile_data_free(found, draws=10)}
        bound = max(best, 0.75)
        assert lines["data-free"].closed["known"] == pytest.approx((0.5 - 0.25) / (bound - 0.25))
        assert lines["upper-bound"].closed["known"] == pytest.approx((0.75 - 0.25) / (bound - 0.25))


def test_pages_say_what_the_figures_are(results: DataFreeResults, tmp_path: Path) -> None:
    lines = compile_data_free(results, draws=200)
    text = data_free_markdown(lines, results)
    assert "| upper bound (real images) | teachers | NO | 80.0 / 95.0 | 75.0 ± 0.0 |" in text
    assert "| 50 % |" in text and "mAP@10hits (data-free-sbir)" in text and "| chance |  | 12.5 |" in text
    grids = data_free_grids(lines, results)
    assert [len(grid[2]) for grid in grids] == [4, 5, 5, 5, 5]
    assert "P@60" in grids[1][1] and "P@200" in grids[2][1]
    for narrow in (False, True):
        for _, columns, rows in data_free_grids(lines, results, narrow=narrow):
            assert all(len(row) == len(columns) for row in rows)
    notes = " ".join(notes_of(results))
    for words in (
        "same weights (w.safetensors)", "50% are known to both teachers", "1 held-out", "2 of sketch and 1 of photo",
    ):  # fmt: skip
        assert words in notes
    write_data_free_page(tmp_path / "t.html", "A <b>", "sub", [(results, lines)])
    html = (tmp_path / "t.html").read_text()
    assert "A &lt;b&gt;" in html and html.count('<figure class="bars">') == 2 and "<script" not in html
    json.dumps([line.to_dict() for line in lines])


def test_nothing_yet_is_no_error(tmp_path: Path) -> None:
    assert DataFreeResults.read(tmp_path / "unified") is None
