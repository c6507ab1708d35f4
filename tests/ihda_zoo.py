"""What the tests of IHDA share: drawn pairs, photos with true attributes, tiny settings, and one of two processes.

Called as a script: python ihda_zoo.py FOLDER RESULT.pt SETTINGS.yaml ...
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from training_zoo import INK, NO_NORM, PAINT, draw

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest, Row
from isthmus.methods.base import Processes
from isthmus.methods.ihda import IHDA
from isthmus.methods.ihda_batches import Batch
from isthmus.train.trainer import Trainer

SHOP = "shop"  # the source's domain
ATTRIBUTES = ("round", "high", "wide", "dark")
TERMS = ("identity", "triplet", "attributes", "entropy", "consistency", "domain")
# What the preset `default` tunes for real images, at the spec's own values: a test names what it changes.
PLAIN: dict[str, Any] = {
    "augment.flip": True,
    "model.drop_stages": 0,
    "model.grid": 1,
    "model.freeze_norm": False,
    "ihda.shared": False,
    "ihda.drawn": 0.0,
    "ihda.anchors": "query",
    "ihda.source_lr": None,
    "ihda.encoder_rate": 1.0,
    "train.optimizer": "adam",
    "train.schedule": "cosine",
}


def facts(identity: int, side: int = 40) -> dict[str, float]:
    """Four things that are true or not of the figure that `draw` makes of an identity, whatever its style."""
    dice = random.Random(identity)
    rounds, tops, widths, colours = [], [], [], []
    for _ in range(3):  # as `draw` throws them
        _, top = dice.randint(1, side // 2), dice.randint(1, side // 2)
        widths.append(dice.randint(side // 5, side // 2 - 2))
        dice.randint(side // 5, side // 2 - 2)
        rounds.append(dice.choice((False, True)))
        tops.append(top)
        colours.append(sum(dice.randint(0, 160) for _ in range(3)))
    truths = (sum(rounds) > 1, sum(tops) < 3 * side // 4, sum(widths) > side, sum(colours) < 720)
    return {name: float(truth) for name, truth in zip(ATTRIBUTES, truths, strict=True)}


def row(
    folder: Path, domain: str, identity: int, *, split: str = "train", view: int = 0, known: bool = True, **more: Any
) -> Row:
    """One written image; `known`: with its attributes. View 1 and up are the figure on a larger sheet."""
    style = INK if domain == INK else PAINT
    path = folder / domain / f"{identity:04}-{view}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        draw(identity, style, 40 + 2 * view).save(path)
    values: dict[str, Any] = {"identity": f"fig-{identity}", "attributes": facts(identity) if known else None}
    return Row(id=f"{domain}/{identity:04}-{view}", path=str(path), domain=domain, split=split, **(values | more))


def pairs(
    folder: Path,
    train: Iterable[int],
    *,
    val: Iterable[int] = (),
    test: Iterable[int] = (),
    views: Mapping[str, int] | None = None,
    known: bool = False,
) -> list[Row]:
    """Rows of both domains, `views[domain]` images an identity."""
    many = {INK: 1, PAINT: 1, **(views or {})}
    return [
        row(folder, domain, identity, split=split, view=view, known=known)
        for split, identities in (("train", train), ("val", val), ("test", test))
        for identity in identities
        for domain in (INK, PAINT)
        for view in range(many[domain])
    ]


def shop(folder: Path, identities: Iterable[int], views: int = 2) -> list[Row]:
    """Rows of the source, with attributes."""
    return [row(folder, SHOP, identity, view=view) for identity in identities for view in range(views)]


def world(folder: Path, train: int = 8, source: int = 10, *, val: int = 0, test: int = 0, **more: Any) -> Path:
    """`pairs.parquet` and `shop.parquet`, without a common identity."""
    parts = {"val": range(2000, 2000 + val), "test": range(3000, 3000 + test)}
    Manifest(pairs(folder, range(train), **parts, **more)).save(folder / "pairs.parquet")
    Manifest(shop(folder, range(1000, 1000 + source))).save(folder / "shop.parquet")
    return folder


def rewrite(table: Path, out: Path, change: Any) -> Path:
    """A table whose rows went through `change`; rows that it makes None are left out."""
    rows = (change(replace(row)) for row in Manifest.load(table))
    Manifest([row for row in rows if row is not None]).save(out)
    return out


def settings(folder: Path, preset: str = "default", **changes: Any) -> RunConfig:
    """Settings that train a tiny network on `world(folder)` in a second; double underscores stand for dots."""
    base: dict[str, Any] = {
        **(PLAIN if preset == "default" else {}),
        "method": "ihda",
        "data.query": {"name": INK, "train": str(folder / "pairs.parquet")},
        "data.gallery": {"name": PAINT, "train": str(folder / "pairs.parquet")},
        "data.source": {"name": SHOP, "train": str(folder / "shop.parquet")},
        "data.workers": 0,
        "data.holdout": 0.0,
        "model.backbone": NO_NORM,
        "model.weights": "random",
        "model.dim": 16,
        "model.image_size": 32,
        "ihda.source_epochs": 1,
        "ihda.source_step_batch": 8,
        "ihda.source_batch": 6,
        "ihda.head_width": 12,
        "train.batch_size": 8,
        "train.epochs": 1,
        "train.steps_per_epoch": 2,
        "train.lr": 1e-3,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
        "train.select": "last",
    }
    return RunConfig.build(preset, base | {name.replace("__", "."): value for name, value in changes.items()})


def method_of(config: RunConfig, processes: Processes = Processes()) -> IHDA:
    """A method on a fresh model, without the trainer, ready for steps of its last stage."""
    torch.manual_seed(config.seed)
    data = IHDA.read(config)
    model = IHDA.build(config, data)
    looks = model.preprocessing.filters_of([*data.names, *(row.domain for row in data.source)])
    method = IHDA(config, model, data, ImageSource(model.preprocessing, 100, looks), processes)
    for part in model.modules().values():
        part.train()
    method.begun = sum(stage.epochs for stage in method.stages())
    return method


def wake(model: Any, seed: int = 5) -> None:
    """Give the heads weights that say something: fresh ones answer much the same to everything."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in model.heads.values():
            for weight in head.parameters():
                weight.copy_(0.4 * torch.randn(weight.shape, generator=dice) + (weight if weight.ndim == 1 else 0))


def batch_of(method: IHDA, epoch: int, step: int = 0) -> Batch:
    """One of an epoch's batches."""
    return method.load(method.epoch(epoch)[step])


def terms_of(method: IHDA, batch: Batch) -> dict[str, Tensor]:
    """The weighted losses of a batch."""
    ((_, terms),) = method.updates(batch)
    return terms


def weights_of(model: Any) -> dict[str, dict[str, Tensor]]:
    """A copy of every part's state."""
    return {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in model.modules().items()}


def gradients_of(model: Any) -> dict[str, Tensor]:
    """A copy of all gradients, by part and weight."""
    return {
        f"{part}.{name}": weight.grad.clone()
        for part, module in model.modules().items()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }


def work(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """Losses and gradients of the first step of each epoch, through the trainer's own pieces, from the same weights."""
    torch.set_num_threads(1)
    trainer = Trainer(config, folder, screening=False)
    trainer._mode(training=True)
    seen: list[dict[str, Any]] = []
    for epoch in range(trainer.schedule.epochs):
        trainer.method.begun = epoch + 1
        batch = trainer.method.load(trainer.method.epoch(epoch)[0])
        losses = trainer._step(batch, 0.0)
        seen.append({"losses": losses, "gradients": gradients_of(trainer.model)})
        for optimizer in trainer.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
    return seen


if __name__ == "__main__":
    place, result, *files = sys.argv[1:]
    torch.save([work(RunConfig.load(path), Path(place)) for path in files], result)
