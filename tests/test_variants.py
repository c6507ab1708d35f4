"""Other papers' metrics: against slow loops from their definitions, and three libraries where they have them."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from isthmus.errors import IsthmusError
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.evaluate.one_per import drawn_items, one_per_key
from isthmus.evaluate.ranking import Hits
from isthmus.evaluate.variants import ALL_POINT, ELEVEN, HOUSE, NAMES, interpolated, variant_chance, variant_metrics
from isthmus.ops import normalise
from isthmus.runtime import prepare_torchvision


def slow(flags: list[bool], n: int) -> dict[str, float]:
    """Every figure of one query from its ranked list of right and wrong, by going down it."""
    total = sum(flags)
    points = []  # recall as a fraction of whole numbers, and precision, at every rank
    for rank in range(1, len(flags) + 1):
        got = sum(flags[:rank])
        points.append((got, got / rank))

    def ap(k: int) -> list[float]:
        return [points[rank][1] for rank in range(min(k, n)) if flags[rank]]

    def best(tenths: int) -> float:
        return max(p for got, p in points if got * 10 >= tenths * total)

    # The area beneath the interpolated curve, a strip for each step of recall.
    area, last = 0.0, 0
    for got, _ in points:
        if got > last:
            area += (got - last) / total * max(p for other, p in points if other >= got)
            last = got
    found = {
        "mAP@all": sum(ap(n)) / total,
        ELEVEN: sum(best(t) for t in range(11)) / 11,
        ALL_POINT: area,
        "mAP@10hits (data-free-sbir)": sum(ap(n)[:10]) / min(10, total),
        "mAP@200": sum(ap(200)) / min(200, total),
        "mAP@200/found": sum(ap(200)) / len(ap(200)) if ap(200) else 0.0,
        "mAP@200/k": sum(ap(200)) / 200,
    }
    for k in (100, 200):
        found[f"P@{k}"] = sum(flags[:k]) / k
        found[f"P@{k}/min(k, gallery)"] = sum(flags[:k]) / min(k, n)
    return found


def case(n: int, classes: int, seed: int, q: int = 12) -> tuple[torch.Tensor, torch.Tensor, list[str], list[str]]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 16, generator=generator)
    asked = torch.randint(0, classes, (q,), generator=generator)
    names = torch.cat([torch.arange(classes), torch.randint(0, classes, (n - classes,), generator=generator)])
    a = normalise(centres[asked] + 1.5 * torch.randn(q, 16, generator=generator))
    b = normalise(centres[names] + 1.5 * torch.randn(n, 16, generator=generator))
    return a.double(), b.double(), [str(x) for x in asked.tolist()], [str(x) for x in names.tolist()]


def ids(n: int) -> list[str]:
    return [f"g/{i}" for i in range(n)]


def ranked(q: torch.Tensor, g: torch.Tensor, asked: list[str], names: list[str]) -> list[list[bool]]:
    order = (q @ g.T).argsort(dim=1, descending=True)
    return [[names[j] == label for j in row] for row, label in zip(order.tolist(), asked, strict=True)]


@pytest.mark.parametrize(("n", "classes"), [(450, 2), (320, 5), (60, 7), (30, 30)])
def test_as_the_definitions_say(n: int, classes: int) -> None:
    q, g, asked, names = case(n, classes, n)
    side = variant_metrics(q, g, asked, names, gallery_ids=ids(n), bootstrap=30)
    each = [slow(flags, n) for flags in ranked(q, g, asked, names)]
    assert list(side.scores) == list(NAMES) == list(side.chance) == list(side.intervals)
    for name in NAMES:
        assert side.scores[name] == pytest.approx(np.mean([one[name] for one in each]), abs=1e-9), name
        low, high = side.intervals[name]
        assert low <= side.scores[name] + 1e-9 and side.scores[name] <= high + 1e-9
    house = retrieval_metrics(q, g, asked, names, gallery_ids=ids(n), bootstrap=0).scores
    assert {name: side.scores[name] for name in HOUSE} == {name: house[name] for name in HOUSE}


def test_torchmetrics() -> None:
    prepare_torchvision()
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    for n in (450, 150):
        q, g, asked, names = case(n, 3, 1)
        scores = variant_metrics(q, g, asked, names, gallery_ids=ids(n), bootstrap=0).scores
        target = torch.tensor([[a == b for b in names] for a in asked])
        where = torch.arange(len(q))[:, None].expand_as(target)
        for name, metric in {
            "mAP@200/found": retrieval.RetrievalMAP(top_k=200),
            "P@200": retrieval.RetrievalPrecision(top_k=200),
            "P@200/min(k, gallery)": retrieval.RetrievalPrecision(top_k=200, adaptive_k=True),
        }.items():
            assert scores[name] == pytest.approx(float(metric(q @ g.T + 1, target, indexes=where)), abs=1e-5), (n, name)


def test_pytorch_metric_learning() -> None:
    """Its mean average precision at k divides by min(k, relevant), as the figure that the variants vary."""
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    q, g, asked, names = case(450, 3, 2)
    calculator = module.AccuracyCalculator(
        include=("mean_average_precision",), k=200, device=torch.device("cpu"),
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    )  # fmt: skip
    labels = [torch.tensor([int(x) for x in part]) for part in (asked, names)]
    theirs = calculator.get_accuracy(q, labels[0], g, labels[1])["mean_average_precision"]
    scores = variant_metrics(q, g, asked, names, gallery_ids=ids(450), bootstrap=0).scores
    assert scores["mAP@200"] == pytest.approx(theirs, abs=1e-5)
    assert abs(scores["mAP@200/found"] - scores["mAP@200"]) > 0.01  # the two can be told apart here


def test_scikit_learn() -> None:
    """The points of its precision-recall curve, interpolated as the VOC kits do."""
    sklearn = pytest.importorskip("sklearn.metrics")
    q, g, asked, names = case(320, 5, 3)
    scores = variant_metrics(q, g, asked, names, gallery_ids=ids(320), bootstrap=0).scores
    plain, eleven, area = [], [], []
    for i, label in enumerate(asked):
        truth, values = [name == label for name in names], (q[i] @ g.T).numpy()
        plain.append(sklearn.average_precision_score(truth, values))
        precision, recall, _ = sklearn.precision_recall_curve(truth, values)
        precision, recall = precision[:-1], recall[:-1]  # its last point, (1, 0), is none of the list
        eleven.append(np.mean([precision[recall >= t - 1e-9].max() for t in np.arange(11) / 10]))
        steps = np.unique(recall[recall > 0])
        best = np.array([precision[recall >= r].max() for r in steps])
        area.append(float((np.diff(np.append(0.0, steps)) * best).sum()))
    for name, values in (("mAP@all", plain), (ELEVEN, eleven), (ALL_POINT, area)):
        assert scores[name] == pytest.approx(np.mean(values), abs=1e-9), name


def test_a_recall_of_three_tenths_is_reached_at_the_third_of_ten() -> None:
    flags = [True, True, True] + [False] * 7 + [True] * 7
    ranks = np.flatnonzero(flags) + 1
    none = np.empty((1, 0))
    everywhere, eleven = interpolated(
        Hits(np.zeros(10, dtype=np.int64), ranks, np.zeros(1, dtype=bool), none.astype(np.int64), none), np.array([10])
    )
    assert eleven[0] == pytest.approx((4 * 1.0 + 7 * 10 / 17) / 11)
    assert everywhere[0] == pytest.approx((3 * 1.0 + 7 * 10 / 17) / 10)


@pytest.mark.parametrize(("n", "r"), [(7, 1), (7, 3), (9, 4), (5, 5)])
def test_chance_is_the_mean_over_all_orders(n: int, r: int) -> None:
    orders = [slow([place in hits for place in range(n)], n) for hits in itertools.combinations(range(n), r)]
    for name, value in variant_chance(n, np.array([r])).items():
        drawn = name in (ELEVEN, ALL_POINT) and r > 1
        assert value == pytest.approx(np.mean([one[name] for one in orders]), abs=0.02 if drawn else 1e-9), name
    mixed = variant_chance(n, np.array([r, r, 1]))["mAP@200/k"]
    one, other = (variant_chance(n, np.array([x]))["mAP@200/k"] for x in (r, 1))
    assert mixed == pytest.approx((2 * one + other) / 3)


def test_the_small_gallery_is_drawn_by_hash_and_measured_anew() -> None:
    q, g, asked, names = case(60, 7, 4)
    names[-1] = None  # type: ignore[call-overload]  # an item without a label takes no part
    found = one_per_key(q, g, asked, names, gallery_ids=ids(60), seed=3, repeats=6)
    first, reciprocal = [], []
    for repeat in range(6):
        at = drawn_items(names, ids(60), 3, repeat)
        assert sorted(names[i] for i in at) == sorted({x for x in names if x is not None})
        table = (q @ g[at].T).tolist()
        places = [
            1 + sum(other > row[own] for other in row)
            for row, label in zip(table, asked, strict=True)
            for own in [[names[i] for i in at].index(label)]
        ]
        first.append(np.mean([place == 1 for place in places]))
        reciprocal.append(np.mean([1 / place for place in places]))
    assert (found.n_gallery, found.repeats, found.seed) == (7, 6, 3)
    for name, values in (("R@1", first), ("mAP@all", reciprocal)):
        mean, deviation = found.scores[name]
        assert mean == pytest.approx(np.mean(values)) and deviation == pytest.approx(np.std(values, ddof=1))
    assert found.chance["R@1"] == pytest.approx(1 / 7)
    assert found.chance["mAP@all"] == pytest.approx(sum(1 / i for i in range(1, 8)) / 7)
    assert math.isnan(one_per_key(q, g, asked, names, gallery_ids=ids(60), repeats=1).scores["R@1"][1])


def test_draws_are_even_and_know_no_order() -> None:
    keys, names = ["a"] * 4 + ["b"], ids(5)
    drawn = [drawn_items(keys, names, 0, repeat) for repeat in range(400)]
    assert all(len(at) == 2 and at[1] == 4 for at in drawn)
    share = Counter(at[0] for at in drawn)
    assert set(share) == {0, 1, 2, 3} and all(60 < times < 140 for times in share.values())
    back = [4 - i for i in drawn_items(keys[::-1], names[::-1], 0, 7)]
    assert sorted(back) == drawn[7]
    assert drawn != [drawn_items(keys, names, 1, repeat) for repeat in range(400)]


def test_order_and_blocks_change_nothing_and_bad_input_is_named() -> None:
    q, g, asked, names = case(320, 5, 3)
    one = variant_metrics(q, g, asked, names, gallery_ids=ids(320), bootstrap=0)
    order = torch.randperm(320, generator=torch.Generator().manual_seed(1)).tolist()
    other = variant_metrics(
        q, g[order], asked, [names[i] for i in order], gallery_ids=[ids(320)[i] for i in order], bootstrap=0
    )
    assert other.scores == pytest.approx(one.scores, abs=1e-12) and other.one_per == one.one_per
    with pytest.raises(IsthmusError, match="do not fit"):
        variant_metrics(q, g, asked[:3], names, gallery_ids=ids(320))
    with pytest.raises(IsthmusError, match="same names"):
        variant_metrics(q, g, ["z"] * len(q), names, gallery_ids=ids(320))
    with pytest.raises(IsthmusError, match="width"):
        variant_metrics(q[:, :3], g, asked, names, gallery_ids=ids(320))


def test_the_tables_of_the_guides_are_the_kept_results() -> None:
    root = Path(__file__).parent.parent
    for guide, kept in (("metrics", "variants"), ("evaluate", "after_ranking")):
        table = (root / "benchmarks" / "measuring" / f"{kept}.md").read_text(encoding="utf-8").split("\n", 1)[1]
        assert table.strip() in (root / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    values = json.loads((root / "benchmarks" / "measuring" / "variants.json").read_text(encoding="utf-8"))
    for side in values["sides"]:
        assert list(side["scores"]) == list(NAMES)
