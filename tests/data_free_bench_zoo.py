"""A little collection for the data-free benchmark's tests, and settings that train on it in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_zoo import BATCH_NORM, INK, PAINT, write_domain

from isthmus.benchmark.data_free_classes import choose_classes, read_images
from isthmus.benchmark.data_free_protocol import DataFreeProtocol

RUN: dict[str, Any] = {
    "train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 4, "train.precision": "32-true",
    "train.accelerator": "cpu", "data.workers": 0, "data_free.image_size": 32, "data_free.width": 8,
    "data_free.noise": 8, "data_free.warmup": 1, "data_free.bank_mb": 1, "data_free.samples": 0,
    "data_free.inverted": 8, "data_free.inversion_steps": 2,
}  # fmt: skip
TEACHER: dict[str, Any] = {
    "train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 4, "train.precision": "32-true",
    "train.accelerator": "cpu", "data.workers": 0, "model.image_size": 32, "train.lr": 0.02,
}  # fmt: skip
STYLES = {"sketch": INK, "photo": PAINT}
CLASSES = 5


def collection(folder: Path, each: int = 6) -> Path:
    """`sketch/` and `photo/`: five classes of `each` images, a sketch more in each class than in the one after it."""
    for domain, style in STYLES.items():
        for number in range(CLASSES):
            more = CLASSES - number if domain == "sketch" else 0
            start = 1000 * (number + 1) + (500 if domain == "sketch" else 0)
            write_domain(folder / domain / f"class{number}", style, range(start, start + each + 2 * more), side=32)
    return folder


def protocol(folder: Path, *, known: int | None = 3, held_out: int = 2, **changes: Any) -> DataFreeProtocol:
    """Over `collection(folder)`; `settings` and `teacher_settings` go over those of here."""
    sketch, photo = (read_images(name, str(folder / name)) for name in STYLES)
    chosen, apart = choose_classes(sketch, photo, classes=None, known=known, held_out=held_out)
    settings = {**RUN, **changes.pop("settings", {})}
    teachers = {**TEACHER, **changes.pop("teacher_settings", {})}
    values = {"backbone": BATCH_NORM, "weights": "random", **changes}
    return DataFreeProtocol(
        sketch, photo, chosen, apart, preset="tiny", settings=settings, teacher_settings=teachers, **values
    )


def arguments(folder: Path, **changes: Any) -> list[str]:
    """The command on `collection(folder)`; settings of runs by double underscores for dots."""
    values = {**RUN, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [
        "benchmark", "data-free", f"--photos={folder / 'photo'}", f"--sketches={folder / 'sketch'}",
        f"--out={folder / 'out'}", "--seeds=0", "--known=3", "--held-out=2", "--preset=tiny",
        f"--backbone={BATCH_NORM}", "--weights=random",
        *[f"--set={name}={value}" for name, value in values.items()],
        *[f"--teacher-set={name}={value}" for name, value in TEACHER.items()],
    ]  # fmt: skip
