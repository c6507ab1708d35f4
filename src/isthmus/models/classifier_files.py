"""Classifiers from files: runs, folders, and descriptions of weights and programs that others trained."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator, model_validator
from torch import Tensor

from isthmus.config import read_yaml
from isthmus.config.sections import Section, sentence_of
from isthmus.config.sizes import NetworkSize, Sides, compact
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.io import read_json
from isthmus.models.backbones import preprocessing_of, read_weights
from isthmus.models.classifier import FORMAT, KIND, Classifier, Kind
from isthmus.models.classifier_network import TimmNetwork, build_network
from isthmus.models.classifier_probe import probe
from isthmus.models.programs import is_linear, load_exported, load_script

Triple = tuple[float, float, float]


class Description(Section):
    """What a YAML file beside a given classifier says of it; paths are relative to that file."""

    backbone: str | None = Field(None, description="timm's name, with `weights`")
    weights: str | None = Field(None, description=".safetensors, or a .pt state dict")
    program: str | None = Field(None, description=".pt2 of torch.export")
    script: str | None = Field(None, description="TorchScript; only with trust")
    classes: list[str] | str = Field(description="names in the order of the logits, or a text file of one a line")
    image_size: NetworkSize = Field(description="side in pixels, or height x width")
    mean: Triple | None = Field(None, description="per channel, of values in [0, 1]; default: the backbone's own")
    std: Triple | None = None
    head: str | None = Field(None, description="name of the final linear layer in the weights or the program")
    outputs: list[Literal["logits", "features"]] = Field(["logits"], description="what a program returns, in order")
    predicts: Kind = Field("label", description="modality: its classes are domains")
    domains: list[str] = Field(default_factory=list, description="what it was trained on")

    @field_validator("classes", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        if any(isinstance(name, bool) or name is None for name in value):
            raise ValueError("a class name such as yes, no, on, off or null must be quoted in YAML")
        return [str(name) for name in value]

    @model_validator(mode="after")
    def _one_source(self) -> Description:
        given = [name for name in ("weights", "program", "script") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("name one of weights (with backbone), program or script")
        if (self.weights is None) != (self.backbone is None):
            raise ValueError("backbone and weights belong together: timm's name and the file")
        if self.weights is None and (self.mean is None or self.std is None):
            raise ValueError("mean and std are needed with a program, three values each")
        if "logits" not in self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError("outputs is [logits] or [logits, features], in the order in which they are returned")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self


def load_classifier(path: str | Path, *, trust: bool = False) -> Classifier:
    """See `Classifier.load`."""
    place = Path(path)
    if place.is_dir():
        classifier = _from_folder(place)
    elif place.suffix.lower() in (".yaml", ".yml") and place.is_file():
        classifier = _from_description(place, trust)
    elif place.exists():
        raise IsthmusError(
            f"{path} is neither a run nor a description; write a YAML file beside it (backbone, weights, classes, "
            "image_size; see docs/teachers.md) and name that."
        )
    else:
        raise IsthmusError(f"There is no classifier {path}: name a run, a model folder or a YAML description.")
    classifier.where = str(path)
    classifier.network.requires_grad_(False).eval()
    if isinstance(classifier.network, TimmNetwork):
        classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    probe(classifier)
    return classifier


def _from_folder(given: Path) -> Classifier:
    folder = given / "model" if (given / "model" / "config.json").is_file() else given
    if not (folder / "config.json").is_file():
        raise IsthmusError(
            f"{given} holds no classifier (no config.json); make one with  isthmus train --method classifier --out "
            f"{given}, or name a YAML description."
        )
    config = read_json(folder / "config.json")
    config = config if isinstance(config, dict) else {}
    try:
        if config.get("kind") == KIND:
            if config.get("format") != FORMAT:
                raise IsthmusError(
                    f"{folder}/config.json is not of a classifier that this version reads (format {FORMAT})."
                )
            looks = _looks(config["preprocessing"])
            backbone, classes = str(config["backbone"]), [str(name) for name in config["classes"]]
            kind, domains = config["predicts"], tuple(config["domains"])
            if kind not in ("label", "modality"):
                raise ValueError(f"predicts = {kind!r}")
            provenance = dict(config.get("provenance", {}))
        elif isinstance(config.get("architecture"), str):
            backbone, classes, looks = _timm_folder(folder, config)
            kind, domains, provenance = "label", (), {}
        else:
            raise IsthmusError(
                f"{given} holds another model, not a classifier; make one with  isthmus train --method classifier."
            )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IsthmusError(f"{folder}/config.json is incomplete ({error}); make the classifier anew.") from error
    network = _network(backbone, classes, looks.size, folder / "model.safetensors", head=None)
    return Classifier(network, tuple(classes), looks, backbone, kind, domains, str(given), provenance)


def _looks(values: dict[str, Any]) -> Preprocessing:
    given: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
    return Preprocessing(**given)


def _timm_folder(folder: Path, config: dict[str, Any]) -> tuple[str, list[str], Preprocessing]:
    """Name, classes and preprocessing of a folder in the layout that timm pushes to a hub."""
    more = config.get("pretrained_cfg") or config
    names = config.get("label_names") or more.get("label_names")
    if not names:
        raise IsthmusError(
            f"{folder}/config.json names no classes (label_names); write a YAML description with classes beside it."
        )
    _, height, width = more["input_size"]
    crop = min(1.0, float(more.get("crop_pct") or 1))
    resize = compact((round(height / crop), round(width / crop)))
    mean, std = (tuple(float(value) for value in more[name]) for name in ("mean", "std"))
    size = compact((height, width))
    interpolation = "bicubic" if more.get("interpolation") == "bicubic" else "bilinear"
    return config["architecture"], [str(n) for n in names], Preprocessing(size, resize, mean, std, interpolation)  # type: ignore[arg-type]


def _from_description(path: Path, trust: bool) -> Classifier:
    try:
        said = Description.model_validate(read_yaml(path))
    except ValidationError as error:
        raise IsthmusError(f"The description {path} is wrong: {sentence_of(error)}") from None
    classes = _classes(path, said.classes)
    source = path.parent / str(said.weights or said.program or said.script)
    if not source.is_file():
        raise IsthmusError(f"The description {path} names {source}, which is no file; mend the path.")
    kind, domains = said.predicts, tuple(said.domains)
    if said.backbone is not None:
        network = _network(said.backbone, classes, said.image_size, source, head=said.head)
        looks = preprocessing_of(network.backbone, said.image_size, said.image_size)
        looks = Preprocessing(looks.size, looks.resize, said.mean or looks.mean, said.std or looks.std)
        return Classifier(network, tuple(classes), looks, said.backbone, kind, domains, str(path))
    load = load_exported if said.program is not None else load_script
    program = load(source, tuple(said.outputs), said.head, trust=trust)
    assert said.mean is not None and said.std is not None  # the description's check
    looks = Preprocessing(said.image_size, said.image_size, said.mean, said.std)
    return Classifier(program, tuple(classes), looks, None, kind, domains, str(path))


def _classes(path: Path, given: list[str] | str) -> list[str]:
    if isinstance(given, list):
        return given
    file = path.parent / given
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise IsthmusError(
            f"The class names of {path} can't be read from {file} ({error}); give a text file of one name a line."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def _network(backbone: str, classes: list[str], image_size: Sides, file: Path, *, head: str | None) -> TimmNetwork:
    """The network with the weights of a file, whose final linear layer is called `head` there."""
    network = build_network(backbone, len(classes), image_size)
    state = read_weights(file)
    for prefix in ("module.", "model.", "backbone."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    own_head, theirs = network.head_name, head or network.head_name
    if f"{theirs}.weight" not in state:
        layers = ", ".join(key.removesuffix(".weight") for key, value in state.items() if is_linear(key, value))
        raise IsthmusError(
            f"The weights {file} hold no final linear layer '{theirs}' (linear layers in it: {layers or 'none'}); name "
            "it with head in the description."
        )
    count = len(state[f"{theirs}.weight"])
    if count != len(classes):
        raise IsthmusError(
            f"The head '{theirs}' of {file} tells {count} classes apart, but {len(classes)} class names are given; "
            "name each, in the order of the logits."
        )
    state = {
        f"{own_head}{key[len(theirs) :]}" if key.startswith(f"{theirs}.") else key: value
        for key, value in state.items()
    }
    state.setdefault(f"{own_head}.bias", torch.zeros(count))  # a head may have none
    body: Any = network.backbone
    convert = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # timm's remapping of older names; what it can't make sense of is reported below.
        with contextlib.suppress(Exception):
            state = dict(convert(dict(state), body))
    _fit(body, state, backbone, file)
    return network


def _fit(body: Any, state: dict[str, Tensor], backbone: str, file: Path) -> None:
    own: dict[str, Tensor] = body.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if extra or missing or wrong:
        raise IsthmusError(
            f"The weights {file} are not of the backbone '{backbone}': {len(missing)} tensors missing, {len(wrong)} of "
            f"another shape, {len(extra)} unknown (such as '{(wrong or missing or extra)[0]}'); name the backbone that "
            "they are of."
        )
    body.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=False)
