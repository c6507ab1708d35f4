"""k-reciprocal re-ranking: against a slow dense transcript of the method, bounded memory, and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_zoo import refused, works
from numpy.typing import NDArray
from training_zoo import INK, PAINT, write_domain

from isthmus.config import RunConfig
from isthmus.errors import IsthmusError
from isthmus.evaluate.rerank import KReciprocal, Reranker
from isthmus.models.encoder import Architecture, Model
from isthmus.ops import normalise
from isthmus.translate.diffusion.fit import current_memory, watch_memory

Table = NDArray[np.float64]


def dense(vectors: Table, query: int, k1: int, k2: int, weight: float) -> Table:
    """d* of one item to all, word by word as the paper and its code define it: full tables, loops, sets."""
    n = len(vectors)
    d = [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in vectors.tolist()] for x in vectors.tolist()]
    d = [[value / max(row) for value in row] for row in d]
    ranks = [sorted(range(n), key=lambda j: (j != i, d[i][j])) for i in range(n)]

    def mutual(p: int, k: int) -> set[int]:
        return {g for g in ranks[p][: k + 1] if p in ranks[g][: k + 1]}

    v = np.zeros((n, n))
    for p in range(n):
        mine = mutual(p, k1)
        wide = set(mine)
        for candidate in mine:
            theirs = mutual(candidate, round(k1 / 2))
            if 3 * len(theirs & mine) > 2 * len(theirs):
                wide |= theirs
        total = sum(math.exp(-d[p][g]) for g in wide)
        for g in wide:
            v[p, g] = math.exp(-d[p][g]) / total
    mean = np.array([v[ranks[p][:k2]].mean(axis=0) for p in range(n)])
    result = np.empty(n)
    for g in range(n):
        smaller = sum(min(a, b) for a, b in zip(mean[query], mean[g], strict=True))
        larger = sum(max(a, b) for a, b in zip(mean[query], mean[g], strict=True))
        result[g] = (1 - weight) * (1 - smaller / larger) + weight * d[query][g]
    return result


def clusters(n: int, groups: int, dim: int, seed: int, *, noise: float = 0.6, shift: float = 0.0) -> torch.Tensor:
    centres = torch.randn(groups, dim, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    return normalise(centres[torch.arange(n) % groups] + noise * torch.randn(n, dim, generator=generator) + shift)


def ids(name: str, n: int) -> list[str]:
    return [f"{name}/{i}" for i in range(n)]


def scores(q: torch.Tensor, g: torch.Tensor, **settings: object) -> torch.Tensor:
    ranker = Reranker(q, g, ids("q", len(q)), ids("g", len(g)), KReciprocal.of(settings))
    return ranker.scores(torch.arange(len(q)))


@pytest.mark.parametrize("queries", ["alone", "together"])
@pytest.mark.parametrize(
    ("n", "k1", "k2", "weight", "shift"),
    [(40, 20, 6, 0.3, 0.0), (60, 7, 3, 0.0, 0.3), (60, 5, 1, 0.7, 0.0), (45, 4, 9, 0.3, 0.2), (12, 20, 6, 0.3, 0.0),
     (1, 3, 2, 0.5, 0.0), (20, 19, 6, 0.3, 0.0), (20, 20, 25, 0.3, 0.0), (30, 1, 2, 0.3, 0.0)],
)  # fmt: skip
def test_as_the_dense_method(n: int, k1: int, k2: int, weight: float, shift: float, queries: str) -> None:
    q, g = clusters(7, 5, 12, 1, shift=shift), clusters(n, 5, 12, 2)
    found = 1 - scores(q, g, k1=k1, k2=k2, queries=queries, **{"lambda": weight}).double().numpy()
    for i in range(len(q)):
        graph = torch.cat([g, q if queries == "together" else q[i : i + 1]]).double().numpy()
        want = dense(graph, n + (i if queries == "together" else 0), k1, k2, weight)[:n]
        np.testing.assert_allclose(found[i], want, atol=1e-6)


def test_one_query_alone_and_together_are_the_same() -> None:
    q, g = clusters(1, 5, 12, 1), clusters(50, 5, 12, 2)
    assert scores(q, g, queries="together").allclose(scores(q, g, queries="alone"), atol=1e-6)


def test_alone_a_query_is_answered_as_if_there_were_no_other() -> None:
    q, g = clusters(20, 5, 12, 1), clusters(70, 5, 12, 2)
    ranker = Reranker(q, g, ids("q", 20), ids("g", 70))
    found = ranker.scores(torch.arange(20))
    assert found.equal(ranker.scores(torch.arange(20).flip(0)).flip(0))  # nothing stays behind in the graph
    alone = Reranker(q[3:4], g, ["q/3"], ids("g", 70))
    assert alone.scores(torch.tensor([0]))[0].equal(found[3])
    together = scores(q, g, queries="together")
    assert not together.allclose(scores(q[:10], g, queries="together").repeat(2, 1), atol=1e-3)


def test_a_ranking_is_repaired() -> None:
    """A stray item lies nearest to the query, but it is nobody's near neighbour; the query's group hold together."""
    angles = torch.tensor([0.0, 20, 21, 22, 23, 24, -19, -60, -61, -62, -63, -64]).deg2rad()
    x = torch.stack([angles.cos(), angles.sin()], dim=1)
    before = x[:1] @ x[1:].T
    after = scores(x[:1], x[1:], k1=5, k2=1, **{"lambda": 0.1})
    assert before.argmax() == 5 and after[0].argsort(descending=True)[:5].sort().values.tolist() == [0, 1, 2, 3, 4]
    assert scores(x[:1], x[1:], k1=5, k2=1, **{"lambda": 1.0})[0].argsort().equal(before[0].argsort())


def test_duplicates_and_equal_vectors_are_ties() -> None:
    g = clusters(40, 5, 12, 2)
    names = ids("g", 80)
    ranker = Reranker(g[:6], torch.cat([g, g]), ids("q", 6), names, KReciprocal(k1=40, k2=6))
    found = ranker.scores(torch.arange(6))
    shuffled = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    again = Reranker(g[:6], torch.cat([g, g])[shuffled], ids("q", 6), [names[i] for i in shuffled], ranker.settings)
    assert again.scores(torch.arange(6)).allclose(found[:, shuffled], atol=1e-6)
    assert found.isfinite().all() and (found.argmax(dim=1) % 40).tolist() == list(range(6))
    same = torch.ones(9, 4)
    for queries in ("alone", "together"):
        flat = scores(same[:2], same, queries=queries, k1=9, k2=3)
        assert flat.isfinite().all() and ((flat >= 0) & (flat <= 1)).all()


def test_memory_is_bounded() -> None:
    """300 x 5000: what is taken on top is a fraction of a table of all pairs, in numpy and in torch."""
    q, g = clusters(300, 200, 32, 1), clusters(5000, 200, 32, 2)
    table = 5000 * 5000 * 4
    scores(q[:20], g[:200])  # what any first call takes
    before = current_memory()
    with watch_memory() as peak:
        ranker = Reranker(q, g, ids("q", 300), ids("g", 5000), KReciprocal(k1=10), limit=4 << 20)
        found = ranker.scores(torch.arange(0, 300, 10))
    assert ranker.nbytes < table / 20 and peak[0] - before < table / 2
    assert (found.argmax(dim=1) % 200 == torch.arange(0, 300, 10) % 200).float().mean() > 0.9


def test_settings_that_cannot_be() -> None:
    for values, says in (
        ({"k1": 0}, "k1 is 0"), ({"k2": 1.5}, "k2 is 1.5"), ({"lambda": 2}, "lambda is 2"), ({"lambda": "x"}, "lambda"),
        ({"queries": "both"}, "alone or together"), ({"k3": 1}, "no setting 'k3'"), ({"k1": True}, "k1 is True"),
    ):  # fmt: skip
        with pytest.raises(IsthmusError, match=says):
            KReciprocal.of(values)
    with pytest.raises(IsthmusError, match="fit together"):
        Reranker(torch.eye(3), torch.eye(3), ["a"], ids("g", 3))
    with pytest.raises(IsthmusError, match="NaN"):
        Reranker(torch.full((1, 3), float("nan")), torch.eye(3), ["a"], ids("g", 3))
    with pytest.raises(IsthmusError, match="nothing to re-rank"):
        Reranker(torch.empty(0, 3), torch.eye(3), [], ids("g", 3))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of an untrained network on six images a domain."""
    base = tmp_path_factory.mktemp("runs")
    for style in (INK, PAINT):
        write_domain(base / "data" / style / "test", style, range(6), classes=3)
    for seed in (0, 1):
        torch.manual_seed(seed)
        Model.create(Architecture("resnet10t", 8, 32), (INK, PAINT), weights="random").save(
            base / f"run{seed}" / "model"
        )
        domains = {f"data.{side}": {"name": style, "train": str(base / "data" / style)}
                   for side, style in (("query", INK), ("gallery", PAINT))}  # fmt: skip
        RunConfig.build("tiny", domains).save(base / f"run{seed}" / "config.yaml")
    return [base / "run0", base / "run1"]


QUICK = ("--bootstrap", 20, "--workers", 0)
AGAIN = ("--rerank", "k-reciprocal", "--rerank-set", "k1=3", "--rerank-set", "k2=2")


def test_on_the_command_line_beside_the_plain_figures(runs: list[Path], tmp_path: Path) -> None:
    works("evaluate", runs[0], "--out", tmp_path / "plain.json", "--no-report", *QUICK)
    done = works("evaluate", runs[0], "--out", tmp_path / "again.json", *QUICK, *AGAIN)
    plain, again = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "again"))
    name = again["rerank"]["name"]
    assert name == "plain, k-reciprocal" and (again["rerank"]["k1"], again["rerank"]["lambda"]) == (3, 0.3)
    assert set(again["rerank"]["cost"]) == {"ink->paint", "paint->ink"} and "rerank" not in plain
    extra = {key: again["evaluation"]["scores"].pop(key) for key in list(again["evaluation"]["scores"]) if name in key}
    sides = [again["evaluation"]["sides"].pop() for _ in range(2)]
    assert again["evaluation"] == plain["evaluation"]  # not a bit of what is there without it differs
    assert {side["setting"] for side in sides} == {name} and "k1=3, k2=2" in sides[0]["protocol"]
    assert extra[f"paint->ink ({name})/mAP@all"] == sides[0]["scores"]["mAP@all"]
    assert "ink -> paint, re-ranked" in done.stdout and "on top of" in done.stdout and f"mean ({name})" in done.stdout
    page = (tmp_path / "again.html").read_text()
    assert "Re-ranked (k-reciprocal, k1=3, k2=2, lambda=0.3, each query by itself)" in page and f"({name})" in page


def test_several_runs_on_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    together = (*AGAIN, "--rerank-set", "queries=together")
    done = works("evaluate", *runs, "--out", tmp_path / "all.json", "--no-report", *QUICK, *together)
    values = json.loads((tmp_path / "all.json").read_text())
    key = "ink->paint (plain, k-reciprocal, transductive)/R@1"
    one = [json.loads((run / "evaluation-test.json").read_text())["evaluation"]["scores"][key] for run in runs]
    assert values["summary"]["scores"][key]["values"] == one and len(values["rerank"]) == 2
    table = done.stdout.split("re-ranked", 1)[1].split("transductive: all")[0]
    assert "mAP@200/found" in table and "–" not in table  # every metric has its re-ranked value
    assert "re-ranked" in done.stdout and "transductive: all test queries are in the graph" in done.stdout


def test_refused_on_the_command_line(runs: list[Path]) -> None:
    refused("evaluate", runs[0], "--rerank", "magic", says=("--rerank magic is unknown", "k-reciprocal"))
    refused("evaluate", runs[0], "--rerank-set", "k1=3", says=("without  --rerank k-reciprocal",))
    refused("evaluate", runs[0], "--rerank", "k-reciprocal", "--rerank-set", "k1=none", says=("k1 is none",))
    refused("evaluate", runs[0], "--rerank", "k-reciprocal", "--rerank-set", "k=3", says=("no setting 'k'",))
