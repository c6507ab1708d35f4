"""The tables of `isthmus evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.cli.common import console, number, table, visible, with_interval
from isthmus.cli.evaluate_variants import VARIANTS, show_variant_summary, show_variants
from isthmus.cli.evaluate_verify import show_verified

if TYPE_CHECKING:
    from rich.console import Console

    from isthmus.cli.evaluate_one import Measured
    from isthmus.evaluate.attributes import AttributeScores
    from isthmus.evaluate.human import Agreement
    from isthmus.evaluate.reranked import Cost, Reranked
    from isthmus.evaluate.run import Evaluation
    from isthmus.evaluate.summary import Score, Summary

# What a row of the evaluation holds for each query: for the file, too much for a screen.
_BULK = ("query_ids", "query_labels", "per_query", "hits", "first_ranks")


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation without what it holds for each single query."""
    values = evaluation.to_dict()
    values["sides"] = [{key: value for key, value in side.items() if key not in _BULK} for side in values["sides"]]
    return values


def show(measured: Measured) -> None:
    """Print a table for each direction, and those that were asked for besides, on standard output."""
    screen = console()
    _show_directions(screen, measured.evaluation, measured.reranked)
    _show_reranked(screen, measured.evaluation, measured.reranked)
    if measured.variants is not None:
        show_variants(screen, measured.variants)
    for scores in measured.attributes:
        _show_attributes(screen, scores)
    _show_agreement(screen, measured.agreement)
    if measured.verified:
        show_verified(measured.verified)
    evaluation = measured.evaluation
    if evaluation.skipped:
        screen.print(f"Left out because they can't be read: {len(evaluation.skipped)} images.")
    name = evaluation.primary
    again = _marked(name, measured.reranked)
    screen.print(f"{name} = {number(evaluation.scores.get(name))} (relevant: same {evaluation.by})", soft_wrap=True)
    if again:
        screen.print(f"{again} = {number(evaluation.scores.get(again))}", soft_wrap=True)


def _marked(key: str, reranked: Reranked | None) -> str:
    """A score's name when re-ranked: `mean/R@1` -> `mean (centred, k-reciprocal)/R@1`; nothing without re-ranking."""
    head, _, metric = key.partition("/")
    return f"{head} ({reranked.name})/{metric}" if reranked is not None else ""


def _show_directions(screen: Console, evaluation: Evaluation, reranked: Reranked | None) -> None:
    apart = reranked.name if reranked is not None else None
    for direction in dict.fromkeys(side.direction for side in evaluation.sides):
        sides = [side for side in evaluation.sides if side.direction == direction and side.setting != apart]
        first = sides[0]
        rows = [
            [metric, *[with_interval(side.scores.get(metric), side.intervals.get(metric)) for side in sides],
             number(first.chance.get(metric))]
            for metric in first.scores
        ]  # fmt: skip
        ties = ", ".join(f"{side.tie_share:.1%} {side.setting}" for side in sides)
        screen.print(table(direction.replace("->", " -> "), ["metric", *[s.setting for s in sides], "chance"], rows))
        screen.print(
            f"{first.n_queries - first.n_left_out} queries, gallery of {first.n_gallery}; left out for want of a "
            f"relevant image: {first.n_left_out}; queries with a tie: {ties}\nprotocol: {visible(first.protocol)}\n",
            soft_wrap=True,
        )


def _show_reranked(screen: Console, evaluation: Evaluation, reranked: Reranked | None) -> None:
    if reranked is None:
        return
    for direction, cost in reranked.costs.items():
        before, after = (evaluation.side(direction, setting) for setting in (reranked.base, reranked.name))
        rows = [
            [metric, *[with_interval(side.scores[metric], side.intervals.get(metric)) for side in (before, after)],
             signed(after.scores[metric] - before.scores[metric])]
            for metric in before.scores
        ]  # fmt: skip
        title = f"{direction.replace('->', ' -> ')}, re-ranked"
        screen.print(table(title, ["metric", reranked.base, reranked.name, "change"], rows))
        screen.print(f"{reranked.settings.text}; {cost.text}\n", soft_wrap=True)


def signed(change: float) -> str:
    """`+.021`, `-.004` or `.000`."""
    text = number(abs(change))
    return text if text == number(0.0) else ("+" if change > 0 else "-") + text


def _show_attributes(screen: Console, found: AttributeScores) -> None:
    columns = ["attribute", "images", "accuracy", "always the more frequent", "balanced accuracy", "AP", "share of yes"]
    rows = [
        [score.name, str(score.n), *map(number, (score.accuracy, score.base_rate, score.balanced_accuracy,
                                                 score.average_precision, score.positive_share))]
        for score in found.scores
    ]  # fmt: skip
    if found.scores:
        names = ("accuracy", "base_rate", "balanced_accuracy", "average_precision", "positive_share")
        rows.append(["mean", "", *[number(found.means[name]) for name in names]])
        screen.print(table(f"attributes read off {found.domain}", columns, rows))
    legend = "A guess has balanced accuracy .5 and as AP the share of yes." if found.scores else ""
    counted = f"{found.n_images} {found.domain} images with known attributes." if found.n_images else ""
    screen.print(visible(" ".join(filter(None, (counted, legend, found.left_out)))) + "\n", soft_wrap=True)


def _show_agreement(screen: Console, agreement: Mapping[str, Agreement]) -> None:
    if not agreement:
        return
    rows = [
        [setting, with_interval(found.value, (found.low, found.high) if found.low == found.low else None),
         number(found.by_votes), number(0.5)]
        for setting, found in agreement.items()
    ]  # fmt: skip
    screen.print(table("agreement with human triplets", ["setting", "share", "weighted by votes", "chance"], rows))
    screen.print(f"{next(iter(agreement.values())).text}\n", soft_wrap=True)


def plus_minus(score: Score | None) -> str:
    """Mean and standard deviation: `.443 ± .021`."""
    return "–" if score is None else f"{number(score.mean)} ± {number(score.deviation)}"


def show_summary(found: Summary, reranked: Sequence[Reranked] = ()) -> None:
    """Print mean ± standard deviation over runs, a table for each direction; re-ranked figures stand in their own."""
    screen = console()
    how = reranked[0] if reranked else None
    settings = [setting for setting in found.settings if how is None or setting != how.name]
    for direction, size in found.sizes.items():
        heads = [direction, *(f"{direction} ({setting})" for setting in settings[1:])]
        metrics = [name.removeprefix(f"{direction}/") for name in found.scores if name.startswith(f"{direction}/")]
        rows = [
            [metric, *[plus_minus(found.scores.get(f"{head}/{metric}")) for head in heads],
             number(found.chance.get(f"{direction}/{metric}"))]
            for metric in metrics
        ]  # fmt: skip
        screen.print(table(direction.replace("->", " -> "), ["metric", *settings, "chance"], rows))
        screen.print(f"gallery of {size}\n")
        if how is not None:
            heads = [direction, f"{direction} ({how.name})"]
            rows = [
                [metric, *[plus_minus(found.scores.get(f"{head}/{metric}")) for head in heads]] for metric in metrics
            ]
            title = f"{direction.replace('->', ' -> ')}, re-ranked"
            screen.print(table(title, ["metric", how.base, how.name], rows))
            taken = _mean_cost([one.costs[direction] for one in reranked])
            screen.print(f"{how.settings.text}; {taken}\n", soft_wrap=True)
    further = {name: score for name, score in found.more.items() if not name.startswith(VARIANTS)}
    if further:
        rows = [[name, plus_minus(score)] for name, score in further.items()]
        screen.print(table("further figures", ["figure", "mean ± deviation"], rows))
    show_variant_summary(screen, found)
    if found.partial:
        screen.print(f"Left out, as only some of the runs have them: {', '.join(found.partial)}.\n", soft_wrap=True)
    sets = f"{found.test_sets} different test set" + ("s" if found.test_sets > 1 else "")
    again = _marked(found.primary, how)
    screen.print(
        f"Mean ± sample standard deviation (n - 1) over n = {found.n} runs on {sets}.\n"
        f"{found.primary} = {plus_minus(found.scores.get(found.primary))} (relevant: same {found.by})"
        + (f"\n{again} = {plus_minus(found.scores.get(again))}" if again else ""),
        soft_wrap=True,
    )


def _mean_cost(costs: Sequence[Cost]) -> str:
    """What re-ranking a direction took a run, and its hubness over the runs."""
    n = len(costs)
    extra, plain = sum(c.reranking_seconds for c in costs) / n, sum(c.ranking_seconds for c in costs) / n
    bank = f", bank embedded in {sum(c.bank_seconds for c in costs) / n:.1f} s" if costs[0].bank_images else ""
    before, after = (sum(c.hubness[at] for c in costs) / n for at in (0, 1))
    return (
        f"a run {extra:.2f} s on top of {plain:.2f} s of ranking{bank}; hubness (skewness of N_10) {before:.2f} "
        f"before, {after:.2f} after"
    )
