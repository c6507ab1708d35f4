"""The losses of data-free retrieval on answers, against slow loops in float64, and what each of them is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from isthmus.losses import (
    activation_loss,
    adversarial_loss,
    alignment_loss,
    class_coding,
    distillation_loss,
    information_entropy,
    modality_loss,
    self_labelling,
)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def agree(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value in float32 and gradients of each input are those of the slow one in float64."""
    mine = [x.float().requires_grad_() for x in inputs]
    theirs = [x.clone().requires_grad_() for x in inputs]
    a, b = fast(*mine), slow(*theirs)
    assert a.dtype == torch.float32 and a.shape == ()
    assert a.item() == pytest.approx(b.item(), rel=1e-5, abs=1e-6)
    for x, y in zip(torch.autograd.grad(a, mine), torch.autograd.grad(b, theirs), strict=True):
        assert bool((y != 0).any())
        torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-6)


def posterior(row: Tensor) -> list[Tensor]:
    """A softmax, one class after the other."""
    powers = [math.e**x for x in row]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: Tensor, targets: Sequence[int]) -> Tensor:
    total = sum((-posterior(row)[target].log() for row, target in zip(logits, targets, strict=True)), torch.zeros(()))
    return total / len(logits)


def kl(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    return sum((a * (a / b).log() for a, b in zip(p, q, strict=True)), torch.zeros(()))


def test_self_labelling() -> None:
    def slow(x: Tensor) -> Tensor:
        return cross_entropy(x, [max(range(6), key=lambda c: float(row[c])) for row in x])

    agree(self_labelling, slow, random(5, 6, scale=2))


def test_class_coding_and_modality() -> None:
    targets = torch.tensor([3, 0, 3, 1, 5])
    logits = random(5, 6, scale=2)
    agree(lambda x: class_coding(x, targets), lambda x: cross_entropy(x, targets.tolist()), logits)
    agree(lambda x: modality_loss(x, targets), lambda x: cross_entropy(x, targets.tolist()), logits)
    agree(lambda x: modality_loss(x, 2), lambda x: cross_entropy(x, [2] * 5), logits)


@pytest.mark.parametrize("base", [math.e, 10.0, 2.0])
def test_information_entropy(base: float) -> None:
    def slow(x: Tensor) -> Tensor:
        rows = [posterior(row) for row in x]
        means = [sum((row[c] for row in rows), torch.zeros(())) / len(rows) for c in range(x.shape[1])]
        return sum((q * q.log() / math.log(base) for q in means), torch.zeros(()))

    agree(lambda x: information_entropy(x, base), slow, random(7, 4, scale=3))


def test_information_entropy_wants_all_classes_alike() -> None:
    sure = 30 * torch.eye(4)
    assert information_entropy(sure).item() == pytest.approx(-math.log(4), abs=1e-5)
    assert information_entropy(sure[:1].repeat(4, 1)).item() == pytest.approx(0, abs=1e-5)
    logits = torch.tensor([[400.0, 0.0, -400.0], [400.0, 0.0, -400.0]], requires_grad=True)  # classes that are gone
    (gradient,) = torch.autograd.grad(information_entropy(logits), logits)
    assert bool(gradient.isfinite().all())
    half = information_entropy(sure.bfloat16())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(-math.log(4), abs=1e-5)


def test_activation() -> None:
    def slow(x: Tensor) -> Tensor:
        return -sum((abs(value) for row in x for value in row), torch.zeros(())) / x.numel()

    agree(activation_loss, slow, random(3, 5))


PHOTO, SKETCH = [4, 0, 2], [1, 3, 0]


@pytest.mark.parametrize("detach", [None, "photo", "sketch"])
def test_alignment(detach: Any) -> None:
    def slow(photo: Tensor, sketch: Tensor) -> Tensor:
        total = torch.zeros(())
        for a, b in zip(photo, sketch, strict=True):
            p, s = posterior(a[PHOTO]), posterior(b[SKETCH])
            total = total + {None: (kl(p, s) + kl(s, p)) / 2, "photo": kl(p, s), "sketch": kl(s, p)}[detach]
        return total / len(photo)

    photo, sketch = random(4, 6, seed=1, scale=2), random(4, 5, seed=2, scale=2)
    if detach is None:
        agree(lambda x, y: alignment_loss(x, y, PHOTO, torch.tensor(SKETCH)), slow, photo, sketch)
    elif detach == "photo":
        agree(lambda y: alignment_loss(photo, y, PHOTO, SKETCH, detach), lambda y: slow(photo, y), sketch)
    else:
        agree(lambda x: alignment_loss(x, sketch, PHOTO, SKETCH, detach), lambda x: slow(x, sketch), photo)
        other = sketch.float().requires_grad_()
        loss = alignment_loss(photo.float().requires_grad_(), other, PHOTO, SKETCH, detach)
        assert torch.autograd.grad(loss, other, allow_unused=True)[0] is None


def test_one_sided_alignment_as_the_public_code_has_it() -> None:
    """Its formula, over all classes: kl_div of the photo's log-probabilities against the sketch's, summed over n."""
    photo, sketch = random(4, 5, seed=1), random(4, 5, seed=2)
    theirs = torch.nn.functional.kl_div(photo.log_softmax(1), sketch.softmax(1), reduction="sum") / 4
    mine = alignment_loss(photo, sketch, range(5), range(5), detach="sketch")
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_alignment_sees_matched_classes_alone_and_by_name() -> None:
    photo, sketch = random(4, 6, seed=1), random(4, 5, seed=2)
    before = alignment_loss(photo, sketch, PHOTO, SKETCH)
    photo[:, [1, 3, 5]] += 7.0
    sketch[:, [2, 4]] -= 7.0
    assert alignment_loss(photo, sketch, PHOTO, SKETCH).item() == pytest.approx(before.item(), rel=1e-6)
    sketch[:, SKETCH] = photo[:, PHOTO] + 1.5
    assert alignment_loss(photo, sketch, PHOTO, SKETCH).item() == pytest.approx(0, abs=1e-6)
    assert alignment_loss(photo, sketch, PHOTO[:1], SKETCH[:1]).item() == 0
    for columns in (([0, 1], [0]), ([], [])):
        with pytest.raises(ValueError, match="columns"):
            alignment_loss(photo, sketch, *columns)


def test_adversarial() -> None:
    def slow(student: Tensor, teacher: Tensor) -> Tensor:
        total = torch.zeros(())
        for a, b in zip(student, teacher, strict=True):
            p, q = posterior(a), posterior(b)
            middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            total = total - (kl(p, middle) + kl(q, middle)) / 2
        return total / len(student)

    student, teacher = random(4, 5, seed=1, scale=2), random(4, 5, seed=2, scale=2)
    agree(adversarial_loss, slow, student, teacher)
    first = [max(range(5), key=lambda c: float(row[c])) for row in teacher]
    agree(
        lambda x: adversarial_loss(x, teacher, "cross-entropy"),
        lambda x: -cross_entropy(x, first),
        student,
    )


def test_adversarial_has_a_bound_where_the_paper_has_none() -> None:
    for size in (1.0, 1e2, 1e4):
        student = torch.tensor([[size, 0.0, -size]], requires_grad=True)
        loss = adversarial_loss(student, -student.detach())
        assert -math.log(2) - 1e-6 <= loss.item() <= 0
        assert bool(torch.autograd.grad(loss, student)[0].isfinite().all())
    assert adversarial_loss(student, -student, "cross-entropy").item() < -1e4
    same = random(3, 4)
    assert adversarial_loss(same, same).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="teacher's"):
        adversarial_loss(same, same[:, :2])
    with pytest.raises(ValueError, match="'js'"):
        adversarial_loss(same, same, "js")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (14.3, 1.0), (16.0, 2.5)])
def test_distillation(scale: float, temperature: float) -> None:
    cosines, logits = random(4, 5, seed=1).tanh(), random(4, 5, seed=2, scale=3)

    def slow(x: Tensor) -> Tensor:
        total = torch.zeros(())
        for a, b in zip(x, logits, strict=True):
            total = total + kl(posterior(b / temperature), posterior(a * scale))
        return total / len(x)

    agree(lambda x: distillation_loss(x, logits, scale=scale, temperature=temperature), slow, cosines)
    teacher = logits.float().requires_grad_()
    student = cosines.float().requires_grad_()
    loss = distillation_loss(student, teacher, scale=scale, temperature=temperature)
    assert torch.autograd.grad(loss, teacher, allow_unused=True)[0] is None
    exact = distillation_loss(logits / temperature / scale, logits, scale=scale, temperature=temperature)
    assert exact.item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="similarities"):
        distillation_loss(cosines[:, :3], logits, scale=1.0)
