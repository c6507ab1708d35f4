"""CUT learns on real images in about a minute: translations look like the target domain and show what they showed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.train.run import train
from isthmus.translate.quality import Quality, measure_quality
from isthmus.translate.run import run_translation

IMAGES = 240  # of each domain, without labels and unpaired
SMALL: dict[str, Any] = {
    "model.image_size": 64,
    "augment.resize": 72,
    "cut.width": 24,
    "cut.discriminator_width": 24,
    "cut.blocks": 5,
    "cut.nce_weight": 2.0,
    "cut.samples": 2,
    "train.batch_size": 1,
    "train.epochs": 2,
    "train.steps_per_epoch": 150,
    "train.precision": "32-true",
    "train.accelerator": "cpu",
}


def some(shared: Path, domain: str, seed: int) -> Manifest:
    root = shared / "data" / "pacs"
    rows = list(read_source(root / "lists" / f"{domain}_train.txt", domain, root=str(root)))
    return Manifest(random.Random(seed).sample(rows, IMAGES))


@pytest.fixture(scope="module")
def domains(shared_data: Path) -> dict[str, Manifest]:
    return {name: some(shared_data, name, 5) for name in ("sketch", "photo")}


def trained(domains: dict[str, Manifest], folder: Path, **changes: Any) -> Path:
    layer: dict[str, Any] = {"method": "cut"}
    for role, name in (("query", "sketch"), ("gallery", "photo")):
        table = folder / f"{name}.parquet"
        folder.mkdir(exist_ok=True)
        # Without labels: nothing but the pixels may be learnt from.
        Manifest([replace(row, label=None, split="train") for row in domains[name]]).save(table)
        layer[f"data.{role}"] = {"name": name, "train": str(table)}
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    train(RunConfig.build("tiny", layer, SMALL, changed), folder / "run")
    return folder / "run"


def judged(domains: dict[str, Manifest], run: Path, source: str, target: str, shared: Path) -> Quality:
    made = run_translation(domains[source], target, run / f"{source}-as-{target}", "cut", {"run": str(run)})
    weights = str(shared / "weights" / "mobilenetv2_100.safetensors")
    return measure_quality(domains[source], made, domains[target], weights=weights, image_size=96, progress=False)


def test_translations_reach_for_the_target_and_keep_what_they_show(
    domains: dict[str, Manifest], shared_data: Path, tmp_path: Path
) -> None:
    run = trained(domains, tmp_path / "cut")
    found = {way: judged(domains, run, *way, shared_data) for way in (("photo", "sketch"), ("sketch", "photo"))}
    for quality in found.values():
        assert quality.shift is not None and quality.content is not None
        assert quality.content.category is not None and quality.content.category_chance is not None
        assert quality.shift.accuracy > 0.95, "the classifier has to know the domains"
        assert not quality.faults.blank
        # Content: more than by chance, by the interval.
        assert quality.content.nearer.low > 0.5
    drawn, painted = found["photo", "sketch"], found["sketch", "photo"]
    assert drawn.shift is not None
    assert drawn.shift.frechet.closed.mean > 0.3
    assert drawn.shift.made_taken.value > drawn.shift.source_taken.value + 0.5
    # A drawing says nothing of a photo's colours, which takes longer to learn; its lines stay, and so the category.
    assert painted.content is not None and painted.content.category is not None
    assert painted.content.nearer.value > 0.75
    assert painted.content.category.low > float(painted.content.category_chance or 1) + 0.1
    assert (run / "samples" / "0002.png").is_file()
