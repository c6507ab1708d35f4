"""Several processes are one: the same losses, gradients, banks and model as one process on the joined batch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import work
from safetensors.torch import load_file
from training_zoo import BATCH_NORM, NO_NORM, command, environment, isthmus, settings, world

from isthmus.config import RunConfig
from isthmus.methods.base import Processes
from isthmus.train.checkpoint import load_checkpoint

HERE = Path(__file__).parent
STEPS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 10)


def config_of(folder: Path, devices: int = 1, **changes: Any) -> RunConfig:
    # Plain SGD, so that weights after a step are as near as its gradients are.
    base = {"train__optimizer": "sgd", "train__lr": 1e-3, "train__steps_per_epoch": STEPS, "data__holdout": 0.0}
    return settings(folder, train__devices=devices, **(base | changes))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun_variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun sets in each process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }


def run_two(config: RunConfig, tmp_path: Path) -> list[dict[str, Any]]:
    config.save(tmp_path / "run.yaml")
    return two_processes(
        tmp_path, "distributed_worker.py", lambda result: [tmp_path / "run.yaml", tmp_path / "out", result, str(STEPS)]
    )


def two_processes(tmp_path: Path, worker: str, arguments: Callable[[Path], list[Any]]) -> list[dict[str, Any]]:
    """What two gloo processes leave in their files, each a script of this folder called with `arguments(file)`."""
    port = free_port()
    files = [tmp_path / f"{rank}.pt" for rank in (0, 1)]
    started = [
        subprocess.Popen(
            [sys.executable, HERE / worker, *arguments(file)],
            env=environment(PYTHONPATH=str(HERE), **torchrun_variables(rank, 2, port)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    for process in started:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    return [torch.load(file, weights_only=True) for file in files]


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Length of a - b over the length of b, all tensors taken as one vector."""
    assert a.keys() == b.keys()
    x, y = (torch.cat([values[name].flatten() for name in b]).double() for values in (a, b))
    return float((x - y).norm() / y.norm())


def test_two_processes_have_the_loss_gradients_and_banks_of_one(folder: Path, tmp_path: Path) -> None:
    """With in-batch keys of both processes: keys of one's own alone would give another L_PPP."""
    config = config_of(folder)
    ranks = run_two(config, tmp_path)
    alone = work(config, tmp_path / "alone", STEPS)
    assert [(rank["rank"], rank["world"]) for rank in ranks] == [(0, 2), (1, 2)] and alone["world"] == 1
    for step, (one, first, second) in enumerate(zip(alone["steps"], ranks[0]["steps"], ranks[1]["steps"], strict=True)):
        assert one["images"] == [8, 8] and first["images"] == second["images"] == [4, 4]
        near = 1e-6 if step == 0 else 1e-5  # later steps start from weights that differ in their last bits
        for two in (first, second):
            for name, value in one["losses"].items():
                assert two["losses"][name] == pytest.approx(value, abs=near, rel=1e-6), (step, name)
            error = difference(two["gradients"], one["gradients"])
            assert error <= near, (step, error)
            for bank, expected in zip(two["banks"], one["banks"], strict=True):
                torch.testing.assert_close(bank, expected, atol=near, rtol=0)
        assert all(torch.equal(a, b) for a, b in zip(first["banks"], second["banks"], strict=True))
    assert float(alone["steps"][0]["gradients"]["head.weight"].abs().max()) > 1e-3


def test_batch_norm_with_a_pass_for_each_batch(folder: Path, tmp_path: Path) -> None:
    """Four passes before a backward pass, each of which writes running statistics: they may not disturb each other."""
    ranks = run_two(config_of(folder, model__backbone=BATCH_NORM), tmp_path)
    for a, b in zip(ranks[0]["steps"], ranks[1]["steps"], strict=True):
        assert a["losses"] == b["losses"]
        assert all(torch.equal(a["gradients"][name], b["gradients"][name]) for name in a["gradients"])
        assert all(torch.equal(x, y) for x, y in zip(a["banks"], b["banks"], strict=True))


def test_one_process_gathers_nothing() -> None:
    values = torch.randn(3, 2, requires_grad=True)
    assert Processes().gather(values) is values
    constant = Processes().gather_constant(values)
    assert torch.equal(constant, values) and not constant.requires_grad


@pytest.mark.parametrize("backbone", [NO_NORM])
def test_command_line_with_two_devices(folder: Path, tmp_path: Path, backbone: str) -> None:
    models = []
    for devices in (1, 2):
        config = config_of(folder, devices, train__epochs=2, model__backbone=backbone, train__select="last")
        config.save(tmp_path / f"{devices}.yaml")
        done = isthmus("train", "--config", tmp_path / f"{devices}.yaml", "--out", tmp_path / f"run{devices}", "--json")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        models.append(load_file(tmp_path / f"run{devices}" / "model" / "model.safetensors"))
    one, two = models
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_a_signal_to_the_first_process_stops_both(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config_of(folder, 2, train__epochs=400, train__steps_per_epoch=10).save(tmp_path / "run.yaml")
    process = subprocess.Popen(
        command("train", "--config", tmp_path / "run.yaml", "--out", out),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if (out / "log.csv").is_file() and len((out / "log.csv").read_text().splitlines()) > 2:
                break
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)  # ends only when both have closed the pipe
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, said
    assert "Stopped and saved after" in said and said.count("Go on with:") == 1
    assert 0 < load_checkpoint(out / "checkpoints" / "last.pt")["progress"]["step"] < 4000
