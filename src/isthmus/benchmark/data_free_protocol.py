"""What a data-free benchmark runs on and with: images, classes, and the settings of each teacher and each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from isthmus.benchmark.data_free_classes import Images, divide
from isthmus.benchmark.data_free_rows import DataFreeRow, Setting
from isthmus.benchmark.protocol import sets
from isthmus.config import RunConfig
from isthmus.config.sections import DomainConfig, ModelConfig
from isthmus.config.sizes import sides
from isthmus.errors import IsthmusError

Teacher = Literal["photo", "sketch", "unified", "modality"]
TEACHERS: tuple[Teacher, ...] = ("photo", "sketch", "unified", "modality")
SMALLEST = 32
BANK = "images"  # stands for the run that made the images, until there is one
MATCHING = ("generators", "inverted")  # images that the modality classifier takes part in making
# What the benchmark sets itself, for the runs and for the teachers.
_OWN = (
    "method", "seed", "data.query", "data.gallery", "data_free.photo", "data_free.sketch", "data_free.unified",
    "data_free.modality", "data_free.names", "data_free.images", "data_free.labels", "data_free.crossing",
)  # fmt: skip
_OWN_OF_TEACHERS = ("method", "seed", "data.query", "data.gallery", "data.source", "classifier.target")


@dataclass(frozen=True)
class DataFreeProtocol:
    """Images, classes and common settings.

    Attributes:
        sketch, photo: the images of both domains; sketches are the model's queries.
        known: classes of the teachers.
        held_out: classes that nothing is trained on.
        overlap: share of the known classes that both teachers know.
        preset, settings: of the data-free runs.
        teacher_preset, teacher_settings: of the classifiers.
        backbone, weights: of the classifiers, and so of the students; None: as the preset says.
        alternative: another data set's sketches and photos.
    """

    sketch: Images
    photo: Images
    known: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    overlap: float = 1.0
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    teacher_preset: str = "default"
    teacher_settings: Mapping[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    weights: str | None = None
    alternative: tuple[DomainConfig, DomainConfig] | None = None

    def __post_init__(self) -> None:
        for option, settings, own in (
            ("--set", self.settings, _OWN),
            ("--teacher-set", self.teacher_settings, _OWN_OF_TEACHERS),
        ):
            for name in own:
                if sets(settings, name):
                    raise IsthmusError(f"The benchmark sets {name} itself; leave it out of {option}.")
        _ = self.base, self.teacher("photo", 0, {})  # a wrong setting is said before anything is trained

    @property
    def names(self) -> tuple[str, str]:
        """The query and the gallery domain."""
        return self.sketch.name, self.photo.name

    def classes_of(self, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the sketch and the photo teacher know."""
        return divide(self.known, self.overlap, seed)

    def teacher(self, kind: Teacher, seed: int, tables: Mapping[str, Path]) -> RunConfig:
        """The settings of a classifier.

        Args:
            kind: which one.
            seed: of the row; each teacher has one of its own, so that random weights are not the same ones.
            tables: training images by domain.
        """
        layer: dict[str, Any] = {
            "method": "classifier",
            "seed": len(TEACHERS) * seed + TEACHERS.index(kind),
            "classifier.target": "domain" if kind == "modality" else "label",
        }
        for section, images, alone in (("query", self.sketch, "sketch"), ("gallery", self.photo, "photo")):
            if kind in (alone, "unified", "modality"):
                layer[f"data.{section}"] = _domain(images.name, tables)
        named = {"model.backbone": self.backbone, "model.weights": self.weights}
        given = {name: value for name, value in named.items() if value is not None}
        made = RunConfig.build(self.teacher_preset, layer, given, dict(self.teacher_settings))
        if kind == "modality":
            # Domains are told apart by their looks, for which less will do: it is asked about every generated image.
            made.model.image_size = max(SMALLEST, min(sides(made.model.image_size)) // 2)
        return made

    @cached_property
    def looks(self) -> ModelConfig:
        """Backbone, weights and image size of the teachers."""
        return self.teacher("photo", 0, {}).model

    @cached_property
    def base(self) -> RunConfig:
        """The settings of the method itself."""
        config = RunConfig.build(
            self.preset, {"method": "data-free", "data_free.names": self.names}, dict(self.settings)
        )
        part = config.data_free
        if part.images != "generators" or not part.crossing or part.readout == "posteriors":
            raise IsthmusError("The benchmark's method generates images and crosses domains; choose another --preset.")
        return config

    def run(self, row: DataFreeRow, setting: Setting, seed: int, tables: Mapping[str, Path]) -> RunConfig:
        """The settings of a row, without its teachers.

        Args:
            row: the row.
            setting: with independent teachers or a unified one.
            seed: of everything random.
            tables: training images by domain, of a row that looks at them.
        """
        base = self.base.model_dump()
        students = row.students or self.base.data_free.students
        base["model"] = self._model(students)
        base["data"]["holdout"] = 0.0  # nothing is chosen by an image
        changes: dict[str, Any] = {"seed": seed, "data_free.students": students, **row.settings}
        if row.bank:
            # `bank` is filled in when the run begins, with the folder of the method's run.
            changes |= {"data_free.images": "bank", "data_free.bank": BANK}
        if row.name == "unimodal" and not (
            base["data_free"]["proxy_weight"] or base["data_free"]["distillation_weight"]
        ):
            changes["data_free.distillation_weight"] = 1.0  # what remains when nothing is compared across domains
        if row.looks == "private":
            changes |= {"data.query": _domain(self.names[0], tables), "data.gallery": _domain(self.names[1], tables)}
        elif row.looks == "alternative":
            assert self.alternative is not None
            changes |= {
                "data.query": self.alternative[0].model_dump(),
                "data.gallery": self.alternative[1].model_dump(),
            }
        return RunConfig.build(self.preset, base, changes)

    def teachers_of(self, config: RunConfig, setting: Setting) -> dict[str, Teacher]:
        """The teachers that a run needs, by the setting that names them."""
        part = config.data_free
        needed: dict[str, Teacher] = {"data_free.unified": "unified"}
        if setting == "independent":
            needed = {"data_free.photo": "photo", "data_free.sketch": "sketch"}
        if part.images in MATCHING and part.modality_weight:
            needed["data_free.modality"] = "modality"
        return needed

    def _model(self, students: str) -> dict[str, Any]:
        """The section `model`: students are built as the teachers are."""
        own, looks = self.base.model, self.looks
        values = ModelConfig().model_dump() | {"freeze_norm": own.freeze_norm, "centring": own.centring}
        if students != "teachers":
            values |= {"backbone": looks.backbone, "image_size": looks.image_size}
        if students == "scratch":
            values["freeze_norm"] = False
        if students == "weights":
            started = self.base.data_free.students == "weights"
            values["weights"] = own.weights if started else looks.weights
        return values


def started_from(config: RunConfig) -> str:
    """How a run's students start, in a word or two.

    Example:
        >>> started_from(RunConfig.build("default", {"method": "data-free"}))
        'teachers'
    """
    part = config.data_free
    mean = "mean of the teachers" if part.shared else ""
    if part.images == "none":
        return f"not trained{': ' + mean if mean else ''}"
    start = {"teachers": mean or "teachers", "scratch": "random weights", "weights": "pretrained weights"}
    return start[part.students]


def _domain(name: str, tables: Mapping[str, Path]) -> dict[str, Any]:
    return {"name": name, "train": str(tables[name]) if name in tables else None}
