"""Chance against enumeration of every order, intervals against a plain bootstrap, differences against their meaning."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.intervals import bootstrap_intervals, mean_std, paired_difference
from isthmus.evaluate.metrics import metrics_from_similarities, retrieval_metrics

KS = Cutoffs(precision=(1, 3, 12), micro=(1, 5), average=(1, 4, 50), recall=(1, 5, 10), gain=(3, 50))


@pytest.mark.parametrize("gallery", ["aabbbc", "abbbbb", "aaaa", "a", "aaaaaab"])
def test_chance_is_the_mean_over_all_orders(gallery: str) -> None:
    n, queries = len(gallery), [*sorted(set(gallery)), "b" if "b" in gallery else "a"]
    ids = [str(i) for i in range(n)]
    orders = sorted(set(itertools.permutations(gallery)))
    total: dict[str, float] = {}
    down = torch.linspace(1, 0, n, dtype=torch.float64).expand(len(queries), n)
    for order in orders:
        result = metrics_from_similarities(down, queries, order, gallery_ids=ids, ks=KS, bootstrap=0)
        for name, value in result.scores.items():
            total[name] = total.get(name, 0.0) + value / len(orders)
    assert result.chance.keys() == total.keys()
    for name, value in total.items():
        assert result.chance[name] == pytest.approx(value, abs=1e-9), name


def test_chance_of_a_large_gallery_is_what_random_vectors_score() -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"c{int(i)}" for i in (torch.rand(3000, generator=generator) ** 2 * 12)]
    q, g = torch.randn(600, 16, generator=generator), torch.randn(3000, 16, generator=generator)
    result = retrieval_metrics(q, g, names[:600], names, gallery_ids=[str(i) for i in range(3000)])
    for name, value in result.chance.items():
        error = result.per_query[name].std() / 600**0.5 / result.weights.get(name, np.ones(1)).mean()
        assert 0 < value < 1 and abs(result.scores[name] - value) < 4 * error, name
    assert abs(result.scores["mAP@all"] / result.chance["mAP@all"] - 1) < 0.02


def test_bootstrap_agrees_with_one_query_at_a_time() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(1, 6, 80).astype(float)
    values = rng.binomial(weights.astype(int), 0.4).astype(float)
    low, high = bootstrap_intervals(values[:, None], weights[:, None], draws=4000, seed=1)
    ratios = []
    for _ in range(4000):
        drawn = [rng.integers(0, 80) for _ in range(80)]
        ratios.append(sum(values[i] for i in drawn) / sum(weights[i] for i in drawn))
    want = np.quantile(ratios, [0.025, 0.975])
    assert abs(low[0] - want[0]) < 0.012 and abs(high[0] - want[1]) < 0.012
    assert low[0] < values.sum() / weights.sum() < high[0]


def test_intervals_are_seeded_and_cover_the_score() -> None:
    q = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
    names = [f"c{i % 4}" for i in range(60)]
    runs = [retrieval_metrics(q, q.flip(0), names, names, gallery_ids=names_of(60), seed=s) for s in (0, 0, 1)]
    assert runs[0].intervals == runs[1].intervals != runs[2].intervals
    for name, (low, high) in runs[0].intervals.items():
        assert low - 1e-9 <= runs[0].scores[name] <= high + 1e-9, name
    assert retrieval_metrics(q, q, names, names, gallery_ids=names_of(60), bootstrap=0).intervals == {}


def names_of(n: int) -> list[str]:
    return [f"id{i}" for i in range(n)]


def test_paired_difference_is_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(400)  # queries differ much more than the two runs do
    a, b = hard + 0.02 + 0.01 * rng.standard_normal(400), hard
    result = paired_difference(a, b, draws=2000)
    assert result.mean == pytest.approx((a - b).mean()) and 0.015 < result.low < result.mean < result.high < 0.025
    assert result.distinguishable and result.n_queries == 400 and result.seeds == (1, 1)
    back = paired_difference(b, a, draws=2000)
    assert back.mean == pytest.approx(-result.mean) and back.distinguishable and back.text.startswith("-0.0")
    same = paired_difference(rng.random(400), rng.random(400), draws=2000)
    assert not same.distinguishable and "not distinguishable" in same.text


def test_seeds_are_averaged_before_queries_are_drawn() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((3, 50)), rng.random((2, 50))
    many, one = paired_difference(a, b), paired_difference(a.mean(axis=0), b.mean(axis=0))
    assert (many.mean, many.low, many.high) == pytest.approx((one.mean, one.low, one.high))
    assert many.seeds == (3, 2)


def test_directions_count_alike_and_weights_make_a_ratio() -> None:
    a = {"forth": np.array([1.0, 1.0]), "back": np.zeros((1, 200))}
    b = {"forth": np.array([0.0, 0.0]), "back": np.zeros((1, 200))}
    result = paired_difference(a, b)
    assert result.mean == result.low == result.high == 0.5 and result.n_queries == 202
    ratio = paired_difference([4.0, 0.0], [0.0, 1.0], weights=[5.0, 1.0])
    assert ratio.mean == pytest.approx(3 / 6) and ratio.low == -1.0 and ratio.high == pytest.approx(4 / 5)


def test_runs_that_do_not_match_are_refused() -> None:
    with pytest.raises(IsthmusError, match="3 and 2 queries"):
        paired_difference([1.0, 0.0, 1.0], [1.0, 0.0])
    with pytest.raises(IsthmusError, match="directions"):
        paired_difference({"a->b": [1.0]}, {"b->a": [1.0]})
    with pytest.raises(IsthmusError, match="directions"):
        paired_difference({"a->b": [1.0]}, {"a->b": [1.0]}, weights={"b->a": [1.0]})
    with pytest.raises(IsthmusError, match="shape"):
        paired_difference([], [])


def test_mean_and_deviation_over_seeds() -> None:
    mean, deviation = mean_std([0.1, 0.2, 0.6])
    assert mean == pytest.approx(0.3) and deviation == pytest.approx(0.2645751)
    assert np.isnan(mean_std([0.5])[1])
