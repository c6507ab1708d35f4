"""Evaluations side by side: which rows stand in which column, and the table of their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.evaluate.run import Evaluation, Side


@dataclass(frozen=True)
class Group:
    """One direction in all evaluations.

    Attributes:
        direction: such as `sketch->photo`.
        columns: by the name to show; first the main setting of the first evaluation.
        mains: names of the columns that hold an evaluation's main setting.
        colours: a colour for each column: one an evaluation, or one a setting where there is a single evaluation.
    """

    direction: str
    columns: dict[str, Side]
    mains: tuple[str, ...]
    colours: dict[str, int]

    @property
    def title(self) -> str:
        """The direction as people read it: `sketch → photo`."""
        return self.direction.replace("->", " → ")

    def colour(self, name: str) -> int:
        """The number of a column's colour."""
        return self.colours[name]

    @property
    def first(self) -> Side:
        """The main column."""
        return next(iter(self.columns.values()))


def by_direction(evaluations: Mapping[str, Evaluation]) -> list[Group]:
    """Columns by direction, in the first evaluation's order; matched by name, one evaluation may lack a direction.

    An evaluation of one setting keeps its name, one of several has a column each, such as `SynCDR (centred)`.
    """
    columns: dict[str, dict[str, Side]] = {}
    mains: dict[str, list[str]] = {}
    colours: dict[str, int] = {}
    for position, (name, evaluation) in enumerate(evaluations.items()):
        settings = list(dict.fromkeys(side.setting for side in evaluation.sides))
        for side in evaluation.sides:
            shown = name if len(settings) == 1 else f"{name} ({side.setting})"
            columns.setdefault(side.direction, {})[shown] = side
            colours[shown] = position if len(evaluations) > 1 else settings.index(side.setting)
            if side.setting == settings[0]:
                mains.setdefault(side.direction, []).append(shown)
    return [Group(direction, sides, tuple(mains.get(direction, ())), colours) for direction, sides in columns.items()]


def metric_of(evaluation: Evaluation) -> str:
    """The metric of an evaluation's main figure, such as `Prec@1`."""
    return evaluation.primary.rsplit("/", 1)[-1]


def number(value: float | None) -> str:
    """A score with three decimals, or a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.3f}"


def interval(side: Side, metric: str) -> str:
    """The interval of a score, or nothing."""
    found = side.intervals.get(metric)
    return f"{found[0]:.3f}–{found[1]:.3f}" if found else ""


def headline(group: Group, metric: str) -> dict[str, str]:
    """What the card of a direction at the top of the page says."""
    side = group.first
    return {
        "direction": group.title,
        "metric": metric,
        "value": number(side.scores.get(metric)),
        "interval": interval(side, metric),
        "chance": number(side.chance[metric]) if metric in side.chance else "",
    }


def score_table(group: Group, primary: str) -> dict[str, Any]:
    """One direction's table: a row a metric with the main one first, a column an evaluation and setting."""
    sides = list(group.columns.values())
    metrics = list(dict.fromkeys(metric for side in sides for metric in side.scores))
    metrics.sort(key=lambda metric: metric != primary)
    rows = []
    for metric in metrics:
        values = [side.scores.get(metric) for side in sides]
        known = [value for value in values if value is not None and value == value]
        top = max(known) if len(known) > 1 and max(known) > min(known) else None
        rows.append(
            {
                "metric": metric,
                "primary": metric == primary,
                "cells": [
                    {
                        "value": number(value),
                        "interval": interval(side, metric),
                        "best": value is not None and value == top,
                    }
                    for value, side in zip(values, sides, strict=True)
                ],
                "chance": number(next((side.chance[metric] for side in sides if metric in side.chance), None)),
            }
        )
    return {"direction": group.title, "facts": facts(group), "names": list(group.columns), "rows": rows}


def facts(group: Group) -> str:
    """How one direction was measured; where the columns differ in ties, each one's share."""
    protocol = group.first.protocol
    text = protocol[:1].upper() + protocol[1:] + "."
    shares = {name: f"{side.tie_share:.1%}" for name, side in group.columns.items()}
    if len(set(shares.values())) > 1:
        text += (
            " Queries with a tie at a relevant image: " + ", ".join(f"{n} {share}" for n, share in shares.items()) + "."
        )
    return text
