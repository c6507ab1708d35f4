"""A step of IHDA against the formula written out, its switches, and the adversarial game's signs."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import ihda_reference as reference
import pytest
import torch
import torch.nn.functional as F
from ihda_zoo import TERMS, batch_of, gradients_of, method_of, settings, terms_of, wake, weights_of, world
from training_zoo import BATCH_NORM, INK, PAINT, same

from isthmus.errors import IsthmusError
from isthmus.methods.ihda import IHDA
from isthmus.models.modules import DomainNorm
from isthmus.train.trainer import Trainer

ODD = {f"ihda__{name}_weight": value for name, value in
       zip(("identity", "triplet", "source_attribute", "attribute", "entropy", "consistency", "domain"),
           (0.7, 1.3, 0.6, 0.9, 0.8, 1.1, 0.5), strict=True)}  # fmt: skip
OFF = {"ihda__identity_dropout": 0.0, "ihda__attribute_dropout": 0.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("default", {}),
    "free lengths": ("default", {"ihda__unit_domain": False, "train__channels_last": False}),
    "cells": ("default", {"model__image_size": 64, "model__grid": 2,
                          "ihda__inner_triplets": True}),
    "paper": ("paper", {"ihda__margin": 2.0}),
    "code": ("code", {**OFF, "ihda__triplet_from": 0, "ihda__source_triplet_from": 0}),
    "shared": ("default", {"ihda__shared": True, "model__neck": True}),
    "two images": ("default", {"ihda__images_per_identity": 2, "ihda__anchors": "all", **ODD}),
    "joint": ("default", {"ihda__source_identity_weight": 0.4, "ihda__distance": "euclidean", **ODD}),
    "norm heads": ("default", {"ihda__head_style": "norm", "ihda__identity_head": "mlp", "model__neck": True, **ODD}),
    "batch norm": ("default", {"model__backbone": BATCH_NORM, "ihda__inner_triplets": True, "ihda__entropy": "half"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), views={INK: 3, PAINT: 2})


def woken(folder: Path, preset: str = "default", **changes: Any) -> IHDA:
    method = method_of(settings(folder, preset, **changes))
    wake(method.model)
    return method


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("step", [1, 2])
def test_a_step_is_the_formula(folder: Path, case: str, step: int) -> None:
    preset, changes = CASES[case]
    method = woken(folder, preset, **changes)
    plan = method.epoch(step - 1)[1]  # the second step: the reversal has begun
    batch = method.load(plan)
    mine = terms_of(method, batch)
    torch.stack(list(mine.values())).sum().backward()
    found = gradients_of(method.model)
    theirs = (reference.step_1 if step == 1 else reference.step_2)(method, batch)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.item() == pytest.approx(theirs[name].item(), rel=2e-5, abs=1e-6), name
        assert value.item() > 1e-4, name  # a term that is 0 would show nothing
    coefficient = method.reversal(plan)
    assert step == 1 or 0 < coefficient < 1
    wanted = reference.gradients(method, theirs, coefficient)
    assert {name for name, value in found.items() if value.any()} == {n for n, v in wanted.items() if v.any()}
    for part in method.model.modules():
        a, b = (
            torch.cat([values[name].flatten() for name in sorted(wanted) if name.startswith(f"{part}.")] or
                      [torch.zeros(1)]) for values in ({**wanted, **found}, wanted)
        )  # fmt: skip
        assert float((a - b).norm()) <= 1e-4 * float(b.norm()), part


def test_the_default_weights_are_those_of_the_paper() -> None:
    """L_id + L_tri + 0.1 (L_att^s + L_att^t + L_con) + 0.1 L_d, with the margin 0.3."""
    for preset in ("default", "paper", "code"):
        chosen = settings(Path("nowhere"), preset).ihda
        assert (chosen.identity_weight, chosen.triplet_weight, chosen.margin) == (1, 1, 0.3)
        assert {chosen.attribute_weight, chosen.entropy_weight, chosen.consistency_weight, chosen.domain_weight} == {
            0.1
        }


@pytest.mark.parametrize("term", TERMS)
def test_a_weight_of_0_takes_its_term_away_and_nothing_else(folder: Path, term: str) -> None:
    name = {"attributes": "attribute"}.get(term, term)
    whole, without = (woken(folder, **change) for change in ({}, {f"ihda__{name}_weight": 0.0}))
    batch = batch_of(whole, 1)
    all_terms, rest = terms_of(whole, batch), terms_of(without, batch)
    assert all_terms.keys() == set(TERMS) and rest.keys() == set(TERMS) - {term}
    assert all(torch.equal(value, all_terms[key]) for key, value in rest.items())


@pytest.mark.parametrize("term", ["identity", "triplet", "attributes"])
def test_the_same_in_step_1(folder: Path, term: str) -> None:
    name = {"attributes": "source_attribute"}.get(term, term)
    whole, without = (woken(folder, **change) for change in ({}, {f"ihda__{name}_weight": 0.0}))
    all_terms, rest = (terms_of(method, batch_of(method, 0)) for method in (whole, without))
    gone = {"attributes": "attributes"}.get(term, f"source_{term}")
    assert all_terms.keys() == {"source_identity", "source_triplet", "attributes"}
    assert rest.keys() == all_terms.keys() - {gone}
    assert all(torch.equal(value, all_terms[key]) for key, value in rest.items())


def moved(folder: Path, tmp_path: Path, epoch: int, **changes: Any) -> set[str]:
    """Parts that two steps of an epoch change, with an optimiser that moves whatever it may."""
    config = settings(folder, train__optimizer="sgd", train__weight_decay=0.1, train__momentum=0.9, **changes)
    trainer = Trainer(config, tmp_path / "run", screening=False)
    trainer._mode(training=True)
    trainer.method.begun = epoch + 1
    before = weights_of(trainer.model)
    for plan in trainer.method.epoch(epoch):
        trainer._step(trainer.method.load(plan), 0.1)
    after = weights_of(trainer.model)
    return {name for name in before if not same(before[name], after[name])}


def test_what_has_no_part_in_a_step_does_not_move(folder: Path, tmp_path: Path) -> None:
    none = {f"ihda__{name}_weight": 0.0 for name in ("attribute", "entropy", "consistency")}
    both = {"query", "gallery"}
    assert moved(folder, tmp_path, 0) == {"gallery", "source_identity", "attributes"}
    assert moved(folder, tmp_path, 0, ihda__source_attribute_weight=0.0) == {"gallery", "source_identity"}
    assert moved(folder, tmp_path, 0, ihda__identity_weight=0.0) == {"gallery", "attributes"}
    assert moved(folder, tmp_path, 0, ihda__shared=True) == {"encoder", "source_identity", "attributes"}
    assert moved(folder, tmp_path, 1) == {*both, "identity", "attributes", "domain"}
    assert moved(folder, tmp_path, 1, ihda__domain_weight=0.0) == {*both, "identity", "attributes"}
    assert moved(folder, tmp_path, 1, ihda__identity_weight=0.0) == {*both, "attributes", "domain"}
    assert moved(folder, tmp_path, 1, **none) == {*both, "identity", "domain"}
    assert moved(folder, tmp_path, 1, **none | {"ihda__entropy_weight": 0.1}) == {*both, "identity", "attributes",
                                                                                 "domain"}  # fmt: skip
    joint = moved(folder, tmp_path, 1, ihda__source_identity_weight=1.0)
    assert joint == {*both, "identity", "attributes", "domain", "source_identity"}


def test_triplets_begin_when_they_should(folder: Path) -> None:
    method = woken(folder, ihda__source_epochs=3, train__epochs=4, ihda__triplet_from=2, ihda__source_triplet_from=1)
    seen = []
    for epoch in range(7):
        method.begun = epoch + 1
        seen.append(any("triplet" in name for name in terms_of(method, batch_of(method, epoch))))
    assert seen == [False, True, True, False, False, True, True]


def test_no_loss_at_all_is_said(folder: Path) -> None:
    method = woken(folder, ihda__identity_weight=0.0, ihda__triplet_weight=0.0, ihda__source_attribute_weight=0.0)
    with pytest.raises(IsthmusError, match=r"All losses of this step are switched off; set one of ihda\.\*_weight"):
        terms_of(method, batch_of(method, 0))


def game(ablation: list[str]) -> dict[str, float]:
    """Change of the discriminator's own error by one step of the discriminator, and by one of the encoder."""
    torch.manual_seed(0)
    encoder, discriminator = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
    x, labels = torch.randn(30, 5), torch.arange(30) % 3
    x += labels[:, None]  # something to tell them by

    class Bare(IHDA):
        def __init__(self) -> None:
            self.config = settings(Path("nowhere"), ihda__ablation=ablation)
            self.networks = {"domain": discriminator}

    def error(encoder: torch.nn.Module, discriminator: torch.nn.Module) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(discriminator(encoder(x)), labels))

    before = error(encoder, discriminator)
    Bare()._domain_loss(encoder(x), labels, 0.7).backward()
    after = {}
    for name in ("discriminator", "encoder"):
        parts = {"encoder": copy.deepcopy(encoder), "discriminator": copy.deepcopy(discriminator)}
        source: dict[str, torch.nn.Module] = {"encoder": encoder, "discriminator": discriminator}
        with torch.no_grad():
            for weight, old in zip(parts[name].parameters(), source[name].parameters(), strict=True):
                assert old.grad is not None
                weight -= 0.01 * old.grad
        after[name] = error(**parts) - before
    return after


def test_the_discriminator_learns_and_the_encoder_hinders_it() -> None:
    right, inverted = game([]), game(["inverted-domain"])
    assert right["discriminator"] < -1e-5 and right["encoder"] > 1e-5
    assert inverted["discriminator"] > 1e-5 and inverted["encoder"] < -1e-5


def test_the_bounded_loss_is_bounded(folder: Path) -> None:
    """Softmax before the cross-entropy: at most ln(e + 2), whatever the discriminator says; the true one is not."""
    method = woken(folder, ihda__ablation=["bounded-domain"])
    free = woken(folder)
    assert "bounded-domain" not in free.config.ihda.ablation
    for one in (method, free):
        one.networks["domain"][-1].bias.data = torch.tensor([50.0, 0, 0])
    features, labels = torch.randn(9, 16), torch.tensor([1] * 9)
    assert method._domain_loss(features, labels, 1.0).item() == pytest.approx(math.log(math.e + 2), abs=0.01)
    assert free._domain_loss(features, labels, 1.0).item() > 10


def test_the_reversal_grows_as_it_is_said_to(folder: Path) -> None:
    def ganin(p: float) -> float:
        return 2 / (1 + math.exp(-10 * p)) - 1

    config = settings(folder, ihda__reversal=0.6, train__epochs=5)
    method = method_of(config)
    plans = [plan for epoch in range(1, 6) for plan in method.epoch(epoch)]
    assert [plan.step for plan in plans] == list(range(10)) and {plan.steps for plan in plans} == {10}
    assert [method.reversal(plan) for plan in plans] == pytest.approx([0.6 * ganin(n / 10) for n in range(10)])
    assert method.reversal(plans[0]) == 0
    assert method.reversal(plans[5]) == pytest.approx(0.6 * 0.98661, abs=1e-5)
    assert method.reversal(plans[0]._replace(step=10)) == pytest.approx(0.6 * 0.9999092, abs=1e-6)
    config.ihda.reversal_steps = 4
    assert [method.reversal(plan) for plan in plans[3:6]] == pytest.approx([0.6 * ganin(x) for x in (0.75, 1, 1)])
    config.ihda.reversal_gamma = 0.0
    assert {method.reversal(plan) for plan in plans} == {0.6}


def test_norms_of_each_domain_see_their_domain_in_training(folder: Path) -> None:
    """With one encoder for both: sketches move the query's statistics, photos the gallery's."""
    method = method_of(settings(folder, model__backbone=BATCH_NORM, model__domain_norm=True, ihda__shared=True))
    norm = next(child for child in method.model.encoder.modules() if isinstance(child, DomainNorm))
    mean: Any = norm.domain_running_mean
    start = mean.clone()
    list(method.updates(method.load(method.epoch(0)[0])))  # step 1: photos of the source
    assert torch.equal(mean[0], start[0]) and not torch.equal(mean[1], start[1])
    method.copy_tower()
    assert torch.equal(mean[0], mean[1])
    list(method.updates(method.load(method.epoch(1)[0])))
    assert not torch.equal(mean[0], mean[1])
