"""The linear domain probe: what it finds, what it can't have seen, and that it is logistic regression."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate import probe as module
from isthmus.evaluate.probe import PENALTY, Probe, fit_probe, halve, separability


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_separable_domains_and_the_same_domain() -> None:
    apart = separability(normal(60, 5, 0), normal(40, 5, 1) + 6, halvings=4)
    assert apart.accuracy == 1.0 and apart.deviation == 0.0 and apart.values == (1.0,) * 4
    assert apart.n == (60, 40) and apart.n_groups == 100 and apart.penalty == PENALTY
    alike = separability(normal(400, 5, 0), normal(300, 5, 1))
    assert abs(alike.accuracy - 0.5) < 0.05  # of about 350 unseen images: .03 is one deviation
    assert alike.accuracy == pytest.approx(statistics.fmean(alike.values))
    assert alike.deviation == pytest.approx(statistics.stdev(alike.values))
    assert math.isnan(separability(normal(20, 2, 0), normal(20, 2, 1), halvings=1).deviation)


def test_the_larger_domain_does_not_decide() -> None:
    """Balanced: where nothing tells them apart, 600 against 20 images give .5 and not .97."""
    assert abs(separability(normal(600, 3, 0), normal(20, 3, 1), halvings=20).accuracy - 0.5) < 0.15


def test_an_identity_seen_in_training_is_never_tested() -> None:
    """Features that say who, and not which domain by any rule: four equal images of each identity and domain."""
    who = [f"i{n}" for n in range(40) for _ in range(4)]
    a, b = (normal(40, 200, seed).repeat_interleave(4, 0) for seed in (0, 1))
    assert separability(a, b, halvings=4).accuracy > 0.9  # by image: copies of a test image were trained on
    honest = separability(a, b, who, who, halvings=8)
    assert abs(honest.accuracy - 0.5) < 0.1 and honest.n_groups == 40


def test_the_probe_is_fitted_to_one_half_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each halving fits rows of some identities and tests the others; the test half changes no weight."""
    n = 24
    number = torch.arange(n, dtype=torch.float64)[:, None]
    groups = [f"i{i // 2}" for i in range(n)]
    fitted: list[tuple[list[int], list[int]]] = []
    judged: list[tuple[list[int], list[int]]] = []

    def fit(a: Tensor, b: Tensor, penalty: float) -> Probe:
        fitted.append((a[:, 0].int().tolist(), (b[:, 0] - 100).int().tolist()))
        return fit_probe(a, b, penalty)

    def judge(probe: Probe, a: Tensor, b: Tensor) -> float:
        judged.append((a[:, 0].int().tolist(), (b[:, 0] - 100).int().tolist()))
        assert probe.mean.item() == pytest.approx(statistics.fmean([*fitted[-1][0], *[x + 100 for x in fitted[-1][1]]]))
        return 0.5

    monkeypatch.setattr(module, "fit_probe", fit)
    monkeypatch.setattr(module, "_balanced", judge)
    separability(number, number + 100, groups, groups, halvings=5)
    for seen, unseen in zip(fitted, judged, strict=True):
        names = [{groups[i] for part in half for i in part} for half in (seen, unseen)]
        assert not names[0] & names[1] and names[0] | names[1] == set(groups)
        assert [len(x) for half in (seen, unseen) for x in half] == [12] * 4
    assert len({tuple(seen[0]) for seen in fitted}) == 5  # drawn anew each time


def test_halves_of_shared_and_lone_identities() -> None:
    a, b = ["x", "y", "only"], ["x", "y", "lone", "z"]
    for seed in range(20):
        half_a, half_b = halve(a, b, torch.Generator().manual_seed(seed))
        assert half_a[:2].tolist() == half_b[:2].tolist()  # a sketch and its photo stay together
        assert 0 < half_a.sum() < 3 and 0 < half_b.sum() < 4
    with pytest.raises(IsthmusError, match="domain B are of too few identities"):
        halve(["x", "y"], ["x", "x"])


def test_same_seed_same_figure_and_order_of_nothing_else() -> None:
    a, b = normal(30, 4, 0), normal(30, 4, 1) + 0.7
    first, second, third = (separability(a, b, seed=seed, halvings=3) for seed in (5, 5, 6))
    assert first == second and first.values != third.values


def test_equals_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    for n, m, d in ((80, 50, 6), (40, 40, 60)):
        a, b = normal(n, d, 0), normal(m, d, 1) + 0.3
        found = fit_probe(a, b)
        both = (torch.cat([a, b]).double() - found.mean) / found.scale
        # Its loss is 1/2 |w|^2 + C sum of weighted losses whose weights sum to the number of images.
        theirs = linear_model.LogisticRegression(C=1 / (PENALTY * (n + m)), class_weight="balanced", tol=1e-8,
                                                 max_iter=5000)  # fmt: skip
        theirs.fit(both.numpy(), [0] * n + [1] * m)
        new = normal(200, d, 2)
        scores = theirs.decision_function(((new.double() - found.mean) / found.scale).numpy())
        torch.testing.assert_close(found.score(new), torch.from_numpy(scores), atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(found.weight, torch.from_numpy(theirs.coef_[0]), atol=2e-3, rtol=2e-3)


def test_what_can_not_be_probed() -> None:
    a = normal(20, 3, 0)
    for b, said in ((a[:7], "too few"), (normal(20, 4, 0), "differ in width"), (a * math.nan, "NaN")):
        with pytest.raises(IsthmusError, match=said):
            separability(a, b)
    with pytest.raises(IsthmusError, match="do not fit together"):
        separability(a, a, ["x"] * 19, ["x"] * 20)
    with pytest.raises(IsthmusError, match="too few identities"):
        separability(a, a, ["x"] * 20, [f"{i}" for i in range(20)])
    with pytest.raises(IsthmusError, match="halvings"):
        separability(a, a, halvings=0)
