"""Presets of data-free retrieval: its own, a small one, and the paper's recipe as far as it is published."""

from __future__ import annotations

import math
from typing import Any

Preset = dict[str, dict[str, Any]]

# Students start from the teachers, so they keep the teachers' batch-norm statistics: those of real images, which no
# generated image has.
_DEFAULT: Preset = {
    "model": {"freeze_norm": True, "centring": False},
    "train": {
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 0.0,
        "batch_size": 64,
        "epochs": 10,
        "steps_per_epoch": 50,
    },
    "data_free": {"generator_rate": 20.0},
}

# The poster and the public code, with the faults mended that the specification lists: standard layers at the true size,
# as many steps for the encoders as for the generators, one normalisation. Their entropy has logarithms to the base 10.
_PAPER: Preset = {
    "model": {"backbone": "resnet34.tv_in1k", "image_size": 224, "centring": False},
    "train": {
        "optimizer": "sgd",
        "lr": 1e-5,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "batch_size": 512,
        "epochs": 200,
        "steps_per_epoch": 500,
    },
    "data_free": {
        "students": "scratch",
        "readout": "embedding",
        "train": "all",
        "noise": 1000,
        "image_size": 224,
        "width": 128,
        "grey": False,
        "drawn_classes": False,
        "semantic_weight": 3.0,
        "entropy_weight": 5.0 / math.log(10),
        "activation_weight": 0.1,
        "diversity_weight": 0.0,
        "adversarial_weight": 1.0,
        "adversarial": "cross-entropy",
        "statistics_weight": 0.0,
        "proxy_weight": 0.0,
        "queue_weight": 1.0,
        "contrast_weight": 0.0,
        "distillation_weight": 0.0,
        "warmup": 0,
        "encoder_steps": 1,
    },
}

DATA_FREE_PRESETS: dict[str, Preset] = {
    "default": _DEFAULT,
    "tiny": {
        **_DEFAULT,
        "train": {**_DEFAULT["train"], "batch_size": 32, "epochs": 8, "steps_per_epoch": 25},
        "data_free": {**_DEFAULT["data_free"], "warmup": 50, "width": 32, "noise": 64},
    },
    "paper": _PAPER,
    "paper-unified": {**_PAPER, "data_free": {**_PAPER["data_free"], "proxy_weight": 1.0, "queue_weight": 0.0}},
}
