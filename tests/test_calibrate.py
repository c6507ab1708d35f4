"""`isthmus calibrate`: threshold and probabilities against slow definitions, the file, the verb, and real images."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_zoo import World, answer_of, refused, works
from test_verify import cosines, parted, people

from isthmus import IsthmusError
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_source
from isthmus.evaluate.calibrate import calibrate_model, calibrate_part, cautions, fit_probability
from isthmus.evaluate.pair_scores import BINS, STEPS, bins_of
from isthmus.evaluate.run import embed_domains
from isthmus.models.calibration import FILE, Calibration, Part
from isthmus.models.encoder import Architecture, Model

PART = Part("sketch", "photo", "plain", 0.5, 1e-3, 2e-3, 0.2, 10.0, -5.0, 0.1, 100, 9900)
WHOLE = Calibration("0123456789abcdef", ("sketch", "photo"), "label", 1e-3, False, False, (10, 20), (PART,))


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    q, g, asked, offered = people(11, q=40, n=60)
    genuine, impostor = (np.array(part) for part in parted(cosines(q, g), asked, offered))
    for rate in (0.2, 0.01, 1e-5):
        part = calibrate_part(q, g, asked, offered, ("sketch", "photo", "plain"), rate, bootstrap=0)
        assert part is not None
        allowed = int(rate * len(impostor) + 1e-9)
        barrier = np.sort(impostor)[::-1][allowed]  # the highest that may not pass
        assert barrier < part.threshold <= barrier + 1.01 / STEPS
        assert part.fmr == np.mean(impostor >= part.threshold) <= rate
        assert part.fnmr == pytest.approx(np.mean(genuine < part.threshold))
        assert part.fmr_high == max(part.fmr, 3 / len(impostor))
        assert (part.genuine, part.impostor) == (len(genuine), len(impostor))
        assert part.prior == len(genuine) / (len(genuine) + len(impostor))
    known = [np.mean(row >= 0.5) for row in cosines(q, g)]  # the interval is one over queries
    part = calibrate_part(q, g, asked, offered, ("sketch", "photo", "plain"), 0.2, prior=0.5)
    assert part is not None and part.prior == 0.5 and part.fmr < part.fmr_high < part.fmr + 4 * np.std(known)
    assert calibrate_part(q, g, asked, ["x"] * len(g), ("a", "b", "plain"), 0.1) is None


def test_probabilities_are_those_of_a_logistic_regression() -> None:
    from scipy.optimize import minimize

    dice = np.random.default_rng(0)
    genuine, impostor = (np.clip(dice.normal(m, 0.12, n), -1, 1) for m, n in ((0.55, 150), (0.2, 3000)))
    counts = [np.bincount(bins_of(torch.from_numpy(part)).numpy(), minlength=BINS) for part in (genuine, impostor)]
    line = fit_probability(*counts)
    high, low = 151 / 152, 1 / 3002  # Platt's targets

    def loss(x: Any) -> float:
        a, b = x[0] * genuine + x[1], x[0] * impostor + x[1]
        return float((np.logaddexp(0, a) - high * a).mean() + (np.logaddexp(0, b) - low * b).mean())

    best = minimize(loss, [1.0, 0.0], tol=1e-12).x
    assert [float(line.weights[0]), line.bias] == pytest.approx(best.tolist(), rel=2e-3)
    # Gaussians of one width have a logistic posterior: slope (m1 - m0) / s^2, and any prior by its log-odds.
    assert float(line.weights[0]) == pytest.approx((0.55 - 0.2) / 0.12**2, rel=0.2)
    part = Part("a", "b", "plain", 0.4, 0, 0, 0, float(line.weights[0]), line.bias, 150 / 3150, 150, 3000)
    for centre in (0.35, 0.4, 0.45):
        near = [(np.abs(x - centre) < 0.03).sum() for x in (genuine, impostor)]
        assert part.probability(centre) == pytest.approx(near[0] / sum(near), abs=0.1)
    odds = part.probability(0.4, prior=0.5) / (1 - part.probability(0.4, prior=0.5))
    share = part.probability(0.4, prior=0.01)
    assert share / (1 - share) == pytest.approx(odds / 99)
    assert part.probability(-1) < part.probability(1) <= 1 and 0 <= part.probability(-1e6) < 1e-300
    nothing = fit_probability(counts[1], counts[0])  # genuine pairs score lower: the prior is all that is known
    assert (nothing.weights[0], nothing.bias) == (0, 0)


def sides(seed: int, n: int = 40) -> tuple[list[Manifest], tuple[Any, Any]]:
    q, g, asked, offered = people(seed, q=n, n=n + 10, names=8)
    keys = (asked, offered)
    rows = [
        Manifest(Row(f"{domain}/{i}", f"/{i}", domain, label=key) for i, key in enumerate(part))
        for domain, part in zip(("sketch", "photo"), keys, strict=True)
    ]
    return rows, (q, g)


def test_every_direction_and_setting_and_no_image_with_itself() -> None:
    model = Model.create(Architecture("test_resnet", 16, 32), ("sketch", "photo"), weights="random")
    rows, plain = sides(1)
    embedded = {"centred": (plain[0] - 0.3, plain[1] + 0.2), "plain": plain}
    found = calibrate_model(model, embedded, *rows, "label", 0.05, bootstrap=50)
    names = [(part.query, part.item) for part in found.parts[:4]]
    assert names == [("sketch", "photo"), ("photo", "sketch"), ("sketch", "sketch"), ("photo", "photo")]
    assert len(found.parts) == 8 and found.model == model.fingerprint and found.centres and found.centring
    table = cosines(plain[1], plain[1])
    labels = [row.label for row in rows[1]]
    pairs = [(table[i, j], labels[i] == labels[j]) for i in range(50) for j in range(i)]
    part = found.part("photo", "photo", centring=False)
    assert part is not None and (part.genuine, part.genuine + part.impostor) == (sum(s for _, s in pairs), len(pairs))
    assert part.fmr == pytest.approx(np.mean([score >= part.threshold for score, same in pairs if not same]))
    assert part.fnmr == pytest.approx(np.mean([score < part.threshold for score, same in pairs if same]))
    assert found.part("photo", "photo") == found.parts[3] != part and found.part("photo", "car") is None
    assert found.part("sketch", "photo", True) == found.parts[0]
    across = [p for p in found.parts if p.query != p.item and p.setting == "plain"]
    assert across[0].threshold == across[1].threshold and across[0].fmr == across[1].fmr
    lone = [Manifest(Row(f"{d}/{i}", "/", d, identity=str(i)) for i in range(40 + 10 * (d == "photo")))
            for d in ("sketch", "photo")]  # fmt: skip
    single = calibrate_model(model, {"plain": plain}, *lone, "identity", 0.05, bootstrap=0)
    assert [(p.query, p.item) for p in single.parts] == names[:2]  # one image each: no pair within a domain
    # Without means centred and plain are one.
    assert single.part("sketch", "photo", True) == single.part("sketch", "photo", False) == single.parts[0]
    with pytest.raises(IsthmusError, match=r"40 with a identity.* a threshold needs both kinds"):
        calibrate_model(model, {"plain": plain}, lone[0], Manifest(Row(f"p/{i}", "/", "photo", identity="x")
                        for i in range(50)), "identity", 0.05)  # fmt: skip


def test_too_few_pairs_are_told() -> None:
    model = Model.create(Architecture("test_resnet", 16, 32), ("sketch", "photo"), weights="random")
    rows, plain = sides(2)
    count = 40 * 50
    for rate, says in ((0.05, None), (0.005, "to measure a rate of 0.005 by"), (1e-4, "which takes 10,000")):
        found = calibrate_model(model, {"plain": plain}, *rows, "label", rate, bootstrap=0)
        said = [text for text in cautions(found) if text.startswith("sketch->photo")]
        assert len(said) == (says is not None) and all(str(says) in text for text in said), said
        part = found.parts[0]
        assert part.impostor < count and part.fmr <= rate and part.fmr_high >= 3 / part.impostor
        if rate == 1e-4:
            assert part.fmr == 0 and "may be up to" in said[0]


def test_the_file_comes_back_and_damage_is_one_sentence(tmp_path: Path) -> None:
    assert Calibration.load(tmp_path) is None
    WHOLE.save(tmp_path)
    assert Calibration.load(tmp_path) == WHOLE
    good = json.loads((tmp_path / FILE).read_text())
    part = good["parts"][0]
    bent = [part | change for change in (
        {"threshold": None}, {"threshold": math.nan}, {"slope": -1}, {"prior": 0}, {"prior": 1}, {"fmr": 2},
        {"more": 1}, {"query": 3}, {"query": "car"}, {"setting": "other"}, {"genuine": "many"})]  # fmt: skip
    changes: list[dict[str, Any]] = [
        {"format": 99}, {"domains": ["a"]}, {"domains": 3}, {"images": [1]}, {"rate": 0}, {"rate": "x"}, {"model": 3},
        {"centring": 1}, {"parts": 3}, {"parts": [3]}, *({"parts": [one]} for one in bent),
    ]  # fmt: skip
    for text in ("", "{", "[]", "null", "[" * 10**5, *(json.dumps(good | change) for change in changes)):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(IsthmusError) as told:
            Calibration.load(tmp_path)
        assert FILE in str(told.value) and "\n" not in str(told.value) and "isthmus calibrate RUN" in str(told.value)
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(IsthmusError, match="damaged"):
        Calibration.load(tmp_path)


def test_the_verb_on_a_run(cli_world: World, tmp_path: Path) -> None:
    """The world's runs name no validation images; the little that is held out of 8 training images makes no pairs."""
    run = tmp_path / "run"
    shutil.copytree(cli_world.folder / "runs" / "syncdr", run)
    before = Model.load(run).fingerprint
    domains = ["--query-domain", cli_world.domain("sketch", cli_world.folder / "sketch" / "train"),
               "--gallery-domain", cli_world.domain("photo", cli_world.folder / "photo" / "train"),
               "--workers", 0]  # fmt: skip
    answer = answer_of("calibrate", run, "--fmr", 0.1, *domains)
    kept = Calibration.load(run)
    assert kept is not None and kept.model == before
    assert answer["file"] == str(run / "model" / FILE) and not answer["held_out"]
    assert [one["threshold"] for one in answer["parts"]] == [part.threshold for part in kept.parts]
    first = answer["parts"][0]
    assert first["false_matches"]["100000"] == pytest.approx(1e5 * first["fmr"])
    assert len(answer["cautions"]) >= 1 and kept.images == (8, 8) and kept.by == "label" and kept.rate == 0.1
    assert Model.load(run).fingerprint == before
    Model.load(run).save(tmp_path / "copy")
    assert Calibration.load(tmp_path / "copy") == kept  # goes with the model
    shown = works("calibrate", run, "--fmr", 0.001, "--prior", 0.2, *domains)
    assert "1,000,000" in shown.stdout and "sketch -> photo" in shown.stdout and "up to" in shown.stdout
    assert "which takes 1,000" in shown.stderr and "Stored in" in shown.stdout
    assert Calibration.load(run).parts[0].prior == 0.2  # type: ignore[union-attr]
    for words, says in (
        (["--fmr", 0], ("--fmr 0 is no share",)), (["--fmr", "nan"], ("--fmr nan",)), (["--prior", 1], ("--prior 1",)),
        (["--by", "name"], ("--by name",)),
        ([*domains, "--query-domain", "car=x"], ("The model's domain is 'sketch', not 'car'",)),
        ([*domains, "--query-domain", f"sketch={tmp_path}/no"], ("no",)),
    ):  # fmt: skip
        refused("calibrate", run, *words, says=says)
    refused("calibrate", tmp_path / "none", says=("none",))
    (run / "config.yaml").unlink()
    refused("calibrate", run, says=("names no validation images of 'sketch'", "--query-domain sketch=PATH"))


def test_on_real_images_the_rate_holds_on_test_images(shared_data: Path, tmp_path: Path) -> None:
    """PACS, frozen ImageNet features: chosen on validation images, the rate on test images is within a factor of 3."""
    root = shared_data / "data" / "pacs"
    each = 14

    def some(domain: str, split: str) -> Manifest:
        rows = sorted(read_source(root / "lists" / f"{domain}_{split}.txt", domain, root=root), key=lambda row: row.id)
        labels = sorted({str(row.label) for row in rows})
        by_label = [[row for row in rows if row.label == label] for label in labels]
        return Manifest(row for part in by_label for row in part[:: max(1, len(part) // each)][:each])

    model = Model.create(Architecture("mobilenetv2_100", 0, 96), ("sketch", "photo"),
                         weights=str(shared_data / "weights" / "mobilenetv2_100.safetensors"))  # fmt: skip
    val, test = ([some(domain, split) for domain in ("sketch", "photo")] for split in ("val", "test"))
    vectors = [
        torch.from_numpy(model.encode([row.path for row in rows], domain=name, centring=False, workers=0))
        for name, rows in zip(model.domains, val, strict=True)
    ]
    model.means = torch.stack([part.mean(dim=0) for part in vectors])
    chosen = {"centred": tuple(model.centre(part, side) for side, part in enumerate(vectors)), "plain": tuple(vectors)}
    found = calibrate_model(model, chosen, *val, "label", 0.02)  # type: ignore[arg-type]
    asked = embed_domains(model, *test, workers=0)
    factors = {}
    for setting, (q, g) in asked.items():
        genuine, impostor = parted(np.asarray(q @ g.T), *[[str(row.label) for row in part] for part in test])
        part = found.part("sketch", "photo", setting == "centred")
        assert part is not None
        rate = float(np.mean(np.array(impostor) >= part.threshold))
        factors[setting] = rate / found.rate
        accepted = float(np.mean(np.array(genuine) >= part.threshold))
        told = [np.mean([part.probability(s, prior=0.5) for s in scores]) for scores in (genuine, impostor)]
        print(f"{setting}: wanted .02, on test {rate:.4f} (val at most {part.fmr_high:.4f}), genuine {accepted:.3f}")
        if setting == "centred":
            assert accepted > 2 * rate and told[0] > told[1] + 0.03
    assert all(1 / 3 < factor < 3 for factor in factors.values()), factors
