"""Each loss against the formula written as loops in float64, and where its gradients go."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isthmus.losses import MemoryBank, cross_domain_matching, instance_discrimination, pseudo_positive_pairs


def unit(rows: int, dim: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x / x.norm(dim=1, keepdim=True)).to(dtype)


def dot(a: Tensor, b: Tensor) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def log_softmax(values: list[float], at: int) -> float:
    top = max(values)
    return values[at] - top - math.log(math.fsum(math.exp(v - top) for v in values))


def slow_cross_entropy(features: Tensor, keys: Tensor, targets: list[int], temperature: float) -> float:
    total = 0.0
    for row, target in zip(features, targets, strict=True):
        total -= log_softmax([dot(row, key) / temperature for key in keys], target)
    return total / len(features)


def slow_matching(features: Tensor, bank: Tensor, temperature: float, top: int) -> float:
    total = 0.0
    for row in features:
        logits = sorted((dot(row, slot) / temperature for slot in bank), reverse=True)[:top]
        p = [math.exp(log_softmax(logits, j)) for j in range(len(logits))]
        total -= math.fsum(x * math.log(x + 1e-5) for x in p)
    return total / len(features)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_instance_discrimination(temperature: float) -> None:
    features, bank, slots = unit(6, 5, 1), unit(9, 5, 2), [3, 0, 8, 3, 1, 7]
    found = instance_discrimination(features, bank, torch.tensor(slots), temperature)
    assert float(found) == pytest.approx(slow_cross_entropy(features, bank, slots, temperature), abs=1e-5)


@pytest.mark.parametrize("top", [2, 5, 11, 12, 700])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_matching_with_fewer_and_more_slots_than_top(top: int, temperature: float) -> None:
    features, bank = unit(5, 4, 3), unit(12, 4, 4)
    found = float(cross_domain_matching(features, bank, temperature, top))
    assert found == pytest.approx(slow_matching(features, bank, temperature, top), abs=1e-5)
    assert 0 <= found <= math.log(min(top, 12))


def test_matching_falls_as_an_image_decides() -> None:
    bank = torch.eye(4)
    torn = torch.full((1, 4), 0.5)
    assert cross_domain_matching(torn, bank) > cross_domain_matching(bank[:1], bank) + 1


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_pairs_with_the_batch_as_keys(temperature: float) -> None:
    made, keys = unit(6, 5, 5), unit(6, 5, 6)
    expected = slow_cross_entropy(made, keys, list(range(6)), temperature)
    assert float(pseudo_positive_pairs(made, keys, temperature)) == pytest.approx(expected, abs=1e-5)


def test_pairs_with_keys_of_other_processes() -> None:
    made, keys, targets = unit(3, 5, 7), unit(9, 5, 8), [6, 7, 8]
    found = pseudo_positive_pairs(made, keys, 0.2, torch.tensor(targets))
    assert float(found) == pytest.approx(slow_cross_entropy(made, keys, targets, 0.2), abs=1e-5)
    assert float(found) != pytest.approx(float(pseudo_positive_pairs(made, keys, 0.2)), abs=1e-3)


def test_pairs_cannot_fall_below_their_bound() -> None:
    """At T = 1 the best is: each pair equal, all others opposite; not even attainable, and still 1.65."""
    assert math.log(1 + 31 * math.exp(-2)) == pytest.approx(1.65, abs=0.005)
    keys = torch.nn.Parameter(unit(32, 64, 9))
    for _ in range(100):
        x = torch.nn.functional.normalize(keys, dim=1)
        (slope,) = torch.autograd.grad(pseudo_positive_pairs(x, x, 1.0), keys)
        keys.data -= 5.0 * slope
    x = torch.nn.functional.normalize(keys, dim=1)
    best = float(pseudo_positive_pairs(x, x, 1.0))
    assert 1.65 < best < float(pseudo_positive_pairs(unit(32, 64, 1), unit(32, 64, 2), 1.0))
    assert float(pseudo_positive_pairs(x, x, 0.1)) < 0.01  # sharpened, the same features are nearly perfect


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "instance": lambda f, m: instance_discrimination(f, m, torch.tensor([2, 0, 1])),
    "matching": lambda f, m: cross_domain_matching(f, m, top=4),
    "pairs": lambda f, m: pseudo_positive_pairs(f, m, 0.3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_reach_features(name: str) -> None:
    features, other = unit(3, 4, 10, torch.float64).requires_grad_(), unit(6, 4, 11, torch.float64)
    assert torch.autograd.gradcheck(lambda f: LOSSES[name](f, other), features)
    LOSSES[name](features, other).backward()
    assert features.grad is not None and bool(features.grad.abs().sum(dim=1).gt(0).all())


def test_keys_of_pairs_learn_and_banks_do_not() -> None:
    features, keys = unit(3, 4, 12).requires_grad_(), unit(3, 4, 13).requires_grad_()
    pseudo_positive_pairs(features, keys, 0.3).backward()
    assert keys.grad is not None and float(keys.grad.abs().sum()) > 0
    bank = MemoryBank(6, 4)
    bank.fill(torch.arange(6), unit(6, 4, 14))
    assert not bank.memory.requires_grad and not list(bank.parameters())
    before = bank.memory.clone()
    loss = instance_discrimination(features, bank.memory, torch.arange(3))
    (loss + cross_domain_matching(features, bank.memory)).backward()
    assert bank.memory.grad is None and torch.equal(bank.memory, before)
    bank.update(torch.arange(3), features)
    assert not bank.memory.requires_grad


def slow_update(memory: Tensor, slots: list[int], features: Tensor, momentum: float) -> list[list[float]]:
    values = [[float(x) for x in row] for row in memory]
    for slot, feature in zip(slots, features, strict=True):
        mixed = [momentum * old + (1 - momentum) * float(new) for old, new in zip(values[slot], feature, strict=True)]
        length = math.sqrt(math.fsum(x * x for x in mixed))
        values[slot] = [x / length for x in mixed]
    return values


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("slots", [[4, 1, 6], [2, 2, 5, 2, 5], [0]])
def test_bank_takes_entries_one_after_the_other(slots: list[int], momentum: float) -> None:
    bank = MemoryBank(7, 5, momentum)
    bank.fill(torch.arange(7), unit(7, 5, 15))
    features = unit(len(slots), 5, 16)
    expected = slow_update(bank.memory, slots, features, momentum)
    bank.update(torch.tensor(slots), features)
    torch.testing.assert_close(bank.memory, torch.tensor(expected), atol=1e-6, rtol=0)


def test_bank_leaves_other_slots_alone() -> None:
    """The public code renormalises the whole bank at each step; here an untouched slot keeps its bits."""
    bank = MemoryBank(5, 3)
    odd = torch.arange(15.0).reshape(5, 3)  # not of unit length, so that a renormalisation would show
    bank.fill(torch.arange(5), odd)
    bank.update(torch.tensor([1, 3]), unit(2, 3, 17))
    assert torch.equal(bank.memory[[0, 2, 4]], odd[[0, 2, 4]])
    torch.testing.assert_close(bank.memory[[1, 3]].norm(dim=1), torch.ones(2))


def test_bank_takes_half_precision_features() -> None:
    bank = MemoryBank(2, 4)
    bank.fill(torch.arange(2), unit(2, 4, 18).bfloat16())
    bank.update(torch.tensor([0]), unit(1, 4, 19).bfloat16())
    assert bank.memory.dtype == torch.float32
