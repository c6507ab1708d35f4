"""Results as they lie in a folder, and the figures of a row among them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import Difference, paired_difference
from isthmus.evaluate.repeats import paired_interval
from isthmus.evaluate.summary import Score
from isthmus.io import read_json

Run = tuple[str, int]  # split and seed
CUTS = {"R@1": 1, "R@5": 5, "R@10": 10, "R@20": 20}


@dataclass(frozen=True)
class Results:
    """The results of one benchmark.

    Attributes:
        rows: row -> (split, seed) -> record.
        queries: split -> direction -> `ids` and `identities` of the test images, in the order of the records' `ranks`.
    """

    rows: Mapping[str, Mapping[Run, Mapping[str, Any]]]
    queries: Mapping[str, Mapping[str, Mapping[str, list[str]]]]

    @classmethod
    def read(cls, folder: Path, rows: Iterable[str]) -> Results:
        """All results of these rows that are there; a row without any is left out.

        Raises:
            IsthmusError: a file can't be read.
        """
        found: dict[str, dict[Run, dict[str, Any]]] = {}
        for row in rows:
            for file in sorted((folder / row).glob("*.json")):
                record = read_json(file)
                try:
                    found.setdefault(row, {})[str(record["split"]), int(record["seed"])] = record
                except (KeyError, TypeError, ValueError):
                    raise IsthmusError(f"{file} is no result of a benchmark; delete it.") from None
        splits = {split for runs in found.values() for split, _ in runs}
        queries = {split: read_json(folder / "splits" / f"{split}.json") for split in sorted(splits)}
        return cls(found, queries)

    @property
    def directions(self) -> list[str]:
        """Sketch -> photo first."""
        return list(next(iter(self.queries.values()))) if self.queries else []

    def scores(self, row: str, direction: str, metric: str, setting: str | None = None) -> Score | None:
        """Mean and deviation over splits x seeds; None where a run lacks the setting (None: the run's own)."""
        sides = [_side(record, direction, setting) for record in self.rows[row].values()]
        values = [side["scores"][metric] for side in sides if side is not None]
        return Score.of(values) if values and len(values) == len(sides) else None

    def chance(self, direction: str, metric: str) -> float:
        """The mean over splits of what a random order scores."""
        each: dict[str, float] = {}
        for runs in self.rows.values():
            for (split, _), record in runs.items():
                side = _side(record, direction, None)
                if side is not None:
                    each[split] = side["chance"][metric]
        return float(np.mean(list(each.values())))

    def difference(self, row: str, other: str, metric: str, direction: str | None, draws: int) -> Difference | None:
        """`row` minus `other` over the runs that both have, with its 95 % interval; None without such runs.

        Args:
            row, other: rows.
            metric: R@k or mAP@all.
            direction: None for the mean of both.
            draws: resamples.
        """
        if row not in self.rows or other not in self.rows:
            return None
        common = [run for run in self.rows[row] if run in self.rows[other]]
        if not common:
            return None
        sides: list[dict[tuple[Hashable, Hashable], dict[str, float]]] = [
            {run: self._values(name, run, metric, direction) for run in common} for name in (row, other)
        ]
        a, b = sides
        clusters = {key: name for run in common for key, name in self._clusters(run[0]).items()}
        if len({split for split, _ in common}) > 1:
            return paired_interval(a, b, clusters=clusters, draws=draws)
        lists = [[list(values.values()) for values in part.values()] for part in (a, b)]
        return paired_difference(lists[0], lists[1], draws=draws)

    def _values(self, row: str, run: Run, metric: str, direction: str | None) -> dict[str, float]:
        found: dict[str, float] = {}
        parts = [direction] if direction is not None else self.directions
        record = self.rows[row][run]
        each: list[dict[str, float]] = []
        for name in parts:
            side = _side(record, name, None)
            assert side is not None
            values = per_query(side, metric)
            ids = self.queries[run[0]][name]["ids"]
            each.append({f"{name} {key}": value for key, value in zip(ids, values, strict=True) if value is not None})
        total = sum(map(len, each))
        for part in each:
            # Each direction counts the same, however many queries it has.
            found |= {key: value * total / (len(parts) * len(part)) for key, value in part.items()}
        return found

    def _clusters(self, split: str) -> dict[str, str]:
        return {
            f"{name} {key}": identity
            for name, part in self.queries[split].items()
            for key, identity in zip(part["ids"], part["identities"], strict=True)
        }

    def mean_of(self, row: str, *path: str) -> float | None:
        """The mean over runs of a figure deep in the records, such as `"probe", "balanced_accuracy"`."""
        values = [_deep(record, path) for record in self.rows[row].values()]
        numbers = [float(value) for value in values if isinstance(value, (int, float))]
        return float(np.mean(numbers)) if numbers else None


def per_query(side: Mapping[str, Any], metric: str) -> list[float | None]:
    """Each query's value, null where nothing is relevant to it; average precision is 1 / rank unless it is given."""
    if metric in CUTS:
        return [None if rank is None else float(rank <= CUTS[metric]) for rank in side["ranks"]]
    if metric != "mAP@all":
        raise IsthmusError(f"{metric} is not kept for each query; compare {', '.join(CUTS)} or mAP@all.")
    if "precision" in side:
        return list(side["precision"])
    return [None if rank is None else 1.0 / rank for rank in side["ranks"]]


def _side(record: Mapping[str, Any], direction: str, setting: str | None) -> Mapping[str, Any] | None:
    wanted = record["setting"] if setting is None else setting
    for side in record["sides"]:
        if side["direction"] == direction and side["setting"] == wanted:
            return dict(side)
    return None


def _deep(record: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record
