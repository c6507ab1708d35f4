"""Query expansion and hubness correction: against slow versions word by word, bounded memory, planted hubs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from isthmus.errors import IsthmusError
from isthmus.evaluate.after import AlphaQE, Hubness, settings_of
from isthmus.evaluate.criteria import low_hubness
from isthmus.evaluate.expansion import expand_queries
from isthmus.evaluate.hubness import correct, csls_term, inverted_softmax_term, occurrences, skewness
from isthmus.evaluate.rerank import KReciprocal
from isthmus.evaluate.scorers import Corrector, Expander, scorer_of
from isthmus.ops import normalise, tie_keys, top_k
from isthmus.translate.diffusion.fit import current_memory, watch_memory

Table = NDArray[np.float64]


def some(n: int, seed: int, dim: int = 16) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def ids(name: str, n: int) -> list[str]:
    return [f"{name}/{i}" for i in range(n)]


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def table(a: torch.Tensor, b: torch.Tensor) -> Table:
    return np.array([[cosine(x, y) for y in b.double().tolist()] for x in a.double().tolist()])


def test_csls_as_the_paper_defines_it() -> None:
    """2 cos(q, g) - r(q) - r(g), with both means, is an affine function of what a query's scores become."""
    q, g, bank, k = some(7, 1), some(23, 2), some(31, 3), 5
    cos, back = table(q, g), table(g, bank)
    for i in range(7):
        r_q = sum(sorted(cos[i], reverse=True)[:k]) / k
        full = [2 * cos[i, j] - r_q - sum(sorted(back[j], reverse=True)[:k]) / k for j in range(23)]
        ours = correct(torch.from_numpy(cos[i]), csls_term(g, bank, k))
        np.testing.assert_allclose(2 * ours.numpy() - r_q, full, atol=1e-6)
    whole = csls_term(g, bank[:3], 10)  # a bank smaller than k
    np.testing.assert_allclose(whole.numpy(), back[:, :3].mean(axis=1) / 2, atol=1e-6)


@pytest.mark.parametrize("beta", [0.01, 5.0, 30.0])
def test_inverted_softmax_as_the_paper_defines_it(beta: float) -> None:
    """exp(beta cos) over the sum of the bank's, made a distribution over the gallery: a softmax of our scores."""
    q, g, bank = some(6, 1), some(19, 2), some(28, 3)
    cos, back = table(q, g), table(g, bank)
    mean = [sum(math.exp(beta * c) for c in row) / 28 for row in back]
    np.testing.assert_allclose(inverted_softmax_term(g, bank, beta), np.log(mean) / beta, atol=1e-6)
    for i in range(6):
        odds = [math.exp(beta * cos[i, j]) / sum(math.exp(beta * c) for c in back[j]) for j in range(19)]
        ours = correct(torch.from_numpy(cos[i]), inverted_softmax_term(g, bank, beta)).double()
        np.testing.assert_allclose((beta * ours).softmax(0).numpy(), np.array(odds) / sum(odds), rtol=2e-4)


def test_large_beta_does_not_overflow() -> None:
    g, bank = some(9, 2), some(8, 3)
    term = inverted_softmax_term(g, bank, 5000.0)
    np.testing.assert_allclose(term.numpy(), table(g, bank).max(axis=1), atol=1e-3)  # the nearest alone


@pytest.mark.parametrize(("n", "alpha"), [(1, 3.0), (4, 3.0), (4, 0.0), (100, 1.5)])
def test_expansion_as_the_paper_defines_it(n: int, alpha: float) -> None:
    q, g = normalise(some(9, 4)), normalise(some(30, 5))
    found = expand_queries(q, g, n, alpha)
    cos = table(q, g)
    for i in range(9):
        total = q[i].double().numpy().copy()
        for j in sorted(range(30), key=lambda j, i=i: -cos[i, j])[:n]:  # type: ignore[misc]
            if cos[i, j] > 0:
                total += cos[i, j] ** alpha * g[j].double().numpy()
        np.testing.assert_allclose(found[i].numpy(), total / np.linalg.norm(total), atol=1e-6)
    assert found.norm(dim=1).allclose(torch.ones(9))
    assert expand_queries(q[3:4], g, n, alpha)[0].allclose(found[3], atol=1e-7)  # no other query has a part


def test_scorers_are_the_functions_block_by_block() -> None:
    q, g, bank = some(40, 1), some(90, 2), some(50, 3)
    names = ids("q", 40), ids("g", 90)
    rows = torch.tensor([5, 0, 39])
    expander = Expander(q, g, *names, AlphaQE(7, 2.0))
    again = expand_queries(normalise(q), normalise(g), 7, 2.0, tie_keys=tie_keys(names[1]))
    assert expander.scores(rows).allclose(again[rows] @ normalise(g).T, atol=1e-6)
    for settings, term in (
        (Hubness(k=4), csls_term(g, bank, 4)),
        (Hubness("inverted-softmax", beta=9.0), inverted_softmax_term(g, bank, 9.0)),
    ):
        scorer = scorer_of(settings, q, g, *names, bank)
        assert isinstance(scorer, Corrector) and scorer.nbytes == 90 * 4 and scorer.seconds > 0
        assert scorer.scores(rows).allclose((normalise(q)[rows] @ normalise(g).T) - term, atol=1e-6)
    own = scorer_of(Hubness(bank="test"), q, g, *names)
    assert own.scores(rows).equal(Corrector(q, g, *names, Hubness(), q).scores(rows))
    with pytest.raises(IsthmusError, match="csls needs a bank"):
        scorer_of(Hubness(), q, g, *names)


def test_equal_items_have_equal_terms_wherever_they_stand() -> None:
    g, bank = some(37, 1), some(301, 2)
    double = torch.cat([g, some(11, 5), g])
    for term in (csls_term(double, bank), inverted_softmax_term(double, bank), csls_term(double, bank, limit=20_000)):
        assert term[:37].equal(term[48:])
    order = torch.randperm(85, generator=torch.Generator().manual_seed(0))
    assert csls_term(double[order], bank).equal(csls_term(double, bank)[order])
    assert csls_term(double * 3, bank * 0.5).allclose(csls_term(double, bank), atol=1e-6)  # lengths play no part


def test_hubness_is_the_skewness_of_n_k() -> None:
    stats = pytest.importorskip("scipy.stats")
    q, g = normalise(some(60, 1)), normalise(some(40, 2))
    cos = table(q, g)
    counts = [0] * 40
    for row in cos:
        for j in sorted(range(40), key=lambda j: -row[j])[:10]:
            counts[j] += 1
    found = occurrences(top_k(q, g, 10)[1].numpy(), 40)
    assert found.tolist() == counts
    assert skewness(found) == pytest.approx(float(stats.skew(counts)), abs=1e-12)
    assert skewness(found) == pytest.approx(-low_hubness(q @ g.T), abs=1e-9)
    assert skewness(np.full(5, 3)) == 0.0


def test_a_planted_hub_is_held_back() -> None:
    """Items of 30 things, noisy, and three that lie at the queries' own mean: these answer everybody."""
    centres, shift = some(30, 7, 24), normalise(some(1, 8, 24)) * math.sqrt(24)
    asked, bank = (centres + shift + 0.7 * some(30, seed, 24) for seed in (1, 2))
    gallery = torch.cat([centres + 0.7 * some(30, 3, 24), shift + 0.3 * some(3, 4, 24)])

    def hub_share(scores: torch.Tensor) -> float:
        return float((scores.argmax(dim=1) >= 30).float().mean())

    def right(scores: torch.Tensor) -> float:
        return float((scores.argmax(dim=1) == torch.arange(30)).float().mean())

    cos = normalise(asked) @ normalise(gallery).T
    assert hub_share(cos) > 0.6
    for term in (csls_term(gallery, bank), inverted_softmax_term(gallery, bank)):
        after = correct(cos, term)
        assert hub_share(after) < hub_share(cos) / 3 and right(after) > right(cos) + 0.4
        before_k, after_k = (occurrences(x.argmax(dim=1).numpy(), 33) for x in (cos, after))
        assert skewness(after_k) < skewness(before_k) - 0.5


def test_memory_is_bounded() -> None:
    """A gallery of 8000 and a bank of 4000: far below a table of both, which is 128 MB in float32."""
    g, bank = some(8000, 1), some(4000, 2)
    csls_term(g[:200], bank[:200]), expand_queries(g[:20], g[:200])
    before = current_memory()
    with watch_memory() as peak:
        csls_term(g, bank, limit=4 << 20)
        inverted_softmax_term(g[:2000], bank, limit=4 << 20)
        expand_queries(normalise(bank[:2000]), normalise(g), limit=4 << 20)
    assert peak[0] - before < 8000 * 4000 * 4 / 3


def test_settings_that_cannot_be() -> None:
    assert settings_of(None, []) is None and settings_of("k-reciprocal", [("k1", 3)]) == KReciprocal(k1=3)
    assert settings_of("alpha-qe", [("n", 5), ("alpha", 2)]) == AlphaQE(5, 2)
    assert settings_of("inverted-softmax", [("beta", 9)]) == Hubness("inverted-softmax", beta=9)
    for method, values, says in (
        ("csls", {"k": 0}, "k is 0"), ("csls", {"k": True}, "k is True"), ("csls", {"beta": 3}, "no setting 'beta'"),
        ("csls", {"bank": "all"}, "bank is all"), ("csls", {"size": 2.5}, "size is 2.5"),
        ("inverted-softmax", {"k": 3}, "has no setting 'k'"), ("inverted-softmax", {"beta": 0}, "beta is 0"),
        ("inverted-softmax", {"beta": "x"}, "beta is x"), ("alpha-qe", {"n": 1.5}, "n is 1.5"),
        ("alpha-qe", {"alpha": -1}, "alpha is -1"), ("alpha-qe", {"alpha": float("nan")}, "alpha is nan"),
        ("alpha-qe", {"m": 1}, "it has n and alpha"), ("magic", {}, "csls"), (None, {"k": 1}, "nothing to set"),
    ):  # fmt: skip
        with pytest.raises(IsthmusError, match=says):
            settings_of(method, dict(values).items())
    with pytest.raises(IsthmusError, match="no part in figures of the split val"):
        settings_of("csls", [("bank", "test")], measured="val")


def test_what_is_transductive_says_so() -> None:
    for bank, measured, is_so in (("train", "test", False), ("val", "test", False), ("test", "test", True),
                                  ("train", "train", True), ("val", "val", True), ("train", "val", False)):  # fmt: skip
        settings = settings_of("csls", [("bank", bank)], measured=measured)
        assert settings is not None and settings.transductive is is_so
        assert ("transductive" in settings.name, "transductive" in settings.text) == (is_so, is_so)
        assert settings.to_dict()["transductive"] is is_so
    assert not AlphaQE().transductive


def test_bad_vectors_are_named() -> None:
    good, bad = torch.eye(3), torch.full((2, 3), float("nan"))
    for call in (csls_term, inverted_softmax_term):
        with pytest.raises(IsthmusError, match="differ in width"):
            call(good, torch.eye(2))
        with pytest.raises(IsthmusError, match="no query"):
            call(good, torch.empty(0, 3))
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(IsthmusError, match="NaN"):
                call(*pair)
    with pytest.raises(IsthmusError, match="k is 0"):
        csls_term(good, good, 0)
    with pytest.raises(IsthmusError, match="beta is -1"):
        inverted_softmax_term(good, good, -1)
    with pytest.raises(IsthmusError, match="is none"):
        expand_queries(good, good, 0)
    with pytest.raises(IsthmusError, match="NaN"):
        expand_queries(bad, good)
    assert csls_term(torch.empty(0, 3), good).shape == (0,)
