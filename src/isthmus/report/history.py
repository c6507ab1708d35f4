"""What a run left behind, for its report: the curves of its log, its settings and its model's provenance."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from markupsafe import Markup

from isthmus.errors import IsthmusError
from isthmus.io import read_json
from isthmus.report.figures import Line, lines

# Counters and clocks say nothing as curves.
_NOT_CURVES = {"epoch", "step", "images", "seconds", "time", "lr", "images_per_second", "best", "chosen"}


def read_log(path: str | Path) -> dict[str, list[float]]:
    """The numeric columns of a run's `log.csv`, by name; what is empty or no number is NaN.

    A log that is missing or unreadable has no columns: a report is written all the same.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    names = [name for name in (rows[0] if rows else {}) if name]
    columns = {name: [_number(row.get(name)) for row in rows] for name in names}
    return {name: values for name, values in columns.items() if any(map(math.isfinite, values))}


def training_figures(columns: dict[str, list[float]]) -> list[Markup]:
    """Figures of a run's log over its epochs: losses, scores on validation images, and each criterion by itself.

    Args:
        columns: as `read_log` gives them; without `epoch` the rows are counted.
    """
    some = next(iter(columns.values()), [])
    epochs = columns.get("epoch", [float(row) for row in range(len(some))])
    if len(epochs) < 2:
        return []
    # A term of the loss is where the loss is: not before the first step, when only the criteria are measured.
    present = [math.isfinite(value) for value in columns.get("loss", [])]
    losses = {
        name: values
        for name, values in columns.items()
        if name == "loss" or (not all(present) and present == [math.isfinite(value) for value in values])
        if name.lower() not in _NOT_CURVES
    }
    scores = {name: values for name, values in columns.items() if name.startswith("val/")}
    rest = {
        name: values
        for name, values in columns.items()
        if name not in losses and name not in scores and name.lower() not in _NOT_CURVES
    }
    figures = []
    if losses:
        figures.append(_figure("Losses", losses, epochs, "loss"))
    # One figure a metric: its directions and their mean belong together.
    for metric in dict.fromkeys(name.rsplit("/", 1)[-1] for name in scores):
        group = {
            name.split("/", 1)[1]
            .removesuffix(f"/{metric}")
            .replace(metric, "mean of both")
            .replace("->", " → "): values
            for name, values in scores.items()
            if name.endswith(f"/{metric}")
        }
        figures.append(_figure(f"{metric} on validation images", group, epochs, metric))
    figures += [_figure(name, {name: values}, epochs, name) for name, values in rest.items()]
    return [figure for figure in figures if figure]


def read_settings(run: str | Path) -> str:
    """The text of a run's `config.yaml`, empty where there is none."""
    try:
        return (Path(run) / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_model_facts(run: str | Path) -> list[tuple[str, str]]:
    """Name and value of what the model's `config.json` says about the model, for the list of provenance."""
    folder = Path(run)
    for place in (folder / "model", folder):
        if (place / "config.json").is_file():
            break
    else:
        return []
    try:
        config = read_json(place / "config.json")
    except IsthmusError:
        return []
    if not isinstance(config, dict):
        return []
    architecture, provenance = config.get("architecture"), config.get("provenance")
    facts: list[tuple[str, str]] = []
    if isinstance(provenance, dict):
        facts += [(name.replace("_", " "), str(value)) for name, value in provenance.items() if _plain(value)]
    if isinstance(architecture, dict):
        facts += [(name.replace("_", " "), str(value)) for name, value in architecture.items() if _plain(value)]
    facts += [("model's fingerprint", str(config["fingerprint"]))] if "fingerprint" in config else []
    return facts


def _figure(title: str, group: dict[str, list[float]], epochs: list[float], y_label: str) -> Markup:
    series = [Line(name, epochs, values) for name, values in group.items()]
    return lines(series, x_label="epoch", y_label=y_label, title=title, y_range=None)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""
