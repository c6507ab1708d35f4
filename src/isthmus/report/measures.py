"""What a report shows of a model beside its retrieval: attributes read off images, agreement with people,
and other papers' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.report.columns import number

if TYPE_CHECKING:
    from isthmus.evaluate.attributes import AttributeScores
    from isthmus.evaluate.human import Agreement
    from isthmus.evaluate.variants import Variants

COLUMNS = {
    "accuracy": "accuracy",
    "base_rate": "always the more frequent",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "positive_share": "share of yes",
}
REFERENCES = ("base_rate", "positive_share")  # what the figure to their left has without looking at the image


def attribute_tables(found: Sequence[AttributeScores]) -> list[dict[str, Any]]:
    """A table for each domain: the means first, then a row an attribute."""
    tables = []
    for scores in found:
        means = scores.means
        rows = [("mean", "", {name: means[name] for name in COLUMNS})] if means else []
        rows += [(one.name, str(one.n), {name: getattr(one, name) for name in COLUMNS}) for one in scores.scores]
        facts = f"{scores.n_images} images with known attributes." if scores.n_images else ""
        if scores.skipped:
            facts += f" Left out because they can't be read: {len(scores.skipped)}."
        tables.append(
            {
                "domain": scores.domain,
                "facts": f"{facts} {scores.left_out}".strip(),
                "heads": list(COLUMNS.values()),
                "rows": [
                    {
                        "name": name,
                        "n": n,
                        "mean": place == 0 and not n,
                        "cells": [{"value": number(values[key]), "muted": key in REFERENCES} for key in COLUMNS],
                    }
                    for place, (name, n, values) in enumerate(rows)
                ],
            }
        )
    return tables


def agreement_rows(found: Mapping[str, Agreement]) -> dict[str, Any]:
    """A row a setting, and how many triplets were counted; empty where there is none."""
    if not found:
        return {}
    rows = [
        {
            "setting": setting,
            "value": number(one.value),
            "interval": f"{one.low:.3f}–{one.high:.3f}" if one.low == one.low else "",
            "by_votes": number(one.by_votes),
        }
        for setting, one in found.items()
    ]
    return {"rows": rows, "facts": next(iter(found.values())).text}


def variant_tables(found: Variants | None) -> list[dict[str, Any]]:
    """A part for each direction: the variants on the whole gallery, and those on one image of each kind."""
    from isthmus.evaluate.variants import HOUSE

    if found is None:
        return []
    parts = []
    for side in found.sides:
        small = side.one_per
        rows = [
            {
                "metric": name,
                "variant": name not in HOUSE,
                "value": number(value),
                "interval": "–".join(f"{end:.3f}" for end in side.intervals.get(name, ())),
                "chance": number(side.chance[name]),
            }
            for name, value in side.scores.items()
        ]
        drawn = [
            {
                "metric": name,
                "value": number(mean),
                "deviation": number(deviation),
                "chance": number(small.chance[name]),
            }
            for name, (mean, deviation) in small.scores.items()
        ]
        parts.append(
            {
                "direction": side.direction.replace("->", " → "),
                "facts": f"{side.n_queries} queries, gallery of {side.n_gallery}, {found.setting}.",
                "rows": rows,
                "small_facts": f"Gallery of one image for each {found.by}: {small.n_gallery} images, "
                f"drawn {small.repeats} times with seed {small.seed}; mean and standard deviation over the draws.",
                "small": drawn,
            }
        )
    return parts
