"""A benchmark as one HTML page: bars with error bars, and the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus import __version__
from isthmus.benchmark.data_free_grids import Grid, data_free_grids, notes_of
from isthmus.benchmark.data_free_table import SETS, DataFreeLine, DataFreeResults
from isthmus.benchmark.results import Results
from isthmus.benchmark.table import NOTES, Line, grids
from isthmus.evaluate.summary import Score
from isthmus.io import atomic_write_text
from isthmus.report.figures import Bar, bars

if TYPE_CHECKING:
    from markupsafe import Markup


def write_page(path: Path, title: str, subtitle: str, lines: Sequence[Line], results: Results) -> None:
    """Write the page of the IHDA ablation.

    Args:
        path: the HTML file.
        title, subtitle: heading.
        lines: at least one.
        results: what they were made from.
    """
    figures = [_figure(lines, results, direction) for direction in results.directions]
    render(path, title, subtitle, NOTES, [("R@1", figures)], grids(lines, results))


def write_data_free_page(
    path: Path, title: str, subtitle: str, found: Sequence[tuple[DataFreeResults, Sequence[DataFreeLine]]]
) -> None:
    """Write the page of a data-free benchmark: bars of mAP, and the tables of each setting."""
    figures = []
    tables: list[Grid] = []
    for results, lines in found:
        made = data_free_grids(lines, results)
        tables += made
        figures.append((f"{made[0][0]}: mAP", [_bars_of(lines, results, name) for name in results.parts]))
    render(path, title, subtitle, [note for results, _ in found for note in notes_of(results)], figures, tables)


def render(
    path: Path,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    figures: Sequence[tuple[str, Sequence[Markup]]],
    tables: Sequence[Grid],
) -> None:
    """Write a page, whole or not at all; it loads nothing from outside and runs no script.

    Args:
        path: the HTML file.
        title, subtitle: heading.
        notes: what the figures mean.
        figures: pictures under a heading.
        tables: title, columns and cells.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    places = ("isthmus.benchmark", "isthmus.report")  # the page, and the style that all reports have
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, ".") for place in places]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("ablation.html.j2").render(
        title=title,
        subtitle=subtitle,
        version=__version__,
        notes=list(dict.fromkeys(notes)),
        figures=figures,
        grids=tables,
    )
    atomic_write_text(path, html)


def _bars_of(lines: Sequence[DataFreeLine], results: DataFreeResults, name: str) -> Markup:
    part = results.parts[name]
    chance = sum(part.chance(direction, "mAP@all") for direction in part.directions) / len(part.directions)
    rows = []
    for line in lines:
        both = [score["mAP@all"].values for score in line.scores[name].values()]
        score = Score.of([sum(pair) / len(pair) for pair in zip(*both, strict=True)])
        rows.append(Bar(f"{line.row.title} ({line.n})", score.mean, _reach(score), chance, 0, not line.data_free))
    return bars(
        rows, title=f"{SETS[name]}: mAP of both directions, mean ± standard deviation over seeds; pale: not data-free"
    )


def _reach(score: Score) -> tuple[float, float] | None:
    if math.isnan(score.deviation):
        return None
    return max(0.0, score.mean - score.deviation), min(1.0, score.mean + score.deviation)


def _figure(lines: Sequence[Line], results: Results, direction: str) -> Markup:
    chance = results.chance(direction, "R@1")
    rows = []
    for line in lines:
        score = line.scores[direction]["R@1"]
        rows.append(Bar(f"{line.variant.title} ({line.n})", score.mean, _reach(score), chance, colour=0))
    shown = direction.replace("->", " → ")
    return bars(rows, title=f"{shown}: R@1, mean ± standard deviation over the runs (their number)")
