"""Translation on a Ray cluster: the bytes of one process, whatever is killed; and one sentence where it can't be."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import translators_zoo
from ray_zoo import ray_host
from translators_zoo import NAME, contents

from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.translate import base
from isthmus.translate.run import run_translation

COUNT = 48
ZOO = Path(translators_zoo.__file__)


@dataclass(frozen=True)
class World:
    """A cluster of two CPUs and two GPUs (in name), pictures, and the environment of a driver."""

    address: str
    environment: dict[str, str]
    photos: Path
    pids: Path

    def start(self, out: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ZOO), "translate", "--source", f"photo={self.photos}", "--target", "sketch"]
        command += ["--split", "all", "--out", str(out), "--translator", NAME, "--set", f"pids={self.pids}", *more]
        return subprocess.Popen(
            command, stdout=-1, stderr=-1, text=True, env=self.environment, cwd=out.parent,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("ray.data")
    folder = tmp_path_factory.mktemp("ray")
    for name in ("home", "pids"):
        (folder / name).mkdir()
    with ray_host(folder / "home", gpus=2) as host:
        photos = translators_zoo.pictures(folder / "photos", COUNT)
        yield World(host.address, host.environment, photos, folder / "pids")


@pytest.fixture
def photos(world: World, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setitem(base.TRANSLATORS, NAME, "translators_zoo:SlowTint")
    return read_source(world.photos, "photo")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.01)


def made(out: Path) -> int:
    return len(list(out.rglob("*.png")))


def test_killed_at_random_points(world: World, photos: Manifest, tmp_path: Path) -> None:
    """The driver stopped, the driver killed, a worker killed: the same folder as one undisturbed process leaves."""
    more = ("--set", "seconds=0.15", "--ray", world.address, "--workers", "2")
    settings = {"pids": str(world.pids), "seconds": 0.15}
    whole, out = tmp_path / "whole", tmp_path / "out"
    run_translation(photos, "sketch", whole, NAME, settings)
    expected = contents(whole)
    draw = random.Random(0)
    for number in (signal.SIGINT, signal.SIGKILL):
        process, wanted = world.start(out, *more), made(out) + draw.randint(1, 10)
        wait_for(lambda wanted=wanted: made(out) >= wanted, process)
        time.sleep(draw.uniform(0, 0.1))
        assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if number == signal.SIGINT:
            assert process.returncode == 130 and "Run the same command again to go on" in errors
            assert "Traceback" not in errors and f"of {COUNT} images done" in errors
        assert all(expected[name] == data for name, data in contents(out).items() if name.endswith(".png"))
        assert not (out / "manifest.parquet").exists()
    for path in world.pids.iterdir():
        path.unlink()
    process = world.start(out, *more)
    wait_for(lambda: len(list(world.pids.iterdir())) >= 2, process)
    workers = [path.name.split("-") for path in world.pids.iterdir()]
    assert len(workers) == 2 and {built for _, built in workers} == {"1"}
    os.kill(int(workers[0][0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    # Ray says nothing of its own, neither about itself nor about the worker that was killed.
    lines = [line for line in errors.splitlines() if not line.startswith(("Left out: ", "translating: "))]
    assert len(lines) == 1 and lines[0].startswith(f"Ray at {world.address}: 2 workers with 1 GPU each"), errors
    assert contents(out) == expected
    assert len(list(world.pids.iterdir())) >= 3  # the killed worker's successor
    assert not list(Path(world.environment["HOME"]).iterdir()), "Ray left something in the home folder"


def test_a_workers_sentence_arrives_and_shards_go_together(world: World, photos: Manifest, tmp_path: Path) -> None:
    process = world.start(tmp_path / "bad", "--ray", world.address, "--set", "refuse=There is no ink left.")
    other = world.start(tmp_path / "half", "--ray", world.address, "--shard", "1/2", "--json", "--workers", "1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and errors.splitlines()[-1] == "isthmus: There is no ink left.", errors
    assert not list((tmp_path / "bad").rglob(".*.tmp"))
    output, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    half = json.loads(output)
    assert 0 < half["images"] < COUNT and half["missing"] > 0 and not half["complete"]
    run_translation(photos, "sketch", tmp_path / "half", NAME, {"pids": str(world.pids)}, shard=(2, 2))
    run_translation(photos, "sketch", tmp_path / "whole", NAME, {"pids": str(world.pids)})
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


def test_local(world: World, photos: Manifest, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "isthmus.cli.main", "translate", "--source", f"photo={world.photos}"]
    command += ["--target", "sketch", "--split", "all", "--set", "direction=lines", "--out", "out", "--ray", "local"]
    kept = "RAY_worker_niceness"  # the rest is for the command to say
    environment = {
        name: text for name, text in world.environment.items() if not name.startswith("RAY_") or name == kept
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0 and f"{COUNT} counterparts" in done.stdout, done.stderr
    run_translation(photos, "sketch", tmp_path / "one", settings={"direction": "lines"}, workers=0)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert not list(Path(environment["HOME"]).iterdir()), "Ray left something in the home folder"
