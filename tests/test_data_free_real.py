"""With classifiers of real photos and sketches: what is learned from them alone, and what each of its terms is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_classifier_real import listed

from isthmus.config import RunConfig
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.losses import NormStatistics, alignment_loss, statistics_loss
from isthmus.methods.data_free import DataFree
from isthmus.methods.data_free_judge import DataFreeJudge
from isthmus.models.encoder import Architecture, Model
from isthmus.train.run import train
from isthmus.train.trainer import Trainer

SIDE = 48
TEACHERS = {"photo": (40, 5), "sketch": (60, 8)}  # images of each class, epochs


@pytest.fixture(scope="module")
def pacs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings `data_free.*` of a photo, a sketch and a modality teacher; images that they didn't see; weights."""
    folder, out = shared_data / "data" / "pacs", tmp_path_factory.mktemp("pacs")
    weights = str(shared_data / "weights" / "mobilenetv2_100.safetensors")
    sides = {"photo": "gallery", "sketch": "query"}
    judged, parts = {}, {}
    for domain, (count, _) in TEACHERS.items():
        listed(folder, f"{domain}_train", count, out / f"{domain}.txt")
        judged[domain] = listed(folder, f"{domain}_val", 15, out / f"{domain}_val.txt")
        parts[f"data.{sides[domain]}"] = {"name": domain, "root": str(folder), "train": str(out / f"{domain}.txt")}
    base = {"method": "classifier", "model.weights": weights, "model.image_size": SIDE, "train.batch_size": 20}
    fixed = {"train.precision": "32-true", "train.accelerator": "cpu"}
    for seed, (domain, (_, epochs)) in enumerate(TEACHERS.items(), start=1):
        # Seeds of their own: last layers that began with the same random weights would have one space already.
        own = {name: part for name, part in parts.items() if part["name"] == domain} | {"seed": seed}
        train(RunConfig.build("tiny", {**base, **fixed, **own, "train.epochs": epochs}), out / f"{domain}-run")
    modality = {**base, **fixed, **parts, "classifier.target": "domain", "train.epochs": 1}
    train(RunConfig.build("tiny", modality), out / "modality-run")
    teachers = {f"data_free.{name}": str(out / f"{name}-run") for name in ("photo", "sketch", "modality")}
    common = {"method": "data-free", **teachers, **fixed, "data_free.image_size": SIDE, "data_free.samples": 0}
    return {"common": common, "judged": judged, "weights": weights}


def run(pacs: dict[str, Any], folder: Path, **changes: Any) -> Model:
    """A short run with them."""
    settings = {
        **pacs["common"], "data_free.warmup": 30, "data_free.bank_mb": 32, "train.batch_size": 24,
        "train.epochs": 3, "train.steps_per_epoch": 25, "train.lr": 1e-3, "data_free.generator_rate": 2,
        "data_free.encoder_steps": 3,
    }  # fmt: skip
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    train(RunConfig.build("tiny", settings, changed), folder)
    return Model.load(folder)


def precision(model: Model, pacs: dict[str, Any], *, learned: bool = False) -> float:
    """mAP@all of both directions' mean, of the whole vectors or of what is learned of them."""
    begin = model.architecture.begin
    part = slice(begin, begin + model.architecture.dim) if learned else slice(None)
    vectors, labels, ids = {}, {}, {}
    for domain, images in pacs["judged"].items():
        vectors[domain] = model.encode([path for path, _ in images], domain=domain, centring=False)[:, part]
        labels[domain] = [label for _, label in images]
        ids[domain] = [str(path) for path, _ in images]
    found = [
        retrieval_metrics(vectors[a], vectors[b], labels[a], labels[b], gallery_ids=ids[b], bootstrap=0)
        for a, b in (("sketch", "photo"), ("photo", "sketch"))
    ]
    return float(np.mean([one.scores["mAP@all"] for one in found]))


def test_it_learns_from_classifiers_alone(pacs: dict[str, Any], tmp_path: Path) -> None:
    looks = Architecture("mobilenetv2_100", 0, SIDE)
    pretrained = precision(Model.create(looks, ("sketch", "photo"), weights=pacs["weights"], centring=False), pacs)
    still: dict[str, Any] = {"data_free__images": "none"}
    alone = {"data_free__crossing": False, "data_free__readout": "embedding", "data_free__stages": 0}
    own = precision(run(pacs, tmp_path / "own", **still, **alone), pacs)
    posteriors = precision(run(pacs, tmp_path / "posteriors", **still, data_free__readout="posteriors"), pacs)
    before = precision(run(pacs, tmp_path / "before", **still), pacs, learned=True)
    made = run(pacs, tmp_path / "made", train__steps_per_epoch=32)
    both, learned = precision(made, pacs), precision(made, pacs, learned=True)
    print(f"{pretrained=:.3f} {own=:.3f} {posteriors=:.3f} {before=:.3f} {learned=:.3f} {both=:.3f}")
    assert learned > before + 0.06 and learned > max(pretrained, own) + 0.15
    assert both > max(pretrained, own) + 0.3 and both > before + 0.15
    assert both > learned + 0.03 and both > posteriors + 0.01


#: what a term is for: the setting that it is switched off by, those of both runs, and a figure that falls without it
TERMS: dict[str, tuple[str, dict[str, Any], str, float]] = {
    "semantic": ("semantic_weight", {}, "obeyed", 0.3),
    "statistics": ("statistics_weight", {}, "likeness", 0.1),
    "modality": ("modality_weight", {"grey": False}, "in its domain", 0.06),
    "mode seeking": ("diversity_weight", {}, "diversity within", 0.01),
    "balance": ("entropy_weight", {"drawn_classes": False}, "evenness", 0.01),
    "alignment": ("alignment_weight", {"drawn_classes": False}, "agreement", 0.05),
}


@torch.no_grad()
def generated(pacs: dict[str, Any], folder: Path, **changes: Any) -> dict[str, float]:
    """Figures of what generators make after some steps without students, means of both domains."""
    settings = {
        **pacs["common"], "data_free.warmup": 1000, "data_free.bank_mb": 8, "train.batch_size": 16,
        "train.epochs": 1, "train.steps_per_epoch": 20, "train.lr": 1e-3, "data_free.generator_rate": 5,
        "data_free.adversarial_weight": 0,
    }  # fmt: skip
    changed = {f"data_free.{name}": value for name, value in changes.items()}
    trainer = Trainer(RunConfig.build("tiny", settings, changed), folder)
    with torch.enable_grad():
        record = trainer.fit()
    method = trainer.method
    assert isinstance(method, DataFree)
    teachers, judge = method.teachers, DataFreeJudge(method, folder)
    images = judge._pictures().images
    found, seen = [], []
    matched = teachers.columns[:, : teachers.matched]
    for side, name in enumerate(teachers.names):
        with NormStatistics(teachers.sides[side].norms()) as statistics:
            logits = teachers.answer(side, images[side]).logits
        seen.append(logits)
        assert teachers.modality is not None
        domains = teachers.modality.answer(images[side]).logits.softmax(dim=1)
        share = logits.softmax(dim=1).mean(dim=0)
        found.append(
            {
                "obeyed": record.get(f"obeyed/{name}", 0.0),
                "diversity within": record[f"diversity_within/{name}"],
                "likeness": -float(statistics_loss(statistics.captured, "relative")),
                "in its domain": float(domains[:, teachers.modality.classes.index(name)].mean()),
                "evenness": float(-(share * share.log()).sum()),
            }
        )
    means = {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}
    return {**means, "agreement": -float(alignment_loss(seen[1], seen[0], matched[1], matched[0]))}


def test_each_term_of_the_generators_does_what_it_is_for(pacs: dict[str, Any], tmp_path: Path) -> None:
    with_all: dict[str, dict[str, float]] = {}
    for term, (setting, more, figure, least) in TERMS.items():
        key = "-".join(more)
        if key not in with_all:
            with_all[key] = generated(pacs, tmp_path / f"all-{key}", **more)
        without = generated(pacs, tmp_path / setting, **more, **{setting: 0.0})
        print(f"{term}: {figure} {with_all[key][figure]:.3f} with, {without[figure]:.3f} without")
        assert with_all[key][figure] > without[figure] + least, term
