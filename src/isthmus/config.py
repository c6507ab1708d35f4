"""The settings of a run: typed, checked together, read from YAML and from `--set`, fingerprinted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_text, fingerprint

SPLITS = ("train", "val", "test")


class Section(BaseModel):
    """A part of the settings: unknown names are errors, values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class DomainConfig(Section):
    """One visual domain and where its images are.

    Each of `train`, `val` and `test` is a folder, a list (`path label`, one image a line) or a table (CSV or Parquet).
    Where `val` or `test` is left out, the rows of that split in `train` are used, if it has any.
    """

    name: str = Field(min_length=1, pattern=r"^[^/@=,\s]+$")
    train: str | None = None
    val: str | None = None
    test: str | None = None
    root: str | None = Field(None, description="folder that paths in lists and tables are relative to")

    @classmethod
    def parse(cls, text: str, *, main: str = "train", root: str | None = None) -> DomainConfig:
        """Read `sketch=PATH` or `sketch=PATH,val=PATH,test=PATH` as the command line takes it.

        Args:
            text: the argument.
            main: the split that the first path is for.
            root: folder that paths in lists are relative to.

        Example:
            >>> DomainConfig.parse("sketch=a.txt,test=b.txt").test
            'b.txt'
        """
        name, equals, rest = text.partition("=")
        if not equals or not name or not rest:
            raise IsthmusError(f"'{text}' is not a domain: write NAME=PATH, for example  sketch=drawings/")
        values: dict[str, str] = {}
        key = main
        for piece in rest.split(","):
            head, mark, tail = piece.partition("=")
            if mark and head in SPLITS:
                key = head
                values[key] = tail
            elif key in values:
                values[key] += "," + piece  # a comma inside a path
            else:
                values[key] = piece
        try:
            return cls(name=name, root=root, **values)
        except ValidationError as error:
            raise IsthmusError(f"'{text}' is not a domain: {_sentence(error)}") from None


class DataConfig(Section):
    """Where images come from and how they reach the network."""

    query: DomainConfig | None = None
    gallery: DomainConfig | None = None
    synthetic: list[str] = Field(default_factory=list, description="folders that `isthmus translate` wrote")
    on_bad_image: Literal["raise", "skip"] = "raise"
    holdout: float = Field(0.1, ge=0, lt=1, description="share of training images for choosing where there is no val")
    workers: int = Field(2, ge=0, description="threads that decode and augment")
    cache_mb: int = Field(2000, ge=0, description="memory for decoded images; 0 decodes anew each time")


class AugmentConfig(Section):
    """Random changes of training images; each image and each counterpart draws its own."""

    resize: int | None = Field(None, gt=0, description="side before the random crop; default 8/7 of the size")
    crop: float = Field(1.0, gt=0, le=1, description="smallest area share of a random resized crop; 1: fixed-size crop")
    flip: bool = True
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    grey: float = Field(0.0, ge=0, le=1, description="share of images turned grey")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")


class ModelConfig(Section):
    """The encoder."""

    backbone: str = Field("mobilenetv2_100", description="any timm model name")
    weights: str = Field("pretrained", description="'pretrained' (timm's hub weights), 'random', or a file")
    dim: int = Field(0, ge=0, description="width of the linear projection; 0: none, the backbone's own features")
    image_size: int = Field(128, ge=16)
    domain_norm: bool = Field(False, description="batch-norm statistics kept per domain")
    freeze_norm: bool = Field(False, description="batch norm uses its stored statistics in training too")
    centring: bool = Field(True, description="subtract each domain's training mean when encoding")


class LossConfig(Section):
    """Terms of CDS and SynCDR (arXiv 2401.00420)."""

    instance_weight: float = Field(1.0, ge=0, description="L_ID")
    instance_temperature: float = Field(0.1, gt=0)
    matching_weight: float = Field(1.0, ge=0, description="L_CDM; 0 switches it off")
    matching_temperature: float = Field(0.1, gt=0)
    matching_top: int = Field(700, ge=2)
    pair_weight: float = Field(0.5, ge=0, description="L_PPP of each set; 0 switches it off")
    pair_temperature: float = Field(0.1, gt=0, description="T_syn")
    momentum: float = Field(0.5, ge=0, lt=1, description="share of the old value in a memory slot")
    ablation: Literal["none", "shared-slots"] = Field("none", description="shared-slots: the public code's collision")


class TrainConfig(Section):
    """Optimisation, precision and where it runs."""

    epochs: int = Field(10, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1, description="default: one pass over the query domain's set")
    batch_size: int = Field(32, ge=2, description="images a domain a step, over all processes")
    balance: bool = Field(False, description="CDS recipe: the larger domain's batch grows with its size")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.003, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    select: str = Field("auto", description="what chooses the epoch: a label-free criterion, 'labels' or 'last'")


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
    train: TrainConfig = TrainConfig()  # copied by pydantic for each run

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.augment.resize is not None and self.augment.resize < self.model.image_size:
            raise ValueError("augment.resize is smaller than model.image_size; a crop can't be larger than the image")
        if self.data.query and self.data.gallery and self.data.query.name == self.data.gallery.name:
            raise ValueError("data.query.name and data.gallery.name are equal; give the two domains different names")
        if self.train.batch_size % (self.train.devices * self.train.nodes):
            raise ValueError("train.batch_size can't be divided among the processes; make it a multiple of them")
        return self

    @classmethod
    def build(cls, preset: str = "default", *layers: dict[str, Any]) -> RunConfig:
        """Put a preset and layers of settings on top of each other; later ones win.

        Args:
            preset: a name in `PRESETS`.
            layers: nested dictionaries, or flat ones with dotted names such as `{"train.lr": 1e-3}`.
        """
        if preset not in PRESETS:
            raise IsthmusError(f"There is no preset '{preset}'; choose one of {', '.join(PRESETS)}.")
        values: dict[str, Any] = {"preset": preset}
        for layer in (PRESETS[preset], *layers):
            _merge(values, layer)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise IsthmusError(f"The settings are wrong: {_sentence(error)}") from None

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


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        name = ".".join(str(piece) for piece in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"there is no setting '{name}'")
        elif name:
            parts.append(f"{name} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts) + "."


# One dial: everything else follows from it.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # From random weights, so it is for data with little else to go by, such as the icons of the demo.
    "tiny": {
        "model": {"backbone": "resnet10t", "weights": "random", "dim": 128, "image_size": 64},
        "loss": {"instance_weight": 0.0, "matching_weight": 0.0, "pair_temperature": 0.1},
        "train": {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "batch_size": 128, "epochs": 10},
    },
    # The recipe of the paper and its public code.
    "paper": {
        "model": {"backbone": "resnet50.tv_in1k", "dim": 512, "image_size": 224, "centring": False},
        "augment": {"resize": 256},
        "loss": {"pair_temperature": 1.0},
        "train": {"epochs": 15, "schedule": "constant", "balance": True, "select": "labels", "precision": "16-mixed"},
    },
}
