"""The settings of a run: put together from presets, YAML and `--set`, checked together, fingerprinted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from isthmus.config.classifier import ClassifierConfig
from isthmus.config.data_free import DataFreeConfig
from isthmus.config.ihda import IhdaConfig
from isthmus.config.presets import preset_of
from isthmus.config.sections import (
    AugmentConfig,
    CutConfig,
    DataConfig,
    LossConfig,
    ModelConfig,
    Section,
    TrainConfig,
    sentence_of,
)
from isthmus.config.sizes import show, sides
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_text, fingerprint

CUT_METHODS = ("cut", "fastcut")


class RunConfig(Section):
    """All settings of a run.

    Example:
        >>> RunConfig.build("default", {"method": "cds", "train.lr": 1e-3}).train.lr
        0.001
    """

    method: str = "syncdr"
    preset: str = "default"
    seed: int = Field(0, ge=0)
    data: DataConfig = DataConfig()  # copied by pydantic for each run
    augment: AugmentConfig = AugmentConfig()  # copied by pydantic for each run
    model: ModelConfig = ModelConfig()  # copied by pydantic for each run
    loss: LossConfig = LossConfig()  # copied by pydantic for each run
    cut: CutConfig = CutConfig()  # copied by pydantic for each run
    ihda: IhdaConfig = IhdaConfig()  # copied by pydantic for each run
    classifier: ClassifierConfig = ClassifierConfig()  # copied by pydantic for each run
    data_free: DataFreeConfig = DataFreeConfig()  # copied by pydantic for each run
    train: TrainConfig = TrainConfig()  # copied by pydantic for each run

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        self._sizes()
        if self.data.query and self.data.gallery and self.data.query.name == self.data.gallery.name:
            raise ValueError("data.query.name and data.gallery.name are equal; give the two domains different names")
        if self.train.batch_size < 2 and self.method not in CUT_METHODS:
            raise ValueError("train.batch_size = 1 is too small: images are told apart from others of their batch")
        if self.train.batch_size % (self.train.devices * self.train.nodes):
            raise ValueError("train.batch_size can't be divided among the processes; make it a multiple of them")
        self._only_what_the_method_reads()
        return self

    def _sizes(self) -> None:
        size, resize = self.model.image_size, self.augment.resize
        height, width = sides(size)
        if self.method in CUT_METHODS:
            for name, value in (("model.image_size", size), ("augment.resize", resize)):
                if isinstance(value, tuple):
                    raise ValueError(f"{name} = {show(value)} is not square, as {self.method} needs it; give one side")
            if height % 4 or height < 32:
                raise ValueError(f"model.image_size = {height} must be a multiple of 4 from 32 on for {self.method}")
        if resize is None:
            return
        if isinstance(resize, int) and isinstance(size, tuple):
            # Squashed to a square, and then a part of it cut out: hardly what anybody means.
            raise ValueError(
                f"augment.resize = {resize} is square and model.image_size = {show(size)} is not; give height x width"
            )
        if sides(resize)[0] < height or sides(resize)[1] < width:
            raise ValueError("augment.resize is smaller than model.image_size; a crop can't be larger than the image")

    def _only_what_the_method_reads(self) -> None:
        """A setting that would change nothing is a misunderstanding."""
        mine = {"cut": CUT_METHODS, "ihda": ("ihda",), "classifier": ("classifier",), "data_free": ("data-free",)}
        for name, methods in mine.items():
            part = getattr(self, name)
            if self.method not in methods and part != type(part)():
                raise ValueError(
                    f"{self.method} doesn't use settings {name}.*; leave them out, or choose --method {methods[0]}"
                )
        useless: list[str] = []
        reads: tuple[str, ...] = ()
        if self.method != "ihda" and self.data.source is not None:
            raise ValueError(f"{self.method} has no use for data.source; leave it out, or choose --method ihda")
        if self.method in ("ihda", "classifier", "data-free", *CUT_METHODS):
            useless += ["data.synthetic"] if self.data.synthetic else []
            useless += ["train.balance"] if self.train.balance else []
            useless += _changed("loss", self.loss, LossConfig())
        if self.method == "classifier":
            if self.train.select == "labels":
                raise ValueError(
                    "train.select = labels scores retrieval; leave it out (auto: validation accuracy), or name "
                    "balanced_accuracy or last"
                )
            reads = ("model.backbone", "model.weights", "model.image_size", "model.freeze_norm")
            useless += _changed("model", self.model, ModelConfig())
        if self.method == "data-free":
            useless += self._data_free()
        if self.method in CUT_METHODS:
            if self.train.select not in ("auto", "last"):
                raise ValueError(
                    f"train.select = {self.train.select} is not to be had with {self.method}, which has no score: its "
                    "last epoch is kept; leave it out"
                )
            reads = ("model.image_size",)
            useless += _changed("model", self.model, ModelConfig())
        if useless := [name for name in useless if name not in reads]:
            own = " trains networks of its own and" if self.method in CUT_METHODS else ""
            raise ValueError(f"{self.method}{own} doesn't use {', '.join(useless)}; leave it out")

    def _data_free(self) -> list[str]:
        """Settings that data-free training has no use for."""
        settings, looks = self.data_free, self.data.query or self.data.gallery
        if settings.images != "folders" and looks is not None:
            raise ValueError(
                "data-free reads no images: leave out --query-domain and --gallery-domain, or set "
                "data_free.images=folders for a comparison"
            )
        if self.train.select not in ("auto", "last"):
            raise ValueError(
                f"train.select = {self.train.select} is not to be had with data-free, which sees no image to choose "
                "by: its last epoch is kept; leave it out"
            )
        own: tuple[str, ...] = ("model.freeze_norm", "model.centring")
        if settings.students != "teachers":
            own += ("model.backbone", "model.image_size")
        if settings.students == "weights":
            own += ("model.weights",)
        if settings.train == "heads" and not self.model.freeze_norm:
            raise ValueError("data_free.train=heads keeps the encoder as it is; set model.freeze_norm to true")
        if self.model.freeze_norm and settings.students == "scratch":
            raise ValueError(
                "model.freeze_norm keeps statistics that data_free.students=scratch hasn't got; set it to false"
            )
        return [name for name in _changed("model", self.model, ModelConfig()) if name not in own]

    @classmethod
    def build(cls, preset: str = "default", *layers: dict[str, Any]) -> RunConfig:
        """Put a preset and layers of settings on top of each other; later ones win.

        Args:
            preset: a name in `presets_of(method)`; the method is the one that the layers name.
            layers: nested dictionaries, or flat ones with dotted names such as `{"train.lr": 1e-3}`.
        """
        method = next((layer["method"] for layer in reversed(layers) if "method" in layer), "syncdr")
        values: dict[str, Any] = {"preset": preset}
        for layer in (preset_of(str(method), preset), *layers):
            _merge(values, layer)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise IsthmusError(f"The settings are wrong: {sentence_of(error)}") from None

    @classmethod
    def load(cls, path: str | Path) -> RunConfig:
        """Read settings from a YAML file; a `preset` named there is laid beneath them."""
        values = read_yaml(path)
        return cls.build(str(values.get("preset", "default")), values)

    def save(self, path: str | Path) -> None:
        """Write all settings, defaults included, as YAML."""
        atomic_write_text(path, yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True))

    def fingerprint(self) -> str:
        """Changes whenever a setting does that can change the result."""
        values = self.model_dump()
        for name in ("workers", "cache_mb"):
            values["data"].pop(name)
        return fingerprint(values)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings; errors name the file."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise IsthmusError(f"The settings file {path} can't be read ({error.strerror}); check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise IsthmusError(
            f"The settings file {path} is no valid YAML{where} ({str(error).splitlines()[0]}); mend or leave it out."
        ) from None
    if not isinstance(values, dict):
        raise IsthmusError(f"The settings file {path} holds no settings; write for example  method: syncdr")
    return values


def _merge(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for name, value in layer.items():
        head, dot, tail = name.partition(".")
        if dot:
            value = {tail: value}
        if isinstance(value, dict) and isinstance(into.get(head, {}), dict):
            inner = into.setdefault(head, {})
            _merge(inner, value)
        else:
            into[head] = value


def _changed(name: str, part: Section, usual: Section) -> list[str]:
    return [f"{name}.{key}" for key, value in part if value != getattr(usual, key)]
