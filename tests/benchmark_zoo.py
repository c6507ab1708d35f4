"""Tables of drawn figures for the benchmark's tests, and settings that train on them in a moment."""

from __future__ import annotations

from pathlib import Path

from training_zoo import INK, NO_NORM, PAINT, draw

from isthmus.benchmark.protocol import Protocol, Split
from isthmus.data.manifest import Manifest, Row

SETTINGS = {
    "model.backbone": NO_NORM,
    "model.weights": "random",
    "model.dim": 16,
    "model.image_size": 32,
    "ihda.source_epochs": 2,
    "ihda.source_step_batch": 8,
    "ihda.source_batch": 4,
    "ihda.head_width": 8,
    "train.epochs": 1,
    "train.steps_per_epoch": 2,
    "train.batch_size": 4,
    "train.precision": "32-true",
    "train.accelerator": "cpu",
    "data.workers": 0,
}
SOURCE = "stock"


def image(folder: Path, identity: int, style: str) -> str:
    """A drawn figure's file."""
    path = folder / style / f"{identity:04}.png"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(identity, style, side=32).save(path)
    return str(path)


def row(folder: Path, identity: int, style: str, split: str, domain: str | None = None) -> Row:
    """A row whose attributes follow from its number."""
    values = {"even": float(identity % 2 == 0), "third": float(identity % 3 == 0), "bad": float(identity % 5 < 2)}
    name = domain or style
    return Row(
        f"{name}/{identity}", image(folder, identity, style), name, identity=f"n{identity}", attributes=values,
        split=split,
    )  # fmt: skip


def tables(folder: Path, k: int, *, train: int = 8, test: int = 8, source: int = 10) -> tuple[Path, Path]:
    """A split's pairs and source; the splits test on different identities."""
    start = 4 * k
    parts = {"test": range(start, start + test), "train": range(100 + k, 100 + k + train)}
    pairs = folder / f"pairs-{k}.parquet"
    Manifest(
        [row(folder, n, style, split) for split, part in parts.items() for n in part for style in (INK, PAINT)]
    ).save(pairs)
    stock = folder / f"source-{k}.parquet"
    Manifest([row(folder, n, PAINT, "train", SOURCE) for n in range(300, 300 + source)]).save(stock)
    return pairs, stock


def protocol(folder: Path, splits: int = 2, *, harmful: tuple[str, ...] = ("bad",), **settings: object) -> Protocol:
    """A protocol over drawn figures; double underscores stand for dots."""
    made = [tables(folder, k) for k in range(splits)]
    changes = {name.replace("__", "."): value for name, value in settings.items()}
    return Protocol(
        tuple(Split(str(k), pairs, stock) for k, (pairs, stock) in enumerate(made)), INK, PAINT, SOURCE,
        settings={**SETTINGS, **changes}, harmful=harmful,
    )  # fmt: skip
