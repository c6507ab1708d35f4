"""The same figures as two libraries, where they are installed and define a metric alike; and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isthmus.errors import IsthmusError
from isthmus.evaluate.metrics import Cutoffs, RetrievalResult, metrics_from_similarities, retrieval_metrics
from isthmus.ops import normalise
from isthmus.runtime import prepare_torchvision


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(6, 24, generator=generator)
    asked, names = torch.randint(0, 6, (40,), generator=generator), torch.randint(0, 6, (300,), generator=generator)
    q = normalise(centres[asked] + 2 * torch.randn(40, 24, generator=generator)).to(dtype)
    g = normalise(centres[names] + 2 * torch.randn(300, 24, generator=generator)).to(dtype)
    return q, g, asked, names


def ours(q: torch.Tensor, g: torch.Tensor, asked: torch.Tensor, names: torch.Tensor) -> RetrievalResult:
    ks = Cutoffs(precision=(1, 50), recall=(1, 5))
    ids = [str(i) for i in range(len(g))]
    return retrieval_metrics(q, g, [str(x) for x in asked.tolist()], [str(x) for x in names.tolist()], gallery_ids=ids,
                             ks=ks, bootstrap=0)  # fmt: skip


def test_pytorch_metric_learning() -> None:
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    q, g, asked, names = case()
    knn = inference.CustomKNN(distances.CosineSimilarity())
    calculator = module.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision"), k=len(g), knn_func=knn,
        device=torch.device("cpu"),
    )  # fmt: skip
    theirs = calculator.get_accuracy(q, asked, g, names)
    scores = ours(q, g, asked, names).scores
    assert scores["P@1"] == pytest.approx(theirs["precision_at_1"])
    assert scores["R-precision"] == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert scores["mAP@all"] == pytest.approx(theirs["mean_average_precision"], abs=1e-6)


def test_torchmetrics() -> None:
    prepare_torchvision()  # torchmetrics imports torchvision where it is installed
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    q, g, asked, names = case()
    table = q @ g.T + 1.0  # its mAP takes a relevant item with a score of 0 or less for an irrelevant one
    target = asked[:, None] == names
    index = torch.arange(len(q))[:, None].expand_as(table)
    scores = metrics_from_similarities(
        table, [str(x) for x in asked.tolist()], [str(x) for x in names.tolist()],
        gallery_ids=[str(i) for i in range(len(g))], ks=Cutoffs(precision=(50,), recall=(5,), gain=(10,)), bootstrap=0,
    ).scores  # fmt: skip
    for name, metric in {
        "mAP@all": retrieval.RetrievalMAP(),
        "P@50": retrieval.RetrievalPrecision(top_k=50),
        "R@5": retrieval.RetrievalHitRate(top_k=5),
        "R-precision": retrieval.RetrievalRPrecision(),
        "nDCG@10": retrieval.RetrievalNormalizedDCG(top_k=10),
    }.items():
        assert scores[name] == pytest.approx(float(metric(table, target, indexes=index)), abs=1e-5), name


def test_dtypes_arrays_and_lengths_agree() -> None:
    q, g, asked, names = case(torch.float64)
    exact = ours(q, g, asked, names).scores
    for a, b in (((q * 3).float(), (g * torch.rand(len(g), 1)).float()), (q.float().numpy(), g.float().numpy())):
        other = ours(torch.as_tensor(a), torch.as_tensor(b), asked, names).scores
        assert {k: round(v, 5) for k, v in other.items()} == {k: round(v, 5) for k, v in exact.items()}
    half = ours(q.half(), g.half(), asked, names).scores
    assert half["mAP@all"] == pytest.approx(exact["mAP@all"], abs=5e-3)


def test_bad_input_is_named() -> None:
    q, g, ids = torch.eye(3), torch.eye(3), ["1", "2", "3"]
    with pytest.raises(IsthmusError, match="3 labels and 2 ids"):
        retrieval_metrics(q, g, ["a"] * 3, ["a"] * 3, gallery_ids=ids[:2])
    with pytest.raises(IsthmusError, match="width"):
        retrieval_metrics(q, g[:, :2], ["a"] * 3, ["a"] * 3, gallery_ids=ids)
    with pytest.raises(IsthmusError, match="same names"):
        retrieval_metrics(q, g, ["a"] * 3, ["b", None, "c"], gallery_ids=ids)
    with pytest.raises(IsthmusError, match="below 1"):
        Cutoffs(recall=(0,))
    with pytest.raises(IsthmusError, match="table"):
        metrics_from_similarities(np.zeros(3), ["a"], ["a"] * 3, gallery_ids=ids)
    for dtype in (torch.float32, torch.float64):
        for bad in (float("nan"), -float("nan"), float("inf")):
            table = torch.zeros(1, 3, dtype=dtype)
            table[0, 1] = bad
            with pytest.raises(IsthmusError, match="NaN"):
                metrics_from_similarities(table, ["a"], ["a"] * 3, gallery_ids=ids)
    gallery = g.clone()
    gallery[1] = float("nan")
    with pytest.raises(IsthmusError, match="NaN"):
        retrieval_metrics(q, gallery, ["a"] * 3, ["a"] * 3, gallery_ids=ids)


def test_left_out_queries_are_counted_and_do_not_count() -> None:
    q, g, ids = torch.eye(4), torch.eye(4), list("1234")
    result = retrieval_metrics(q, g, ["a", "x", None, "b"], ["a", "b", None, "b"], gallery_ids=ids, top=2)
    assert (result.n_queries, result.n_left_out, result.kept.tolist()) == (4, 2, [0, 3])
    assert "2 of 4 queries left out" in result.protocol
    assert result.scores["P@1"] == 1.0 and result.top[:, 0].tolist() == [0, 3]
    assert result.top_scores[:, 0].tolist() == [1.0, 1.0] and result.relevant.tolist() == [1, 2]


def test_curves_follow_the_definition() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    result = metrics_from_similarities(scores, ["a"], list("babaab"), gallery_ids=list("123456"))
    assert result.first_ranks.tolist() == [2]
    # 3 relevant items at ranks 2, 4, 5: recall up to 1/3 is reached at rank 2, to 2/3 at rank 4, to 1 at rank 5
    assert result.precision_at_recall.tolist() == pytest.approx([1 / 2] * 6 + [2 / 4] * 7 + [3 / 5] * 7)
