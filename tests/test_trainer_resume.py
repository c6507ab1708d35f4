"""Stopping and going on: in the same state as a run that was never stopped, to the bit."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_zoo import BATCH_NORM, command, environment, isthmus, same, settings, world

from isthmus.errors import IsthmusError
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.run import settings_to_go_on, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 12)


def state(out: Path) -> dict[str, Any]:
    """Everything that a run leaves behind, but for wall times."""
    checkpoint = load_checkpoint(out / "checkpoints" / "last.pt")
    progress = checkpoint["progress"]
    progress.pop("seconds")
    for record in progress["history"]:
        record.pop("seconds")
    lines = list(csv.DictReader(io.StringIO((out / "log.csv").read_text())))
    for line in lines:
        line.pop("seconds")
    return {**checkpoint, "log": lines, "model": load_file(out / "model" / "model.safetensors")}


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [key for key in a if not same(a[key], b.get(key))]


def extend(out: Path, epochs: int) -> None:
    train(settings_to_go_on(out, {"train.epochs": epochs}), out, resume=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"train__schedule": "constant"},
        # SGD keeps momentum, batch norm keeps statistics
        {"train__schedule": "constant", "train__optimizer": "sgd", "model__backbone": BATCH_NORM},
    ],
)
def test_four_epochs_are_two_and_two(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    train(settings(folder, train__epochs=4, **changes), tmp_path / "four")
    train(settings(folder, train__epochs=2, **changes), tmp_path / "two")
    half = state(tmp_path / "two")
    extend(tmp_path / "two", 4)
    four, two = state(tmp_path / "four"), state(tmp_path / "two")
    assert {"parts", "optimizers", "method", "random", "progress", "log", "model"} <= four.keys()
    assert differing(four, two) == []
    assert {"parts", "optimizers", "method", "progress"} <= set(differing(half, four))  # it did go on
    assert [line["epoch"] for line in four["log"]] == ["0", "1", "2", "3", "4"]


def test_a_finished_run_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    config = settings(folder)
    first = train(config, tmp_path / "run")
    before = state(tmp_path / "run")
    assert train(config, tmp_path / "run") == first
    assert differing(before, state(tmp_path / "run")) == []


def test_same_seed_same_run_and_another_seed_another(folder: Path, tmp_path: Path) -> None:
    for name, seed, workers in (("a", 3, 1), ("b", 3, 0), ("c", 4, 1)):
        train(settings(folder, seed=seed, data__workers=workers), tmp_path / name)
    a, b, c = (state(tmp_path / name) for name in "abc")
    assert differing(a, b) == []
    assert {"parts", "method", "optimizers"} <= set(differing(a, c))


def test_other_settings_are_refused_and_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(settings(folder), out)
    before = (out / "checkpoints" / "last.pt").read_bytes()
    for change, sentence in (
        ({"train__lr": 0.5}, r"train\.lr is 0\.001 there and 0\.5 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"train__epochs": 9}, r"train\.epochs is 2 there and 9 here.*--resume"),
        ({"data__workers": 0, "data__synthetic": []}, r"data\.synthetic"),
    ):
        with pytest.raises(IsthmusError, match=sentence):
            train(settings(folder, **change), out)
    with pytest.raises(IsthmusError, match=r"'train\.lr' can't change within a run"):
        settings_to_go_on(out, {"train.lr": 0.5})
    with pytest.raises(IsthmusError, match="holds no run to go on with"):
        settings_to_go_on(tmp_path / "nothing", {})
    assert (out / "checkpoints" / "last.pt").read_bytes() == before


def test_broken_or_foreign_checkpoint_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(settings(folder), out)
    path = out / "checkpoints" / "last.pt"
    whole = load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(IsthmusError, match=r"last\.pt can't be read"):
        train(settings(folder), out)
    whole["method"]["banks"][0] = whole["method"]["banks"][0][:-1]
    torch.save(whole, path)
    with pytest.raises(IsthmusError, match="of other settings or another architecture"):
        train(settings(folder), out)


def write_settings(folder: Path, path: Path) -> Path:
    settings(folder, train__epochs=3, train__steps_per_epoch=40, train__batch_size=4).save(path)
    return path


def start(config: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("train", "--config", config, "--out", out), env=environment(), stderr=subprocess.PIPE, text=True
    )


def wait_for(path: Path, process: subprocess.Popen[str], *, lines: int) -> None:
    """Until the log has so many epochs: the run is in the middle of the next one."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if path.is_file() and len(path.read_text().splitlines()) > lines:
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("no epoch was finished in four minutes")


def test_sigterm_and_kill_lose_nothing(folder: Path, tmp_path: Path) -> None:
    config = write_settings(folder, tmp_path / "run.yaml")
    out, whole = tmp_path / "run", tmp_path / "whole"
    process = start(config, out)
    wait_for(out / "log.csv", process, lines=2)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait() == 143, said
    assert "Stopped and saved after" in said and f"isthmus train --resume {out}" in said
    assert "Traceback" not in said
    stopped = load_checkpoint(out / "checkpoints" / "last.pt")["progress"]
    assert stopped["step"] < 120 and stopped["epoch"] < 3

    process = start(config, out)  # the same command goes on
    wait_for(out / "log.csv", process, lines=stopped["epoch"] + 2 if stopped["epoch"] < 2 else stopped["epoch"] + 1)
    process.kill()
    process.communicate()

    done = isthmus("train", "--resume", out, "--json")
    assert done.returncode == 0, done.stderr
    done = isthmus("train", "--config", config, "--out", whole)
    assert done.returncode == 0, done.stderr
    assert differing(state(whole), state(out)) == []
