"""A run of two stages: what each begins with, its rates, its choice of the epoch, and going on after a stop."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ihda_zoo import method_of, settings, weights_of, world
from safetensors.torch import load_file
from test_trainer_resume import differing, state
from training_zoo import BATCH_NORM, INK, PAINT, same

from isthmus.config import RunConfig
from isthmus.errors import IsthmusError
from isthmus.methods.ihda import IHDA
from isthmus.methods.ihda_batches import Batches, Plan
from isthmus.models.encoder import Model
from isthmus.models.ihda import IhdaModel
from isthmus.train.interrupt import Interrupted
from isthmus.train.run import train
from isthmus.train.trainer import Trainer

# dropout and norms have a state of their own, and so have Adam and the schedule
STATEFUL = {
    "model__backbone": BATCH_NORM,
    "model__neck": True,
    "ihda__head_style": "norm",
    "ihda__attribute_dropout": 0.3,
    "ihda__identity_dropout": 0.3,
    "ihda__source_epochs": 2,
    "train__epochs": 2,
    "train__optimizer": "adam",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 6, 6, val=4, test=4)


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 and 2 epochs of 2 steps that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(settings(folder, **STATEFUL), out)
    return out


@pytest.mark.parametrize(("step", "where"), [(1, "step 1"), (4, "epoch 2"), (7, "step 7")])
def test_stopped_in_either_stage_or_between(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, where: str
) -> None:
    config, done = settings(folder, **STATEFUL), 0

    def after_step(self: IHDA) -> None:
        nonlocal done
        done += 1
        if done == step:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=f"Stopped and saved after {where}"):
        patch.setattr(IHDA, "after_step", after_step)
        train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert differing(state(whole), state(tmp_path / "run")) == []
    assert [line["stage"] for line in state(tmp_path / "run")["log"]] == ["", "source", "source", "target", "target"]


def watched(config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Trainer, dict[str, Any]]:
    """A run, and the parts' states around the entry into step 2."""
    seen: dict[str, Any] = {}
    real = IHDA.enter

    def enter(self: IHDA, stage: int) -> None:
        seen[f"before {stage}"] = weights_of(self.model)
        real(self, stage)
        seen[f"after {stage}"] = weights_of(self.model)

    with monkeypatch.context() as patch:
        patch.setattr(IHDA, "enter", enter)
        trainer = Trainer(config, out, screening=False)
        seen["start"] = weights_of(trainer.model)
        trainer.fit()
    seen["end"] = weights_of(trainer.model)
    return trainer, seen


def test_step_2_begins_with_step_1s_encoder_in_both_towers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, seen = watched(settings(folder), tmp_path / "run", monkeypatch)
    start, before, after, end = (seen[name] for name in ("start", "before 1", "after 1", "end"))
    assert same(start["query"], start["gallery"])
    assert not same(before["gallery"], start["gallery"])  # step 1 trained it
    assert same(after["gallery"], before["gallery"]) and same(after["query"], before["gallery"])
    assert not same(end["query"], end["gallery"]) and not same(end["gallery"], after["gallery"])
    for head in ("identity", "domain"):
        assert same(after[head], start[head]) and not same(end[head], start[head])
    assert not same(after["attributes"], start["attributes"])  # carried over
    assert same(end["source_identity"], after["source_identity"]) and not same(
        end["source_identity"], start["identity"]
    )
    # each stage's optimisers know its own steps only
    steps = {name: {int(each["step"]) for each in getattr(optimizer, "optimizer", optimizer).state.values()}
             for name, optimizer in trainer.optimizers.items()}  # fmt: skip
    assert steps == {"query": {2}, "gallery": {2}, "identity": {2}, "attributes": {2}, "domain": {2},
                     "source_identity": set()}  # fmt: skip


def test_step_1_alone_moves_no_query_tower(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its steps: what is judged and kept has the trained one in both."""
    config = settings(folder, ihda__stages="source", ihda__source_epochs=2)
    trainer = Trainer(config, tmp_path / "bare", screening=False)
    start = weights_of(trainer.model)
    trainer._mode(training=True)
    trainer.method.begun = 1
    for plan in trainer.method.epoch(0):
        trainer._step(trainer.method.load(plan), 1e-3)
    assert same(weights_of(trainer.model)["query"], start["query"])
    record = train(config, tmp_path / "run")
    assert record["epoch"] == 2 and record["stage"] == "source"
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    query = {name: value for name, value in kept.items() if ".towers.0." in name}
    assert query and all(torch.equal(value, kept[name.replace(".0.", ".1.", 1)]) for name, value in query.items())
    assert IhdaModel.load(tmp_path / "run").attributes


def test_target_alone_needs_no_source(folder: Path, tmp_path: Path) -> None:
    record = train(settings(folder, ihda__stages="target", data__source=None), tmp_path / "run")
    assert record["stage"] == "target" and record["epoch"] == 1
    assert {"identity", "triplet", "domain"} <= record.keys() and not {"attributes", "entropy"} & record.keys()
    assert record["images"] == 2 * 2 * 6
    with pytest.raises(IsthmusError, match="has no attribute head"):
        IhdaModel.load(tmp_path / "run")
    record = train(settings(folder, ihda__stages="target"), tmp_path / "with")
    assert {"attributes", "entropy", "consistency"} <= record.keys() and record["images"] == 2 * (2 * 6 + 6)


@pytest.mark.parametrize("stages", ["both", "source"])
def test_the_chosen_epoch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: str) -> None:
    """However good step 1 looks: with both stages its model knows nothing of the pairs."""
    monkeypatch.setattr("isthmus.train.trainer.score_for", lambda select, figures, epoch, *_: -float(epoch))
    config = settings(folder, ihda__stages=stages, ihda__source_epochs=2, train__epochs=2, train__steps_per_epoch=1)
    record = train(config, tmp_path / "run")
    assert (record["epoch"], record["stage"]) == ((3, "target") if stages == "both" else (1, "source"))
    assert Model.load(tmp_path / "run").provenance["epoch"] == record["epoch"]


def test_the_epoch_is_chosen_by_held_out_identities(folder: Path, tmp_path: Path) -> None:
    record = train(settings(folder, train__select="labels"), tmp_path / "run")
    assert f"val/{INK}->{PAINT}/Prec@1" in record and "val/Prec@1" in record


def rates(folder: Path, tmp_path: Path, **changes: Any) -> list[dict[str, float]]:
    """Each step's learning rates of the parts that move."""
    config = settings(folder, train__lr=0.1, train__optimizer="sgd", **changes)
    trainer = Trainer(config, tmp_path / "run", screening=False)
    found = []
    for epoch in range(trainer.schedule.epochs):
        plans = trainer.method.epoch(epoch)
        for step in range(len(plans)):
            rate = trainer.schedule.rate(epoch, step, len(plans))
            found.append({part: rate * trainer.method.rate_of(part) for part in ("query", "gallery", "domain")})
    return found


def test_each_stage_has_a_learning_rate_curve_of_its_own(folder: Path, tmp_path: Path) -> None:
    two = {"ihda__source_epochs": 2, "train__epochs": 3}

    def curve(**changes: Any) -> list[float]:
        return [each["domain"] for each in rates(folder, tmp_path, **(two | changes))]

    cosine = [[0.05 * (1 + math.cos(math.pi * n / count)) for n in range(count)] for count in (4, 6)]
    assert curve(train__schedule="cosine") == pytest.approx(cosine[0] + cosine[1])
    assert curve(train__schedule="constant", ihda__source_lr=0.3) == pytest.approx([0.3] * 4 + [0.1] * 6)
    assert curve(train__schedule="constant", ihda__ablation="source-rate") == pytest.approx([1.1] * 4 + [0.1] * 6)
    warm = [0.1 * n / 3 for n in (1, 2, 3)]
    assert curve(train__schedule="constant", train__warmup_epochs=1.5) == pytest.approx(
        [*warm, 0.1, *warm, 0.1, 0.1, 0.1]
    )
    # lr 0.8^(epoch / 10) from its epoch on, as in the public code
    falling = [0.1, 0.1] + [0.1 * 0.8 ** (n / 2 / 10) for n in range(2, 6)]
    assert curve(train__schedule="exponential", train__decay_from=1 / 3)[4:] == pytest.approx(falling)
    assert curve(train__schedule="exponential", train__decay_from=1 / 3)[:2] == pytest.approx([0.1] * 2)


def test_encoders_may_learn_more_slowly(folder: Path, tmp_path: Path) -> None:
    for each in rates(folder, tmp_path, ihda__encoder_rate=0.2, train__schedule="constant"):
        assert each == pytest.approx({"query": 0.02, "gallery": 0.02, "domain": 0.1})
    trainer = Trainer(settings(folder, ihda__encoder_rate=0.2), tmp_path / "run", screening=False)
    trainer._mode(training=True)
    trainer._step(trainer.method.load(trainer.method.epoch(1)[0]), 0.5)
    used = {name: optimizer.param_groups[0]["lr"] for name, optimizer in trainer.optimizers.items()}
    assert used["query"] == used["gallery"] == pytest.approx(0.1)
    assert used["identity"] == used["attributes"] == used["domain"] == 0.5


def test_started_from_step_1_of_another_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last epoch of step 1 as its model: the two-stage run to the bit, but for the numbers of its epochs,
    which draws depend on."""
    both, seen = watched(settings(folder, train__epochs=2), tmp_path / "both", monkeypatch)
    train(settings(folder, ihda__stages="source"), tmp_path / "first")
    real = Batches.epoch

    def later(self: Batches, number: int) -> list[Plan]:
        with monkeypatch.context() as patch:
            patch.setattr(self, "stages", [("source", 1), ("target", 2)])
            return real(self, number + 1)

    config = settings(folder, ihda__stages="target", ihda__start=str(tmp_path / "first"), train__epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "epoch", later)
        second, again = watched(config, tmp_path / "second", monkeypatch)
    for part in ("query", "gallery", "identity", "attributes", "domain"):
        assert same(again["start"][part], seen["after 1"][part]), part
        assert same(again["end"][part], seen["end"][part]), part
    assert Model.load(tmp_path / "second").fingerprint == Model.load(tmp_path / "both").fingerprint
    assert second.progress.epoch == 2 and both.progress.epoch == 3


def test_a_plan_counts_both_stages(folder: Path) -> None:
    from isthmus.train.estimate import estimate

    planned = estimate(settings(folder, ihda__source_epochs=3, train__epochs=2, train__steps_per_epoch=2))
    assert planned.units == 10 and planned.seconds > 0


def test_steps_of_presets(folder: Path) -> None:
    """An epoch of the public code's settings is a pass over the longer loader, in both stages."""
    method = method_of(settings(folder, "code", train__steps_per_epoch=None, train__batch_size=4, ihda__source_batch=4))
    assert [stage.name for stage in method.stages()] == ["source", "target"]
    assert len(method.epoch(0)) == 6 // (8 // 2) and len(method.epoch(1)) == max(6 // 4, 12 // 4)
