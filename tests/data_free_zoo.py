"""Teachers small enough for tests, and runs with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from isthmus.config import RunConfig
from isthmus.models.classifier import Classifier
from isthmus.train.trainer import Trainer

PHOTO, SKETCH, BOTH = ("cat", "dog", "owl", "car"), ("dog", "cat", "bee"), ("cat", "dog")
DOMAINS = ("sketch", "photo")


def make_teacher(folder: Path, classes: tuple[str, ...], seed: int = 0, **more: Any) -> Path:
    """A classifier of random weights whose head tells inputs apart, and whose norms have seen some."""
    torch.manual_seed(seed)
    made = Classifier.create("resnet10t", classes, 32, weights="random", **more)
    made.network.train()
    with torch.no_grad():
        for _ in range(20):
            made.network(torch.randn(16, 3, 32, 32))
        torch.nn.init.normal_(made.network.head.weight, std=0.5)  # type: ignore[operator, union-attr, arg-type]
    made.save(folder)
    return folder


def make_teachers(folder: Path, *, partly: bool = True) -> dict[str, str]:
    """Settings `data_free.*` of a photo and a sketch teacher; with `partly` each has classes of its own."""
    classes = (PHOTO, SKETCH) if partly else (BOTH, BOTH[::-1])
    photo = make_teacher(folder / "photo", classes[0], 1, domains=("photo",))
    sketch = make_teacher(folder / "sketch", classes[1], 2, domains=("sketch",))
    return {"data_free.photo": str(photo), "data_free.sketch": str(sketch)}


def settings(teachers: dict[str, str], **changes: Any) -> RunConfig:
    """A run of seconds; names of settings with `__` for the dot."""
    base: dict[str, Any] = {
        "method": "data-free", **teachers, "data_free.image_size": 32, "data_free.width": 8, "data_free.noise": 16,
        "data_free.warmup": 2, "data_free.samples": 2, "data_free.bank_mb": 1, "data_free.queue": 8,
        "data_free.queue_weight": 0.5, "data_free.proxy_weight": 1.0, "data_free.distillation_weight": 1.0,
        "data_free.train": "all", "data_free.readout": "embedding", "data_free.stages": 0,
        "data_free.diversity_weight": 1.0, "data_free.inverted": 8, "data_free.inversion_steps": 3, "train.epochs": 2,
        "train.steps_per_epoch": 4, "train.batch_size": 8, "train.precision": "32-true", "train.accelerator": "cpu",
    }  # fmt: skip
    return RunConfig.build("tiny", base, {name.replace("__", "."): value for name, value in changes.items()})


def trainer(folder: Path, teachers: dict[str, str], **changes: Any) -> Trainer:
    """A trainer of such a run."""
    return Trainer(settings(teachers, **changes), folder)
