"""The list of runs that a benchmark consists of, in the order in which they are to be done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isthmus.benchmark.jobs import Job
from isthmus.benchmark.measure import MeasureIhda, queries_of
from isthmus.benchmark.prints import note_once, part_of, settings_fingerprint, table_fingerprint
from isthmus.benchmark.protocol import Budget, Protocol, Split
from isthmus.benchmark.rows import Variant
from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest
from isthmus.data.paired import read_paired_data
from isthmus.io import fingerprint
from isthmus.train.run import absolute_paths


@dataclass
class Planner:
    """Makes the jobs of a protocol.

    Args:
        protocol: splits and settings; checked here.
        results: folder of the small results, `ROW/SPLIT-SEED.json`.
        work: folder of runs, of the tables made here and of the steps 1 that rows share.
        shared: folder of the steps 1, where several planners share them; default: in `work`.
        triplets: human triplets.
        keep: leave checkpoints and weights in place.
    """

    protocol: Protocol
    results: Path
    work: Path
    shared: Path | None = None
    triplets: Path | None = None
    keep: bool = False
    _budgets: dict[str, Budget] = field(default_factory=dict)
    _prints: dict[tuple[str, bool], str] = field(default_factory=dict)
    _checked: set[tuple[object, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.protocol.check()

    def jobs(self, rows: Sequence[Variant], seeds: Iterable[int]) -> list[Job]:
        """All runs: for each seed every split with its rows, a step 1 before the first row that starts from it."""
        jobs: list[Job] = []
        first: set[Path] = set()
        for seed in seeds:
            for split in self.protocol.splits:
                for row in rows:
                    for job in self.of(row, split, seed):
                        if job.run not in first:
                            jobs.append(job)
                        if job.result is None:
                            first.add(job.run)
        return jobs

    def of(self, row: Variant, split: Split, seed: int) -> list[Job]:
        """The run of a row, and before it the step 1 that it starts from.

        Raises:
            IsthmusError: its settings are wrong, or the tables hold nothing to train with.
        """
        budget = self.budget(split)
        pairs = self._pairs(row, split, seed)
        config = absolute_paths(self.protocol.run(row, split, seed, budget, pairs))
        self._check(config, split)
        before: list[Job] = []
        key = [settings_fingerprint(config), self._print(split), row.name]
        if row.kind == "both":
            step = self._step_1(row, split, seed, budget)
            before = [step]
            key.append(step.key)
        steps = 0 if row.kind == "frozen" else budget.epochs * budget.steps if before else budget.total
        name = f"{split.name}-{seed}"
        return [
            *before,
            Job(
                name=f"{row.name} {name}",
                row=row.name,
                split=split.name,
                seed=seed,
                config=config,
                run=self.work / "runs" / row.name / name,
                result=self.results / row.name / f"{name}.json",
                key=fingerprint(key),
                steps=steps,
                needs={"ihda.start": before[0].run} if before else {},
                measure=MeasureIhda(split.pairs.absolute(), self.triplets),
                keep=self.keep,
            ),
        ]

    def _check(self, config: RunConfig, split: Split) -> None:
        """Read the run's data now rather than after hours of other runs; once for all that read the same."""
        source = config.data.source is not None
        key = (split.name, source, config.ihda.stages, *config.ihda.attributes)
        if config.method == "ihda" and key not in self._checked:
            read_paired_data(
                config.data,
                seed=config.seed,
                attributes=config.ihda.attributes,
                source="optional" if config.ihda.stages == "target" else "needed",
                unpaired=config.ihda.unpaired,
            )
            self._checked.add(key)

    def budget(self, split: Split) -> Budget:
        """Steps of IHDA on a split."""
        if split.name not in self._budgets:
            self._budgets[split.name] = self.protocol.budget(split)
        return self._budgets[split.name]

    def _step_1(self, row: Variant, split: Split, seed: int, budget: Budget) -> Job:
        config = absolute_paths(self.protocol.step_1(split, seed, row))
        key = fingerprint([settings_fingerprint(config), self._print(split, first=True)])
        return Job(
            name=f"step 1 of {split.name}-{seed}",
            row="",
            split=split.name,
            seed=seed,
            config=config,
            run=(self.shared or self.work / "step1") / f"{split.name}-{seed}-{key[:8]}",
            result=None,
            key=key,
            steps=budget.source_epochs * budget.source_steps,
            keep=self.keep,
        )

    def _pairs(self, row: Variant, split: Split, seed: int) -> Path:
        if row.share >= 1:
            return split.pairs
        file = self.work / "tables" / f"{split.name}-{seed}-{row.name}.parquet"
        part_of(split.rows, row.share, seed).save(file)
        return file

    def _print(self, split: Split, *, first: bool = False) -> str:
        """Of the split's tables. A part of the pairs follows from them, the seed and the row: also in the key."""
        key = (split.name, first)
        if key not in self._prints:
            rows = Manifest.load(split.first) if first and split.first is not None else split.rows
            self._prints[key] = table_fingerprint(rows, split.source_rows)
        return self._prints[key]

    def write_queries(self) -> None:
        """Note the common settings, and which queries the ranks of each split's results stand for.

        Raises:
            IsthmusError: results of other settings or queries are there already.
        """
        common = {"settings": settings_fingerprint(self.protocol.base(self.protocol.splits[0], 0))}
        note_once(
            self.results / "settings.json",
            common,
            f"{self.results} holds results of other settings, which make no table with these; choose another --out.",
        )
        names = (self.protocol.query, self.protocol.gallery)
        for split in self.protocol.splits:
            file = self.results / "splits" / f"{split.name}.json"
            wrong = f"{file} is of other test images than those of {split.pairs}; choose another --out."
            note_once(file, queries_of(split.rows, names), wrong)
