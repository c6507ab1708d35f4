"""CUT through the one trainer: resume, sample sheets, one direction, several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cut_worker import work
from cut_zoo import cut_method, cut_settings
from PIL import Image
from safetensors.torch import load
from test_distributed import difference, two_processes
from training_zoo import same, world

from isthmus.errors import IsthmusError
from isthmus.methods.base import Processes
from isthmus.methods.cut import Cut
from isthmus.models.cut import CutModel
from isthmus.train import trainer as loop
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.interrupt import Interrupted, StopRequest
from isthmus.train.run import settings_to_go_on, train
from isthmus.train.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("cut"), 8)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two steps, three samples a domain."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(cut_settings(folder, cut__samples=3), out)
    return out


def state(out: Path) -> dict[str, Any]:
    """All that a run leaves behind, but for wall times."""
    checkpoint = load_checkpoint(out / "checkpoints" / "last.pt")
    for record in (checkpoint["progress"], *checkpoint["progress"]["history"]):
        record.pop("seconds")
    sheets = {path.name: path.read_bytes() for path in (out / "samples").glob("*")}
    kept = out / "model" / "generators.safetensors"
    return {**checkpoint, "model": load(kept.read_bytes()) if kept.exists() else None, "sheets": sheets}


class Stop(StopRequest):
    """A signal after some steps."""

    steps = 3

    @property
    def number(self) -> int | None:  # type: ignore[override]
        self.asked = getattr(self, "asked", 0) + 1
        return 15 if self.asked == self.steps else None

    @number.setter
    def number(self, value: int | None) -> None:
        pass


@pytest.mark.parametrize(
    "changes", [{}, {"method": "fastcut", "cut__identity": False, "cut__flip_equivariance": True}], ids=["cut", "fast"]
)
def test_a_stopped_run_ends_as_an_undisturbed_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    config = cut_settings(folder, cut__samples=1, train__steps_per_epoch=4, train__schedule="linear", **changes)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", Stop)
        with pytest.raises(Interrupted, match="saved after step 3"):
            train(config, tmp_path / "stopped")
    half, whole = state(tmp_path / "stopped"), state(tmp_path / "whole")
    assert half["progress"]["step"] == 3 and set(half["optimizers"]) == {"generator", "discriminator"}
    assert all(part["state"][0]["step"] == 3 for part in half["optimizers"].values())  # Adam's moments of both
    assert not same(half["parts"]["discriminator"], whole["parts"]["discriminator"])
    train(config, tmp_path / "stopped")
    resumed = state(tmp_path / "stopped")
    assert [name for name in whole if not same(whole[name], resumed[name])] == []
    assert sorted(whole["sheets"]) == ["0000.png", "0001.png", "0002.png"]


class Killed(BaseException):
    """Nothing is tidied up, as by kill -9."""


@pytest.mark.parametrize("last", [2, 4], ids=["within", "last-step"])
def test_a_killed_epoch_goes_on_from_its_last_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Also from that of its very last step, after which only judging is left."""
    config = cut_settings(folder, cut__samples=1, train__epochs=1, train__steps_per_epoch=4, train__schedule="linear")
    train(config, tmp_path / "whole")
    saved: list[int] = []

    def save(trainer: Trainer) -> None:
        saved.append(trainer.progress.step)
        keep(trainer)
        if saved[-1] == last:
            raise Killed

    keep = Trainer._save
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_SECONDS", -1.0)
        patch.setattr(Trainer, "_save", save)
        with pytest.raises(Killed):
            train(config, tmp_path / "killed")
    assert saved == list(range(last + 1))
    train(config, tmp_path / "killed")
    whole, resumed = state(tmp_path / "whole"), state(tmp_path / "killed")
    assert [name for name in whole if not same(whole[name], resumed[name])] == []


def test_batches_of_few_images_are_equal_in_all_processes(folder: Path) -> None:
    config = cut_settings(folder, train__batch_size=12, train__steps_per_epoch=1)
    one = cut_method(config)
    assert one.images_per_step() == 2 * 8 and "has 8 images to train on: 8 a step" in one.data.notes[-1]
    three = Cut(config, one.model, one.data, one.source, Processes(2, 3))
    assert three.images_per_step() == 2 * 6 and [len(part) for part in three.epoch(0)[0].positions] == [6, 6]
    assert [len(part) for part in three.load(three.epoch(0)[0]).images] == [2, 2]
    assert not cut_method(cut_settings(folder)).data.notes


def test_more_epochs_later_and_other_seeds(folder: Path, tmp_path: Path) -> None:
    for name, epochs, seed in (("three", 3, 0), ("one", 1, 0), ("other", 1, 1)):
        config = cut_settings(folder, cut__samples=1, train__epochs=epochs, train__schedule="constant", seed=seed)
        train(config, tmp_path / name)
    assert not same(state(tmp_path / "one")["parts"], state(tmp_path / "other")["parts"])
    train(settings_to_go_on(tmp_path / "one", {"train.epochs": 3}), tmp_path / "one", resume=True)
    three, one = state(tmp_path / "three"), state(tmp_path / "one")
    assert [name for name in three if not same(three[name], one[name])] == []


def test_what_a_run_leaves(run: Path) -> None:
    lines = (run / "log.csv").read_text().splitlines()
    terms = [
        f"{term}/{name}"
        for term in ("adversarial", "discriminator", "identity", "patches")
        for name in ("ink", "paint")
    ]
    assert set(terms) <= set(lines[0].split(",")) and len(lines) == 4
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    assert float(last["loss"]) == pytest.approx(sum(float(last[term]) for term in terms), abs=1e-3)
    assert last["images"] == str(2 * 2 * 2 * 2) and last["epoch"] == "2"
    sheets = [Image.open(run / "samples" / f"{number:04}.png") for number in range(3)]
    assert len({sheet.tobytes() for sheet in sheets}) == 3  # the untrained networks, and after each epoch
    assert all(sheet.size == (8 + 3 * 104, 8 + 4 * 125) for sheet in sheets)  # both directions, above and below
    model = CutModel.load(run)
    assert model.provenance["epoch"] == 2 and model.domains == ("ink", "paint") and model.sides == (0, 1)


def test_one_direction(folder: Path, tmp_path: Path) -> None:
    train(cut_settings(folder, cut__direction="gallery-to-query", cut__samples=2, train__epochs=1), tmp_path / "run")
    model = CutModel.load(tmp_path / "run")
    assert model.sides == (1,) and model.side_to("ink") == 1
    with pytest.raises(IsthmusError, match=r"translates to ink, not to 'paint'"):
        model.side_to("paint")
    assert "/paint" not in (tmp_path / "run" / "log.csv").read_text()


@pytest.mark.parametrize("size", [(64, 72), (36, 40)])
def test_other_sizes_train(folder: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    changes = {"model__image_size": size[0], "augment__resize": size[1], "train__epochs": 1, "cut__samples": 1}
    record = train(cut_settings(folder, train__steps_per_epoch=1, train__batch_size=1, **changes), tmp_path / "run")
    assert record["epoch"] == 1 and record["loss"] > 0


def test_two_processes_have_the_losses_and_gradients_of_one(folder: Path, tmp_path: Path) -> None:
    """Without the patch terms the head has no gradients, for which the other process may not wait."""
    base = {"train__optimizer": "sgd", "train__momentum": 0.0, "train__lr": 1e-3, "train__batch_size": 4}
    configs = [
        cut_settings(folder, cut__direction=direction, cut__nce_weight=weight, **base)
        for direction, weight in (("both", 1.0), ("query-to-gallery", 0.0))
    ]
    paths = [tmp_path / f"{number}.yaml" for number in range(2)]
    for config, path in zip(configs, paths, strict=True):
        config.save(path)
    ranks = two_processes(tmp_path, "cut_worker.py", lambda result: [tmp_path / "out", result, "2", *paths])
    for number, config in enumerate(configs):
        alone = work(config, tmp_path / "alone", 2)
        for step, (one, *two) in enumerate(zip(alone, ranks[0][number], ranks[1][number], strict=True)):
            assert one["images"] == 4 and [part["images"] for part in two] == [2, 2]
            for part in two:
                assert part["losses"] == pytest.approx(one["losses"], rel=1e-5 if step else 1e-6)
                # Later steps start from weights that differ in their last bits.
                assert difference(part["gradients"], one["gradients"]) < (2e-3 if step else 1e-5)
            assert all(torch.equal(two[0]["gradients"][name], value) for name, value in two[1]["gradients"].items())
