"""What each term of SynCDR is for: a tiny training with it and without it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from training_zoo import method_of, settings, world

from isthmus.methods.syncdr import SynCDR
from isthmus.train.build import build_optimizer

COUNT, STEPS = 24, 30


def embedded(method: SynCDR, side: int) -> tuple[Tensor, Tensor]:
    """Test views of a set's items, and of their counterparts."""
    model, source = method.model, method.source
    own = torch.stack([source.test_view(item.row) for item in method.sets[side]])
    made = torch.stack([source.test_view(item.counterparts[0]) for item in method.sets[side]])
    return model.embed(own, side), model.embed(made, 1 - side)


def figures(method: SynCDR) -> dict[str, float]:
    """What the terms are to change: measured on all images, against the network's own embeddings."""
    sums = {"counterpart": 0.0, "instance": 0.0, "entropy": 0.0}
    for side in (0, 1):
        own, made = embedded(method, side)
        # How much nearer a counterpart is than any other image: it grows only where the pair is told from the rest.
        table = made @ own.T
        sums["counterpart"] += float(table.diagonal().mean() - table.mean()) / 2
        table = (own @ own.T / 0.1).log_softmax(dim=1)
        sums["instance"] += float(table.diagonal().exp().mean()) / 2
        p = (own @ method.banks[1 - side].memory.T / 0.1).softmax(dim=1)
        sums["entropy"] += float(-(p * (p + 1e-12).log()).sum(dim=1).mean()) / 2
    return sums


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    folder = world(tmp_path_factory.mktemp("terms"), COUNT)
    results = {}
    for off in ("untrained", "none", "instance", "matching", "pair"):
        weights = {f"loss__{off}_weight": 0.0} if off in ("instance", "matching", "pair") else {}
        config = settings(
            folder, data__holdout=0.0, train__batch_size=16, train__steps_per_epoch=STEPS, train__lr=2e-3, **weights
        )
        method = method_of(config)
        if off != "untrained":
            optimizer = build_optimizer(config.train, method.model.encoder)
            method.model.encoder.train()
            for plan in method.epoch(0):
                optimizer.zero_grad()
                torch.stack(list(method.step(method.load(plan)).values())).sum().backward()
                optimizer.step()
                method.after_step()
        results[off] = figures(method)
    return results


def test_pairs_bring_counterparts_together(trained: dict[str, dict[str, float]]) -> None:
    gain = {name: trained[name]["counterpart"] - trained["untrained"]["counterpart"] for name in ("none", "pair")}
    assert gain["none"] > 0.1
    assert gain["none"] > 1.5 * gain["pair"]


def test_matching_makes_images_decide(trained: dict[str, dict[str, float]]) -> None:
    fall = {name: trained["untrained"]["entropy"] - trained[name]["entropy"] for name in ("none", "matching")}
    assert fall["none"] > 0.2
    assert fall["none"] > 1.2 * fall["matching"]


def test_instance_discrimination_tells_images_apart(trained: dict[str, dict[str, float]]) -> None:
    assert trained["none"]["instance"] > 1.3 * trained["instance"]["instance"]
