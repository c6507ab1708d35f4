"""The numbers of the quality gate against slow, obvious or independent computations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.translate.quality import Content, Share, Shift, content_kept, domain_probe, frechet_distance
from isthmus.translate.quality.shift import Frechet, Spread, frechet_figure
from isthmus.translate.quality.verdicts import judge_content, judge_shift, percent


def by_matrix_root(a: Tensor, b: Tensor) -> float:
    """The distance as it is written in the paper, with scipy's matrix square root."""
    one, other = a.double().numpy(), b.double().numpy()
    s1, s2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    gap = one.mean(0) - other.mean(0)
    return float(gap @ gap + np.trace(s1 + s2 - 2 * np.real(linalg.sqrtm(s1 @ s2))))


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 12), (300, 40, 30), (60, 500, 30)])
def test_frechet_distance_is_the_published_one(n: int, m: int, d: int) -> None:
    generator = torch.Generator().manual_seed(n)
    mix = torch.randn(d, d, generator=generator)
    a = torch.randn(n, d, generator=generator) @ mix + 1
    b = torch.randn(m, d, generator=generator) * 2
    assert frechet_distance(a, b) == pytest.approx(by_matrix_root(a, b), rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_fewer_images_than_features() -> None:
    # The root of a singular product is not to be had from scipy: 1-d projections and a shift are checked by hand.
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20, 100, generator=generator)
    assert frechet_distance(a, a + 3) == pytest.approx(900, rel=1e-6)
    line = torch.zeros(1, 100)
    line[0, 5] = 1
    x, y = torch.randn(30, 1, generator=generator), 4 * torch.randn(50, 1, generator=generator)
    expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    assert frechet_distance(x * line, y * line) == pytest.approx(float(expected), rel=1e-5)


def test_frechet_figure_knows_its_floor() -> None:
    generator = torch.Generator().manual_seed(3)
    source, target, more = (torch.randn(n, 8, generator=generator) for n in (150, 400, 150))
    source = source + 2
    same = frechet_figure(source, source, target)
    assert same.closed.mean == 0 and same.n == 150 and same.before == same.after
    assert same.floor.mean < 0.05 * same.before.mean
    whole = frechet_figure(source, more, target)
    assert whole.closed.mean == pytest.approx(1, abs=0.05)
    away = frechet_figure(source, source + 1, target)
    assert away.closed.mean < -0.5
    for bad in (source[:5], source[:0]):
        with pytest.raises(IsthmusError, match="too few"):
            frechet_figure(bad, bad, target)
    for bad in (torch.zeros(1, 3), torch.full((4, 3), math.nan), torch.zeros(4, 2)):
        with pytest.raises(IsthmusError):
            frechet_distance(bad, torch.zeros(4, 3))


def test_domains_without_a_shift_are_no_failure() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(20, 8, generator=generator), torch.randn(40, 8, generator=generator)
    figure = frechet_figure(source, source, target)
    # Some of the draws find the source nearer than the target's other half: their shares are no numbers.
    assert min(figure.before.mean, figure.floor.mean) > 0 and math.isnan(figure.closed.mean)
    verdict = judge_shift(Shift(figure, 0.99, Share.of(0, 10), Share.of(0, 10)))
    assert (verdict.grade, verdict.value) == ("unknown", "no shift found")


def test_domain_probe_minimises_its_loss_and_judges_unseen_images() -> None:
    generator = torch.Generator().manual_seed(1)
    source, target = torch.randn(90, 6, generator=generator), torch.randn(60, 6, generator=generator) + 0.8
    probe = domain_probe(source, target, seed=4)
    held = probe.held_out
    assert [len(x) for x in held] == [45, 30]
    right = [float((probe.score(source[held[0]]) <= 0).double().mean()), probe.share_target(target[held[1]]).value]
    assert probe.accuracy == pytest.approx(sum(right) / 2) and 0.7 < probe.accuracy < 1
    # At the minimum every direction goes up: checked by differences of the loss written out.
    seen = [torch.tensor(sorted(set(range(n)) - set(part.tolist()))) for n, part in zip((90, 60), held, strict=True)]

    def loss(weight: Tensor, bias: float) -> float:
        total = 0.5 * 0.01 * float(weight @ weight)
        for x, sign in ((source[seen[0]], -1), (target[seen[1]], 1)):
            margin = sign * ((x.double() - probe.mean) / probe.scale @ weight + bias)
            total += 0.5 * float(torch.log1p(torch.exp(-margin)).mean())
        return total

    best = loss(probe.weight, probe.bias)
    for place in range(6):
        for step in (-1e-2, 1e-2):
            moved = probe.weight.clone()
            moved[place] += step
            assert loss(moved, probe.bias) > best
    assert loss(probe.weight, probe.bias + 1e-2) > best < loss(probe.weight, probe.bias - 1e-2)
    with pytest.raises(IsthmusError, match="too few"):
        domain_probe(source[:7], target)


def slow_content(source: Tensor, made: Tensor, own: Sequence[int], labels: Sequence[str | None]) -> list[float]:
    """Rank-1, nearer, category and ceiling by loops; no ties."""
    s, m = (x.double().numpy() - x.double().numpy().mean(0) for x in (source, made))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    first, nearer, category, ceiling = [], [], [], []
    for place, mine in enumerate(own):
        scores = [cosine(m[place], other) for other in s]
        first.append(max(range(len(s)), key=scores.__getitem__) == mine)
        nearer += [scores[mine] > score for j, score in enumerate(scores) if j != mine]
        rest = [j for j in range(len(s)) if j != mine and labels[j] is not None]
        if labels[mine] is not None:
            category.append(labels[max(rest, key=scores.__getitem__)] == labels[mine])
    for j in range(len(s)):
        rest = [i for i in range(len(s)) if i != j and labels[i] is not None]
        if labels[j] is not None:
            ceiling.append(labels[max(rest, key=lambda i: cosine(s[j], s[i]))] == labels[j])
    return [float(np.mean(part)) for part in (first, nearer, category, ceiling)]


def test_content_by_loops() -> None:
    generator = torch.Generator().manual_seed(2)
    source = torch.randn(40, 5, generator=generator)
    own = torch.randint(40, (70,), generator=generator)
    made = source[own] + 0.8 * torch.randn(70, 5, generator=generator) + 7
    labels = [None if i % 9 == 0 else "abc"[i % 3] for i in range(40)]
    found = content_kept(source, made, own=own, source_labels=labels)
    assert found.category is not None and found.category_ceiling is not None and found.category_target is None
    values = [found.rank1.value, found.nearer.value, found.category.value, found.category_ceiling.value]
    assert values == pytest.approx(slow_content(source, made, own.tolist(), labels))
    assert (found.chance, found.gallery) == (1 / 40, 40)
    pairs = [(i, j) for i in own.tolist() if labels[i] for j in range(40) if j != i and labels[j]]
    assert found.category_chance == pytest.approx(np.mean([labels[i] == labels[j] for i, j in pairs]))
    real = content_kept(source, made, own=own, source_labels=labels, target=source - 3, target_labels=labels)
    assert real.category_target is not None and real.category_target.value == 1  # each finds itself
    assert content_kept(source, made, own=own).category is None


def test_collapsed_counterparts_find_nothing() -> None:
    source = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    found = content_kept(source, torch.ones(50, 6), source_labels=list("ab" * 25))
    assert found.rank1.value == pytest.approx(0.02) and found.nearer.value == pytest.approx(0.5)
    assert found.category is not None and found.category.value == pytest.approx(found.category_chance)
    for bad in ({"own": torch.tensor([0])}, {"own": torch.full((50,), 50)}, {"source_labels": ["a", "b"]}):
        with pytest.raises(IsthmusError):
            content_kept(source, source, **bad)


def test_share_has_wilsons_interval() -> None:
    for hits, n in ((0, 20), (3, 17), (50, 100), (9, 9)):
        expected = stats.binomtest(hits, n).proportion_ci(0.95, "wilson")
        share = Share.of(hits, n)
        assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert math.isnan(Share.of(0, 0).value)


def shift(closed: float, taken: float, accuracy: float = 0.99, n: int = 200) -> Shift:
    one = Spread(1.0, 0.1)
    frechet = Frechet(one, one, one, Spread(closed, 0.02), n, 5)
    return Shift(frechet, accuracy, Share.of(0, 100), Share.of(taken * 100, 100))


@pytest.mark.parametrize(
    ("figure", "grade", "words"),
    [
        (shift(0.9, 0.8), "good", "Most of the shift"),
        (shift(0.9, 0.1), "fair", "A part of the shift"),
        (shift(0.1, 0.9), "poor", "Hardly any"),
        (shift(-0.2, 0.0), "poor", "farther from the target"),
        (shift(0.9, 0.8, accuracy=0.6), "unknown", "hardly tells"),
        (shift(math.nan, 0.8), "unknown", "no farther from the target"),
        (shift(0.9, 0.8, n=20), "good", "a hint"),
    ],
)
def test_verdicts_on_the_shift(figure: Shift, grade: str, words: str) -> None:
    verdict = judge_shift(figure)
    assert verdict.grade == grade and words in verdict.words


@pytest.mark.parametrize(
    ("nearer", "n", "grade"),
    [(0.8, 200, "good"), (0.65, 200, "fair"), (0.65, 12, "unknown"), (0.8, 5, "unknown"), (0.5, 200, "poor")],
)
def test_verdicts_on_content(nearer: float, n: int, grade: str) -> None:
    content = Content(Share.of(0.1 * n, n), 1 / n, Share.of(nearer * n, n), n, None, None, None)
    verdict = judge_content(content)
    assert verdict.grade == grade and ("a hint" in verdict.words) == (n < 50)


def test_percent_is_short() -> None:
    assert [percent(x) for x in (0, 0.0375, 0.0996, 0.5, 1, -0.2)] == ["0 %", "3.8 %", "10 %", "50 %", "100 %", "-20 %"]
