"""timm backbones by name, with weights from the hub, a local file, or none, and errors that say what to do."""

from __future__ import annotations

import contextlib
import difflib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.config.sizes import Sides, compact, sides
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.runtime import prepare_torchvision

prepare_torchvision()

import timm  # noqa: E402


def create_backbone(name: str, weights: str = "pretrained", image_size: Sides | None = None) -> nn.Module:
    """Build a timm backbone without its classifier.

    Args:
        name: a timm model name, such as `resnet50`, `vit_base_patch16_clip_224.openai` or `mobilenetv2_100`.
        weights: `"pretrained"` (timm's own, from the hub or its cache), `"random"`, or a checkpoint file
            (`.safetensors`, or a `.pt`/`.pth` state dict, read with `weights_only`).
        image_size: side of the input, or (height, width), for backbones whose position embedding depends on it.

    Raises:
        IsthmusError: unknown name, missing file, or a checkpoint of another architecture.
    """
    require_backbone(name)
    if weights not in ("pretrained", "random") and not Path(weights).is_file():
        raise IsthmusError(
            f"model.weights = '{weights}' is no file; give a checkpoint, or 'pretrained' (timm's hub) or 'random'."
        )
    try:
        backbone = build_timm(name, 0, image_size, pretrained=weights == "pretrained")
    except Exception as error:
        if weights != "pretrained":
            raise IsthmusError(f"The backbone '{name}' can't be built: {_first_line(error)}") from error
        raise IsthmusError(
            f"The weights of '{name}' can't be had ({_first_line(error)}); "
            "name a local checkpoint of it with --weights FILE (model.weights), or start from 'random'."
        ) from error
    if weights not in ("pretrained", "random"):
        _load_file(backbone, name, Path(weights))
    return backbone


def require_backbone(name: str) -> None:
    """An unknown timm model is an error that names similar ones."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(pretrained=False), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models() for the names."
        raise IsthmusError(f"There is no backbone '{name}': {hint}")


def build_timm(name: str, classes: int, image_size: Sides | None = None, *, pretrained: bool = False) -> nn.Module:
    """A timm model with a head of `classes` outputs, none for 0; what timm raises goes on."""
    options: dict[str, Any] = {"num_classes": classes, "pretrained": pretrained}
    if image_size is not None and _takes_image_size(name):
        options["img_size"] = image_size
    network: nn.Module = timm.create_model(name, **options)
    return network


def _takes_image_size(name: str) -> bool:
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and bool(cfg.fixed_input_size)


def _first_line(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0][:160]


def _load_file(backbone: nn.Module, name: str, path: Path) -> None:
    state = read_weights(path)
    for prefix in ("module.", "model.", "backbone."):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # timm's own remapping of older names, and of position embeddings to the wanted image size; what it can't make
        # sense of stays as it is and is reported below.
        with contextlib.suppress(Exception):
            state = dict(convert(dict(state), backbone))
    own = backbone.state_dict()
    named: Any = backbone.pretrained_cfg.get("classifier", ())  # type: ignore[union-attr, operator]
    classifier = {"fc", "classifier", "head", "head.fc", *([named] if isinstance(named, str) else named)}
    extra = [key for key in state if key not in own and key.rpartition(".")[0] not in classifier]
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if extra or missing or wrong:
        example = (wrong or missing or extra)[0]
        raise IsthmusError(
            f"The checkpoint {path} is not of the backbone '{name}': {len(missing)} tensors missing, {len(wrong)} of "
            f"another shape, {len(extra)} unknown (such as '{example}'); set model.backbone to the architecture it has."
        )
    backbone.load_state_dict(
        {key: value.to(own[key].dtype) for key, value in state.items() if key in own}, strict=False
    )


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a `.safetensors` or `.pt` file; never unpickles code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise IsthmusError(f"The checkpoint {path} can't be read ({_first_line(error)}); fetch it again.") from error
    except Exception as error:  # weights_only refuses pickled code with its own error type
        raise IsthmusError(
            f"The checkpoint {path} holds more than tensors and is not opened; save it as .safetensors."
        ) from error
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise IsthmusError(f"The checkpoint {path} holds no state dict; save model.state_dict() as .safetensors.")
    return loaded


def preprocessing_of(
    backbone: nn.Module, image_size: Sides, resize: Sides | None, filters: tuple[str, str] = ("none", "none")
) -> Preprocessing:
    """The backbone's own mean, standard deviation and interpolation, at the wanted size."""
    height, width = sides(image_size)
    cfg: dict[str, Any] = timm.data.resolve_model_data_config(backbone)
    mean, std = cfg["mean"], cfg["std"]
    return Preprocessing(
        size=compact(image_size),
        resize=resize or compact((-(-height * 8 // 7), -(-width * 8 // 7))),
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
        interpolation="bicubic" if cfg["interpolation"] == "bicubic" else "bilinear",
        filters=filters,
    )
