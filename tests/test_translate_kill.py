"""Killed at any moment and started again: same bytes, nothing lost, nothing doubled, nobody left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import translators_zoo
from translators_zoo import NAME, contents

from isthmus.data.manifest import Manifest

COUNT = 60
ZOO = Path(translators_zoo.__file__)
# How a run goes: an independent translator here and in workers, and one that takes whole batches.
WAYS = {
    "here": ("--set", "direction=lines", "--workers", "0"),
    "workers": ("--set", "direction=lines", "--workers", "2"),
    "batches": ("--translator", NAME, "--set", "seconds=0.03"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return translators_zoo.pictures(tmp_path_factory.mktemp("photos"), COUNT)


def listen_to_interrupts() -> None:
    """A shell starts background jobs deaf to SIGINT, and children inherit that: the tests must not depend on it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(photos: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ZOO), "translate", "--source", f"photo={photos}"]
    command += ["--target", "sketch", "--out", str(out), "--split", "all", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )


def pictures(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name.endswith(".png")}


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What undisturbed runs leave, by their way."""
    folder = tmp_path_factory.mktemp("whole")
    processes = {way: start(photos, folder / way, *WAYS[way]) for way in ("here", "batches")}
    for process in processes.values():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    found = {way: contents(folder / way) for way in processes}
    return {**found, "workers": found["here"]}


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_random_points(photos: Path, expected: dict[str, dict[str, bytes]], tmp_path: Path, way: str) -> None:
    out = tmp_path / "out"
    draw = random.Random(way)
    seen = 0
    for _ in range(2):
        process = start(photos, out, *WAYS[way])
        wanted = seen + draw.randint(1, 20)
        while process.poll() is None and len(list(out.rglob("*.png"))) < wanted:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        made = pictures(out)
        # What is there is whole, also while a killed process's workers finish their last batch.
        assert all(expected[way][name] == data for name, data in made.items())
        assert len(made) >= seen
        seen = len(made)
    process = start(photos, out, *WAYS[way])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert contents(out) == expected[way]
    manifest = Manifest.load(out / "manifest.parquet")
    failed = {path.stem for path in (out / "failed").rglob("*.json")}
    assert len(manifest) + len(failed) == COUNT
    assert {f"photo/{i:02d}.png" for i in range(COUNT)} - {f"photo/{name}" for name in failed} == {
        row.source_id for row in manifest
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_says_how_to_go_on(photos: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    # One worker: two would have every batch of this small set in hand by the time the signal comes.
    process = start(photos, out, "--set", "direction=lines", "--workers", "1")
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
    process = start(photos, out, *WAYS["workers"])
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


SCRIPT = """
from isthmus.data.sources import read_source
from isthmus.translate.run import run_translation
{guard}
    made = run_translation(read_source({photos!r}, "photo"), "sketch", {out!r}, settings=dict(direction="lines"), workers=1)
    print(len(made))
"""  # noqa: E501


def test_a_script_without_a_guard_is_told_so(photos: Path, tmp_path: Path) -> None:
    for guard, sentence in (("if True:", "__name__ == '__main__'"), ("if __name__ == '__main__':", "")):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(guard=guard, photos=str(photos), out=str(tmp_path / "out")))
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
        if sentence:
            assert "IsthmusError" in done.stderr and sentence in done.stderr and "memory" not in done.stderr
            assert "bootstrapping" not in done.stderr
        else:
            assert (done.returncode, done.stdout.strip()) == (0, str(COUNT)), done.stderr
    text = script.read_text().replace(str(tmp_path / "out"), str(tmp_path / "piped"))
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True, timeout=120)
    assert "standard input" in done.stderr and "memory" not in done.stderr


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
