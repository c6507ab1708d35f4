"""What draws made images to a teacher's own: batch-norm statistics and smoothness, against slow loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.errors import IsthmusError
from isthmus.losses import NormStatistics, statistics_loss, total_variation


def test_total_variation() -> None:
    def slow(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        across = [abs(x[a, b, i, j + 1] - x[a, b, i, j]) for a in range(n) for b in range(c) for i in range(h)
                  for j in range(w - 1)]  # fmt: skip
        down = [abs(x[a, b, i + 1, j] - x[a, b, i, j]) for a in range(n) for b in range(c) for i in range(h - 1)
                for j in range(w)]  # fmt: skip
        return torch.stack(across).mean() + torch.stack(down).mean()

    mine = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = mine.detach().double().requires_grad_()
    a, b = total_variation(mine), slow(theirs)
    assert a.item() == pytest.approx(b.item(), rel=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(a, mine)[0].double(), torch.autograd.grad(b, theirs)[0], rtol=1e-5, atol=1e-7
    )
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == 0


class Small(nn.Module):
    """Batch norms over maps and over vectors, and an activation that writes in place behind one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.act, self.second, self.last = nn.ReLU(inplace=True), nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.second(self.act(self.norm(self.first(x))).mean((2, 3))))
        return out

    def norms(self) -> list[_BatchNorm]:
        return [self.norm, self.last]


def network_and_images() -> tuple[Small, Tensor]:
    network = Small()
    for norm in network.norms():
        norm.momentum = None  # the mean of all passes: statistics that images can have
    for _ in range(5):
        network(torch.randn(8, 3, 9, 9))
    return network.eval(), torch.randn(6, 3, 9, 9)


@pytest.mark.parametrize("form", ["norm", "relative"])
def test_statistics_against_a_loop(form: Any) -> None:
    network, images = network_and_images()
    with NormStatistics(network.norms()) as statistics:
        network(images)
    inputs = [network.first(images), network.second(network.act(network.norm(network.first(images))).mean((2, 3)))]
    total = 0.0
    for norm, x in zip(network.norms(), inputs, strict=True):
        means, variances = [], []
        for c in range(x.shape[1]):
            values = [float(v) for v in x[:, c].flatten()]
            mean = math.fsum(values) / len(values)
            means.append(mean - float(norm.running_mean[c]))
            var = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
            variances.append(var - float(norm.running_var[c]))
        a, b = math.hypot(*means), math.hypot(*variances)
        if form == "relative":
            a /= math.sqrt(math.fsum(norm.running_var.tolist()))
            b /= math.hypot(*norm.running_var.tolist())
        total += a + b
    assert statistics_loss(statistics.captured, form).item() == pytest.approx(total / 2, rel=1e-5)


def test_statistics_are_nought_for_the_images_that_were_learnt() -> None:
    """Batch norm itself is the reference: with momentum 1 it stores a batch's statistics, biased by nothing."""
    network, images = network_and_images()
    for norm in network.norms():
        norm.momentum = 1.0
    network.train()(images)
    # In training mode the second norm saw features that the first had normalised by the batch, as it does here.
    with NormStatistics(network.norms()) as statistics:
        network(images)
    for form in ("norm", "relative"):
        assert statistics_loss(statistics.captured, form).item() == pytest.approx(0, abs=1e-5)  # type: ignore[arg-type]
    with NormStatistics(network.norms()) as statistics:
        network.eval()(images + 1)
    assert statistics_loss(statistics.captured).item() > 0.1


@pytest.mark.parametrize("training", [False, True])
def test_statistics_change_nothing_and_teach_the_images(training: bool) -> None:
    network, images = network_and_images()
    stored, twin = copy.deepcopy(network), copy.deepcopy(network)
    network.train(training), twin.train(training)
    plain = twin(images)
    images.requires_grad_()
    statistics = NormStatistics(network.norms())
    with statistics:
        answers = network(images)
    assert torch.equal(answers, plain)
    for norm, noted in zip(stored.norms(), statistics.captured, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        assert torch.equal(noted.stored_mean, norm.running_mean) and torch.equal(noted.stored_var, norm.running_var)
    for name, value in network.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
    (gradient,) = torch.autograd.grad(statistics_loss(statistics.captured), images)
    assert bool(gradient.isfinite().all()) and bool(gradient.flatten(1).abs().sum(1).gt(0).all())
    network(images)  # behind the block nothing is noted
    assert len(statistics.captured) == 2
    with statistics:
        network(images), network(images)
    assert len(statistics.captured) == 4
    with pytest.raises(RuntimeError), statistics:
        network(images[:, :2])  # an error within the block leaves no hooks either
    assert not any(norm._forward_pre_hooks for norm in network.norms())


def test_descending_on_statistics_makes_images_like_those_learnt() -> None:
    network, _ = network_and_images()
    images = (0.1 * torch.randn(8, 3, 9, 9)).requires_grad_()
    optimizer, seen = torch.optim.Adam([images], 0.05), []
    for _ in range(60):
        with NormStatistics(network.norms()) as statistics:
            network(images)
        loss = statistics_loss(statistics.captured, "relative")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.2 * seen[0]


def test_relative_statistics_know_no_scale_and_neither_knows_the_number_of_layers() -> None:
    network, images = network_and_images()
    with NormStatistics(network.norms()) as statistics:
        network(images)
    captured = statistics.captured
    for form in ("norm", "relative"):
        once = statistics_loss(captured, form)  # type: ignore[arg-type]
        assert statistics_loss(captured * 3, form).item() == pytest.approx(once.item(), rel=1e-6)  # type: ignore[arg-type]
    larger = [type(x)(9 * x.mean, 81 * x.var, 9 * x.stored_mean, 81 * x.stored_var) for x in captured]
    assert statistics_loss(larger, "relative").item() == pytest.approx(
        statistics_loss(captured, "relative").item(), rel=1e-5
    )
    wider = [type(x)(*(torch.cat([part, part]) for part in x)) for x in captured]
    assert statistics_loss(wider, "relative").item() == pytest.approx(
        statistics_loss(captured, "relative").item(), rel=1e-5
    )


def test_a_single_value_has_finite_statistics() -> None:
    norm = nn.BatchNorm1d(4).eval()
    x = torch.randn(1, 4, requires_grad=True)
    with NormStatistics([norm]) as statistics:
        norm(x)
    loss = statistics_loss(statistics.captured)
    assert bool(torch.autograd.grad(loss, x)[0].isfinite().all())
    assert loss.item() == pytest.approx(float(x.detach().norm()) + 2.0, rel=1e-5)


def test_statistics_without_norms_are_told() -> None:
    for norms in ([], [nn.BatchNorm2d(3, track_running_stats=False)]):
        with pytest.raises(IsthmusError, match=r"no batch norm .* data_free.statistics_weight to 0\.$"):
            NormStatistics(norms)
    with pytest.raises(ValueError, match="no forward pass"):
        statistics_loss([])
    with pytest.raises(ValueError, match="'l1'"):
        statistics_loss([], "l1")  # type: ignore[arg-type]
