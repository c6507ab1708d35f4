"""What a data-free benchmark will take, measured with teachers of random weights: they cost as much as any."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isthmus.benchmark.data_free_plan import DataFreePlanner
from isthmus.benchmark.data_free_protocol import Teacher
from isthmus.benchmark.jobs import Job, with_needs
from isthmus.config import RunConfig
from isthmus.config.sizes import sides
from isthmus.methods.data_free import INVERTED_AT_ONCE
from isthmus.methods.data_free_images import invert
from isthmus.models.classifier import Classifier
from isthmus.plan import Plan, measure
from isthmus.train.estimate import estimate

TRIED = 2  # steps of an inversion


class DataFreeEstimate:
    """Measures one run of each kind.

    Args:
        planner: of the runs.
        scratch: a folder for teachers of random weights.
    """

    def __init__(self, planner: DataFreePlanner, scratch: Path) -> None:
        self.protocol, self.scratch = planner.protocol, scratch
        self.tested = planner.tested
        self._seconds: float | None = None  # of an image that is embedded for the test

    def kind(self, job: Job) -> tuple[Any, ...]:
        """Teachers of one domain and of two, and the runs by what their students look at."""
        config, part = job.config, job.config.data_free
        if config.method == "classifier":
            return "teacher", config.data.query is None, config.data.gallery is None
        if job.measured is not None:
            return ("measured",)
        return part.images, part.students, tuple(sorted(job.needs))

    def one(self, job: Job) -> Plan:
        """Time, memory and disk of a run."""
        if not job.needs:
            return estimate(job.config)
        names = [name for name in job.needs if name != "data_free.bank"]
        needs = {name: self._stand_in(name.partition(".")[2]) for name in names}  # type: ignore[arg-type]
        config = with_needs(replace(job, needs=needs))
        if job.measured is not None:
            config.data_free.images = "none"
        elif config.data_free.images == "bank":
            config.data_free.images = "noise"  # the students' steps take as long, whatever they look at
        teacher = Path(next(iter(needs.values())))
        more = self.tested * self._embedding(teacher)
        if config.data_free.images == "inverted":
            more += self._inversion(config, teacher)
            config.data_free.images = "noise"  # the students' steps take as long, whatever they look at
        plan = estimate(config)
        return replace(plan, seconds=plan.seconds + more)

    @torch.inference_mode()
    def _embedding(self, folder: Path) -> float:
        """Seconds that a network like the teachers takes for an image."""
        if self._seconds is None:
            teacher = Classifier.load(folder)
            images = torch.rand(32, 3, *sides(teacher.preprocessing.size))
            self._seconds = measure(lambda: teacher.answer(images), warmup=1, repeats=2) / len(images)
        return self._seconds

    def _stand_in(self, kind: Teacher) -> Path:
        domain = kind == "modality"
        # One for both domains: teachers that began alike are mixed, which costs what it costs.
        folder = self.scratch / ("modality" if domain else "label")
        if not folder.is_dir():
            looks, names = self.protocol.looks, self.protocol.names
            classes = tuple(sorted(names)) if domain else self.protocol.known
            Classifier.create(
                looks.backbone, classes, looks.image_size, weights="random", kind="modality" if domain else "label"
            ).save(folder)
        return folder

    def _inversion(self, config: RunConfig, teacher: Path) -> float:
        """Seconds that the inverted images of both domains take."""
        settings = config.data_free.model_copy(update={"inversion_steps": TRIED})
        count = min(INVERTED_AT_ONCE, settings.inverted)
        start = time.perf_counter()
        invert(Classifier.load(teacher), torch.zeros(count, dtype=torch.int64), settings, torch.Generator())
        each = (time.perf_counter() - start) / TRIED
        return 2 * each * config.data_free.inversion_steps * -(-settings.inverted // count)
