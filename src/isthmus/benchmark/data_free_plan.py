"""The runs of a data-free benchmark: teachers once a seed, the method once, then every row that starts from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isthmus.benchmark.data_free_measure import HELD_OUT, KNOWN, MeasureRow, MeasureTeacher, queries_of_classes
from isthmus.benchmark.data_free_protocol import BANK, DataFreeProtocol, Teacher
from isthmus.benchmark.data_free_rows import METHOD, NAMED, DataFreeRow, Setting
from isthmus.benchmark.jobs import Job
from isthmus.benchmark.prints import labels_fingerprint, note_once, settings_fingerprint
from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.data.training import read_training_data
from isthmus.io import fingerprint, make_folder
from isthmus.train.run import absolute_paths

SPLIT = "test"  # of the results: all rows and seeds are tested on the same images


@dataclass
class DataFreePlanner:
    """Makes the jobs of a protocol.

    Args:
        protocol: images, classes and settings.
        results: folder of the small results, `SETTING/ROW/SEED.json`.
        work: folder of tables, teachers and runs.
        keep: leave checkpoints and weights in place; teachers' weights stay anyway.
        tables: folder of the tables; default: in `work`.
    """

    protocol: DataFreeProtocol
    results: Path
    work: Path
    keep: bool = False
    tables: Path | None = None
    _prints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work = self.work.absolute()
        self.results = self.results.absolute()
        self._folder = make_folder((self.tables or self.work / "tables").absolute())
        wanted = {KNOWN: self.protocol.known, HELD_OUT: self.protocol.held_out}
        self.tests: dict[str, Path] = {}
        for name, classes in wanted.items():
            if not classes:
                continue
            splits = ("test",) if name == KNOWN else ()  # of held-out classes no image was learned from
            rows = [row for part in self._sides for row in part.of(classes, *splits)]
            self.tests[name] = self._save(f"test-{name}", [replace(row, split="test") for row in rows])

    @property
    def _sides(self) -> tuple[Any, Any]:
        return self.protocol.sketch, self.protocol.photo

    def _save(self, name: str, rows: Iterable[Row]) -> Path:
        table = Manifest(rows)
        mark = labels_fingerprint(table)
        # Named after what it holds: no other command's runs lose theirs.
        path = self._folder / f"{name}-{mark[:8]}.parquet"
        table.save(path)
        self._prints[str(path)] = mark
        return path

    def jobs(self, rows: Mapping[Setting, Sequence[DataFreeRow]], seeds: Iterable[int]) -> list[Job]:
        """All runs: for each seed and setting every row, each teacher before the first row that starts from it."""
        jobs: list[Job] = []
        for seed in seeds:
            tables = self._tables(seed)
            made: dict[Teacher, Job] = {}
            for setting, wanted in rows.items():
                method: Job | None = None
                for row in wanted:
                    if row.of_method and method is None:
                        begun = self._with_teachers(NAMED[METHOD], setting, seed, tables, made, jobs)
                        method = self._method(setting, seed, *begun)
                        jobs.append(method)
                    config, needs = self._with_teachers(row, setting, seed, tables, made, jobs)
                    if row.bank:
                        config.data_free.bank = BANK  # no path: results are the same in any folder
                    if method is not None and row.of_method:
                        needs["data_free.bank"] = method
                    jobs.append(self._row(row, setting, seed, config, needs))
        return jobs

    def _with_teachers(
        self, row: DataFreeRow, setting: Setting, seed: int, tables: dict[str, Path], made: dict[Teacher, Job],
        jobs: list[Job],
    ) -> tuple[RunConfig, dict[str, Job]]:  # fmt: skip
        """A row's settings and the teachers that it needs; those that weren't `made` yet are put among the jobs."""
        config = absolute_paths(self.protocol.run(row, setting, seed, tables))
        teachers = self.protocol.teachers_of(config, setting)
        for kind in teachers.values():
            if kind not in made:
                made[kind] = self._teacher(kind, seed, tables)
                jobs.append(made[kind])
        return config, {name: made[kind] for name, kind in teachers.items()}

    def _method(self, setting: Setting, seed: int, config: RunConfig, needs: Mapping[str, Job]) -> Job:
        """The method's run: measured as its row, and its images are what other students learn from."""
        key = fingerprint(["images", settings_fingerprint(config), *(job.key for job in needs.values())])
        return Job(
            name=f"{METHOD} {setting} {seed}, training",
            row="",
            split=SPLIT,
            seed=seed,
            config=config,
            run=self.work / "methods" / f"{setting}-{seed}-{key[:8]}",
            result=None,
            key=key,
            steps=config.train.epochs * (config.train.steps_per_epoch or 100),
            needs={name: job.run for name, job in needs.items()},
            keep=self.keep,
            lasting=True,
        )

    def _tables(self, seed: int) -> dict[str, Path]:
        """What each domain's teacher learns from, by domain."""
        known = self.protocol.classes_of(seed)
        return {
            part.name: self._save(f"{part.name}-{seed}", part.of(classes, "train", "val"))
            for part, classes in zip(self._sides, known, strict=True)
        }

    def _teacher(self, kind: Teacher, seed: int, tables: dict[str, Path]) -> Job:
        config = absolute_paths(self.protocol.teacher(kind, seed, tables))
        domains = [domain.name for domain in (config.data.query, config.data.gallery) if domain is not None]
        read = [str(self.tests[KNOWN]), *(str(tables[name]) for name in domains)]
        key = fingerprint([settings_fingerprint(config), *(self._prints[path] for path in read)])
        steps = config.train.steps_per_epoch
        if steps is None:
            counts = [len(Manifest.load(tables[name]).select(split="train")) for name in domains]
            steps = max(1, max(counts) // config.train.batch_size)
        return Job(
            name=f"{kind} teacher {seed}",
            row="",
            split=SPLIT,
            seed=seed,
            config=config,
            run=self.work / "teachers" / f"{kind}-{seed}-{key[:8]}",
            result=None,
            key=key,
            steps=steps * config.train.epochs,
            measure=MeasureTeacher(self.tests[KNOWN]),
            keep=self.keep,
            lasting=True,
        )

    def _row(self, row: DataFreeRow, setting: Setting, seed: int, config: RunConfig, needs: Mapping[str, Job]) -> Job:
        key = [row.name, settings_fingerprint(config), *(job.key for job in needs.values())]
        key += [self._prints[str(path)] for path in self.tests.values()]
        key += [self._alternative(config)] if row.looks == "alternative" else []
        steps = config.train.epochs * (config.train.steps_per_epoch or 100)
        measured = needs["data_free.bank"].run if row.of_method and not row.bank else None
        return Job(
            name=f"{row.name} {setting} {seed}",
            row=row.name,
            split=SPLIT,
            seed=seed,
            config=config,
            run=self.work / "runs" / setting / row.name / str(seed),
            result=self.results / setting / row.name / f"{seed}.json",
            key=fingerprint(key),
            steps=0 if config.data_free.images == "none" or measured else steps,
            needs={name: job.run for name, job in needs.items()},
            measure=MeasureRow(self.tests[KNOWN], self.tests.get(HELD_OUT), row.dot, row.part),
            keep=self.keep,
            measured=measured,
        )

    def _alternative(self, config: RunConfig) -> str:
        """Of the other data set's images, read now rather than after hours of other runs."""
        if "alternative" not in self._prints:
            data = read_training_data(config.data, synthetic=False, seed=0)
            self._prints["alternative"] = labels_fingerprint(*data.train)
        return self._prints["alternative"]

    def about(self) -> dict[str, Any]:
        """What every row has in common, for the table's head."""
        looks, protocol = self.protocol.looks, self.protocol
        shared = looks.weights != "random"
        return {
            "domains": list(protocol.names),
            "known": list(protocol.known),
            "held_out": list(protocol.held_out),
            "overlap": protocol.overlap,
            "backbone": looks.backbone,
            "image_size": looks.image_size,
            "teachers_start": Path(looks.weights).name,
            "one_initialisation": shared,
            "test_images": self._counts(),
        }

    def _counts(self) -> dict[str, list[int]]:
        loaded = {name: Manifest.load(path) for name, path in self.tests.items()}
        return {
            name: [len(table.select(domain=domain)) for domain in self.protocol.names] for name, table in loaded.items()
        }

    @property
    def tested(self) -> int:
        """Images that each row is measured on."""
        return sum(map(sum, self._counts().values()))

    def write_queries(self, settings: Iterable[Setting]) -> None:
        """Note the common settings, and which queries the results' values stand for.

        Raises:
            IsthmusError: results of other settings, classes or images are there already.
        """
        common = {
            "settings": settings_fingerprint(self.protocol.base),
            "teachers": settings_fingerprint(self.protocol.teacher("photo", 0, {})),
        }
        queries = {
            name: queries_of_classes(Manifest.load(path), self.protocol.names) for name, path in self.tests.items()
        }
        for setting in settings:
            folder = self.results / setting
            other = f"{folder} holds results of other"
            note_once(folder / "settings.json", common, f"{other} settings; choose another --out.")
            note_once(folder / "about.json", self.about(), f"{other} classes or teachers; choose another --out.")
            note_once(folder / "splits" / f"{SPLIT}.json", queries, f"{other} test images; choose another --out.")
