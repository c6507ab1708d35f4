"""What a report shows of verification: a table and a DET curve for each direction, why figures are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus.report.columns import number
from isthmus.report.figures import Line, lines

if TYPE_CHECKING:
    from isthmus.evaluate.verify import Verified


def verification_parts(found: Sequence[Verified]) -> list[dict[str, Any]]:
    """A part for each direction: its table, its notes, and the DET curves of all settings as a figure."""
    parts = []
    for direction in dict.fromkeys(one.direction for one in found):
        sides = [one for one in found if one.direction == direction]
        rows = [
            {
                "name": name,
                "cells": [
                    {
                        "value": number(side.figures[name].value),
                        "interval": "{:.3f}–{:.3f}".format(*interval)
                        if (interval := side.figures[name].interval)
                        else "",
                    }
                    for side in sides
                ],
                "chance": number(sides[0].figures[name].chance),
            }
            for name in sides[0].figures
        ]
        curves = [
            Line(side.setting, [far for far, _ in side.det], [frr for _, frr in side.det], colour=colour)
            for colour, side in enumerate(sides)
        ]
        # Random scores reject as many genuine pairs as they reject impostors.
        rates = [far for far, _ in sides[0].det if far > 0]
        curves.append(Line("chance", rates, [1 - far for far in rates], dashed=True))
        figure = lines(
            curves, x_label="false accept rate", y_label="false reject rate",
            title="Detection error trade-off (DET)", log_x=True,
        )  # fmt: skip
        parts.append(
            {
                "direction": direction.replace("->", " → "),
                "facts": f"{sides[0].protocol[:1].upper()}{sides[0].protocol[1:]}.",
                "names": [side.setting for side in sides],
                "rows": rows,
                "notes": [
                    f"{name}: not measured, {one.note}." for name, one in sides[0].figures.items() if one.value is None
                ],
                "figure": figure,
            }
        )
    return parts
