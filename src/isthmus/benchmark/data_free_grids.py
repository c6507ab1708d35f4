"""A data-free benchmark's tables as they are shown, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isthmus.benchmark.data_free_measure import CUT, HELD_OUT, METRICS
from isthmus.benchmark.data_free_rows import EMBEDDING, ROWS
from isthmus.benchmark.data_free_table import SETS, DataFreeLine, DataFreeResults
from isthmus.benchmark.table import percent, points

Grid = tuple[str, list[str], list[list[str]]]


def data_free_grids(lines: Sequence[DataFreeLine], results: DataFreeResults, *, narrow: bool = False) -> list[Grid]:
    """The tables: title, columns and cells; the first column names the row.

    Args:
        lines, results: what they show.
        narrow: the summary in a table for each set of classes, for a terminal.
    """
    title = "A unified teacher" if results.setting == "unified" else f"{results.setting.capitalize()} teachers"
    names = list(results.parts)
    summaries = [_summary(title, lines, results, names, narrow=False)]
    if narrow:
        summaries = [
            _summary(f"{title}: mAP among {SETS[name]}", lines, results, [name], narrow=True) for name in names
        ]
    return [*summaries, *(_details(title, name, way, lines, results) for name, way in _ways(results))]


def _ways(results: DataFreeResults) -> list[tuple[str, str]]:
    return [(name, direction) for name, part in results.parts.items() for direction in part.directions]


def _summary(
    title: str, lines: Sequence[DataFreeLine], results: DataFreeResults, names: Sequence[str], *, narrow: bool
) -> Grid:
    columns = ["row", "students from", "data-free", "teachers"]
    for name in names:
        mark = "" if narrow else f", {name}"
        ways = results.parts[name].directions
        columns += ["→".join(d[:1] for d in way.split("->")) if narrow else f"mAP {shown(way)}{mark}" for way in ways]
        columns += [f"method - row{mark}", *_alone(results, name, f"embedding - row{mark}")]
        columns += ["closed" if narrow else f"gap closed{mark}"]
    cells = []
    for line in lines:
        row = [line.row.title, line.start, "yes" if line.data_free else "NO", _accuracies(line, results)]
        for name in names:
            scores = line.scores[name]
            row += [percent(scores[direction].get("mAP@all")) for direction in results.parts[name].directions]
            row += [points(line.gains[name]), *_alone(results, name, points(line.alone[name])), _closed(line, name)]
        cells.append(row)
    return title, columns, cells


def _alone(results: DataFreeResults, name: str, cell: str) -> list[str]:
    # Of classes that nobody knew the teachers' probabilities say little: there the embedding is what competes.
    return [cell] if name == HELD_OUT and EMBEDDING in results.rows else []


def _accuracies(line: DataFreeLine, results: DataFreeResults) -> str:
    domains = results.about["domains"]
    return " / ".join(f"{100 * line.teachers[d]:.1f}" if d in line.teachers else "–" for d in domains)


def _closed(line: DataFreeLine, name: str) -> str:
    value = line.closed[name]
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def _details(title: str, name: str, direction: str, lines: Sequence[DataFreeLine], results: DataFreeResults) -> Grid:
    part = results.parts[name]
    some = next(iter(next(iter(part.rows.values())).values()))
    cut = next(side["cut"] for side in some["sides"] if (side["setting"], side["direction"]) == (name, direction))
    heads = [f"P@{cut}" if metric == f"P@{CUT}" else metric for metric in METRICS]
    chance = [f"{100 * part.chance(direction, metric):.1f}" for metric in METRICS]
    cells = [
        [
            line.row.title,
            str(line.n),
            *(percent(line.scores[name][direction].get(metric)) for metric in METRICS),
            _minutes(line),
        ]
        for line in lines
    ]
    columns = ["row", "n", *heads, "CPU min"]
    return f"{title}: {SETS[name]}, {shown(direction)}", columns, [["chance", "", *chance, ""], *cells]


def _minutes(line: DataFreeLine) -> str:
    seconds = line.cost["cpu_seconds"]
    return "–" if seconds is None else f"{seconds / 60:.1f}"


def shown(direction: str) -> str:
    """`sketch → photo`.

    Example:
        >>> shown("sketch->photo")
        'sketch → photo'
    """
    return direction.replace("->", " → ")


def notes_of(results: DataFreeResults) -> list[str]:
    """What the figures mean, and what they were made from."""
    about = results.about
    begun = (
        f"All teachers start from the same weights ({about['teachers_start']}), so own features share an initialisation"
        if about["one_initialisation"]
        else "Each teacher starts from random weights of its own, so own features share no initialisation"
    )
    count, held = len(about["known"]), len(about["held_out"])
    images = "; ".join(
        f"{SETS[name]}: {' and '.join(f'{n} of {d}' for n, d in zip(counts, about['domains'], strict=True))}"
        for name, counts in about["test_images"].items()
    )
    return [
        f"{begun}: {about['backbone']}, {about['image_size']} px. {count} known classes, of which "
        f"{about['overlap']:.0%} are known to both teachers; {held} held-out classes, which no teacher and no student "
        f"saw. Test images: {images}.",
        "Scores in percent: mean ± standard deviation over n seeds; teachers: accuracy on the test images of the "
        f"classes that they know ({' / '.join(about['domains'])}), which caps what can be learned from them.",
        "Method - row: mAP of the method minus this row's over the seeds that both have, both directions alike, in "
        "points [95 % interval, bootstrap over queries]; embedding - row: the same of its embedding alone. Gap closed: "
        "(row - own features) / (the better of the upper bounds - own features) in mAP of both directions.",
        "mAP is standard mAP@all; P@k stops at the gallery's size where it is below 200; mAP@10hits is what the "
        "paper's public code computes: it stops at the first 10 hits, and compares with no other figure. CPU min: of "
        "this row's run and its measuring, without the teachers'.",
        "The method's vectors hold the teachers' probabilities beside its embedding, and its embedding the networks' "
        "last stages; noise, inverted images, alternative data, uni-modal distillation and students that start from "
        "nowhere or elsewhere are embeddings of the last features alone, as published.",
        *_borrowed(results),
    ]


def _borrowed(results: DataFreeResults) -> list[str]:
    made = {name for part in results.parts.values() for name in part.rows}
    titles = [row.title for row in ROWS if row.bank and row.name in made]
    if not titles:
        return []
    return [
        "These rows' students learn from the images that the method's run made, and their CPU minutes leave out what "
        f"that cost: {', '.join(titles)}."
    ]


def data_free_markdown(lines: Sequence[DataFreeLine], results: DataFreeResults, *, level: int = 2) -> str:
    """The tables as Markdown, with what they mean."""
    parts = []
    for title, columns, cells in data_free_grids(lines, results):
        parts += [f"{'#' * level} {title}\n", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        parts += ["| " + " | ".join(row) + " |" for row in cells]
        parts.append("")
    return "\n".join([*parts, *(f"- {note}" for note in notes_of(results)), ""])
