"""Evaluations in both directions: names, centring, JSON, hits, and images that could not be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import paired_difference
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.evaluate.run import Evaluation, evaluate_embeddings, evaluate_model
from isthmus.models.encoder import Model
from isthmus.ops import normalise

N, M, D = 30, 42, 16


def rows(domain: str, n: int, by: str = "label") -> Manifest:
    return Manifest(Row(f"{domain}/{i}.png", f"/data/{domain}/{i}.png", domain, **{by: f"c{i % 5}"}) for i in range(n))


def vectors(n: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, D, generator=torch.Generator().manual_seed(99))
    return normalise(centres[torch.arange(n) % 5] + 1.5 * torch.randn(n, D, generator=generator) + shift)


class FakeModel:
    """As much of a model as evaluation uses; an image's number is its row of a fixed table."""

    domains, fingerprint = ("sketch", "photo"), "abc"

    def __init__(self, centring: bool = True, trained: bool = True) -> None:
        self.tables = {"sketch": vectors(N, 1), "photo": vectors(M, 2, shift=1.0)}
        self.centring = centring
        self.means = torch.stack([t.mean(dim=0) for t in self.tables.values()]) * (1.0 if trained else 0.0)
        self.calls: list[bool | None] = []

    def encode(self, images: Sequence[str], *, domain: str, centring: bool | None, **_: Any) -> np.ndarray[Any, Any]:
        self.calls.append(centring)
        return self.tables[domain][[int(str(i).rsplit("/", 1)[1][:-4]) for i in images]].numpy()

    def centre(self, x: torch.Tensor, domain: int) -> torch.Tensor:
        return normalise(x - self.means[domain])


def run(model: FakeModel, **options: Any) -> Evaluation:
    return evaluate_model(cast(Model, model), rows("sketch", N), rows("photo", M), bootstrap=50, **options)


def test_both_directions_with_and_without_centring() -> None:
    model = FakeModel()
    result = run(model)
    assert model.calls == [False, False]  # the images are embedded once
    ways = ("sketch->photo", "photo->sketch")
    assert [(s.direction, s.setting) for s in result.sides] == [(w, x) for x in ("centred", "plain") for w in ways]
    assert result.primary == "mean/Prec@1" and result.by == "label" and result.model == "abc"
    direct = retrieval_metrics(
        model.centre(model.tables["photo"], 1), model.centre(model.tables["sketch"], 0),
        [f"c{i % 5}" for i in range(M)], [f"c{i % 5}" for i in range(N)],
        gallery_ids=[f"sketch/{i}.png" for i in range(N)], bootstrap=50,
    )  # fmt: skip
    assert result.side("photo->sketch").scores == direct.scores
    assert result.scores["photo->sketch/mAP@all"] == direct.scores["mAP@all"]
    plain = result.side("photo->sketch", "plain").scores["mAP@all"]
    assert result.scores["photo->sketch (plain)/mAP@all"] == plain < direct.scores["mAP@all"]
    both = [result.scores[f"{d}/Prec@1"] for d in ways]
    assert result.scores[result.primary] == pytest.approx(sum(both) / 2)
    assert "30 queries against 42 gallery items" in result.protocol and "same label" in result.protocol


@pytest.mark.parametrize(
    ("own", "asked", "settings"),
    [(False, None, ["plain", "centred"]), (True, False, ["plain"]), (False, True, ["centred"])],
)
def test_the_main_row_is_the_models_setting(own: bool, asked: bool | None, settings: list[str]) -> None:
    result = run(FakeModel(centring=own), centring=asked)
    assert list(dict.fromkeys(side.setting for side in result.sides)) == settings


def test_a_model_without_means_has_no_centred_row() -> None:
    assert {side.setting for side in run(FakeModel(trained=False)).sides} == {"plain"}
    with pytest.raises(IsthmusError, match="no training means"):
        run(FakeModel(trained=False), centring=True)


def test_json_brings_back_the_same_evaluation() -> None:
    result = run(FakeModel())
    assert Evaluation.from_dict(json.loads(result.to_json())) == result
    with pytest.raises(IsthmusError, match="no evaluation"):
        Evaluation.from_dict({"scores": {}})
    with pytest.raises(IsthmusError, match="no row"):
        result.side("sketch->clipart")


def test_hits_name_ids_and_relevance() -> None:
    q, g = vectors(N, 1), vectors(M, 2)
    result = evaluate_embeddings(q, g, rows("sketch", N), rows("photo", M), bootstrap=0, keep_hits=50)
    side = result.side("sketch->photo")
    for i in (0, 7, 29):
        hits = side.hits[f"sketch/{i}.png"]
        table = (q[i] @ g.T).tolist()
        order = sorted(range(M), key=lambda j: -table[j])
        best = order[:10]
        assert [hit.id for hit in hits] == [f"photo/{j}.png" for j in best]
        assert [hit.relevant for hit in hits] == [j % 5 == i % 5 for j in best]
        assert hits[0].score == pytest.approx(table[best[0]], abs=1e-6)
        assert side.first_ranks[i] == next(rank for rank, j in enumerate(order, 1) if j % 5 == i % 5)


def test_identities_and_what_auto_chooses() -> None:
    result = evaluate_embeddings(vectors(N, 1), vectors(M, 2), rows("a", N, "identity"), rows("b", M, "identity"))
    assert (result.by, result.primary) == ("identity", "mean/R@1")
    both = [Manifest([Row(f"{d}/1", "/1", d, label="x", identity=d), Row(f"{d}/2", "/2", d, label="y")]) for d in "ab"]
    assert evaluate_embeddings(torch.eye(2), torch.eye(2), *both).by == "label"
    with pytest.raises(IsthmusError, match="neither a label nor an identity"):
        evaluate_embeddings(torch.eye(2), torch.eye(2), rows("a", 2, "identity"), rows("b", 2))
    with pytest.raises(IsthmusError, match="give one each"):
        evaluate_embeddings(torch.eye(3), torch.eye(2), *both)


def test_unreadable_images_are_left_out_and_shift_nothing() -> None:
    q, g = vectors(N, 1), vectors(M, 2)
    broken = g.clone()
    broken[4] = float("nan")
    result = evaluate_embeddings(q, broken, rows("sketch", N), rows("photo", M), bootstrap=0)
    keep = [i for i in range(M) if i != 4]
    want = evaluate_embeddings(
        q, g[keep], rows("sketch", N), Manifest(row for row in rows("photo", M) if row.id != "photo/4.png"), bootstrap=0
    )
    assert result.scores == want.scores and result.skipped == ["photo/4.png"]
    assert "1 images could not be read" in result.protocol


def test_runs_are_compared_query_by_query() -> None:
    good = evaluate_embeddings(vectors(N, 1), vectors(M, 2), rows("s", N), rows("p", M))
    noise = torch.randn(M, D, generator=torch.Generator().manual_seed(0))
    bad = evaluate_embeddings(vectors(N, 1), noise, rows("s", N), rows("p", M))
    ways = ("s->p", "p->s")
    difference = paired_difference(*({w: e.side(w).per_query["Prec@1"] for w in ways} for e in (good, bad)), draws=500)
    assert difference.mean == pytest.approx(good.scores["mean/Prec@1"] - bad.scores["mean/Prec@1"])
    assert difference.distinguishable and good.side("s->p").query_ids == bad.side("s->p").query_ids
