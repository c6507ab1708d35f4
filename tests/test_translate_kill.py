"""Killed at any moment and started again: same bytes, nothing lost, nothing doubled, nobody left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.data.manifest import Manifest

COUNT = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 noisy pictures, large enough that a run takes a while."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:160, 0:160]
    for number in range(COUNT):
        disc = ((y - 80) / rng.uniform(20, 70)) ** 2 + ((x - 80) / rng.uniform(20, 70)) ** 2 < 1
        pixels = np.where(disc[..., None], rng.integers(0, 100, 3), 200) + rng.integers(-20, 20, (160, 160, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def listen_to_interrupts() -> None:
    """A shell starts background jobs deaf to SIGINT, and children inherit that: the tests must not depend on it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(photos: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "isthmus.cli.main", "translate", "--source", f"photo={photos}"]
    command += ["--target", "sketch", "--out", str(out), "--split", "all", "--set", "direction=lines", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )


def pictures(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "images").rglob("*.png")}


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    process = start(photos, out, "--workers", "0")
    assert process.wait(timeout=120) == 0
    return pictures(out)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_points(photos: Path, expected: dict[str, bytes], tmp_path: Path, workers: str) -> None:
    out = tmp_path / "out"
    draw = random.Random(int(workers))
    seen = 0
    for _ in range(3):
        process = start(photos, out, "--workers", workers)
        wanted = seen + draw.randint(1, 15)
        while process.poll() is None and len(list(out.rglob("*.png"))) < wanted:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        made = pictures(out)
        # What is there is whole, also while a killed process's workers finish their last batch.
        assert all(expected[name] == data for name, data in made.items())
        assert len(made) >= seen
        seen = len(made)
    process = start(photos, out, "--workers", workers)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert pictures(out) == expected
    manifest = Manifest.load(out / "manifest.parquet")
    assert len(manifest) == COUNT and {row.source_id for row in manifest} == {
        f"photo/{i:02d}.png" for i in range(COUNT)
    }
    assert not list(out.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_says_how_to_go_on(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    # One worker: two would have every batch of this small set in hand by the time the signal comes.
    process = start(photos, out, "--workers", "1")
    while process.poll() is None and not list(out.rglob("*.png")):
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, 1)
    assert "Run the same command again to go on" in errors and "Traceback" not in errors
    assert not list(out.rglob(".*.tmp")) and 0 < len(pictures(out)) < COUNT


def test_workers_end_with_a_killed_parent(photos: Path, tmp_path: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc to look for orphans")
    out = tmp_path / "orphans"
    process = start(photos, out, "--workers", "2")
    while process.poll() is None and not list(out.rglob("*.png")):
        time.sleep(0.01)
    children = _children(process.pid)
    assert children
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if _alive(child)]


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
