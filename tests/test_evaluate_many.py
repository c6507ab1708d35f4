"""`isthmus evaluate RUN RUN2 ...`: each run as if alone, then mean and deviation; what does not go together."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from cli_zoo import answer_of, call, refused, works
from training_zoo import INK, PAINT, write_domain

from isthmus.config import RunConfig
from isthmus.models.encoder import Architecture, Model

QUICK = ("--bootstrap", 20, "--workers", 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of an untrained network: two seeds on one test set, a third on another; and one with more images."""
    base = tmp_path_factory.mktemp("runs")
    made = []
    for seed, (first, count) in enumerate([(0, 6), (0, 6), (50, 6), (80, 7)]):
        folder = base / f"data{first}"
        for style in (INK, PAINT):
            if not (folder / style).exists():
                write_domain(folder / style / "test", style, range(first, first + count), classes=3)
        torch.manual_seed(seed)
        model = Model.create(Architecture("resnet10t", 8, 32), (INK, PAINT), weights="random")
        model.save(base / f"run{seed}" / "model")
        domains = {f"data.{side}": {"name": style, "train": str(folder / style)}
                   for side, style in (("query", INK), ("gallery", PAINT))}  # fmt: skip
        RunConfig.build("tiny", domains).save(base / f"run{seed}" / "config.yaml")
        made.append(base / f"run{seed}")
    return made


def test_several_runs_on_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "summary.json"
    done = works("evaluate", *runs[:3], "--out", out, *QUICK)
    single = [answer_of("evaluate", run, "--out", tmp_path / f"{run.name}.json", "--no-report", *QUICK)
              for run in runs[:3]]  # fmt: skip
    values = json.loads(out.read_text())
    summary = values["summary"]
    assert (summary["n"], summary["test_sets"]) == (3, 2)
    for key in ("ink->paint/Prec@1", "paint->ink/mAP@all", "mean/R@5"):
        each = [one["evaluation"]["scores"][key] for one in single]
        assert summary["scores"][key]["values"] == each
        assert summary["scores"][key]["deviation"] == pytest.approx(statistics.stdev(each))
    for run, entry in zip(runs[:3], values["runs"], strict=True):
        kept = run / "evaluation-test.json"
        assert entry["file"] == str(kept) and (run / "report-test.html").is_file()
        assert kept.read_text() == (tmp_path / f"{run.name}.json").read_text()  # as if evaluated alone
    text = done.stdout
    assert "n = 3 runs on 2 different test sets" in text and "[3/3]" in text and "ink -> paint" in text
    score = summary["scores"]["ink->paint/mAP@all"]
    shown = next(line for line in text.splitlines() if line.strip().startswith("mAP@all"))
    assert f"{score['mean']:.3f} ± {score['deviation']:.3f}".replace("0.", ".") in shown
    assert answer_of("evaluate", *runs[:3], "--no-report", *QUICK) == values


def test_verification_of_several_runs(runs: list[Path]) -> None:
    values = answer_of("evaluate", *runs[:2], "--verify", "--far", 0.2, "--no-report", *QUICK)
    more = values["summary"]["more"]
    for direction in ("ink->paint", "paint->ink"):
        score = more[f"verification, {direction} (plain)/TAR@FAR=0.2"]
        each = [json.loads((run / "evaluation-test.json").read_text())["verify"] for run in runs[:2]]
        of = [next(one for one in part if one["direction"] == direction) for part in each]
        assert score["values"] == [one["figures"]["TAR@FAR=0.2"]["value"] for one in of]
    assert not any("TAR@FAR=0.001" in name for name in more)  # 24 impostor pairs measure no such rate


def test_several_runs_that_do_not_go_together(runs: list[Path], tmp_path: Path) -> None:
    sentence = refused(
        "evaluate", runs[0], runs[3], "--out", tmp_path / "none.json", *QUICK, says=("6 ink images", "7 ink images")
    )
    assert "run3" in sentence and not (runs[3] / "evaluation-test.json").exists()
    refused("evaluate", runs[0], runs[1], runs[0], *QUICK, says=("run0 is named twice",))
    refused("evaluate", runs[0], runs[0].parent / "run1" / ".." / "run0", *QUICK, says=("named twice",))
    refused("evaluate", runs[0], tmp_path / "nowhere", *QUICK, says=("There is no run", "nowhere"))
    refused("evaluate", runs[0], runs[1], "--out", tmp_path / "x.txt", *QUICK, says=("must end in .json",))
    assert call("evaluate", *QUICK).exit_code == 2
