"""On real photos a few dozen steps make a classifier that is far above chance."""

from __future__ import annotations

from pathlib import Path

import torch
from training_zoo import same

from isthmus.config import RunConfig
from isthmus.data import loading
from isthmus.data.manifest import Manifest
from isthmus.models.classifier import Classifier
from isthmus.train.run import train

CLASSES = ("dog", "guitar", "house", "person")


def listed(folder: Path, name: str, count: int, out: Path) -> list[tuple[Path, str]]:
    """`count` images of each class of a list of PACS, also written as a list with names."""
    names = (folder / "lists" / "classes.txt").read_text().split()
    kept: dict[str, list[str]] = {name: [] for name in CLASSES}
    for line in (folder / "lists" / f"{name}.txt").read_text().splitlines():
        path, _, number = line.rpartition(" ")
        kept.get(names[int(number)], []).append(path)
    chosen = [(path, label) for label, paths in kept.items() for path in paths[:: max(1, len(paths) // count)][:count]]
    out.write_text("\n".join(f"{path} {label}" for path, label in chosen))
    return [(folder / path, label) for path, label in chosen]


def test_it_learns_from_a_hundred_photos(shared_data: Path, tmp_path: Path) -> None:
    pacs = shared_data / "data" / "pacs"
    listed(pacs, "photo_train", 30, tmp_path / "train.txt")
    judged = listed(pacs, "photo_val", 12, tmp_path / "val.txt")
    changes = {
        "method": "classifier",
        "data.gallery": {"name": "photo", "root": str(pacs)}
        | {s: str(tmp_path / f"{s}.txt") for s in ("train", "val")},
        "model.weights": str(shared_data / "weights" / "mobilenetv2_100.safetensors"),
        "train.batch_size": 20,
        "train.epochs": 3,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
    }
    record = train(RunConfig.build("tiny", changes), tmp_path / "run")
    teacher = Classifier.load(tmp_path / "run")
    assert teacher.classes == CLASSES
    untrained = float((tmp_path / "run" / "log.csv").read_text().splitlines()[1].split(",")[4])
    assert record["accuracy"] > 0.7 > 0.6 > untrained  # chance is .25
    # What is loaded answers for itself as training measured it.
    rows = list(Manifest.load(tmp_path / "run" / "manifest.parquet").select(split="val"))
    assert [str(row.path) for row in rows] == [str(path) for path, _ in judged]
    source = loading.ImageSource(teacher.preprocessing)
    views = torch.cat([part for part, _, _ in loading.test_batches(source, rows, 64, 0)])
    truth = torch.tensor([CLASSES.index(label) for _, label in judged])
    with torch.no_grad():
        logits = teacher.answer(views / 255).logits
    assert abs(float((logits.argmax(dim=1) == truth).float().mean()) - record["accuracy"]) < 0.03
    assert not same(
        teacher.backbone_state(),
        Classifier.create("mobilenetv2_100", CLASSES, 64, weights=changes["model.weights"]).backbone_state(),
    )
