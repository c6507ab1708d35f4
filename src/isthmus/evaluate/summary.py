"""Runs over repeated splits and seeds, measured alike: mean and standard deviation of every figure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import mean_std
from isthmus.evaluate.outcome import Evaluation


@dataclass(frozen=True, slots=True)
class Score:
    """One figure over several runs: mean, sample standard deviation (n - 1; NaN for one run), and each run's value."""

    mean: float
    deviation: float
    n: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        """Of at least one value.

        Example:
            >>> score = Score.of([0.5, 0.7, 0.6])
            >>> round(score.mean, 6), round(score.deviation, 6), score.n
            (0.6, 0.1, 3)
        """
        return cls(*mean_std(values), len(values), tuple(values))


@dataclass(frozen=True)
class Summary:
    """Several runs measured alike.

    Attributes:
        n: runs.
        test_sets: how many different sets of images they were tested on. Runs that share one differ by their training
            alone, so `n` runs on fewer sets are not `n` independent repetitions.
        by, primary: as in `Evaluation`.
        scores: `sketch->photo/R@1` and so on, as in `Evaluation.scores`.
        chance: the same keys, for each direction; mean over the runs.
        settings: such as `centred` and `plain`, the main one first.
        sizes: direction -> gallery size.
        more: further figures that all runs have, by name.
        partial: names of further figures that only some runs have, such as an attribute no image of a test set knows.
    """

    n: int
    test_sets: int
    by: str
    primary: str
    scores: dict[str, Score]
    chance: dict[str, float]
    settings: tuple[str, ...]
    sizes: dict[str, int]
    more: dict[str, Score]
    partial: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summarise(evaluations: Mapping[str, Evaluation], more: Mapping[str, Mapping[str, float]] | None = None) -> Summary:
    """Mean and sample standard deviation of every metric and direction over runs.

    Args:
        evaluations: by the run's name; all of one protocol.
        more: further figures of each run, by the same names; those that all runs have are summed up as well.

    Raises:
        IsthmusError: no runs; directions, settings, gallery sizes or the kind of relevance differ; or two runs are one
            model on the same images, which would make the deviation too small.

    Example:
        >>> summary = summarise({"a": first, "b": second})                                  # doctest: +SKIP
        >>> summary.scores["sketch->photo/R@1"].mean                                        # doctest: +SKIP
        0.443
    """
    if not evaluations:
        raise IsthmusError("There is no run to summarise; name at least one.")
    names, runs = list(evaluations), list(evaluations.values())
    for name, run in evaluations.items():
        _alike(names[0], runs[0], name, run)
    tested = {name: _images(run) for name, run in evaluations.items()}
    seen: dict[Hashable, str] = {}
    for name, run in evaluations.items():
        earlier = seen.setdefault((run.model or name, tested[name]), name)
        if earlier != name:
            raise IsthmusError(
                f"{earlier} and {name} are the same model on the same images, so they count once; name each run once."
            )
    keys = [key for key in runs[0].scores if all(key in run.scores for run in runs)]
    main = [side for side in runs[0].sides if side.setting == runs[0].sides[0].setting]
    extra = [dict((more or {}).get(name, {})) for name in names]
    named = dict.fromkeys(key for one in extra for key in one)
    return Summary(
        n=len(runs),
        test_sets=len(set(tested.values())),
        by=runs[0].by,
        primary=runs[0].primary,
        scores={key: Score.of([run.scores[key] for run in runs]) for key in keys},
        chance={
            f"{side.direction}/{metric}": float(np.mean([run.side(side.direction).chance[metric] for run in runs]))
            for side in main
            for metric in side.chance
        },
        settings=tuple(dict.fromkeys(side.setting for side in runs[0].sides)),
        sizes={side.direction: side.n_gallery for side in main},
        more={key: Score.of([one[key] for one in extra]) for key in named if all(key in one for one in extra)},
        partial=tuple(key for key in named if not all(key in one for one in extra)),
    )


def _alike(first: str, ours: Evaluation, name: str, other: Evaluation) -> None:
    aspects: dict[str, Callable[[Evaluation], str]] = {
        "relevance by": lambda run: run.by,
        "the rows": lambda run: ", ".join(f"{side.direction} ({side.setting})" for side in run.sides),
        "galleries of": lambda run: " and ".join(str(side.n_gallery) for side in run.sides[:2]),
        "the metrics": lambda run: ", ".join(run.sides[0].scores),
    }
    for aspect, of in aspects.items():
        if of(ours) != of(other):
            raise IsthmusError(
                f"The runs are not measured alike and have no common mean: {first} has {aspect} {of(ours)}, {name} has "
                f"{aspect} {of(other)}; evaluate them apart, or all on splits of one size with the same options."
            )


def _images(run: Evaluation) -> Hashable:
    return tuple(tuple(sorted(side.query_ids)) for side in run.sides if side.setting == run.sides[0].setting)
