"""Figures and logs: what is drawn lies where the numbers say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from isthmus.report.figures import Bar, Line, bars, lines, ticks
from isthmus.report.history import read_log, read_model_facts, read_settings, training_figures


def points(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
        for path in re.findall(r'<path class="line[^"]*" d="([^"]+)"', svg)
    ]


def test_a_line_is_drawn_to_scale() -> None:
    svg = lines([Line("a", (0, 1, 2), (0.0, 0.5, 1.0))], x_label="x", y_label="y", title="t")
    (drawn,) = points(svg)
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.11)
    assert y2 < y1 < y0


def test_logarithmic_ranks_are_even() -> None:
    svg = lines([Line("a", (1, 10, 100), (0.1, 0.2, 0.3))], x_label="x", y_label="y", title="t", log_x=True)
    (drawn,) = points(svg)
    assert drawn[1][0] - drawn[0][0] == pytest.approx(drawn[2][0] - drawn[1][0], abs=0.11)


def test_what_is_not_finite_is_left_out() -> None:
    svg = lines([Line("a", (1, 2, 3), (math.nan, 1.0, math.inf)), Line("b", (1,), (math.nan,))],
                x_label="x", y_label="y", title="t", y_range=None)  # fmt: skip
    assert [len(path) for path in points(svg)] == [1]
    assert "nan" not in svg
    assert "inf" not in svg
    assert ">b<" not in svg
    assert lines([], x_label="x", y_label="y", title="t") == ""


def test_values_beyond_the_axis_stay_inside() -> None:
    svg = lines([Line("a", (0, 1), (-5.0, 7.0))], x_label="x", y_label="y", title="t")
    (drawn,) = points(svg)
    assert all(0 <= y <= 270 for _, y in drawn)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.3), (-3, 8), (1e-5, 2e-5), (0, 12345), (4, 4)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    values = ticks(low, high)
    assert 1 <= len(values) <= 12
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert values == sorted(set(values))


def test_bars_have_the_length_of_their_values() -> None:
    html = bars([Bar("a<b>", 0.5, (0.4, 0.6), 0.1), Bar("c", 0.25), Bar("absent", math.nan)], title="t", top=1.0)
    assert re.findall(r'<rect class="fill [^"]*" width="([\d.]+)"', html) == ["50.00", "25.00"]
    assert 'd="M40.00 5H60.00' in html
    assert 'd="M10.00 0V10"' in html
    assert "a&lt;b&gt;" in html
    assert "absent" not in html
    assert bars([], title="t") == ""


def test_bars_without_a_scale_reach_round_tenths() -> None:
    html = bars([Bar("a", 0.21, (0.2, 0.24))], title="t")
    assert re.findall(r'class="fill [^"]*" width="([\d.]+)"', html) == ["70.00"]


LOG = """epoch,step,images,seconds,snd,val/sketch->photo/Prec@1,val/photo->sketch/Prec@1,val/Prec@1,pairs,loss,lr
0,0,0,0.0,1.5,0.1,0.2,0.15,,,
1,10,320,2.5,1.6,0.3,0.4,0.35,2.0,5.5,0.003
2,20,640,5.0,1.7,0.4,0.5,0.45,1.5,4.5,0.002
"""


def test_training_curves_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    figures = training_figures(read_log(tmp_path / "log.csv"))
    titles = [match[1] for figure in figures if (match := re.search(r"<b>(.*?)</b>", figure))]
    assert titles == ["Losses", "Prec@1 on validation images", "snd"]
    legends = [re.findall(r'class="key [^"]*">(.*?)<', figure) for figure in figures]
    assert legends[0] == ["pairs", "loss"]
    assert legends[1] == ["sketch → photo", "photo → sketch", "mean of both"]


@pytest.mark.parametrize("text", ["", "epoch,loss\n", "epoch,loss\n1,2\n", "\x00\x01", "a,b\nx,y\nz\n"])
def test_odd_logs_draw_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    assert training_figures(read_log(tmp_path / "log.csv")) == []


def test_a_run_without_files(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == {}
    assert read_settings(tmp_path) == ""
    assert read_model_facts(tmp_path) == []
    (tmp_path / "config.json").write_text("[broken")
    assert read_model_facts(tmp_path) == []
