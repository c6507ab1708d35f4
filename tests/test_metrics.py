"""Retrieval metrics against the plain definitions: a full sort per query in float64, one loop a metric."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.metrics import RetrievalResult, metrics_from_similarities, retrieval_metrics
from isthmus.ops import tie_keys

KS = Cutoffs(precision=(1, 3, 50), micro=(1, 5, 15), average=(4, 50), recall=(1, 5), gain=(5, 50))


Names = Sequence[str | None]


def slow(
    similarities: Sequence[Sequence[float]], queries: Names, gallery: Names, ids: list[str]
) -> tuple[dict[str, float], float]:
    """All metrics with Python's sort and the formulas of the evaluation document, and the share of tied queries."""
    keys = tie_keys(ids).tolist()
    n = len(gallery)
    sums: dict[str, float] = {}
    below: dict[str, float] = {}
    tied = asked = 0
    for row, label in zip(similarities, queries, strict=True):
        order = sorted(range(n), key=lambda j: (-row[j], keys[j]))
        hit = [label is not None and gallery[j] == label for j in order]
        r = sum(hit)
        if r == 0:
            continue
        asked += 1
        tied += any(row[i] == row[j] for i in range(n) if gallery[i] == label for j in range(n) if gallery[j] != label)
        precisions = [sum(hit[: i + 1]) / (i + 1) if hit[i] else 0.0 for i in range(n)]
        values = {"mAP@all": sum(precisions) / r, "R-precision": sum(hit[:r]) / r}
        values["mINP"] = r / (n - hit[::-1].index(True))
        for k in KS.average:
            values[f"mAP@{k}"] = sum(precisions[:k]) / min(k, r)
            values[f"mAP@{k}/found"] = sum(precisions[:k]) / max(1, sum(hit[:k]))
        values |= {f"P@{k}": sum(hit[:k]) / k for k in KS.precision}
        values |= {f"R@{k}": float(any(hit[:k])) for k in KS.recall}
        for k in KS.gain:
            best = sum(1 / math.log2(i + 2) for i in range(min(k, r)))
            values[f"nDCG@{k}"] = sum(1 / math.log2(i + 2) for i in range(min(k, n)) if hit[i]) / best
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
            below[name] = below.get(name, 0.0) + 1
        for k in KS.micro:
            sums[f"Prec@{k}"] = sums.get(f"Prec@{k}", 0.0) + sum(hit[: min(k, r)])
            below[f"Prec@{k}"] = below.get(f"Prec@{k}", 0.0) + min(k, r)
    return {name: sums[name] / below[name] for name in sums}, tied / max(asked, 1)


def compare(similarities: torch.Tensor, queries: Names, gallery: Names) -> RetrievalResult:
    ids = [f"photo/{i}" for i in range(len(gallery))]
    got = metrics_from_similarities(similarities, queries, gallery, gallery_ids=ids, ks=KS, bootstrap=0)
    want, tied = slow(similarities.tolist(), queries, gallery, ids)
    assert got.scores.keys() == want.keys()
    for name, value in want.items():
        assert got.scores[name] == pytest.approx(value, abs=1e-9), name
    assert got.tie_share == pytest.approx(tied)
    return got


labels = st.sampled_from(["a", "b", "c", None])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 200))
def test_kernel_equals_full_sort(data: st.DataObject, dtype: torch.dtype, levels: int) -> None:
    gallery = data.draw(st.lists(labels, min_size=1, max_size=40))
    queries = data.draw(st.lists(labels, min_size=1, max_size=6))
    seed = data.draw(st.integers(0, 2**31))
    similarities = torch.randint(-levels, levels + 1, (len(queries), len(gallery)),
                                 generator=torch.Generator().manual_seed(seed)).to(dtype) / 97  # fmt: skip
    if not {x for x in queries if x is not None} & set(gallery):
        with pytest.raises(IsthmusError, match="same names"):
            metrics_from_similarities(similarities, queries, gallery, gallery_ids=[str(i) for i in range(len(gallery))])
        return
    compare(similarities, queries, gallery)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_larger_case_with_and_without_ties(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = [f"c{i}" for i in torch.randint(0, 9, (700,), generator=generator).tolist()]
    queries = [f"c{i}" for i in torch.randint(0, 12, (40,), generator=generator).tolist()]
    smooth = torch.randn(40, 700, generator=generator).to(dtype)
    assert compare(smooth, queries, gallery).n_left_out == sum(x in ("c9", "c10", "c11") for x in queries)
    coarse = (smooth * 3).round() * 0.0 + (smooth * 3).round() / 7  # has -0.0 beside 0.0, which tie
    assert compare(coarse, queries, gallery).tie_share > 0.9


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("n", [37, 500])
def test_permuting_the_gallery_changes_no_bit(n: int) -> None:
    query, gallery = unit(33, 48, 1), unit(n, 48, 2)
    gallery[n // 2 :] = gallery[: n - n // 2].clone()  # duplicates with other labels: true ties
    names, ids = [f"c{i % 7}" for i in range(n)], [f"id{i}" for i in range(n)]
    asked = [f"c{i % 7}" for i in range(33)]
    plain = retrieval_metrics(query, gallery, asked, names, gallery_ids=ids, top=4)
    for seed in range(3):
        p = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        moved = retrieval_metrics(
            query, gallery[p], asked, [names[i] for i in p], gallery_ids=[ids[i] for i in p], top=4
        )
        assert moved.scores == plain.scores and moved.tie_share == plain.tie_share > 0.9
        assert moved.intervals == plain.intervals
        np.testing.assert_array_equal(p.numpy()[moved.top], plain.top)


@pytest.mark.parametrize("block", [1, 3, 16, 50])
def test_block_size_changes_nothing(block: int) -> None:
    query, gallery = unit(90, 32, 3), unit(431, 32, 4)
    gallery[200:230] = gallery[0]
    asked, names = [f"c{i % 7}" for i in range(90)], [f"c{i % 7}" for i in range(431)]
    ids = [str(i) for i in range(431)]
    one = retrieval_metrics(query, gallery, asked, names, gallery_ids=ids)
    other = retrieval_metrics(query, gallery, asked, names, gallery_ids=ids, block=block)
    assert max(abs(one.scores[k] - other.scores[k]) for k in one.scores) <= 1e-6


def test_constant_embedding_scores_chance_also_where_classes_stand_in_order() -> None:
    sizes = [344, 344, 436, 384, 320, 284, 288]  # seven classes of unlike size, in order, as folders give them
    names = [f"class{c}" for c, size in enumerate(sizes) for _ in range(size)]
    asked = [f"class{c}" for c in range(7) for _ in range(20 + 7 * c)]
    ids = [f"photo/{name}/{i}.jpg" for i, name in enumerate(names)]
    constant = unit(1, 100, 0)
    result = retrieval_metrics(constant.expand(len(asked), 100), constant.expand(len(names), 100), asked, names,
                               gallery_ids=ids)  # fmt: skip
    assert result.tie_share == 1.0
    for name in ("mAP@all", "R-precision"):
        assert abs(result.scores[name] - result.chance[name]) < 0.01, name


def test_perfect_and_worst_ranking() -> None:
    scores, names, ids = np.array([[3.0, 2.0, 1.0, 0.0]]), ["a", "a", "b", "b"], list("1234")
    best = metrics_from_similarities(scores, ["a"], names, gallery_ids=ids, ks=KS)
    assert all(best.scores[k] == 1 for k in best.scores if not k.startswith("P@")) and best.scores["P@3"] == 2 / 3
    worst = metrics_from_similarities(scores, ["b"], names, gallery_ids=ids, ks=KS)
    assert worst.scores["mAP@all"] == pytest.approx((1 / 3 + 2 / 4) / 2) and worst.scores["Prec@5"] == 0
