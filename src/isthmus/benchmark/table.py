"""The ablation's table: scores, differences to the whole method with their intervals, and the paper beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isthmus.benchmark.measure import METRICS
from isthmus.benchmark.results import Results
from isthmus.benchmark.rows import FULL, VARIANTS, Variant
from isthmus.evaluate.intervals import Difference
from isthmus.evaluate.summary import Score

SHOWN = {"mAP@all": "mAP"}
DRAWS = 10_000


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        variant: the row.
        n, splits, seeds: runs, and how many different splits and seeds they are of.
        scores: direction -> metric -> mean and deviation, in the model's own setting.
        plain: direction -> R@1 of the other setting than the model's own; empty where there is none.
        differences: `R@1` of the first direction, `R@1 both` and `mAP both`: this row minus the whole method.
        more: further figures: attributes read, domains told apart, agreement with people, steps, seconds.
    """

    variant: Variant
    n: int
    splits: int
    seeds: int
    scores: dict[str, dict[str, Score]]
    plain: dict[str, Score]
    differences: dict[str, Difference | None]
    more: dict[str, float | None]

    @property
    def published_difference(self) -> float | None:
        """The paper's R@1 of this row minus that of the whole method, in points."""
        whole = next(row.published for row in VARIANTS if row.name == FULL)
        if self.variant.published is None or whole is None or self.variant.name == FULL:
            return None
        return self.variant.published - whole

    @property
    def agrees(self) -> str:
        """Whether the difference in R@1 has the paper's sign: yes or no, and whether its interval holds 0."""
        ours, theirs = self.differences.get("R@1"), self.published_difference
        if ours is None or theirs is None:
            return ""
        word = "yes" if ours.mean * theirs > 0 else "no"
        return word if ours.distinguishable else f"{word}, but the interval holds 0"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "row": self.variant.name,
            "title": self.variant.title,
            "n": self.n,
            "splits": self.splits,
            "seeds": self.seeds,
            "scores": {
                direction: {name: {"mean": s.mean, "deviation": s.deviation} for name, s in part.items()}
                for direction, part in self.scores.items()
            },
            "other_setting_R@1": {direction: s.mean for direction, s in self.plain.items()},
            "differences": {
                name: None if d is None else {"mean": d.mean, "low": d.low, "high": d.high}
                for name, d in self.differences.items()
            },
            "published_R@1": self.variant.published,
            "published_difference": self.published_difference,
            "agrees": self.agrees,
            **self.more,
        }


def compile_lines(results: Results, *, against: str = FULL, draws: int = DRAWS) -> list[Line]:
    """A line for each row that has results, in the table's order."""
    lines = []
    for variant in VARIANTS:
        if variant.name not in results.rows:
            continue
        name, runs = variant.name, results.rows[variant.name]
        settings = {str(record["setting"]) for record in runs.values()}
        other = "plain" if settings == {"centred"} else "centred"
        differences: dict[str, Difference | None] = {}
        if name != against:
            for key, metric, direction in (
                ("R@1", "R@1", results.directions[0]),
                ("R@1 both", "R@1", None),
                ("mAP both", "mAP@all", None),
            ):
                differences[key] = results.difference(name, against, metric, direction, draws)
        scores = {
            direction: {
                metric: score for metric in METRICS if (score := results.scores(name, direction, metric)) is not None
            }
            for direction in results.directions
        }
        plain = {
            direction: score
            for direction in results.directions
            if (score := results.scores(name, direction, "R@1", other)) is not None
        }
        lines.append(
            Line(
                variant, len(runs), len({split for split, _ in runs}), len({seed for _, seed in runs}), scores, plain,
                differences, _more(results, name),
            )
        )  # fmt: skip
    return lines


def _more(results: Results, row: str) -> dict[str, float | None]:
    query, gallery = results.directions[0].split("->")
    steps = results.mean_of(row, "steps")
    return {
        f"attributes of {query}": results.mean_of(row, "attributes", query, "means", "balanced_accuracy"),
        f"attributes of {gallery}": results.mean_of(row, "attributes", gallery, "means", "balanced_accuracy"),
        "domain probe": results.mean_of(row, "probe", "balanced_accuracy"),
        "human agreement": results.mean_of(row, "human", "agreement"),
        "steps": None if steps is None else steps + (results.mean_of(row, "step_1_steps") or 0.0),
        "seconds": results.mean_of(row, "seconds", "wall"),
    }


def percent(score: Score | None) -> str:
    """`45.1 ± 2.3`: mean and deviation in percent.

    Example:
        >>> percent(Score.of([0.4, 0.5])), percent(Score.of([0.5])), percent(None)
        ('45.0 ± 7.1', '50.0', '–')
    """
    if score is None:
        return "–"
    return f"{100 * score.mean:.1f}" + ("" if math.isnan(score.deviation) else f" ± {100 * score.deviation:.1f}")


def points(difference: Difference | None) -> str:
    """`-3.2 [-5.0, -1.1]`, in percentage points."""
    if difference is None:
        return "–"
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def share(value: float | None) -> str:
    """`.71`, or a dash."""
    return "–" if value is None else f"{value:.2f}".replace("0.", ".", 1) if value < 1 else f"{value:.2f}"


def grids(lines: Sequence[Line], results: Results) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables: title, columns and cells; the first column names the row."""
    made: list[tuple[str, list[str], list[list[str]]]] = []
    for direction in results.directions:
        cells = [
            [one.variant.title, str(one.n), *(percent(one.scores[direction].get(metric)) for metric in METRICS)]
            for one in lines
        ]
        chance = [f"{100 * results.chance(direction, metric):.1f}" for metric in METRICS]
        columns = ["row", "n", *(SHOWN.get(metric, metric) for metric in METRICS)]
        made.append((direction.replace("->", " → "), columns, [["chance", "", *chance], *cells]))
    compared = [one for one in lines if one.differences]
    first = results.directions[0].replace("->", " → ")
    if compared:
        cells = [
            [
                one.variant.title,
                *(points(one.differences[key]) for key in ("R@1", "R@1 both", "mAP both")),
                "–" if one.variant.published is None else f"{one.variant.published:.1f}",
                "–" if one.published_difference is None else f"{one.published_difference:+.1f}",
                one.agrees or "–",
            ]
            for one in compared
        ]
        columns = [
            "row", f"R@1, {first}", "R@1, both", "mAP, both", "paper: R@1", "paper: difference", "same sign",
        ]  # fmt: skip
        made.append((f"Difference to {_title(FULL)}, with its 95 % interval", columns, cells))
    if lines:
        names = [name for name in lines[0].more if any(one.more[name] is not None for one in lines)]
        fractions = {name for name in names if name not in ("steps", "seconds")}
        cells = [
            [
                one.variant.title,
                *(percent(one.plain.get(direction)) for direction in results.directions),
                *(share(one.more[name]) if name in fractions else _whole(one.more[name]) for name in names),
            ]
            for one in lines
        ]
        heads = [f"R@1 in the other setting, {direction.replace('->', ' → ')}" for direction in results.directions]
        made.append(("Beside retrieval", ["row", *heads, *names], cells))
    return made


def _title(name: str) -> str:
    return next(row.title for row in VARIANTS if row.name == name)


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


NOTES = (
    "Scores in percent: mean ± standard deviation over splits x seeds, n of them, on the test split, in the model's "
    "own setting (model.centring).",
    "Differences: this row minus IHDA over the splits and seeds that both have, in points [95 % interval]; the "
    "paper's are of PKU-Sketch with Market-1501, sketch -> photo.",
    "The rows without step 1 take as many optimisation steps in their one stage as IHDA takes in both; those with "
    "fewer pairs take as many as IHDA. The backbone as it is does not depend on the seed.",
    "Attributes: mean balanced accuracy of the attribute head (.50: a guess). Domain probe: balanced accuracy of a "
    "fresh linear classifier of the domains on held-out test features (.50: it can't tell them). Seconds: of this "
    "row's own run with its measuring, without a shared step 1.",
)


def markdown(lines: Sequence[Line], results: Results, *, level: int = 2) -> str:
    """The tables as Markdown, with what they mean."""
    parts = []
    for title, columns, cells in grids(lines, results):
        parts.append(f"{'#' * level} {title}\n")
        parts.append("| " + " | ".join(columns) + " |")
        parts.append("|" + "---|" * len(columns))
        parts += ["| " + " | ".join(row) + " |" for row in cells]
        parts.append("")
    return "\n".join([*parts, *NOTES, ""])
