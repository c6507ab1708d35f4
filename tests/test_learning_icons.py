"""Does it learn? SynCDR on a few hundred icons, from random weights, against the untrained network and CDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import isthmus
from isthmus.config import RunConfig
from isthmus.data.icons import FILLED, OUTLINE, write_icons
from isthmus.data.manifest import Manifest
from isthmus.evaluate.run import evaluate_model
from isthmus.train.run import train
from isthmus.translate.run import run_translation

pytest.importorskip("fonticon_mdi7", reason="the icons come with the extra 'test'")
ICONS, SIDE = 300, 48


def recall(run: Path, icons: Manifest) -> dict[str, float]:
    """R@1 of both directions on icons that no training image shows."""
    asks, answers = (icons.select(domain=domain, split="test") for domain in (OUTLINE, FILLED))
    assert len(asks) == len(answers) == ICONS // 3
    scores = evaluate_model(isthmus.load(run), asks, answers, by="identity", bootstrap=0).scores
    return {way: scores[f"{way}/R@1"] for way in (f"{OUTLINE}->{FILLED}", f"{FILLED}->{OUTLINE}")}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    folder = tmp_path_factory.mktemp("icons")
    icons = write_icons(folder / "icons", size=SIDE, limit=ICONS)
    made = []
    for domain, other in ((OUTLINE, FILLED), (FILLED, OUTLINE)):
        source, target = (icons.select(domain=name, split="train") for name in (domain, other))
        run_translation(source, other, folder / f"to_{other}", "edges", target=target, workers=0)
        made.append(str(folder / f"to_{other}"))
    domains = {
        f"data.{role}": {"name": name, "train": str(folder / "icons")}
        for role, name in (("query", OUTLINE), ("gallery", FILLED))
    }
    common: dict[str, Any] = domains | {
        "data.synthetic": made,
        "data.workers": 0,
        "model.image_size": SIDE,
        "train.batch_size": 32,
        "train.epochs": 2,
        "train.steps_per_epoch": 25,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
    }
    # Without pairs CDS has only its two terms; the preset for icons has them off.
    cds = {"loss.instance_weight": 1.0, "loss.matching_weight": 1.0}
    results = {}
    for method, own in (("pretrained", {}), ("cds", cds), ("syncdr", {})):
        train(RunConfig.build("tiny", common, {"method": method}, own), folder / method)
        results[method] = recall(folder / method, icons)
    print(results)
    return results


@pytest.mark.parametrize("way", [f"{OUTLINE}->{FILLED}", f"{FILLED}->{OUTLINE}"])
def test_syncdr_learns_to_retrieve(measured: dict[str, dict[str, float]], way: str) -> None:
    """R@1 among 100 icons; chance is 1 in 100."""
    assert measured["syncdr"][way] > 0.4
    assert measured["syncdr"][way] > measured["pretrained"][way] + 0.15
    assert measured["syncdr"][way] > measured["cds"][way] + 0.15
