"""Proxy anchor and the symmetric queue against loops, against a library, and through a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.losses import SymmetricQueue, proxy_anchor
from isthmus.ops import normalise
from isthmus.train.checkpoint import load_checkpoint, save_checkpoint


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(n: int, d: int, seed: int = 0) -> Tensor:
    return normalise(random(n, d, seed=seed)).float()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a * a).sum().sqrt() / (b * b).sum().sqrt()


def slow_anchor(
    x: Tensor, codes: list[int], proxies: Tensor, margin: float, scale: float, valid: Tensor | None = None
) -> Tensor:
    """Equation 4, term by term."""
    allowed = torch.ones(len(x), len(proxies), dtype=torch.bool) if valid is None else valid.expand(len(x), -1)
    draws, pushes = [], []
    for c, proxy in enumerate(proxies):
        own, other = [], []
        for i, code in enumerate(codes):
            if code < 0 or not allowed[i, c]:
                continue
            s = cosine(x[i], proxy)
            if code == c:
                own.append((-scale * (s - margin)).exp())
            else:
                other.append((scale * (s + margin)).exp())
        if own:
            draws.append((1 + torch.stack(own).sum()).log())
        if own or other:
            pushes.append((1 + torch.stack(other).sum()).log() if other else torch.zeros((), dtype=x.dtype))
    return torch.stack(draws).mean() + torch.stack(pushes).mean()


CODES = [0, 3, 3, 1, -1, 0, 5, 3]


@pytest.mark.parametrize(("margin", "scale"), [(0.1, 32.0), (0.0, 1.0), (0.3, 8.0)])
@pytest.mark.parametrize("mask", ["none", "class", "image"])
def test_proxy_anchor_against_a_loop(margin: float, scale: float, mask: str) -> None:
    valid = {
        "none": None,
        "class": torch.tensor([True, True, False, True, True, False]),  # the proxy of an image is left out, too
        "image": random(8, 6, seed=5) > -0.5,
    }[mask]
    mine = [random(8, 4, seed=1).float().requires_grad_(), random(6, 4, seed=2).float().requires_grad_()]
    theirs = [random(8, 4, seed=1).requires_grad_(), random(6, 4, seed=2).requires_grad_()]
    a = proxy_anchor(mine[0], torch.tensor(CODES), mine[1], margin=margin, scale=scale, valid=valid)
    b = slow_anchor(theirs[0], CODES, theirs[1], margin, scale, valid)
    assert a.dtype == torch.float32 and a.item() == pytest.approx(b.item(), rel=1e-5)
    for x, y in zip(torch.autograd.grad(a, mine), torch.autograd.grad(b, theirs), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("codes", [[0, 3, 3, 1, 0, 5, 3, 2], [4] * 8])
def test_proxy_anchor_as_pytorch_metric_learning_has_it(codes: list[int]) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    loss = losses.ProxyAnchorLoss(num_classes=6, embedding_size=4, margin=0.1, alpha=32)
    x = random(8, 4, seed=1).float().requires_grad_()
    theirs = loss(x, torch.tensor(codes))
    proxies = loss.proxies.detach().clone().requires_grad_()
    mine = proxy_anchor(x, torch.tensor(codes), proxies)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(mine, [x, proxies]), torch.autograd.grad(theirs, [x, loss.proxies]),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_proxies_are_frozen_or_learn_as_they_are_given() -> None:
    x, codes = random(8, 4, seed=1).float().requires_grad_(), torch.tensor(CODES)
    frozen, learning = random(6, 4, seed=2).float(), random(6, 4, seed=2).float().requires_grad_()
    proxy_anchor(x, codes, frozen).backward()
    assert frozen.grad is None and x.grad is not None
    assert not x.grad[CODES.index(-1)].any() and bool(x.grad[0].any())
    proxy_anchor(x, codes, learning).backward()
    assert learning.grad is not None and bool(learning.grad.abs().sum(1).gt(0).all())


def test_proxy_anchor_at_its_edges() -> None:
    x = random(3, 4).float().requires_grad_()
    loss = proxy_anchor(x, torch.tensor([-1, -1, -1]), random(5, 4, seed=2).float())
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and not x.grad.any()
    for scale in (32.0, 1e4):
        y = random(3, 4).float().requires_grad_()
        loss = proxy_anchor(y, torch.tensor([0, 1, 1]), -y.detach(), scale=scale)
        assert bool(loss.isfinite()) and bool(torch.autograd.grad(loss, y)[0].isfinite().all())
    y = random(3, 4)
    plain = proxy_anchor(y, torch.tensor([0, 1, 1]), random(5, 4, seed=2))
    with torch.autocast("cpu", torch.bfloat16):
        half = proxy_anchor(y.float(), torch.tensor([0, 1, 1]), random(5, 4, seed=2).float())
    assert half.item() == pytest.approx(plain.item(), rel=1e-6)


def slow_queue(
    photos: Tensor, sketches: Tensor, past: list[tuple[Tensor, Tensor, int, int]], codes: list[tuple[int, int]],
    temperature: float,
) -> float:  # fmt: skip
    """Each photo among all sketches, each sketch among all photos; past: photo, sketch and their codes."""
    total = 0.0
    for side, (asking, keys) in enumerate(((photos, sketches), (sketches, photos))):
        for i, query in enumerate(asking):
            entries = [(key, codes[j][1 - side], j == i) for j, key in enumerate(keys)]
            entries += [(entry[1 - side], entry[2 + 1 - side], False) for entry in past]
            scores = {True: 0.0, False: 0.0}
            for key, code, positive in entries:
                own = codes[i][side]
                if positive or own < 0 or own != code:
                    cos = math.fsum(float(a) * float(b) for a, b in zip(query, key, strict=True))
                    scores[positive] += math.exp(cos / temperature)
            total -= math.log(scores[True] / (scores[True] + scores[False])) / len(photos) / 2
    return total


@pytest.mark.parametrize("kind", ["none", "shared", "own"])
@pytest.mark.parametrize("length", [0, 3, 5, 7, 40])
def test_queue_against_a_loop(length: int, kind: str) -> None:
    """Lengths below, at and above the batch, and that it doesn't divide: the public code's queue stays random there."""
    queue = SymmetricQueue(4, length, temperature=0.5)
    past: list[tuple[Tensor, Tensor, int, int]] = []
    for step in range(4):
        photos, sketches = unit(5, 4, 2 * step).requires_grad_(), unit(5, 4, 2 * step + 1).requires_grad_()
        p = (random(5, seed=step) * 2).long().clamp(-1, 3)
        s = (random(5, seed=step + 50) * 2).long().clamp(-1, 3) if kind == "own" else p
        if kind == "none":
            loss = queue.loss(photos, sketches)
            p = s = torch.full((5,), -1)
            queue.push(photos, sketches)
        else:
            others = s if kind == "own" else None
            loss = queue.loss(photos, sketches, p, others)
            queue.push(photos, sketches, p, others)
        pairs = list(zip(p.tolist(), s.tolist(), strict=True))
        assert loss.item() == pytest.approx(slow_queue(photos, sketches, past, pairs, 0.5), rel=1e-5)
        gradients = torch.autograd.grad(loss, [photos, sketches])
        assert all(bool(g.abs().sum(1).gt(0).all()) for g in gradients)
        past += [(a.detach(), b.detach(), x, y) for a, b, (x, y) in zip(photos, sketches, pairs, strict=True)]
        past = past[len(past) - length :] if length < len(past) else past
        assert len(queue) == len(past) == min(length, 5 * (step + 1))
        assert not queue.photos.requires_grad
        if past:
            assert torch.equal(queue.photos, torch.stack([entry[0] for entry in past]))
            assert torch.equal(queue.sketches, torch.stack([entry[1] for entry in past]))
            assert queue.codes.tolist() == [[entry[2], entry[3]] for entry in past]


def test_codes_spare_those_of_the_own_class() -> None:
    queue, photos = SymmetricQueue(2, 8), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    apart, alike = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert queue.loss(photos, photos, apart).item() == pytest.approx(math.log(2), rel=1e-5)
    assert queue.loss(photos, photos, alike).item() == pytest.approx(0, abs=1e-6)
    queue.push(photos, photos, alike)
    assert queue.loss(photos, photos, alike).item() == pytest.approx(0, abs=1e-6)
    assert queue.loss(photos, photos, alike + 1).item() == pytest.approx(math.log(3), rel=1e-5)
    assert queue.loss(photos, photos).item() == pytest.approx(math.log(4), rel=1e-5)
    assert queue.loss(photos, photos, alike - 1).item() == pytest.approx(math.log(4), rel=1e-5)  # unknown: no class


def test_queue_draws_pairs_together() -> None:
    torch.manual_seed(0)
    photos, sketches = torch.randn(12, 6, requires_grad=True), torch.randn(12, 6, requires_grad=True)
    queue, optimizer = SymmetricQueue(6, 7), torch.optim.Adam([photos, sketches], 0.1)
    for _ in range(60):
        a, b = normalise(photos), normalise(sketches)
        loss = queue.loss(a, b)
        queue.push(a, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    table = normalise(photos) @ normalise(sketches).T
    assert table.argmax(0).tolist() == table.argmax(1).tolist() == list(range(12))


def test_queue_through_a_checkpoint(tmp_path: Path) -> None:
    codes = torch.arange(5)
    queue = SymmetricQueue(4, 7)
    queue.push(unit(5, 4, 1), unit(5, 4, 2), codes)
    queue.push(unit(5, 4, 3), unit(5, 4, 4))
    save_checkpoint(tmp_path / "c.pt", {"queue": queue.state()})
    queue.push(unit(5, 4, 5), unit(5, 4, 6))  # what comes later must not be in what was kept
    back = SymmetricQueue(4, 7)
    back.restore(load_checkpoint(tmp_path / "c.pt")["queue"])
    back.push(unit(5, 4, 5), unit(5, 4, 6))
    for name, value in queue.state().items():
        assert torch.equal(value, back.state()[name]), name
    assert torch.equal(queue.loss(unit(5, 4, 7), unit(5, 4, 8), codes), back.loss(unit(5, 4, 7), unit(5, 4, 8), codes))
    shorter = SymmetricQueue(4, 2)
    shorter.restore(queue.state())
    assert torch.equal(shorter.photos, queue.photos[-2:]) and torch.equal(shorter.codes, queue.codes[-2:])
    with pytest.raises(IsthmusError, match="width 4, the model makes 3; resume with the settings"):
        SymmetricQueue(3, 7).restore(queue.state())


def test_queue_keeps_digits_under_autocast_and_names_misuse() -> None:
    queue = SymmetricQueue(4, 8)
    queue.push(unit(5, 4, 1), unit(5, 4, 2))
    photos, sketches = unit(3, 4, 3), unit(3, 4, 4)
    plain = queue.loss(photos, sketches)
    with torch.autocast("cpu", torch.bfloat16):
        assert queue.loss(photos, sketches).item() == pytest.approx(plain.item(), rel=1e-6)
    with pytest.raises(ValueError, match="width 4"):
        queue.loss(photos, sketches[:2])
    with pytest.raises(ValueError, match="codes"):
        queue.push(photos, sketches, None, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no queue"):
        SymmetricQueue(4, -1)
