"""The losses of pairs and attributes against slow, obvious ones in float64, against a library, and at their edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ihda_reference as reference
import pytest
import torch
from torch import Tensor

from isthmus.losses import (
    attribute_consistency,
    attribute_entropy,
    attribute_loss,
    hardest_triplet,
    identity_loss,
    reverse_gradient,
)

NAN = float("nan")
FORMS = [("squared", True), ("euclidean", True), ("squared", False), ("euclidean", False)]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def agree(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Value in float32 and gradients of each input are those of the slow one in float64."""
    mine = [x.float().requires_grad_() for x in inputs]
    theirs = [x.clone().requires_grad_() for x in inputs]
    a, b = fast(*mine), slow(*theirs)
    assert a.dtype == torch.float32 and a.shape == ()
    assert a.item() == pytest.approx(b.item(), rel=1e-5, abs=1e-6)
    for x, y in zip(torch.autograd.grad(a, mine), torch.autograd.grad(b, theirs), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=2e-4, atol=2e-6)
    return float(b)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_identities(smoothing: float) -> None:
    ids = torch.tensor([2, -1, 0, 4, 2, -1])
    fast = agree(
        lambda x: identity_loss(x, ids, smoothing),
        lambda x: reference.identity(x, ids, smoothing),
        random(6, 5, scale=3),
    )
    assert fast > 0.5


def test_no_known_identity_is_no_loss_but_has_a_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = identity_loss(logits, torch.tensor([-1, -1, -1]), 0.1)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize(("form", "among"), FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_triplets(form: Any, among: bool, seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    # some unknown, some without a positive, some without a negative of their own
    ids = torch.randint(-1, 4, (9,), generator=dice)
    other_ids = ids if among else torch.randint(-1, 5, (12,), generator=dice)
    selves = torch.arange(9) if among else None
    a, o = random(9, 5, seed=seed), random(12, 5, seed=seed + 50)

    def fast(*x: Tensor) -> Tensor:
        return hardest_triplet(x[0], ids, x[-1], other_ids, margin=0.7, distance=form, selves=selves)

    def slow(*x: Tensor) -> Tensor:
        return reference.triplet(x[0], ids, x[-1], other_ids, 0.7, form, selves)

    assert agree(fast, slow, *((a,) if among else (a, o))) > 0


@pytest.mark.parametrize(("form", "among"), FORMS)
def test_triplets_as_pytorch_metric_learning_has_them(form: Any, among: bool) -> None:
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    ids = torch.arange(6).repeat_interleave(2)
    a, o = (random(12, 7, seed=s).float().requires_grad_() for s in (1, 2))
    distance = LpDistance(normalize_embeddings=False, p=2, power=2 if form == "squared" else 1)
    loss = TripletMarginLoss(margin=0.3, distance=distance, reducer=MeanReducer())
    other_ids = ids.clone()  # the library takes the same object for the same images
    refs = () if among else (o, other_ids)
    named = {} if among else {"ref_emb": o, "ref_labels": other_ids}
    theirs = loss(a, ids, BatchHardMiner(distance=distance)(a, ids, *refs), **named)
    mine = hardest_triplet(a, ids, *((a, ids) if among else (o, ids)), distance=form,
                           selves=torch.arange(12) if among else None)  # fmt: skip
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    inputs = [a] if among else [a, o]
    for x, y in zip(torch.autograd.grad(mine, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def test_triplets_as_the_public_code_has_them() -> None:
    """Its formula: all images of both domains are anchors, Euclidean, an anchor is one of its own positives."""
    ids = torch.arange(8).repeat(2)
    x = random(16, 6, seed=3).requires_grad_()
    table = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    same = ids[:, None] == ids[None]
    farthest = torch.where(same, table, -1.0).amax(1)
    nearest = torch.where(same, torch.inf, table).amin(1)
    ranking = torch.nn.MarginRankingLoss(margin=0.3)
    theirs = ranking(nearest, farthest, torch.ones(16, dtype=x.dtype))
    y = x.detach().float().requires_grad_()
    mine = hardest_triplet(y, ids, y, ids, margin=0.3, distance="euclidean", selves=torch.arange(16))
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(mine, y)[0].double(), torch.autograd.grad(theirs, x)[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("form", ["squared", "euclidean"])
def test_triplets_at_their_edges(form: Any) -> None:
    ids = torch.tensor([0, 0, 1, 1])
    equal = torch.ones(4, 3, requires_grad=True)  # a collapsed network, or one image twice
    loss = hardest_triplet(equal, ids, equal, ids, distance=form, selves=torch.arange(4))
    assert loss.item() == pytest.approx(0.3, abs=1e-5)
    assert torch.isfinite(torch.autograd.grad(loss, equal)[0]).all()
    for anchors, others, selves in (
        (ids, torch.tensor([2, 3, 4, 5]), None),  # no positives
        (ids * 0, ids * 0, None),  # no negatives
        (torch.arange(4), torch.arange(4), torch.arange(4)),  # each alone
        (ids * 0 - 1, ids, None),  # unknown anchors
        (ids, ids * 0 - 1, None),  # unknown others
    ):
        x = torch.randn(4, 3, requires_grad=True)
        loss = hardest_triplet(x, anchors, x, others, distance=form, selves=selves)
        loss.backward()
        assert loss.item() == 0 and x.grad is not None and not x.grad.any()


@pytest.mark.parametrize("attributes", [1, 4])
def test_attributes(attributes: int) -> None:
    values = (random(5, attributes, seed=1) > 0).double()
    values[1, 0], values[3, :] = NAN, NAN
    values[0, 0] = 0.25  # half known: a share

    logits = random(5, attributes, seed=2, scale=2)
    agree(lambda x: attribute_loss(x, values), lambda x: reference.attributes(x, values), logits)


def test_unknown_attributes_teach_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = attribute_loss(logits, torch.full((3, 4), NAN))
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()
    values = torch.tensor([[1.0, NAN], [NAN, 0.0]])
    logits = torch.randn(2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(attribute_loss(logits, values), logits)
    assert (gradient != 0).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("form", ["complete", "half"])
@pytest.mark.parametrize("attributes", [1, 2, 21])
def test_entropy(form: Any, attributes: int) -> None:
    logits = random(6, attributes, scale=3)
    agree(lambda x: attribute_entropy(x, form), lambda x: reference.entropy(x, form), logits)
    if form == "half" and attributes > 1:  # the public code's line, with its own guard against log 0
        p = logits.sigmoid()
        theirs = -torch.sum(p * torch.log2(p + 1e-6)) / (len(p) * math.log2(attributes))
        assert attribute_entropy(logits.float(), "half").item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("form", ["complete", "half"])
def test_entropy_of_the_decided_is_nothing_and_finite(form: Any) -> None:
    x = torch.tensor([[-200.0, 200.0, -1e4, 1e4]], requires_grad=True)
    loss = attribute_entropy(x, form)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


def test_half_an_entropy_pulls_the_undecided_to_yes() -> None:
    """The fault that the complete form mends: at one half it has no slope, the half one has."""
    x = torch.zeros(1, 2, requires_grad=True)
    assert torch.autograd.grad(attribute_entropy(x), x)[0].abs().max() < 1e-7
    assert (torch.autograd.grad(attribute_entropy(x, "half"), x)[0] < -0.01).all()  # descending raises the logit


@pytest.mark.parametrize("form", ["mse", "norm"])
def test_consistency(form: Any) -> None:
    agree(
        lambda x, y: attribute_consistency(x, y, form),
        lambda x, y: reference.consistency(x, y, form),
        random(5, 3, seed=1),
        random(5, 3, seed=2),
    )
    same = torch.randn(4, 3, requires_grad=True)
    loss = attribute_consistency(same, same.detach().clone(), form)
    assert loss.item() == pytest.approx(0, abs=2e-6)
    assert torch.isfinite(torch.autograd.grad(loss, same)[0]).all()


def test_reversal_turns_and_scales_the_gradient_alone() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    wanted = torch.randn(3, 4)
    (gradient,) = torch.autograd.grad((y * wanted).sum(), x)
    torch.testing.assert_close(gradient, -0.3 * wanted)
    assert not torch.autograd.grad((reverse_gradient(x, 0.0) * wanted).sum(), x)[0].any()
