"""The benchmark's table: its numbers by hand, its pairing, and its words about the paper."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.benchmark.page import write_page
from isthmus.benchmark.results import Results, per_query
from isthmus.benchmark.rows import FULL, VARIANTS
from isthmus.benchmark.table import compile_lines, grids, markdown, percent, points, share
from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import Difference
from isthmus.evaluate.summary import Score

FORTH, BACK = "sketch->photo", "photo->sketch"


def record(row: str, split: str, seed: int, forth: list[int], back: list[int]) -> dict[str, Any]:
    """A result with these ranks; the plain setting finds everything second."""

    def side(direction: str, setting: str, ranks: list[int]) -> dict[str, Any]:
        scores = {f"R@{k}": float(np.mean([rank <= k for rank in ranks])) for k in (1, 5, 10, 20)}
        mean = float(np.mean([1 / rank for rank in ranks]))
        return {
            "direction": direction, "setting": setting, "scores": {**scores, "mAP@all": mean, "mINP": mean},
            "chance": {**{f"R@{k}": k / 50 for k in (1, 5, 10, 20)}, "mAP@all": 0.09, "mINP": 0.09},
            "n_gallery": 50, "ranks": ranks,
        }  # fmt: skip

    return {
        "row": row, "split": split, "seed": seed, "setting": "centred", "steps": 40, "seconds": {"wall": 3.0},
        "sides": [side(FORTH, "centred", forth), side(BACK, "centred", back),
                  side(FORTH, "plain", [2] * len(forth)), side(BACK, "plain", [2] * len(back))],
        "attributes": {"sketch": {"means": {"balanced_accuracy": 0.6}}, "photo": {"means": {"balanced_accuracy": 0.7}}},
        "probe": {"balanced_accuracy": 0.9}, "human": None, "date": "2025-01-01", "machine": "here",
    }  # fmt: skip


def write(folder: Path, ranks: dict[tuple[str, str, int], tuple[list[int], list[int]]]) -> Results:
    for (row, split, seed), (forth, back) in ranks.items():
        file = folder / row / f"{split}-{seed}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record(row, split, seed, forth, back)))
        queries = {
            direction: {"ids": [f"{direction[0]}{split}{n}" for n in range(len(part))],
                        "identities": [f"{split}{n}" for n in range(len(part))]}
            for direction, part in ((FORTH, forth), (BACK, back))
        }  # fmt: skip
        (folder / "splits").mkdir(exist_ok=True)
        (folder / "splits" / f"{split}.json").write_text(json.dumps(queries))
    return Results.read(folder, [row.name for row in VARIANTS])


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two splits, two seeds; `no-domain` lacks one run, `joint` is always better, and galleries differ in size."""
    return write(
        tmp_path,
        {
            ("ihda", "0", 0): ([1, 1, 3, 7], [1, 2]),
            ("ihda", "0", 1): ([1, 1, 1, 7], [1, 1]),
            ("ihda", "1", 0): ([2, 1, 12, 1], [1, 2]),
            ("ihda", "1", 1): ([2, 1, 12, 30], [2, 2]),
            ("no-domain", "0", 0): ([2, 1, 3, 7], [2, 2]),
            ("no-domain", "0", 1): ([2, 1, 1, 7], [1, 2]),
            ("no-domain", "1", 0): ([2, 2, 12, 1], [1, 2]),
            ("joint", "0", 0): ([1, 1, 1, 1], [1, 1]),
        },
    )


def test_scores_by_hand(results: Results) -> None:
    lines = {line.variant.name: line for line in compile_lines(results, draws=200)}
    whole = lines[FULL]
    assert (whole.n, whole.splits, whole.seeds) == (4, 2, 2)
    each = [2 / 4, 3 / 4, 2 / 4, 1 / 4]
    assert whole.scores[FORTH]["R@1"].mean == pytest.approx(sum(each) / 4)
    deviation = math.sqrt(sum((x - sum(each) / 4) ** 2 for x in each) / 3)
    assert whole.scores[FORTH]["R@1"].deviation == pytest.approx(deviation)
    assert whole.scores[BACK]["R@5"].mean == 1.0
    assert whole.scores[FORTH]["mAP@all"].values[0] == pytest.approx((1 + 1 + 1 / 3 + 1 / 7) / 4)
    assert whole.plain[FORTH].mean == 0.0  # found second, always
    assert whole.differences == {} and whole.agrees == ""


def test_a_difference_is_of_the_runs_that_both_have(results: Results) -> None:
    line = next(line for line in compile_lines(results, draws=200) if line.variant.name == "no-domain")
    difference = line.differences["R@1"]
    assert difference is not None
    # Split 0: both seeds lose one query of four; split 1: its one seed does. Splits count alike.
    assert difference.mean == pytest.approx((-0.25 - 0.25) / 2)
    assert difference.low <= difference.mean <= difference.high
    both = line.differences["R@1 both"]
    assert both is not None
    back = ((-0.5 - 0.5) / 2 + 0.0) / 2
    assert both.mean == pytest.approx((-0.25 + back) / 2)  # directions count alike, whatever their sizes
    precision = line.differences["mAP both"]
    assert precision is not None
    forth_1 = (1 / 2 - 1) / 4
    assert precision.mean == pytest.approx(((-0.5 / 4 + forth_1) / 2 + (-0.5 / 2 * 1 + 0.0) / 2) / 2)


def test_one_split_is_compared_over_its_queries(results: Results) -> None:
    line = next(line for line in compile_lines(results, draws=200) if line.variant.name == "joint")
    difference = line.differences["R@1"]
    assert difference is not None and difference.mean == pytest.approx(0.5)
    assert difference.n_queries == 4 and not hasattr(difference, "n_splits")


def test_the_paper_stands_beside_each_row(results: Results) -> None:
    lines = {line.variant.name: line for line in compile_lines(results, draws=200)}
    assert lines["no-domain"].variant.published == 72.4
    assert lines["no-domain"].published_difference == pytest.approx(-13.2)
    assert lines["no-domain"].agrees.startswith("yes")
    assert lines["joint"].published_difference is None and lines["joint"].agrees == ""
    known = {row.name: row.published for row in VARIANTS}
    assert [known[name] for name in ("ihda", "no-consistency", "no-entropy", "no-entropy-consistency")] == [
        85.6, 82.8, 73.2, 70.6,
    ]  # fmt: skip
    assert [known[name] for name in ("no-attributes", "no-attributes-domain", "harmful", "pairs-50", "pairs-80")] == [
        70.4, 58.8, 54.4, 75.4, 82.2,
    ]  # fmt: skip
    assert [known[name] for name in ("target-only", "source-only", "backbone-only")] == [32.0, 8.0, 2.0]


@pytest.mark.parametrize(
    ("mean", "low", "high", "said"),
    [
        (-0.05, -0.08, -0.02, "yes"),
        (-0.05, -0.12, 0.02, "yes, but the interval holds 0"),
        (0.05, 0.02, 0.08, "no"),
        (0.05, -0.02, 0.08, "no, but the interval holds 0"),
    ],
)
def test_agreement_with_the_paper(results: Results, mean: float, low: float, high: float, said: str) -> None:
    line = next(line for line in compile_lines(results, draws=50) if line.variant.name == "no-domain")
    line.differences["R@1"] = Difference(mean, low, high, 0.95, 4, (1, 1))
    assert line.agrees == said


def test_the_pages_hold_every_figure(results: Results, tmp_path: Path) -> None:
    lines = compile_lines(results, draws=200)
    text = markdown(lines, results)
    assert "| IHDA | 4 | 50.0 ± 20.4 |" in text
    assert "| chance |  | 2.0 |" in text
    assert "| without L_d |" in text and "-25.0 [" in text and "| 72.4 | -13.2 | yes" in text
    write_page(tmp_path / "table.html", "A <b>", "sub", lines, results)
    html = (tmp_path / "table.html").read_text()
    assert "A &lt;b&gt;" in html and html.count('<figure class="bars">') == 2 and "whisker" in html
    assert "50.0 ± 20.4" in html and "<script" not in html
    assert all(len(row) == len(columns) for _, columns, rows in grids(lines, results) for row in rows)
    plain = lines[0].to_dict()
    assert plain["n"] == 4 and plain["scores"][FORTH]["R@1"]["mean"] == pytest.approx(0.5)
    json.dumps([line.to_dict() for line in lines])


def test_several_relevant_images_keep_their_average_precision() -> None:
    side = {"ranks": [1, None, 4], "precision": [0.8, None, 0.2]}
    assert per_query(side, "mAP@all") == [0.8, None, 0.2]
    assert per_query(side, "R@1") == [1.0, None, 0.0]
    assert per_query({"ranks": [1, None, 4]}, "mAP@all") == [1.0, None, 0.25]
    with pytest.raises(IsthmusError, match="mINP is not kept"):
        per_query(side, "mINP")


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "ihda").mkdir()
    (tmp_path / "ihda" / "0-0.json").write_text("{}")
    with pytest.raises(IsthmusError, match=r"0-0\.json is no result"):
        Results.read(tmp_path, ["ihda"])


def test_nothing_yet_is_no_error(tmp_path: Path) -> None:
    assert compile_lines(Results.read(tmp_path, ["ihda"])) == []


def test_numbers_as_they_are_shown() -> None:
    assert percent(Score.of([0.1])) == "10.0"
    assert points(None) == "–" and share(None) == "–" and share(1.0) == "1.00"
