"""Verification figures against slow definitions and scikit-learn: TAR@FAR, EER, DET, FNIR@FPIR, their intervals."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_zoo import World, answer_of, refused, works

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.evaluate import pair_scores
from isthmus.evaluate.intervals import resamples
from isthmus.evaluate.open_set import enrolled_half, open_set_figures
from isthmus.evaluate.pair_scores import BINS, bins_of, count_pairs, edge
from isthmus.evaluate.verify import check_rates, require_pairs, verify, verify_domains

Numbers = np.ndarray[Any, Any]


def people(seed: int, q: int = 30, n: int = 80, names: int = 12, near: float = 1.0) -> tuple[Any, ...]:
    """Vectors around a centre for each of some identities, and keys; in float64."""
    dice = np.random.default_rng(seed)
    centres = dice.normal(size=(names, 6)) * near
    keys = [dice.integers(0, names, count) for count in (q, n)]
    vectors = [centres[part] + dice.normal(size=(len(part), 6)) for part in keys]
    return *vectors, *[[f"p{key}" for key in part] for part in keys]


def cosines(query: Numbers, gallery: Numbers) -> Numbers:
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in gallery] for a in query])


def slow_tar(genuine: list[float], impostor: list[float], rate: float) -> float:
    """The best share of genuine pairs over all thresholds that keep the rate."""
    same, others = np.array(genuine), np.array(impostor)
    kept = [t for t in [*impostor, *genuine, 9.0] if np.mean(others >= t) <= rate + 1e-12]
    return max(float(np.mean(same >= t)) for t in kept)


def slow_eer(genuine: list[float], impostor: list[float]) -> float:
    """Where the two rates cross, on straight lines between all distinct thresholds."""
    same, others = np.array(genuine), np.array(impostor)
    points = [(np.mean(others >= t), np.mean(same < t)) for t in sorted({*genuine, *impostor, 9.0})]
    for (a, b), (c, d) in itertools.pairwise(points):
        if a >= b and c <= d:
            share = (a - b) / ((a - b) - (c - d)) if (a - b) > (c - d) else 0.0
            return float(a + share * (c - a))
    raise AssertionError("they cross")


def parted(scores: Numbers, asked: list[str], offered: list[str]) -> tuple[list[float], list[float]]:
    pairs = [(scores[i, j], a == b) for i, a in enumerate(asked) for j, b in enumerate(offered)]
    return [float(s) for s, same in pairs if same], [float(s) for s, same in pairs if not same]


@pytest.mark.parametrize("seed", range(4))
def test_pair_figures_are_those_of_the_definition(seed: int) -> None:
    q, g, asked, offered = people(seed)
    found = verify(q, g, asked, offered, fars=[0.3, 0.1, 0.01], bootstrap=0, seed=seed)
    genuine, impostor = parted(cosines(q, g), asked, offered)
    assert (found.genuine, found.impostor) == (len(genuine), len(impostor))
    for rate in (0.3, 0.1, 0.01):
        figure = found.figures[f"TAR@FAR={rate:g}"]
        assert figure.value == pytest.approx(slow_tar(genuine, impostor, rate), abs=1e-12), rate
        assert figure.threshold is not None and np.mean(np.array(impostor) >= figure.threshold) <= rate
        assert np.mean(np.array(genuine) >= figure.threshold) == pytest.approx(figure.value)
    assert found.figures["EER"].value == pytest.approx(slow_eer(genuine, impostor), abs=1e-12)
    for far, frr in found.det:  # every point is one of a threshold
        accepted = round(far * len(impostor))
        threshold = sorted(impostor, reverse=True)[accepted - 1] if accepted else max(impostor) + 1e-5
        assert np.mean(np.array(genuine) < threshold) >= frr - 1e-12
    assert found.det == sorted(found.det) and found.det[0][0] <= 1 / len(impostor) and found.det[-1][0] == 1


def test_they_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    from scipy.interpolate import interp1d
    from scipy.optimize import brentq

    q, g, asked, offered = people(7, q=60, n=150)
    found = verify(q, g, asked, offered, fars=[0.05, 0.001], bootstrap=0)
    genuine, impostor = parted(cosines(q, g), asked, offered)
    truth = [1] * len(genuine) + [0] * len(impostor)
    fpr, tpr, _ = metrics.roc_curve(truth, genuine + impostor, drop_intermediate=False)
    for rate in (0.05, 0.001):
        assert found.figures[f"TAR@FAR={rate:g}"].value == pytest.approx(tpr[fpr <= rate].max(), abs=1e-12)
    crossing = brentq(lambda x: 1 - x - float(interp1d(fpr, tpr)(x)), 0.0, 1.0, xtol=1e-13)
    assert found.figures["EER"].value == pytest.approx(crossing, abs=1e-9)
    there = {(round(float(a), 12), round(1 - float(b), 12)) for a, b in zip(fpr, tpr, strict=True)}
    assert all((round(far, 12), round(frr, 12)) in there for far, frr in found.det)


def slow_open(scores: Numbers, asked: list[str], offered: list[str], enrolled: set[str], rate: float) -> list[float]:
    """FNIR at a threshold just above the highest score that too many strangers would pass with; any rank, rank 1."""
    inside = [j for j, name in enumerate(offered) if name in enrolled]
    strangers = [max(scores[i, j] for j in inside) for i, name in enumerate(asked) if name not in enrolled]
    candidates = sorted({*strangers, 9.0})
    threshold = min(t for t in candidates if np.mean([s >= t for s in strangers]) <= rate + 1e-12)
    if threshold in strangers:  # the lowest score above the stranger that may not pass
        lower = [s for s in strangers if s < threshold]
        threshold = np.nextafter(max(lower), 9) if lower else -1.0
    missed = [[], []]  # type: ignore[var-annotated]
    for i, name in enumerate(asked):
        mates = [scores[i, j] for j in inside if offered[j] == name]
        if mates:
            others = max((scores[i, j] for j in inside if offered[j] != name), default=-9)
            missed[0].append(max(mates) < threshold)
            missed[1].append(max(mates) < threshold or max(mates) <= others)
    return [float(np.mean(part)) for part in missed]


@pytest.mark.parametrize("seed", range(4))
def test_open_set_figures_are_those_of_the_definition(seed: int) -> None:
    q, g, asked, offered = people(seed, q=50, names=15)
    asked[:4] = ["stranger"] * 4  # of no identity in the gallery: never a mate
    found = verify(q, g, asked, offered, fpirs=[0.5, 0.2, 0.1], bootstrap=0, seed=seed)
    enrolled = enrolled_half(set(offered), seed)
    assert len(enrolled) == (len(set(offered)) + 1) // 2
    assert found.unmated == sum(name not in enrolled for name in asked)
    for rate in (0.5, 0.2, 0.1):
        slow = slow_open(cosines(q, g), asked, offered, enrolled, rate)
        names = (f"FNIR@FPIR={rate:g}", f"FNIR@FPIR={rate:g}, rank 1")
        assert [found.figures[name].value for name in names] == pytest.approx(slow, abs=1e-12), rate


def test_neither_blocks_nor_order_nor_lengths_change_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    q, g, asked, offered = people(3, q=70, n=90)
    whole = verify(torch.from_numpy(q).float(), torch.from_numpy(g).float(), asked, offered, bootstrap=50)
    monkeypatch.setattr(pair_scores, "LIMIT", 90 * 4 * 16)  # 16 queries a block
    parts = verify(torch.from_numpy(q).float(), torch.from_numpy(g).float(), asked, offered, bootstrap=50)
    assert parts == whole
    order = np.random.default_rng(0).permutation(len(g))
    turned = verify(q * 3, g[order] * 5, asked, [offered[i] for i in order], bootstrap=0)
    for name, figure in turned.figures.items():
        assert figure.value == whole.figures[name].value
    keyless = verify(np.vstack([q, q[:5]]), g, [*asked, *[None] * 5], offered, bootstrap=0)
    assert {n: f.value for n, f in keyless.figures.items()} == {n: f.value for n, f in turned.figures.items()}
    assert "5 images without label or identity left out" in keyless.protocol


def test_what_can_not_be_measured_is_none_and_says_why() -> None:
    q, g, asked, offered = people(0, q=12, n=12)
    found = verify(q, g, asked, offered, fars=[0.1, 1e-4], fpirs=[0.5, 1e-3])
    for name, what in (
        ("TAR@FAR=0.0001", "10,000"),
        ("FNIR@FPIR=0.001", "1,000"),
        ("FNIR@FPIR=0.001, rank 1", "1,000"),
    ):
        figure = found.figures[name]
        assert figure.value is None and figure.interval is None and figure.threshold is None
        assert "can't measure" in figure.note and figure.note.endswith(f"takes {what}")
    assert found.figures["TAR@FAR=0.1"].value is not None
    # Exactly enough is enough: 100 impostor pairs for a rate of .01.
    few = verify(np.eye(11)[:10], np.eye(11), list("abcdefghij"), list("abcdefghijk"), fars=[0.01], bootstrap=0)
    assert few.impostor == 100 and few.figures["TAR@FAR=0.01"].value == 1
    with pytest.raises(IsthmusError, match="no pair of one identity"):
        verify(np.eye(2), np.eye(2), ["a", "b"], ["c", "d"])
    with pytest.raises(IsthmusError, match="no pair of two identities"):
        verify(np.eye(2), np.eye(2), ["a", "a"], ["a", None])
    with pytest.raises(IsthmusError, match="NaN"):
        verify(np.full((2, 2), np.nan), np.eye(2), ["a", "b"], ["a", "b"])
    for rate in (0.0, 1.0, -1.0, 2.0, float("nan")):
        with pytest.raises(IsthmusError, match="no rate"):
            check_rates([rate], "--far")


def test_a_constant_embedding_verifies_nothing() -> None:
    found = verify(np.ones((40, 3)), np.ones((60, 3)), [f"{i % 8}" for i in range(40)], [f"{i % 8}" for i in range(60)])
    assert found.figures["TAR@FAR=0.01"].value == 0 and found.figures["EER"].value == pytest.approx(0.5)
    assert found.figures["FNIR@FPIR=0.1"].value == 1 and found.figures["FNIR@FPIR=0.1, rank 1"].value == 1


def test_chance_is_what_random_scores_have() -> None:
    dice = np.random.default_rng(0)
    q, n, names = 4000, 12, 4
    size = n // 2
    scores, mates = dice.random((q, size)), np.where(np.arange(q) % 2 == 0, size // (names // 2), 0)
    mate = np.where(mates > 0, scores[:, :3].max(axis=1), -np.inf)
    other = np.where(mates > 0, scores[:, 3:].max(axis=1), scores.max(axis=1))
    found = open_set_figures(mate, other, mates, size, [0.3], 0, 0)
    for figure in found.values():
        assert figure.value == pytest.approx(figure.chance, abs=0.03)
    q2, g2, asked, offered = people(1, q=200, n=200, near=0.0)
    random = verify(q2, g2, asked, offered, fars=[0.1], bootstrap=0).figures
    for name in ("TAR@FAR=0.1", "EER"):
        assert random[name].value == pytest.approx(random[name].chance, abs=0.03)


def test_intervals_are_those_of_a_slow_bootstrap() -> None:
    """Few pairs: each draw is the definition itself on the drawn queries, those drawn twice counting twice."""
    q, g, asked, offered = people(5, q=14, n=20, names=5)
    found = verify(q, g, asked, offered, fars=[0.1], bootstrap=40, seed=3)
    scores = cosines(q, g)
    drawn: dict[str, list[float]] = {"TAR@FAR=0.1": [], "EER": []}
    for counts in resamples(len(q), 40, np.random.default_rng(3)):
        for row in counts.astype(int):
            rows = np.repeat(np.arange(len(q)), row)
            genuine, impostor = parted(scores[rows], [asked[i] for i in rows], offered)
            drawn["TAR@FAR=0.1"].append(slow_tar(genuine, impostor, 0.1))
            drawn["EER"].append(slow_eer(genuine, impostor))
    for name, values in drawn.items():
        assert found.figures[name].interval == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9), name


def test_thinned_thresholds_give_nearly_the_same_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    q, g, asked, offered = people(6, q=300, n=60)
    thin = verify(q, g, asked, offered, fars=[0.1, 0.01], bootstrap=200)
    monkeypatch.setattr(pair_scores, "MOST", 1 << 20)
    monkeypatch.setattr(pair_scores, "SAMPLE", 1 << 20)
    exact = verify(q, g, asked, offered, fars=[0.1, 0.01], bootstrap=200)
    for name in ("TAR@FAR=0.1", "TAR@FAR=0.01", "EER"):
        a, b = thin.figures[name], exact.figures[name]
        assert a.value == b.value and a.interval == pytest.approx(b.interval, abs=0.006), name
        assert b.interval is not None and a.value is not None
        assert b.interval[0] - 0.006 <= a.value <= b.interval[1] + 0.006


def test_open_set_intervals_are_those_of_a_slow_bootstrap() -> None:
    dice = np.random.default_rng(2)
    mate, other = dice.normal(1, 1, 25), dice.normal(0, 1, 45)
    mates = np.repeat([2, 0], [25, 20])
    found = open_set_figures(np.append(mate, np.full(20, -np.inf)), other, mates, 50, [0.1], 60, 9)
    rng = np.random.default_rng(9)
    strangers = np.sort(other[25:])[::-1]
    barriers = []
    for counts in resamples(20, 60, rng):
        for row in counts.astype(int):
            passing = np.sort(np.repeat(strangers, row))[::-1]
            barriers.append(passing[2])  # two of 20 may pass
    missed: list[list[float]] = [[], []]
    place = 0
    for counts in resamples(25, 60, rng):
        for row in counts.astype(int):
            best, rest = np.repeat(mate, row), np.repeat(other[:25], row)
            missed[0].append(float(np.mean(best <= barriers[place])))
            missed[1].append(float(np.mean((best <= barriers[place]) | (best <= rest))))
            place += 1
    for name, values in zip(("FNIR@FPIR=0.1", "FNIR@FPIR=0.1, rank 1"), missed, strict=True):
        assert found[name].interval == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12)


def test_bins_and_pairs_with_oneself() -> None:
    scores = torch.tensor([-1.0, -1.0000001, 0.0, -1e-9, 0.25, 0.99999994, 1.0, 1.0000001])
    places = bins_of(scores).tolist()
    assert places[:3] == [0, 0, (BINS - 1) // 2] and places[3] == places[2] - 1 and places[-2:] == [BINS - 1] * 2
    assert all(edge(p) <= max(-1, s) for p, s in zip(places, scores.tolist(), strict=True))
    q, _, asked, _ = people(4)
    codes = np.array([int(name[1:]) for name in asked])
    itself = count_pairs(q, q, codes, codes, itself=True)
    same = codes[:, None] == codes
    np.fill_diagonal(same, False)
    assert itself.pairs == (same.sum(), len(q) ** 2 - len(q) - same.sum())
    assert itself.genuine_of.tolist() == same.sum(axis=1).tolist()
    table = cosines(q, q)
    for k, place in enumerate(itself.at.tolist()):
        if k % 40 == 0:
            assert itself.genuine_at[:, k].tolist() == ((table >= edge(place)) & same).sum(axis=1).tolist()


def test_both_directions_and_settings_have_the_same_pairs() -> None:
    dice = np.random.default_rng(0)
    rows = [
        Manifest(Row(f"{d}/{i}", f"/{i}", d, label=f"{i % 5}") for i in range(n)) for d, n in (("s", 20), ("p", 31))
    ]
    plain = dice.normal(size=(20, 4)), dice.normal(size=(31, 4))
    plain[1][3] = np.nan
    found = verify_domains({"centred": (plain[0] + 1, plain[1]), "plain": plain}, *rows, "label", bootstrap=20)
    names = [(one.direction, one.setting) for one in found]
    assert names == [("s->p", "centred"), ("p->s", "centred"), ("s->p", "plain"), ("p->s", "plain")]
    for one, back in (found[:2], found[2:]):
        assert one.det == back.det and one.genuine + one.impostor == 20 * 30
        for name in ("TAR@FAR=0.01", "EER"):
            assert one.figures[name].value == back.figures[name].value
            assert one.figures[name].interval != back.figures[name].interval
    json.dumps([one.to_dict() for one in found], allow_nan=False)


def test_on_the_command_line(cli_world: World, tmp_path: Path) -> None:
    run, quick = cli_world.folder / "runs" / "syncdr", ("--bootstrap", 20, "--workers", 0)
    plain = answer_of("evaluate", run, "--out", tmp_path / "a.json", *quick)
    out = tmp_path / "b.json"
    more = answer_of("evaluate", run, "--verify", "--far", 0.25, "--fpir", 0.5, "--out", out, *quick)
    verified = more.pop("verify")
    assert more == plain  # beside the plain figures, never in their place
    stored = json.loads(out.read_text())["verify"]
    assert stored == verified and [one["direction"] for one in verified[:2]] == ["sketch->photo", "photo->sketch"]
    figures = verified[0]["figures"]
    assert figures["TAR@FAR=0.001"]["value"] is None and "takes 1,000" in figures["TAR@FAR=0.001"]["note"]
    assert 0 <= figures["TAR@FAR=0.25"]["value"] <= 1 and figures["EER"]["interval"] is not None
    page = out.with_suffix(".html").read_text()
    assert 'id="verification"' in page and page.count("Detection error trade-off") >= 2 and "not measured" in page
    assert 'id="verification"' not in (tmp_path / "a.html").read_text()
    text = works("evaluate", run, "--verify", "--out", tmp_path / "c.json", *quick).stdout
    assert "sketch -> photo, verification" in text and "TAR@FAR=0.01: not measured" in text
    assert re.search(r"EER +\.?\d", text) and "open set:" in text
    refused("evaluate", run, "--far", 0.1, says=("--far", "add --verify"))
    refused("evaluate", run, "--fpir", 0.1, says=("--fpir", "add --verify"))
    refused("evaluate", run, "--verify", "--far", 0, says=("--far 0 is no rate",))
    refused("evaluate", run, "--verify", "--fpir", 1.5, says=("--fpir 1.5 is no rate",))


@pytest.mark.parametrize(
    ("asks", "answers", "says"),
    [(["a", "a"], ["a"], "of two identities"), (["a"], ["b", None], "of one identity"), ([None], ["a"], "of one")],
)
def test_pairs_are_missed_before_any_image_is_read(
    asks: list[str | None], answers: list[str | None], says: str
) -> None:
    with pytest.raises(IsthmusError, match=says):
        require_pairs(asks, answers, "sketch->photo")
