"""Repeated splits and seeds: mean and deviation, and paired intervals by simulation."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.evaluate.repeats import corrected_interval, paired_interval, query_values
from isthmus.evaluate.run import Evaluation, evaluate_embeddings
from isthmus.evaluate.summary import summarise

Table = dict[tuple[Any, Any], dict[str, float]]


def identities(domain: str, names: Sequence[str], each: int = 1) -> Manifest:
    return Manifest(Row(f"{domain}/{n}-{k}", f"/{n}-{k}", domain, identity=n) for n in names for k in range(each))


def retrieval(seed: int, n: int = 30, photos: int = 1, prefix: str = "i") -> Evaluation:
    """Sketches and photos of n identities, `photos` of each, as vectors near a common centre."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(n, 8, generator=g)
    q = centres + torch.randn(n, 8, generator=g)
    p = centres.repeat_interleave(photos, 0) + torch.randn(n * photos, 8, generator=g)
    names = [f"{prefix}{i}" for i in range(n)]
    sides = identities("sketch", names), identities("photo", names, photos)
    return replace(evaluate_embeddings(q, p, *sides, bootstrap=0), model=f"m{seed}")


def test_identity_metrics_in_both_directions_by_loops() -> None:
    """CMC rank-1/5/10/20, mAP and mINP with two photos an identity, as PKU-Sketch has them."""
    g = torch.Generator().manual_seed(5)
    names = [f"i{n}" for n in range(40)]
    sketches, photos = identities("sketch", names), identities("photo", names, 2)
    q, p = torch.randn(40, 6, generator=g).double(), torch.randn(80, 6, generator=g).double()
    p += q.repeat_interleave(2, 0)
    found = evaluate_embeddings(q, p, sketches, photos, bootstrap=0)
    assert found.by == "identity" and found.primary == "mean/R@1"
    for asks, answers, a, b in ((sketches, photos, q, p), (photos, sketches, p, q)):
        sums: dict[str, float] = {}
        for row, vector in zip(asks, a, strict=True):
            scores = [float(vector @ other / vector.norm() / other.norm()) for other in b]
            order = sorted(range(len(b)), key=lambda j: -scores[j])
            ranks = [rank for rank, j in enumerate(order, 1) if answers[j].identity == row.identity]
            values = {f"R@{k}": float(ranks[0] <= k) for k in (1, 5, 10, 20)}
            values["mAP@all"] = statistics.fmean(hits / rank for hits, rank in enumerate(ranks, 1))
            values["mINP"] = len(ranks) / ranks[-1]
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / len(asks)
        side = found.side(f"{asks[0].domain}->{answers[0].domain}")
        assert {name: side.scores[name] for name in sums} == pytest.approx(sums)
        assert set(sums) <= set(side.per_query)  # all of them can be compared query by query


def test_mean_and_sample_deviation_over_runs() -> None:
    runs = {f"run{seed}": retrieval(seed, photos=2) for seed in range(4)}
    found = summarise(runs, {name: {"x": float(place), name: 0.0} for place, name in enumerate(runs)})
    for key in ("sketch->photo/R@1", "photo->sketch/mAP@all", "mean/mINP"):
        values = [run.scores[key] for run in runs.values()]
        score = found.scores[key]
        assert score.mean == pytest.approx(statistics.fmean(values)) and score.n == 4
        assert score.deviation == pytest.approx(statistics.stdev(values)) and score.values == tuple(values)
    assert (found.n, found.test_sets, found.settings) == (4, 1, ("plain",))
    assert found.sizes == {"sketch->photo": 60, "photo->sketch": 30}
    assert set(found.more) == {"x"} and found.more["x"].mean == 1.5 and found.partial == tuple(runs)
    assert math.isnan(summarise({"a": retrieval(0)}).scores["mean/R@1"].deviation)
    apart = summarise({"a": retrieval(0), "b": retrieval(1, prefix="j"), "c": retrieval(2)})
    assert apart.test_sets == 2
    json.dumps(found.to_dict())


def test_runs_measured_otherwise_have_no_mean() -> None:
    with pytest.raises(IsthmusError, match=r"galleries of 30 and 30, b has galleries of 29 and 29"):
        summarise({"a": retrieval(0), "b": retrieval(1, 29)})
    with pytest.raises(IsthmusError, match="relevance by identity, b has relevance by label"):
        summarise({"a": retrieval(0), "b": replace(retrieval(1), by="label")})
    other = retrieval(1)
    with pytest.raises(IsthmusError, match=r"sketch->photo \(centred\)"):
        summarise({"a": retrieval(0), "b": replace(other, sides=[replace(s, setting="centred") for s in other.sides])})
    with pytest.raises(IsthmusError, match="same model on the same images"):
        summarise({"a": retrieval(0), "b": retrieval(0)})
    with pytest.raises(IsthmusError, match="no run"):
        summarise({})


def simulate(
    rng: np.random.Generator, *, mean: float, splits: int, seeds: int, queries: int, pool: int = 0, effect: float = 0.03
) -> tuple[Table, Table]:
    """Two methods' values: effects of split, seed, query, query within a split, and noise; `pool`: re-splits of it."""
    own = rng.normal(0, 0.3, max(pool, splits * queries))
    a: Table = {}
    b: Table = {}
    for split in range(splits):
        ids = rng.permutation(pool)[:queries] if pool else np.arange(queries) + split * queries
        shared = mean + rng.normal(0, effect) + own[ids] + rng.normal(0, 0.2, queries)
        for seed in range(seeds):
            base = rng.normal(0, 1, queries)
            values = base + shared + rng.normal(0, effect) + rng.normal(0, 0.3, queries)
            a[split, seed] = {f"q{i}": float(v) for i, v in zip(ids, values, strict=True)}
            b[split, seed] = {f"q{i}": float(v) for i, v in zip(ids, base, strict=True)}
    return a, b


@pytest.mark.parametrize(("splits", "pool"), [(6, 0), (5, 160)])
def test_the_interval_covers_the_truth(splits: int, pool: int) -> None:
    """About 95 %, on independent splits and on re-splits of one pool; 200 simulations are off by .03 at times."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a, b = simulate(rng, mean=0.1, splits=splits, seeds=2, queries=40, pool=pool)
        found = paired_interval(a, b, draws=300)
        held += found.low <= 0.1 <= found.high
    assert 0.91 <= held / 200 <= 0.995


def test_no_difference_is_not_significant_and_a_large_one_is() -> None:
    rng = np.random.default_rng(3)
    null = paired_interval(*simulate(rng, mean=0.0, splits=5, seeds=3, queries=60), draws=1000)
    assert not null.distinguishable and "not distinguishable" in null.text
    large = paired_interval(*simulate(rng, mean=0.5, splits=5, seeds=3, queries=60), draws=1000)
    assert large.low > 0.3 and large.distinguishable
    assert (large.n_splits, large.n_runs, large.n_queries) == (5, 15, 300)
    again = paired_interval(*simulate(np.random.default_rng(9), mean=0.5, splits=3, seeds=1, queries=60), draws=500)
    a, b = simulate(np.random.default_rng(9), mean=0.5, splits=3, seeds=1, queries=60)
    moved = paired_interval({k: dict(reversed(v.items())) for k, v in a.items()}, b, draws=500)
    assert moved.mean == pytest.approx(again.mean)  # queries are matched by name, not by place
    swapped = paired_interval(b, a, draws=500)
    assert swapped.mean == pytest.approx(-again.mean)


def test_the_interval_by_loops() -> None:
    """The formula of the docstring, drawn one by one."""
    a, b = simulate(np.random.default_rng(1), mean=0.2, splits=4, seeds=2, queries=25, pool=60, effect=0.1)
    found = paired_interval(a, b, draws=4000)
    rng = np.random.default_rng(11)
    names = sorted({name for values in a.values() for name in values})
    means = [statistics.fmean(a[s, r][q] - b[s, r][q] for r in range(2) for q in a[s, r]) for s in range(4)]
    middle = statistics.fmean(means)
    base, drawn = [], []
    for _ in range(1500):
        times = dict.fromkeys(names, 0)
        for place in rng.integers(0, len(names), len(names)):
            times[names[place]] += 1
        parts = []
        for s in range(4):
            each = []
            for r in rng.integers(0, 2, 2).tolist():
                total = sum(times[q] for q in a[s, r])
                each.append(sum(times[q] * (a[s, r][q] - b[s, r][q]) for q in a[s, r]) / total)
            parts.append(statistics.fmean(each))
        base.append(statistics.fmean(parts))
        drawn.append(statistics.variance(parts))
    raw = statistics.variance(means)
    left = max(0.0, 1 - max(0.0, statistics.fmean(drawn) - raw) / raw)
    assert left > 0.2  # the splits' own part is at work here
    k = stats.t.ppf(0.975, 3) / stats.norm.ppf(0.975) * math.sqrt(left * 4 / 3)
    totals = [x + k * statistics.fmean(means[s] - middle for s in rng.integers(0, 4, 4).tolist()) for x in base]
    low, high = np.quantile(totals, [0.025, 0.975])
    assert found.mean == pytest.approx(middle)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_seeds_and_shared_images_are_no_new_queries() -> None:
    """Copies of a run, as further seeds or as further splits, leave the interval about as wide as it was."""
    a, b = simulate(np.random.default_rng(2), mean=0.1, splits=2, seeds=1, queries=50, effect=0.0)
    one = paired_interval(a, b, draws=2000)
    many_a, many_b = ({(s, r): x[s, 0] for s in range(2) for r in range(9)} for x in (a, b))
    seeds = paired_interval(many_a, many_b, draws=2000)
    assert (seeds.high - seeds.low) == pytest.approx(one.high - one.low, rel=0.1)
    same_a, same_b = ({(s, 0): x[0, 0] for s in range(9)} for x in (a, b))
    splits = paired_interval(same_a, same_b, draws=2000)
    deviation = np.std([a[0, 0][q] - b[0, 0][q] for q in a[0, 0]]) / math.sqrt(50)
    assert splits.high - splits.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
    pairs = {name: name[:-1] for values in a.values() for name in values}  # ten queries an identity
    wider = paired_interval(a, b, clusters=pairs, draws=2000)
    assert wider.n_queries == 100 and (wider.high - wider.low) != (one.high - one.low)


def test_what_can_not_be_compared() -> None:
    a, b = simulate(np.random.default_rng(2), mean=0.1, splits=2, seeds=2, queries=5)
    with pytest.raises(IsthmusError, match="same splits and seeds"):
        paired_interval(a, {k: v for k, v in b.items() if k != (1, 1)})
    with pytest.raises(IsthmusError, match="split 1 do not ask the same queries"):
        paired_interval(a, {**b, (1, 1): {"other": 1.0}})
    with pytest.raises(IsthmusError, match="One split"):
        paired_interval({(0, 0): a[0, 0]}, {(0, 0): b[0, 0]})
    assert query_values(retrieval(0), "R@1", "photo->sketch").keys() == {f"photo/i{i}-0" for i in range(30)}
    for metric in ("Prec@1", "R@7"):
        with pytest.raises(IsthmusError, match="choose one of"):
            query_values(retrieval(0), metric)


def test_corrected_interval() -> None:
    values = [0.03, 0.05, 0.01, 0.08, 0.02]
    plain = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = corrected_interval(values, test_share=0.0)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    wide = corrected_interval(values, test_share=115 / 304)
    assert (wide.high - wide.low) / (found.high - found.low) == pytest.approx(math.sqrt((1 / 5 + 115 / 304) / (1 / 5)))
    for bad, share in (([0.1], 0.3), (values, -1.0), (values, math.inf)):
        with pytest.raises(IsthmusError, match="at least two"):
            corrected_interval(bad, test_share=share)


def test_only_the_corrected_interval_knows_that_resplits_overlap() -> None:
    """Means of 40 of 160 numbers, 15 times: the plain t-interval misses the truth far more often than 5 %."""
    rng = np.random.default_rng(0)
    held = {0.0: 0, 1 / 3: 0}
    for _ in range(200):
        pool = rng.normal(0, 1, 160)
        means = [float(rng.permutation(pool)[:40].mean()) for _ in range(15)]
        for share in held:
            found = corrected_interval(means, test_share=share)
            held[share] += found.low <= 0 <= found.high
    assert held[0.0] / 200 < 0.85 and held[1 / 3] / 200 > 0.93
