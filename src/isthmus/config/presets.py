"""Presets: one dial that sets everything else, for each method its own where it needs other settings."""

from __future__ import annotations

from typing import Any

from isthmus.config.classifier import CLASSIFIER_PRESETS
from isthmus.config.data_free_presets import DATA_FREE_PRESETS
from isthmus.config.ihda_presets import IHDA_PRESETS
from isthmus.errors import IsthmusError

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

# CUT and FastCUT make a translator from random weights: image-to-image settings of the paper (arXiv 2007.15651).
_CUT: dict[str, Any] = {
    # No figure chooses the epoch, so no image is kept apart for it.
    "data": {"holdout": 0.0},
    "model": {"image_size": 256},
    "train": {
        "optimizer": "adam",
        "betas": (0.5, 0.999),
        "lr": 2e-4,
        "weight_decay": 0.0,
        "schedule": "linear",
        "batch_size": 4,
        "epochs": 20,
        "steps_per_epoch": 250,
        # Measured: its norms, over each image's own pixels, are faster in the plain layout.
        "channels_last": False,
    },
}
_FAST: dict[str, Any] = {"cut": {"identity": False, "nce_weight": 10.0, "flip_equivariance": True}}
_CUT_PRESETS: dict[str, dict[str, Any]] = {
    # 5,000 steps of 4 images a domain: what SynCDR's authors trained.
    "default": _CUT,
    # Minutes on a laptop's processor.
    "tiny": {
        **_CUT,
        "model": {"image_size": 64},
        "cut": {"width": 32, "discriminator_width": 32},
        "train": {**_CUT["train"], "epochs": 8, "steps_per_epoch": 125},
    },
    # An epoch is a pass over the larger domain.
    "paper": {
        **_CUT,
        "train": {**_CUT["train"], "batch_size": 1, "epochs": 400, "steps_per_epoch": None, "precision": "32-true"},
    },
}


def _fast(preset: dict[str, Any], **train: Any) -> dict[str, Any]:
    cut = {**preset.get("cut", {}), **_FAST["cut"]}
    return {**preset, "cut": cut, "train": {**preset["train"], "decay_from": 0.75, **train}}


_FASTCUT_PRESETS = {
    "default": _fast(_CUT_PRESETS["default"]),
    "tiny": _fast(_CUT_PRESETS["tiny"]),
    "paper": _fast(_CUT_PRESETS["paper"], epochs=200),
}
_OF_METHOD = {
    "cut": _CUT_PRESETS,
    "fastcut": _FASTCUT_PRESETS,
    "ihda": IHDA_PRESETS,
    "classifier": CLASSIFIER_PRESETS,
    "data-free": DATA_FREE_PRESETS,
}


def presets_of(method: str) -> dict[str, dict[str, Any]]:
    """The presets of a method by name; all methods have `default`, `tiny` and `paper`.

    Example:
        >>> presets_of("fastcut")["paper"]["train"]["epochs"]
        200
    """
    return _OF_METHOD.get(method, PRESETS)


def preset_of(method: str, name: str) -> dict[str, Any]:
    """A preset's settings; an unknown name is an error that lists the known ones."""
    presets = presets_of(method)
    if name not in presets:
        raise IsthmusError(f"There is no preset '{name}'; choose one of {', '.join(presets)}.")
    return presets[name]
