"""Data-free retrieval: a photo encoder and a sketch encoder from trained classifiers alone (CrossX-DFL, CVPR 2023).

Two generators make photos and sketches of one z on which the teachers are sure, see the same class, and differ from the
students; two students, which start from the teachers, learn one space from what was made. One step is an update of the
generators, whose images go into a bank, and some of the students on batches of that bank. No image is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.samplers import epoch_batches, local_part
from isthmus.data.training import TrainingData, read_training_data
from isthmus.io import stable_hash
from isthmus.methods.base import Judging, Method, Processes, Verdict
from isthmus.methods.data_free_generators import GeneratorStep
from isthmus.methods.data_free_images import Pictures, draw_classes, gaussian, invert
from isthmus.methods.data_free_judge import DataFreeJudge, Untrained
from isthmus.methods.data_free_students import Students
from isthmus.methods.image_bank import ImageBank
from isthmus.methods.image_bank_files import load_bank, save_bank
from isthmus.methods.jitter import Jitter
from isthmus.methods.judge import Judge
from isthmus.models.data_free import ALIKE, GENERATORS, DataFreeModel, build_data_free, wants_mixing
from isthmus.models.teachers import SIDES, Teachers, load_teachers
from isthmus.progress import track

INVERTED_AT_ONCE = 64
SAMPLES = "samples"


class Plan(NamedTuple):
    """One step: its number in the run, what its draws depend on, and the rows of both domains' images, if any."""

    number: int
    draw: tuple[int, int, int]
    rows: tuple[list[int], list[int]] | None = None


class Batch(NamedTuple):
    """One process's share of a step: the images of both domains, if there are any."""

    plan: Plan
    views: tuple[Tensor, Tensor] | None = None
    codes: tuple[Tensor, Tensor] | None = None


class DataFree(Method):
    """Generators against students, under frozen teachers."""

    name = "data-free"
    auto = ()  # nothing that could choose may be looked at: the last epoch
    model: DataFreeModel

    def __init__(
        self, config: RunConfig, model: DataFreeModel, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)
        settings = config.data_free
        assert model.teachers is not None
        self.teachers: Teachers = model.teachers
        self.teachers.to(self.device, channels_last=config.train.channels_last)
        self.proxies = model.proxies.to(self.device)
        self.local = config.train.batch_size // processes.world
        self.students = Students(self)
        self.students_begun = settings.images != "generators"
        self.generating = settings.images == "generators"
        self.trains = settings.images != "none"  # type: ignore[misc]
        self.bank: ImageBank | None = None
        if settings.images in ("generators", "inverted"):
            self.bank = ImageBank(settings.bank_mb, settings.image_size, batch=self.local, seed=config.seed)
        elif settings.images == "bank":
            self.bank = load_bank(str(settings.bank), self.teachers)
        light = settings.light
        self.jitter = Jitter(pad=settings.shift, flip=settings.mirror, brightness=light, contrast=light)
        #: images and seconds of each phase since the last epoch's end
        self.clock = {"generators": [0.0, 0.0], "students": [0.0, 0.0]}
        data.notes += _notes(config, self.teachers)

    @classmethod
    def read(cls, config: RunConfig) -> TrainingData:
        """Nothing; for a comparison with `data_free.images=folders` the images of those."""
        if config.data_free.images == "folders":
            return read_training_data(config.data, synthetic=False, seed=config.seed)
        return TrainingData(config.data_free.names, ([], []), ([], []))

    @classmethod
    def build(cls, config: RunConfig, data: TrainingData) -> DataFreeModel:
        """Teachers, students and generators."""
        settings = config.data_free
        teachers = load_teachers(
            settings.photo, settings.sketch, settings.unified, settings.modality, data.names, trust=settings.trust
        )
        return build_data_free(config, teachers)

    def rate_of(self, part: str) -> float:
        """Generators have a learning rate of their own."""
        return self.config.data_free.generator_rate if part in GENERATORS else 1.0

    def start(self) -> None:
        """Inverted images are made before the first step."""
        if self.config.data_free.images == "inverted":
            self._invert()

    def epoch(self, number: int) -> Sequence[Plan]:
        """`train.steps_per_epoch` steps."""
        seed, config = self.config.seed, self.config
        if not self.trains:
            return []
        steps = config.train.steps_per_epoch or 100
        plans = [Plan(number * steps + step, (seed, number, step)) for step in range(steps)]
        if config.data_free.images != "folders":
            return plans
        size = config.train.batch_size * config.data_free.encoder_steps
        rows = [
            epoch_batches(len(part), size, steps, seed=seed, epoch=number, name=self.data.names[side])
            for side, part in enumerate(self.data.train)
        ]
        return [plan._replace(rows=(a, b)) for plan, a, b in zip(plans, *rows, strict=True)]

    def load(self, plan: Plan) -> Batch:
        """This process's images, where the run looks at any."""
        if plan.rows is None:
            return Batch(plan)
        views, codes = [], []
        places = {name: n for n, name in enumerate(self.teachers.classes)}
        for rows, wanted in zip(self.data.train, plan.rows, strict=True):
            own = [rows[i] for i in local_part(wanted, self.processes.rank, self.processes.world)]
            views.append(torch.stack([self.source.train_view(row, self.config.augment, *plan.draw) for row in own]))
            codes.append(torch.tensor([places.get(str(row.label), -1) for row in own]))
        return Batch(plan, (views[0], views[1]), (codes[0], codes[1]))

    def updates(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """The generators once, then the students on what was made up to now."""
        settings, plan = self.config.data_free, batch.plan
        dice = torch.Generator().manual_seed(stable_hash("data-free", self.processes.rank, *plan.draw) >> 1)
        # By the number of the step, so that a run that goes on knows it too.
        self.students_begun = not self.generating or plan.number >= settings.warmup
        if self.generating:
            begun = time.perf_counter()
            z = torch.randn(self.local, settings.noise, generator=dice).to(self.device)
            step = GeneratorStep(self, z, self._classes(dice) if settings.drawn_classes else None)
            yield GENERATORS, step.losses()
            self._keep(step.pictures())
            self._count("generators", 2 * self.local, begun)
        if self.students_begun:
            for turn in range(settings.encoder_steps):
                begun = time.perf_counter()
                yield tuple(self.model.encoders()), self.students.losses(self._pictures(batch, turn, dice))
                self.students.after_step()
                self._count("students", 2 * self.local, begun)

    def _classes(self, dice: torch.Generator, count: int | None = None) -> tuple[Tensor, Tensor]:
        query, gallery = draw_classes(self.teachers, self.local if count is None else count, dice)
        return query.to(self.device), gallery.to(self.device)

    def _keep(self, made: Pictures) -> None:
        assert self.bank is not None
        query, gallery = made.images
        self.bank.add(gallery, query, made.codes[1], sketch_codes=made.codes[0])

    def _count(self, phase: str, images: int, begun: float) -> None:
        self.clock[phase][0] += images * self.processes.world
        self.clock[phase][1] += time.perf_counter() - begun

    def _pictures(self, batch: Batch, turn: int, dice: torch.Generator) -> Pictures:
        """What the students look at in one of the step's updates."""
        settings = self.config.data_free
        if self.bank is not None:
            drawn = self.bank.draw(self.local, dice, self.jitter)
            images = (drawn.sketches.to(self.device), drawn.photos.to(self.device))
            return Pictures(images, (drawn.sketch_codes.to(self.device), drawn.photo_codes.to(self.device)), True)
        if batch.views is not None and batch.codes is not None:
            # A domain of fewer images than all updates of a step want begins anew.
            places = [(torch.arange(self.local) + turn * self.local) % len(side) for side in batch.views]
            views = [side[at].to(self.device).float() / 255 for side, at in zip(batch.views, places, strict=True)]
            if settings.labels == "given":
                given = [side[at].to(self.device) for side, at in zip(batch.codes, places, strict=True)]
                return Pictures((views[0], views[1]), (given[0], given[1]), False)
            return self._seen(views[0], views[1])
        made = [gaussian(self.local, settings.image_size, dice).to(self.device) for _ in SIDES]
        return self._seen(made[0], made[1])

    @torch.no_grad()
    def _seen(self, query: Tensor, gallery: Tensor) -> Pictures:
        """Images with the classes that the teachers see in them."""
        codes = [
            self.teachers.common(side, self.teachers.answer(side, images).logits.argmax(dim=1))
            for side, images in zip(SIDES, (query, gallery), strict=True)
        ]
        return Pictures((query, gallery), (codes[0], codes[1]), False)

    def _invert(self) -> None:
        assert self.bank is not None
        settings, modality = self.config.data_free, self.teachers.modality
        starts = range(0, settings.inverted, INVERTED_AT_ONCE)
        for start in track(starts, len(starts), "inverting", per_item=INVERTED_AT_ONCE):
            dice = torch.Generator().manual_seed(
                stable_hash("inverted", self.config.seed, self.processes.rank, start) >> 1
            )
            codes = self._classes(dice, min(INVERTED_AT_ONCE, settings.inverted - start))
            made = [
                invert(
                    self.teachers.sides[side], self.teachers.columns[side][codes[side]], settings, dice,
                    None if modality is None else (modality, modality.classes.index(self.teachers.names[side])),
                    grey=settings.grey and side == 0,
                )
                for side in SIDES
            ]  # fmt: skip
            self._keep(Pictures((made[0], made[1]), codes, True))

    def judge(self, out: Path, *, autocast: bool) -> Judging:
        """What the generators make, and how far students and teachers agree on it."""
        if self.config.data_free.images == "folders":
            return Judge(self.model, self.data, self.source, self.config.data.workers, autocast)
        return DataFreeJudge(self, out / SAMPLES) if self.trains else Untrained(self)

    def keep(self, verdict: Verdict) -> None:
        """Each domain's mean belongs to the model."""
        assert verdict.means is not None
        self.model.means = verdict.means

    def summary(self, figures: dict[str, float]) -> dict[str, Any]:
        """What a kept model says of its teachers, and whether it is data-free."""
        settings = self.config.data_free
        return {
            "data_free": settings.images != "folders" and settings.students != "weights",
            "students": settings.students,
            "images": settings.images,
            "teachers": {
                name: {"fingerprint": part.fingerprint, "accuracy": part.provenance.get("accuracy")}
                for name, part in zip(self.teachers.names, self.teachers.sides, strict=True)
            },
            "classes": list(self.teachers.classes),
            "matched_classes": self.teachers.matched,
        }

    def images_per_step(self) -> int:
        """Images that the generators make and the students see in a step, over all processes."""
        settings = self.config.data_free
        return (
            2
            * self.config.train.batch_size
            * (int(self.generating) + int(self.students_begun) * settings.encoder_steps)
        )

    def finish(self, out: Path) -> None:
        """What was generated stays, for other students."""
        if self.bank is not None and len(self.bank) and self.config.data_free.images != "bank":
            save_bank(self.bank, self.teachers, out)

    def state(self) -> dict[str, Any]:
        """Bank, unless another run's, and queue."""
        own = self.bank is not None and self.config.data_free.images != "bank"
        return {"queue": self.students.queue.state(), "bank": self.bank.state() if own and self.bank else None}

    def restore(self, state: dict[str, Any]) -> None:
        """Take both back."""
        self.students.queue.restore(state["queue"])
        if self.bank is not None and state["bank"] is not None:
            self.bank.restore(state["bank"])


def _notes(config: RunConfig, teachers: Teachers) -> list[str]:
    settings, notes = config.data_free, list(teachers.notes)
    if wants_mixing(settings) and teachers.likeness < ALIKE:
        notes.append(
            f"The teachers did not begin with the same weights (cosine {teachers.likeness:.2f}): none are mixed "
            "(data_free.mixing)."
        )
    if settings.images in ("generators", "inverted"):
        if settings.modality_weight and teachers.modality is None:
            notes.append(
                "No --modality-classifier is given: the term that tells photos from sketches is left out; what else "
                "does are the teachers' batch-norm statistics."
            )
        if settings.statistics_weight:
            without = {part.where for part in teachers.sides if not part.norms()}
            notes += [f"{where} has no batch norms: its term on feature statistics is left out." for where in without]
    if settings.students == "weights":
        notes.append("Students start from model.weights, which saw images: this run is not data-free.")
    if settings.images == "folders":
        notes.append("Students look at the images of two folders: this run is not data-free.")
    return notes
