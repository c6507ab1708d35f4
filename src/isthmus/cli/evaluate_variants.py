"""The tables of `isthmus evaluate --variants`: other papers' metrics under a heading of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isthmus.cli.common import number, table, with_interval

if TYPE_CHECKING:
    from rich.console import Console

    from isthmus.evaluate.summary import Summary
    from isthmus.evaluate.variants import Variants

VARIANTS = "variants, "  # what the names of these figures begin with in a summary over runs
TITLE = "other papers' variants"
LEGEND = (
    "Figures to set beside those of papers that define them so; compare like with like only (docs/metrics.md). "
    "Chance of the interpolated ones is drawn, the rest exact."
)


def show_variants(screen: Console, found: Variants) -> None:
    """Two tables a direction: the variants on the whole gallery, and those on one item of each label or identity."""
    from isthmus.evaluate.variants import HOUSE

    for side in found.sides:
        way = side.direction.replace("->", " -> ")
        rows = [
            [name, "" if name in HOUSE else "variant", with_interval(value, side.intervals.get(name)),
             number(side.chance[name])]
            for name, value in side.scores.items()
        ]  # fmt: skip
        # No title of the table: it would be folded to the table's width.
        screen.print(f"{way}, {TITLE} ({found.setting})", style="bold", soft_wrap=True)
        screen.print(table("", ["metric", "", "score", "chance"], rows))
        small = side.one_per
        rows = [
            [name, f"{number(mean)} ± {number(deviation)}", number(small.chance[name])]
            for name, (mean, deviation) in small.scores.items()
        ]
        title = f"{way}, gallery of one image for each {found.by} ({found.setting})"
        screen.print(title, style="bold", soft_wrap=True)
        screen.print(table("", ["metric", "mean ± deviation", "chance"], rows))
        screen.print(
            f"{side.n_queries} queries, gallery of {side.n_gallery}; small gallery of {small.n_gallery}, "
            f"{small.repeats} draws, seed {small.seed}\n",
            soft_wrap=True,
        )
    screen.print(f"{LEGEND}\n", soft_wrap=True)


def show_variant_summary(screen: Console, found: Summary) -> None:
    """Mean and deviation over runs, where the runs were measured with `--variants`."""
    rows = [
        [name.removeprefix(VARIANTS), f"{number(score.mean)} ± {number(score.deviation)}"]
        for name, score in found.more.items()
        if name.startswith(VARIANTS)
    ]
    if rows:
        screen.print(table(TITLE, ["metric", "mean ± deviation"], rows))
        screen.print(f"{LEGEND}\n", soft_wrap=True)
