"""What the training tests share: two little domains of drawn figures, a translation between them, and tiny settings."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_source
from isthmus.data.training import read_training_data
from isthmus.methods import find_method
from isthmus.methods.base import Processes
from isthmus.methods.syncdr import SynCDR

INK, PAINT = "ink", "paint"
NO_NORM = "test_efficientnet_gn"  # group norm: nothing that depends on the other images of a batch
BATCH_NORM = "test_resnet"


def draw(identity: int, style: str, side: int = 40) -> Image.Image:
    """A figure of three shapes; the same identity has the same shapes as black outlines or as filled colours."""
    dice = random.Random(identity)
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(3):
        left, top = dice.randint(1, side // 2), dice.randint(1, side // 2)
        box = (left, top, left + dice.randint(side // 5, side // 2 - 2), top + dice.randint(side // 5, side // 2 - 2))
        shape = dice.choice((pen.rectangle, pen.ellipse))
        colour = tuple(dice.randint(0, 160) for _ in range(3))
        if style == INK:
            shape(box, outline="black", width=2)
        else:
            shape(box, fill=colour)
    return image


def write_domain(folder: Path, style: str, identities: Iterable[int], *, classes: int = 0, side: int = 40) -> Path:
    """One image an identity, in `classes` subfolders (labels) if any."""
    for identity in identities:
        place = folder / f"class{identity % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        draw(identity, style, side).save(place / f"{identity:04}.png")
    return folder


def write_translation(source: Path, domain: str, target: str, out: Path, *, suffix: str = "drawn") -> Path:
    """A perfect translation of a folder, in the layout of `isthmus translate`."""
    rows = []
    (out / "images").mkdir(parents=True)
    for row in read_source(source, domain):
        path = out / "images" / Path(row.path).name
        draw(int(Path(row.path).stem), target).save(path)
        rows.append(replace(row, id=f"{row.id}@{target}/{suffix}", path=str(path), domain=target, source_id=row.id))
    Manifest(rows).save(out / "manifest.parquet")
    return out


def world(folder: Path, count: int = 12, *, classes: int = 0, val: int = 0, gallery: int | None = None) -> Path:
    """`ink/`, `paint/` without a common identity, translations `to_paint/`, `to_ink/`, and `val_ink/`, `val_paint/`."""
    write_domain(folder / INK, INK, range(count), classes=classes)
    write_domain(folder / PAINT, PAINT, range(1000, 1000 + (gallery or count)), classes=classes)
    write_translation(folder / INK, INK, PAINT, folder / "to_paint")
    write_translation(folder / PAINT, PAINT, INK, folder / "to_ink")
    for style in (INK, PAINT) if val else ():
        write_domain(folder / f"val_{style}", style, range(2000, 2000 + val), classes=classes or val)
    return folder


def settings(folder: Path, **changes: Any) -> RunConfig:
    """Settings that train a tiny network on `world(folder)` in a second; double underscores stand for dots."""
    val_ink, val_paint = (str(folder / name) if (folder / name).is_dir() else None for name in ("val_ink", "val_paint"))
    base: dict[str, Any] = {
        "data.query": {"name": INK, "train": str(folder / INK), "val": val_ink},
        "data.gallery": {"name": PAINT, "train": str(folder / PAINT), "val": val_paint},
        "data.synthetic": [str(folder / "to_paint"), str(folder / "to_ink")],
        "data.workers": 1,
        "model.backbone": NO_NORM,
        "model.weights": "random",
        "model.dim": 16,
        "model.image_size": 32,
        "loss.pair_temperature": 0.1,
        "train.batch_size": 8,
        "train.epochs": 2,
        "train.steps_per_epoch": 2,
        "train.optimizer": "adamw",
        "train.lr": 1e-3,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
    }
    return RunConfig.build("default", base | {name.replace("__", "."): value for name, value in changes.items()})


def method_of(config: RunConfig) -> SynCDR:
    """A method on a fresh model, without the trainer; its banks are filled."""
    torch.manual_seed(config.seed)
    kind = find_method(config.method)
    data = read_training_data(config.data, synthetic=kind.uses_synthetic, seed=config.seed)
    assert issubclass(kind, SynCDR)
    model = kind.build(config, data)
    model.encoder.eval()
    method = kind(config, model, data, ImageSource(model.preprocessing, 100), Processes())
    assert isinstance(method, SynCDR)
    method.start()
    return method


def rows_of(style: str, folder: Path, identities: Iterable[int]) -> list[Row]:
    """Rows of freshly written images, without labels."""
    return list(read_source(write_domain(folder, style, identities), style))


def command(*arguments: str | Path) -> list[str]:
    """`isthmus ...` of this very installation."""
    return [sys.executable, "-m", "isthmus.cli.main", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """The tests' own, with one thread a process and no launcher's variables."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def isthmus(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=300, check=False
    )


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal to the bit: tensors, numbers, and dictionaries and lists of them."""
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b)) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
