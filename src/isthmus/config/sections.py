"""The parts of the settings: typed, unknown names refused, checked on assignment too."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from isthmus.config.sizes import NetworkSize, Size
from isthmus.errors import IsthmusError

SPLITS = ("train", "val", "test")
Filter = Literal["none", "grey", "edges"]


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
            raise IsthmusError(f"'{text}' is not a domain: {sentence_of(error)}") from None


class DataConfig(Section):
    """Where images come from and how they reach the network."""

    query: DomainConfig | None = None
    gallery: DomainConfig | None = None
    source: DomainConfig | None = Field(None, description="ihda: attribute-labelled images like the gallery's")
    synthetic: list[str] = Field(default_factory=list, description="folders that `isthmus translate` wrote")
    on_bad_image: Literal["raise", "skip"] = "raise"
    holdout: float = Field(0.1, ge=0, lt=1, description="share of training images for choosing where there is no val")
    workers: int = Field(2, ge=0, description="threads that decode and augment")
    cache_mb: int = Field(2000, ge=0, description="memory for decoded images; 0 decodes anew each time")


class AugmentConfig(Section):
    """Random changes of training images; each image and each counterpart draws its own."""

    resize: Size | None = Field(
        None, description="size before the random crop, as model.image_size; default 8/7 of it, CUT 286/256"
    )
    pad: int = Field(0, ge=0, description="pixels that the border is widened by on each side before the random crop")
    crop: float = Field(1.0, gt=0, le=1, description="smallest area share of a random resized crop; 1: fixed-size crop")
    flip: bool = True
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    grey: float = Field(0.0, ge=0, le=1, description="share of images turned grey")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees")
    erase: float = Field(0.0, ge=0, le=1, description="share of images of which a random rectangle is erased")


class ModelConfig(Section):
    """The encoder."""

    backbone: str = Field("mobilenetv2_100", description="any timm model name")
    weights: str = Field("pretrained", description="'pretrained' (timm's hub weights), 'random', or a file")
    dim: int = Field(0, ge=0, description="width of the linear projection; 0: none, the backbone's own features")
    image_size: NetworkSize = Field(128, description="side in pixels, or height x width such as 384x128")
    query_filter: Filter = Field("none", description="what the query domain's images become: grey, or edges (drawn)")
    gallery_filter: Filter = Field("none", description="the same of the gallery domain's images, and of data.source")
    drop_stages: int = Field(0, ge=0, description="the backbone's last stages left out: finer, less of categories")
    grid: int = Field(1, ge=1, description="features of grid x grid cells, joined: for things in one place and pose")
    neck: bool = Field(False, description="batch norm behind the features, as person re-identification has it")
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


class CutConfig(Section):
    """Networks and terms of CUT and FastCUT (arXiv 2007.15651)."""

    direction: Literal["both", "query-to-gallery", "gallery-to-query"] = "both"
    width: int = Field(64, ge=4, description="channels of the generator's first layer")
    blocks: int = Field(9, ge=1, description="residual blocks of the generator")
    discriminator_width: int = Field(64, ge=4)
    gan_weight: float = Field(1.0, ge=0, description="lambda_GAN, least squares")
    nce_weight: float = Field(1.0, ge=0, description="lambda_NCE; 0 switches the patch terms off")
    identity: bool = Field(True, description="patches of the target's own images, translated to themselves, too")
    flip_equivariance: bool = Field(False, description="FastCUT: half of the steps translate mirrored images")
    layers: tuple[int, ...] = Field((0, 4, 8, 12, 16), min_length=1, description="whose features are compared")
    patches: int = Field(256, ge=2, description="places sampled in each layer")
    patch_dim: int = Field(256, ge=2, description="width of the head on the patches")
    temperature: float = Field(0.07, gt=0)
    samples: int = Field(6, ge=0, description="images of each domain in the grids that training shows")

    @model_validator(mode="after")
    def _layers_exist(self) -> CutConfig:
        if min(self.layers) < 0 or max(self.layers) >= 12 + self.blocks:
            raise ValueError(f"cut.layers must lie in 0 to {11 + self.blocks}: the generator's encoder ends there")
        return self


class TrainConfig(Section):
    """Optimisation, precision and where it runs."""

    epochs: int = Field(10, ge=1)
    steps_per_epoch: int | None = Field(
        None, ge=1, description="default: one pass over the query's set, CUT the larger"
    )
    batch_size: int = Field(32, ge=1, description="images a domain a step, over all processes")
    balance: bool = Field(False, description="CDS recipe: the larger domain's batch grows with its size")
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(0.003, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    betas: tuple[float, float] = Field((0.9, 0.999), description="of adam and adamw")
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["constant", "cosine", "linear", "exponential"] = "cosine"
    decay_from: float = Field(
        0.5, ge=0, le=1, description="linear and exponential: share of the steps before the rate begins to fall"
    )
    decay_rate: float = Field(0.8, gt=0, le=1, description="exponential: what ten epochs multiply the rate by")
    warmup_steps: int = Field(0, ge=0)
    warmup_epochs: float = Field(0.0, ge=0, description="the same in epochs, of each step of a method that has two")
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    select: str = Field("auto", description="what chooses the epoch: a label-free criterion, 'labels' or 'last'")


def sentence_of(error: ValidationError) -> str:
    """What pydantic found wrong, in one sentence that names each setting."""
    parts = []
    for item in error.errors():
        name = ".".join(str(piece) for piece in item["loc"])
        if item["type"] == "extra_forbidden":
            parts.append(f"there is no setting '{name}'")
        elif name and not (item["type"] == "value_error" and isinstance(item["input"], dict)):
            parts.append(f"{name} = {item['input']!r}: {item['msg'].removeprefix('Value error, ')}")
        else:
            parts.append(item["msg"].removeprefix("Value error, "))
    return "; ".join(parts) + "."
