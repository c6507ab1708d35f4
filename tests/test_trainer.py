"""The training loop: what it chooses, what stops it, and what it says and keeps then."""

from __future__ import annotations

import csv
import errno
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_zoo import BATCH_NORM, isthmus, settings, world

import isthmus as package
from isthmus import io as files
from isthmus.errors import IsthmusError
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.methods.base import AUTO, Verdict
from isthmus.methods.judge import Judge
from isthmus.methods.syncdr import SynCDR
from isthmus.train import trainer as loop
from isthmus.train.build import learning_rate
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.estimate import estimate
from isthmus.train.run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without labels; a tenth of the training images is held out."""
    return world(tmp_path_factory.mktemp("plain"), 20)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With labelled validation images, the same identities in both domains."""
    return world(tmp_path_factory.mktemp("labelled"), 12, val=8)


def log(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


class Script:
    """A judge that gives scripted figures: what is chosen must follow them."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, values: list[float], lengths: Iterable[float] = itertools.repeat(0.5)
    ) -> None:
        self.values, self.lengths = iter(values), iter(lengths)
        monkeypatch.setattr(Judge, "verdict", lambda judge: self.verdict(judge))

    def verdict(self, judge: Judge) -> Verdict:
        means = torch.zeros(2, judge.model.dim)
        means[:, 0] = next(self.lengths)
        return Verdict({AUTO[0]: next(self.values), "other": 0.0}, means)


def test_a_run_leaves_a_whole_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    record = train(settings(folder), out)
    assert record["epoch"] in (1, 2)
    left = {path.name for path in out.iterdir()}
    assert {"config.yaml", "model", "checkpoints", "log.csv", "tensorboard", "manifest.parquet"} <= left
    lines = log(out)
    assert [line["epoch"] for line in lines] == ["0", "1", "2"]
    assert {"instance", "matching", "pairs", "loss", "lr", "snd", "mutual_nn", "mean_cosine"} <= set(lines[0])
    total = sum(float(lines[1][name]) for name in ("instance", "matching", "pairs"))
    assert float(lines[1]["loss"]) == pytest.approx(total, abs=1e-3)
    assert lines[2]["step"] == "4" and lines[2]["images"] == str(4 * 4 * 8)
    model = package.load(out)
    assert model.provenance["epoch"] == record["epoch"] and model.domains == ("ink", "paint")
    assert float(model.means.norm(dim=1).min()) > 0.01  # each domain's training mean is part of the model


def test_the_best_epoch_is_kept_and_not_the_last(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(monkeypatch, [9.0, 1.0, 5.0, 3.0])  # the untrained network scores most and may not be chosen
    encoders: dict[int, torch.Tensor] = {}
    plain = loop.Trainer._judge

    def remember(self: loop.Trainer, *arguments: Any) -> None:
        encoders[self.progress.epoch] = self.model.encoder.state_dict()["head.weight"].clone()
        plain(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "_judge", remember)
    record = train(settings(folder, train__epochs=3), tmp_path / "run")
    assert record["epoch"] == 2 and record[AUTO[0]] == 5.0
    kept = package.load(tmp_path / "run")
    assert kept.provenance["epoch"] == 2
    assert torch.equal(kept.encoder.state_dict()["head.weight"], encoders[2])
    assert not torch.equal(encoders[2], encoders[3])


@pytest.mark.parametrize(("select", "chosen"), [("last", 3), ("auto", 2), (AUTO[0], 2), ("other", 3)])
def test_what_chooses_is_a_setting(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str, chosen: int
) -> None:
    Script(monkeypatch, [0.0, 1.0, 5.0, 3.0])  # "other" is the same in all epochs: then the longest trained is kept
    config = settings(folder, train__epochs=3, train__steps_per_epoch=1, train__select=select)
    assert train(config, tmp_path / "run")["epoch"] == chosen


def test_labels_choose_on_request(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    record = train(settings(labelled, train__select="labels", train__epochs=3), out)
    scores = [float(line["val/Prec@1"]) for line in log(out)[1:]]
    assert scores[int(record["epoch"]) - 1] == max(scores)
    # The score in the log is the one that the kept model has, both ways, on the same images.
    model = package.load(out)
    names = sorted((labelled / "val_ink").rglob("*.png"))
    labels = [path.parent.name for path in names]
    ink, paint = (
        torch.from_numpy(model.encode([str(path).replace("val_ink", f"val_{name}") for path in names], domain=name))
        for name in ("ink", "paint")
    )
    found = [
        retrieval_metrics(a, b, labels, labels, gallery_ids=[str(path) for path in names], bootstrap=0).scores["Prec@1"]
        for a, b in ((ink, paint), (paint, ink))
    ]
    assert float(record["val/Prec@1"]) == pytest.approx(sum(found) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("select", "sentence"),
    [("labels", "needs labelled validation images"), ("nonsense", r"train\.select = nonsense is not.*mutual_nn")],
)
def test_choosing_by_what_is_not_there(folder: Path, tmp_path: Path, select: str, sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        train(settings(folder, train__select=select), tmp_path / "run")


def test_images_are_held_out_where_no_validation_is_named(folder: Path, tmp_path: Path) -> None:
    trainer = loop.Trainer(settings(folder, data__holdout=0.25), tmp_path / "run")
    assert [len(side) for side in trainer.data.train] == [15, 15] and [len(side) for side in trainer.data.val] == [5, 5]
    trained_on = {item.row.id for items in trainer.method.sets for item in items}  # type: ignore[attr-defined]
    held = {row.id for side in trainer.data.val for row in side}
    assert not {row.split("@")[0] for row in trained_on} & held  # nor a counterpart of one that is held out


def test_without_anything_to_judge_on_the_last_epoch_is_kept(folder: Path, tmp_path: Path) -> None:
    record = train(settings(folder, data__holdout=0.0), tmp_path / "run")
    assert record["epoch"] == 2 and "snd" not in record and record["mean_cosine"] < 1


def test_pretrained_is_the_backbone_and_the_means(folder: Path, tmp_path: Path) -> None:
    record = train(settings(folder, method="pretrained", model__dim=0), tmp_path / "run")
    model = package.load(tmp_path / "run")
    assert record["epoch"] == 0 and model.dim == 256 and float(model.means.norm()) > 0


def test_a_loss_that_is_not_finite_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SynCDR.step

    def step(self: SynCDR, batch: Any) -> dict[str, torch.Tensor]:
        terms = plain(self, batch)
        if step.calls == 3:  # type: ignore[attr-defined]
            terms["matching"] = terms["matching"] * float("nan")
        step.calls += 1  # type: ignore[attr-defined]
        return terms

    step.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(SynCDR, "step", step)
    out = tmp_path / "run"
    with pytest.raises(IsthmusError, match=r"The loss term 'matching' became nan at step 4; lower train\.lr"):
        train(settings(folder), out)
    progress = load_checkpoint(out / "checkpoints" / "last.pt")["progress"]
    assert progress["epoch"] == 1 and package.load(out).provenance["epoch"] == 1


def test_absurd_rate_ends_in_exit_code_2_and_one_sentence(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, train__lr=1e30, train__optimizer="sgd", model__backbone=BATCH_NORM)
    config.save(tmp_path / "run.yaml")
    done = isthmus("train", "--config", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("isthmus: ") and "Traceback" not in done.stderr
    assert "became" in last or "collapsed" in last or "diverged" in last
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["epoch"] == 0


def test_collapse_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The length of a domain's mean: its square is the mean cosine. A criterion may well be highest when collapsed.
    Script(monkeypatch, [0.0, 1.0, 9.0], [0.9, 0.9996])
    with pytest.raises(IsthmusError, match=r"collapsed in epoch 1: .*mean cosine 0\.9992\); lower train\.lr\.$"):
        train(settings(folder), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    Script(monkeypatch, [0.0, 1.0, 9.0], [0.9997, 0.9996, 0.9])  # narrow from the start, and opening up
    assert train(settings(folder), tmp_path / "other")["epoch"] == 2


def test_mean_cosine_is_what_it_says(folder: Path, tmp_path: Path) -> None:
    trainer = loop.Trainer(settings(folder), tmp_path / "run")
    found = trainer.judge.verdict().mean_cosine
    expected = []
    for side, rows in enumerate(trainer.data.train):
        x = trainer.judge.embed(rows, side).double()
        expected.append(float((x @ x.T).mean()))
    assert found == pytest.approx(max(expected), abs=1e-5)


def test_output_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IsthmusError, match="a file stands where a folder is needed"):
        train(settings(folder), tmp_path / "file" / "run")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(IsthmusError, match="not writable"):
            train(settings(folder), tmp_path / "closed" / "run")


def test_full_disk_keeps_the_last_checkpoint(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, plain, count = tmp_path / "run", os.fsync, [0]

    def full(descriptor: int) -> None:
        count[0] += "last.pt" in str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if count[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(descriptor)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell files apart")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(IsthmusError, match=r"last\.pt: the disk is full"):
        train(settings(folder), out)
    assert load_checkpoint(out / "checkpoints" / "last.pt")["progress"]["epoch"] == 0
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["last.pt"]
    monkeypatch.setattr(files.os, "fsync", plain)
    assert train(settings(folder), out)["epoch"] in (1, 2)  # with room again, the same command goes on


def test_learning_rates(folder: Path) -> None:
    steps = settings(folder, train__lr=1.0, train__warmup_steps=4, train__schedule="cosine").train
    rates = [learning_rate(steps, step, 14) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[9] == pytest.approx(0.5) and rates[14] == 0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    steps.schedule = "constant"
    assert [learning_rate(steps, step, 14) for step in (4, 13)] == [1.0, 1.0]


def test_plan(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # One step or one embedded sample is made to take 0.1 s, so that the sum is known but for reading some images.
    monkeypatch.setattr("isthmus.train.estimate.measure", lambda step, **_: (step(), 0.1)[1])
    few, many = (estimate(settings(folder, train__epochs=epochs)) for epochs in (2, 200))
    assert (few.units, many.units, few.unit) == (4, 400, "steps")
    assert few.seconds > 4 * 0.1 and many.seconds > 400 * 0.1
    assert 60 < many.seconds / few.seconds < 101
    assert few.disk > 0 and few.memory > 50e6
    assert not list(tmp_path.iterdir())
