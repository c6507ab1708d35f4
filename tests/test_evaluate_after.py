"""`isthmus evaluate --rerank alpha-qe|csls|inverted-softmax` and `--variants`: table, JSON, report, several runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_zoo import refused, works
from training_zoo import INK, PAINT, write_domain

from isthmus.config import RunConfig
from isthmus.data.sources import read_source
from isthmus.evaluate.hubness import csls_term, occurrences, skewness
from isthmus.evaluate.metrics import metrics_from_similarities
from isthmus.models.encoder import Architecture, Model
from isthmus.ops import normalise

QUICK = ("--bootstrap", 20, "--workers", 0)
WAYS = ((INK, PAINT), (PAINT, INK))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of an untrained network with means; 12 test, 9 training and no validation images a domain."""
    base = tmp_path_factory.mktemp("runs")
    for style in (INK, PAINT):
        write_domain(base / "data" / style / "test", style, range(12), classes=3)
        write_domain(base / "data" / style / "train", style, range(50, 59), classes=3)
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Model.create(Architecture("resnet10t", 8, 32), (INK, PAINT), weights="random")
        model.means = 0.1 * torch.randn(2, 8)
        model.save(base / f"run{seed}" / "model")
        domains = {f"data.{side}": {"name": style, "train": str(base / "data" / style)}
                   for side, style in (("query", INK), ("gallery", PAINT))}  # fmt: skip
        RunConfig.build("tiny", domains).save(base / f"run{seed}" / "config.yaml")
    return [base / "run0", base / "run1"]


def vectors(run: Path, split: str) -> dict[str, tuple[torch.Tensor, list[str | None], list[str]]]:
    """Centred embeddings, labels and ids of a split, made here."""
    model = Model.load(run / "model")
    found = {}
    for style in (INK, PAINT):
        rows = list(read_source(run.parent / "data" / style, style).select(split=split))
        x = model.encode([row.path for row in rows], domain=style, centring=True, workers=0)
        found[style] = normalise(torch.from_numpy(x)), [row.label for row in rows], [row.id for row in rows]
    return found


@pytest.mark.parametrize("bank", ["train", "test"])
def test_csls_beside_the_plain_figures(runs: list[Path], tmp_path: Path, bank: str) -> None:
    options = ("--rerank", "csls", "--rerank-set", "k=4", "--rerank-set", f"bank={bank}")
    works("evaluate", runs[0], "--out", tmp_path / "plain.json", "--no-report", *QUICK)
    done = works("evaluate", runs[0], "--out", tmp_path / "again.json", *QUICK, *options)
    plain, again = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "again"))
    name = "centred, csls" + (", transductive" if bank == "test" else "")
    how = again["rerank"]
    assert how["name"] == name and how["bank"] == bank and how["transductive"] is (bank == "test")
    sides = {side["direction"]: side for side in again["evaluation"]["sides"] if side["setting"] == name}
    test, kept = vectors(runs[0], "test"), vectors(runs[0], bank)
    for asks, answers in WAYS:
        (q, wanted, _), (g, offered, ids) = test[asks], test[answers]
        before, after = q @ g.T, q @ g.T - csls_term(g, kept[asks][0], 4)
        want = [metrics_from_similarities(x, wanted, offered, gallery_ids=ids, bootstrap=0, top=10) for x in
                (before, after)]  # fmt: skip
        side, cost = sides[f"{asks}->{answers}"], how["cost"][f"{asks}->{answers}"]
        assert side["scores"] == pytest.approx(want[1].scores, abs=1e-6)
        assert cost["hubness"] == pytest.approx([skewness(occurrences(one.top, 12)) for one in want], abs=1e-6)
        assert cost["bank_images"] == (9 if bank == "train" else 0) and (cost["bank_seconds"] > 0) == (bank == "train")
        assert side["intervals"] and "CSLS, k=4" in side["protocol"]
    # Not a bit of what is there without it differs.
    again["evaluation"]["sides"] = [side for side in again["evaluation"]["sides"] if side["setting"] != name]
    scores = again["evaluation"]["scores"]
    again["evaluation"]["scores"] = {key: value for key, value in scores.items() if name not in key}
    assert again["evaluation"] == plain["evaluation"] and f"mean ({name})/mAP@all" in scores
    assert "hubness (skewness of N_10)" in done.stdout and f"mean ({name})" in done.stdout
    page = (tmp_path / "again.html").read_text()
    assert "Re-ranked (CSLS, k=4" in page and f"({name})" in page
    assert ("transductive" in page) is ("transductive" in done.stdout) is (bank == "test")


@pytest.mark.parametrize("method", ["alpha-qe", "inverted-softmax"])
def test_several_runs_with_other_methods(runs: list[Path], tmp_path: Path, method: str) -> None:
    out = tmp_path / "all.json"
    done = works("evaluate", *runs, "--out", out, "--no-report", "--variants", *QUICK, "--rerank", method)
    values = json.loads(out.read_text())
    key = f"{INK}->{PAINT} (centred, {method})/mAP@all"
    files = [json.loads((run / "evaluation-test.json").read_text()) for run in runs]
    one = [file["evaluation"]["scores"][key] for file in files]
    assert values["summary"]["scores"][key]["values"] == one and len(values["rerank"]) == 2
    assert "hubness (skewness of N_10)" in done.stdout and ("bank embedded in" in done.stdout) == (method != "alpha-qe")
    more = values["summary"]["more"][f"variants, {INK}->{PAINT}/mAP@200/k"]["values"]
    assert more == [file["variants"]["sides"][0]["scores"]["mAP@200/k"] for file in files]
    assert "other papers' variants" in done.stdout and "further figures" not in done.stdout


def test_variants_under_a_heading_of_their_own(runs: list[Path], tmp_path: Path) -> None:
    works("evaluate", runs[0], "--out", tmp_path / "plain.json", "--no-report", *QUICK)
    done = works("evaluate", runs[0], "--out", tmp_path / "more.json", "--variants", *QUICK)
    plain, more = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "more"))
    found: dict[str, Any] = more.pop("variants")
    assert more == plain and (found["setting"], found["by"]) == ("centred", "label")
    house = plain["evaluation"]["scores"]
    for side in found["sides"]:
        assert side["scores"]["mAP@all"] == house[f"{side['direction']}/mAP@all"]
        assert side["scores"]["P@200/min(k, gallery)"] == pytest.approx(4 / 12)  # all of a gallery of 12
        assert side["scores"]["mAP@200/k"] < side["scores"]["mAP@200"]
        assert (side["one_per"]["n_gallery"], side["one_per"]["repeats"]) == (3, 10)
    text, page = done.stdout, (tmp_path / "more.html").read_text()
    assert "ink -> paint, other papers' variants (centred)" in text and "one image for each label" in text
    assert text.index("mean/Prec@1") > text.index("VOC 2010") > text.index("paint -> ink")
    section = re.search(r'<section id="variants">.*?</section>', page, re.DOTALL)
    assert section is not None and "VOC 2007" in section[0] and '<a href="#variants">' in page
    assert "VOC 2007" not in page.replace(section[0], "")


def test_banks_that_are_not_there(runs: list[Path], tmp_path: Path) -> None:
    csls = ("--rerank", "csls", *QUICK)
    refused("evaluate", runs[0], *csls, "--rerank-set", "bank=val", says=("no val images", "bank=train|val|test"))
    refused("evaluate", runs[0], *csls, "--rerank-set", "bank=all", says=("choose train, val or test",))
    refused("evaluate", runs[0], *csls, "--split", "train", "--rerank-set", "bank=test", says=("no part in figures",))
    # A domain named on the command line has test images alone; the training images are the run's.
    data = runs[0].parent / "data"
    named = ("--query-domain", f"{INK}={data / INK / 'test'}", "--gallery-domain", f"{PAINT}={data / PAINT / 'test'}")
    done = works("evaluate", runs[0], *named, *csls, "--out", tmp_path / "x.json", "--no-report", "--rerank-set",
                 "size=5")  # fmt: skip
    assert "bank of 5 images" in done.stdout
    # Other files of the same names as those that are measured are other images.
    write_domain(tmp_path / "other", INK, range(12), classes=3, side=32)
    own = ("--query-domain", f"{INK}={data / INK / 'test'},train={tmp_path / 'other'}", *named[2:])
    done = works("evaluate", runs[0], *own, *csls, "--out", tmp_path / "x.json", "--no-report")
    assert "bank of 12 images" in done.stdout and "bank of 9 images" in done.stdout
    refused("evaluate", runs[0] / "model", *named, *csls, says=("no train images besides", "name some"))
    # Images that are measured are no bank, even where a list calls them training images.
    twice = f"{INK}={data / INK / 'test'},train={data / INK / 'test'}"
    refused("evaluate", runs[0], "--query-domain", twice, *csls, says=("besides those that are measured",))
    refused("evaluate", runs[0], "--rerank", "magic", says=("k-reciprocal, alpha-qe, csls, inverted-softmax",))
