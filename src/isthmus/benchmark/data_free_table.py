"""A data-free benchmark's figures: scores, what the method gains over each row, how much of the gap it closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.benchmark.data_free_measure import HELD_OUT, KNOWN, METRICS
from isthmus.benchmark.data_free_rows import EMBEDDING, METHOD, OWN, ROWS, UPPER, UPPER_MAPS, DataFreeRow
from isthmus.benchmark.results import Results
from isthmus.benchmark.table import DRAWS
from isthmus.evaluate.intervals import Difference
from isthmus.evaluate.summary import Score
from isthmus.io import read_json

SETS = {KNOWN: "known classes", HELD_OUT: "held-out classes"}


@dataclass(frozen=True)
class DataFreeResults:
    """The results of one setting: with independent teachers or a unified one.

    Attributes:
        setting: which.
        about: classes, teachers and test images.
        parts: results among known classes, and among held-out ones where there are any.
    """

    setting: str
    about: Mapping[str, Any]
    parts: Mapping[str, Results]

    @classmethod
    def read(cls, folder: Path) -> DataFreeResults | None:
        """What lies in the folder of a setting; None where nothing does.

        Raises:
            IsthmusError: a file can't be read.
        """
        if not (folder / "about.json").is_file():
            return None
        found = Results.read(folder, [row.name for row in ROWS])
        if not found.rows:
            return None
        kept = {name for queries in found.queries.values() for name in queries}
        parts = {name: _part(found, name) for name in SETS if name in kept}
        return cls(folder.name, read_json(folder / "about.json"), parts)

    @property
    def rows(self) -> Mapping[str, Mapping[Any, Mapping[str, Any]]]:
        """Row -> run -> record."""
        return self.parts[KNOWN].rows


def _part(found: Results, name: str) -> Results:
    """The same results, as measured among one set of classes."""
    rows = {row: {run: {**record, "setting": name} for run, record in runs.items()} for row, runs in found.rows.items()}
    return Results(rows, {split: queries[name] for split, queries in found.queries.items()})  # type: ignore[misc]


@dataclass(frozen=True)
class DataFreeLine:
    """A row of the table.

    Attributes:
        row: which.
        n: runs (seeds).
        start: how the students start.
        data_free: whether nobody looked at an image.
        teachers: the teachers' accuracy on test images, by domain.
        scores: set of classes -> direction -> metric -> mean and deviation over the seeds.
        gains: set of classes -> mAP of the method minus this row's, both directions, with its interval.
        alone: the same of the method's embedding alone.
        closed: set of classes -> share of the way from the classifiers' own features to the upper bound.
        cost: steps, processor seconds with the teachers', and without.
    """

    row: DataFreeRow
    n: int
    start: str
    data_free: bool
    teachers: dict[str, float]
    scores: dict[str, dict[str, dict[str, Score]]]
    gains: dict[str, Difference | None]
    alone: dict[str, Difference | None]
    closed: dict[str, float | None]
    cost: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "row": self.row.name,
            "title": self.row.title,
            "n": self.n,
            "students_start_from": self.start,
            "data_free": self.data_free,
            "teachers_accuracy": self.teachers,
            "scores": {
                part: {
                    direction: {name: {"mean": s.mean, "deviation": s.deviation} for name, s in scores.items()}
                    for direction, scores in directions.items()
                }
                for part, directions in self.scores.items()
            },
            "method_minus_row": _plain(self.gains),
            "embedding_minus_row": _plain(self.alone),
            "gap_closed": self.closed,
            **self.cost,
        }


def _plain(gains: Mapping[str, Difference | None]) -> dict[str, dict[str, float] | None]:
    return {part: None if d is None else {"mean": d.mean, "low": d.low, "high": d.high} for part, d in gains.items()}


def compile_data_free(results: DataFreeResults, *, draws: int = DRAWS) -> list[DataFreeLine]:
    """A line for each row that has results, in the table's order."""
    lines = []
    for row in ROWS:
        if row.name not in results.rows:
            continue
        runs = list(results.rows[row.name].values())
        lines.append(
            DataFreeLine(
                row,
                len(runs),
                str(runs[0]["start"]),
                all(bool(record["data_free"]) for record in runs),
                _accuracy(runs),
                {name: _scores(part, row.name) for name, part in results.parts.items()},
                _gains(results, METHOD, row.name, draws),
                _gains(results, EMBEDDING, row.name, draws),
                {name: gap_closed(part, row.name) for name, part in results.parts.items()},
                _cost(results.parts[KNOWN], row.name),
            )
        )
    return lines


def _gains(results: DataFreeResults, ours: str, row: str, draws: int) -> dict[str, Difference | None]:
    return {
        name: None if row == ours else part.difference(ours, row, "mAP@all", None, draws)
        for name, part in results.parts.items()
    }


def _scores(part: Results, row: str) -> dict[str, dict[str, Score]]:
    return {
        direction: {m: score for m in METRICS if (score := part.scores(row, direction, m)) is not None}
        for direction in part.directions
    }


def _accuracy(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over runs of each domain's accuracy: of the teacher of classes, not of the modality classifier."""
    found: dict[str, list[float]] = {}
    for record in runs:
        for setting, domains in record.get("needs", {}).items():
            for domain, values in {} if setting == "data_free.modality" else domains.items():
                found.setdefault(domain, []).append(float(values["accuracy"]))
    return {domain: sum(values) / len(values) for domain, values in found.items()}


def gap_closed(part: Results, row: str) -> float | None:
    """(row - own features) / (upper bound - own features) in mAP of both directions, over the seeds that all have.

    The upper bound is the better of the two. None where one of them is missing, or where neither is better than the
    own features.
    """
    bounds = [name for name in (UPPER, UPPER_MAPS) if name in part.rows]
    if OWN not in part.rows or not bounds:
        return None
    common = [run for run in part.rows[row] if all(run in part.rows[name] for name in (OWN, *bounds))]
    if not common:
        return None
    own, mine, *uppers = (sum(_both(part.rows[name][run]) for run in common) for name in (OWN, row, *bounds))
    upper = max(uppers)
    return (mine - own) / (upper - own) if upper > own else None


def _both(record: Mapping[str, Any]) -> float:
    values = [side["scores"]["mAP@all"] for side in record["sides"] if side["setting"] == record["setting"]]
    return float(sum(values)) / len(values)


def _cost(part: Results, row: str) -> dict[str, float | None]:
    own, before = part.mean_of(row, "seconds", "cpu"), part.mean_of(row, "seconds", "step_1", "cpu")
    return {"steps": part.mean_of(row, "steps"), "cpu_seconds": own, "cpu_seconds_of_teachers": before}
