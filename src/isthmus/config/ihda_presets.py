"""Presets of IHDA: its own, the paper's and its public code's, each for the sizes of people, shoes and faces."""

from __future__ import annotations

from typing import Any

Preset = dict[str, dict[str, Any]]


def _over(base: Preset, **sections: dict[str, Any]) -> Preset:
    """A preset with some of its settings replaced."""
    return {name: {**base.get(name, {}), **sections.get(name, {})} for name in base.keys() | sections.keys()}


# Measured on a hundred pairs of shoes (benchmarks/ihda): with so few, batch norm keeps its statistics, one encoder does
# better than two, and things differ by what is where on them: features of 3 x 3 cells of an earlier stage.
_DEFAULT: Preset = {
    "augment": {"flip": False},
    "model": {"drop_stages": 1, "grid": 3, "freeze_norm": True},
    "ihda": {"shared": True, "drawn": 0.5, "source_epochs": 10, "source_lr": 2e-4, "encoder_rate": 0.3},
    "train": {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "epochs": 20},
}

# [P]: heads 512-512-out on the features themselves, sketch anchors with squared distances, greyscale photos. The paper
# gives no length for the warm-up; ten epochs are those of the strong baseline that it cites.
_PAPER: Preset = {
    "model": {"backbone": "resnet50.tv_in1k", "image_size": (384, 128), "gallery_filter": "grey", "centring": False},
    "ihda": {
        "source_epochs": 60,
        "source_step_batch": 64,
        "source_batch": 32,
        "source_attribute_weight": 0.1,
        "label_smoothing": 0.0,
        "unit_triplets": False,
        "unit_domain": False,
        "entropy": "half",
        "consistency": "norm",
        "identity_head": "mlp",
    },
    "train": {
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 0.0,
        "epochs": 60,
        "batch_size": 32,
        "schedule": "constant",
        "warmup_epochs": 10,
        "select": "labels",
    },
}

# [C]: the public code with its faults mended: the game's sign and bound, the epoch's length, the warm-up of step 1 and
# the choice of the epoch (see `ihda.ablation` for each fault alone). Step 1's later plateaus (twice the rate from epoch
# 31, half of it from 81) are left out: one constant rate.
_CODE: Preset = {
    "model": {
        "backbone": "seresnext50_32x4d.racm_in1k",
        "image_size": (384, 128),
        "gallery_filter": "grey",
        "neck": True,
        "centring": False,
    },
    "ihda": {
        "source_epochs": 121,
        "source_step_batch": 128,
        "source_images": 2,
        "source_batch": 16,
        "source_attribute_weight": 1.0,
        "source_triplet_from": 10,
        "triplet_from": 30,
        "label_smoothing": 0.1,
        "anchors": "all",
        "distance": "euclidean",
        "unit_triplets": False,
        "unit_domain": False,
        "inner_triplets": True,
        "consistency": "mse",
        "identity_head": "linear",
        "identity_dropout": 0.7,
        "head_width": 128,
        "head_style": "norm",
        "attribute_dropout": 0.5,
        "reversal_steps": 10000,
        "encoder_rate": 0.2,
    },
    "train": {
        "optimizer": "adam",
        "betas": (0.5, 0.999),
        "lr": 3e-4,
        "weight_decay": 0.0,
        "epochs": 101,
        "batch_size": 48,
        "schedule": "exponential",
        "decay_from": 31 / 101,
        "warmup_epochs": 11,
        "select": "labels",
    },
}

IHDA_PRESETS: dict[str, Preset] = {
    "default": _DEFAULT,
    "tiny": _over(_DEFAULT, model={"image_size": 64}, ihda={"source_epochs": 5, "head_width": 128}),
    "paper": _PAPER,
    "paper-shoes": _over(_PAPER, model={"image_size": 96}),
    "paper-faces": _over(_PAPER, model={"image_size": (144, 128)}),
    "code": _CODE,
    "code-shoes": _over(
        _CODE,
        model={"image_size": 96, "gallery_filter": "edges"},
        ihda={"source_step_batch": 32, "source_batch": 32, "source_triplet_from": 0, "triplet_from": 20},
        train={"epochs": 61, "batch_size": 150, "schedule": "constant", "warmup_epochs": 21},
    ),
}
