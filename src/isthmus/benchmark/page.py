"""The ablation as one HTML page: bars with error bars, and the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus import __version__
from isthmus.benchmark.results import Results
from isthmus.benchmark.table import NOTES, Line, grids
from isthmus.io import atomic_write_text
from isthmus.report.figures import Bar, bars

if TYPE_CHECKING:
    from markupsafe import Markup


def write_page(path: Path, title: str, subtitle: str, lines: Sequence[Line], results: Results) -> None:
    """Write the page, whole or not at all; it loads nothing from outside and runs no script.

    Args:
        path: the HTML file.
        title, subtitle: heading.
        lines: at least one.
        results: what they were made from.
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
        notes=NOTES,
        figures=[_figure(lines, results, direction) for direction in results.directions],
        grids=grids(lines, results),
    )
    atomic_write_text(path, html)


def _figure(lines: Sequence[Line], results: Results, direction: str) -> Markup:
    chance = results.chance(direction, "R@1")
    rows = []
    for line in lines:
        score = line.scores[direction]["R@1"]
        reach = None
        if not math.isnan(score.deviation):
            reach = (max(0.0, score.mean - score.deviation), min(1.0, score.mean + score.deviation))
        rows.append(Bar(f"{line.variant.title} ({line.n})", score.mean, reach, chance, colour=0))
    shown = direction.replace("->", " → ")
    return bars(rows, title=f"{shown}: R@1, mean ± standard deviation over the runs (their number)")
