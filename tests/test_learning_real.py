"""Does it learn on real sketches and photos? A few classes of PACS, from ImageNet weights, in a minute."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_list
from isthmus.train.run import train
from isthmus.translate.run import run_translation

TRAIN, VAL, STEPS, SIDE = 120, 150, 45, 64


def part(shared: Path, name: str, domain: str, count: int) -> Manifest:
    """`count` images, evenly taken from a list of the data set."""
    root = shared / "data" / "pacs"
    rows = read_list(root / "lists" / f"{domain}_{name}.txt", domain, root=root)
    step = len(rows) / count
    return Manifest([rows[int(i * step)] for i in range(count)])


def log(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Mean validation Prec@1 of both directions."""
    folder = tmp_path_factory.mktemp("pacs")
    layer: dict[str, Any] = {
        "model.weights": str(shared_data / "weights" / "mobilenetv2_100.safetensors"),
        "model.image_size": SIDE,
        "train.epochs": 1,
        "train.steps_per_epoch": STEPS,
        "train.precision": "32-true",
        "train.select": "last",
        "train.accelerator": "cpu",
        "data.workers": 0,
    }
    sources = {}
    # Training classes are disjoint: the sketches' are not the photos'; validation has all of them.
    for role, domain, half in (("query", "sketch", 1), ("gallery", "photo", 2)):
        sources[domain] = part(shared_data, f"train_cls_disjoint{half}", domain, TRAIN)
        sources[domain].save(folder / f"{domain}.csv")
        part(shared_data, "val", domain, VAL).save(folder / f"{domain}_val.csv")
        paths = {split: str(folder / f"{domain}{end}.csv") for split, end in (("train", ""), ("val", "_val"))}
        layer[f"data.{role}"] = {"name": domain, **paths}
    for domain, other in (("sketch", "photo"), ("photo", "sketch")):
        run_translation(sources[domain], other, folder / f"to_{other}", "edges", target=sources[other], workers=0)
    layer["data.synthetic"] = [str(folder / "to_photo"), str(folder / "to_sketch")]
    scores = {}
    for name, change in (
        ("frozen", {"method": "pretrained", "model.centring": False}),
        ("frozen, centred", {"method": "pretrained"}),
        ("syncdr", {"method": "syncdr"}),
    ):
        train(RunConfig.build("default", layer, change), folder / "runs" / name)
        scores[name] = float(log(folder / "runs" / name)[-1]["val/Prec@1"])
    print(scores)
    return scores


@pytest.mark.parametrize("baseline", ["frozen", "frozen, centred"])
def test_syncdr_beats_the_frozen_network(measured: dict[str, float], baseline: str) -> None:
    assert measured["syncdr"] > measured[baseline] + 0.03
