"""Several processes in one folder: one choice of settings, one table, and nobody sweeps away another's work."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import translators_zoo
from translators_zoo import NAME, contents

from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.translate import base, finish, presence, record
from isthmus.translate.base import Samples, TranslatorChoice, choose
from isthmus.translate.finish import Outcome
from isthmus.translate.presence import OLD, alone, at_work, one_at_a_time, sweep
from isthmus.translate.record import Request, settle
from isthmus.translate.run import Options, translate_source

REQUEST = Request(NAME, {}, "sketch", 0)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setitem(base.TRANSLATORS, NAME, "translators_zoo:SlowTint")
    return read_source(translators_zoo.pictures(tmp_path / "photos", 22), "photo")


def test_shards_started_at_the_same_time(photos: Manifest, tmp_path: Path) -> None:
    command = [sys.executable, translators_zoo.__file__, "translate", "--source", f"photo={tmp_path / 'photos'}"]
    command += ["--target", "sketch", "--split", "all", "--translator", NAME, "--set", "seconds=0.1", "--json"]
    running = [
        subprocess.Popen([*command, "--out", str(tmp_path / "many"), "--shard", f"{i}/3"], stdout=-1, stderr=-1)
        for i in (1, 2, 3)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert any(json.loads(out)["complete"] for out, _ in said)
    request = Request(NAME, {"seconds": 0.1}, "sketch", 0)
    whole = translate_source(photos, request, tmp_path / "one")
    assert whole.failed and len(whole.manifest) + len(whole.failed) == 22
    assert sum(json.loads(out)["written"] for out, _ in said) == whole.written
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def choosers(count: int) -> list[Callable[[str, Mapping[str, Any], Samples], TranslatorChoice]]:
    """Choosers that end at the same moment, each with another batch size, as where it is found by trying."""
    together = threading.Barrier(count)

    def chooser(seconds: float) -> Callable[[str, Mapping[str, Any], Samples], TranslatorChoice]:
        def chosen(name: str, settings: Mapping[str, Any], samples: Samples) -> TranslatorChoice:
            together.wait(timeout=20)
            return choose(name, {**settings, "seconds": seconds}, samples)

        return chosen

    return [chooser(0.001 * i) for i in range(count)]


@pytest.mark.parametrize("links", [True, False])
def test_the_first_to_choose_chooses_for_all(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    for attempt in range(5 if links else 1):
        out = tmp_path / f"out{attempt}"
        count = 4 if links else 1
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(settle, out, REQUEST, Samples(), chooser) for chooser in choosers(count)]
            choices = [choice.result() for choice in waiting]
        written = json.loads((out / "settings.json").read_text())
        assert [choice.settings for choice in choices] == [written["settings"]] * count
        assert written["fingerprint"] == choices[0].fingerprint
        assert [path.name for path in out.iterdir()] == ["settings.json"]
        assert settle(out, REQUEST, None, choosers(1)[0]) == choices[0]


def test_a_run_that_began_in_between_is_joined(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = settle(out, REQUEST, Samples())
    (out / "images").mkdir()
    real, calls = record.recorded, 0

    def late(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return None if calls == 1 else real(*arguments)

    monkeypatch.setattr(record, "recorded", late)
    assert settle(out, REQUEST, Samples()) == first
    monkeypatch.undo()
    (out / "settings.json").unlink()
    with pytest.raises(IsthmusError, match="something other than a translation"):
        settle(out, REQUEST, Samples())


def test_two_that_finish_at_once_write_the_same_table(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    translate_source(photos, REQUEST, out)
    expected = contents(out)
    for name in ("manifest.parquet", "translation.json"):
        (out / name).unlink()
    busy: list[int] = []
    real = Manifest.save

    def save(self: Manifest, path: str | Path) -> None:
        busy.append(1)
        time.sleep(0.1)
        assert len(busy) == 1, "two write at the same time"
        real(self, path)
        busy.pop()

    monkeypatch.setattr(Manifest, "save", save)
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda i: translate_source(photos, REQUEST, out, Options((i, 3))), (1, 2, 3)))
    assert all(outcome.complete and not outcome.written for outcome in outcomes)
    assert contents(out) == expected


def test_what_another_mended_meanwhile_is_in_the_table(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    lucky = str(translate_source(photos, REQUEST, tmp_path / "whole").manifest[3].source_id)
    path = Path(photos.by_id(lucky).path)
    good = path.read_bytes()
    path.write_bytes(good[:50])
    assert translate_source(photos, REQUEST, out).failed[lucky]
    real, mended = finish._look, False

    def look(*arguments: Any) -> Any:
        nonlocal mended
        found = real(*arguments)
        if arguments[0].id == lucky and not mended:
            mended = True
            path.write_bytes(good)
            assert translate_source(photos, REQUEST, out).written == 1
        return found

    path.write_bytes(good[:50])
    monkeypatch.setattr(finish, "_look", look)
    monkeypatch.setattr(presence, "PATIENCE", 0.1)  # the inner run finds the outer one at work
    outcome: Outcome = translate_source(photos, REQUEST, out)
    assert mended and outcome.complete and lucky not in outcome.failed
    assert lucky in {row.source_id for row in Manifest.load(out / "manifest.parquet")}


def test_only_the_last_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "PATIENCE", 0.1)
    sign = tmp_path / "settings.json"
    sign.write_text("{}")
    temporary = [tmp_path / "images" / "a" / ".1.png.x.tmp", tmp_path / ".settings.json.y.tmp"]
    ray = tmp_path / ".ray-0.tmp"
    kept = [sign, tmp_path / "images" / "a" / "1.png", tmp_path / "images" / "1.tmp"]

    def litter() -> None:
        for path in (*temporary, *kept, ray / "note"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")

    litter()
    code = "import sys; from pathlib import Path; from isthmus.translate.presence import stay_at_work\n"
    code += "stay_at_work(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code, str(sign)], stdin=-1, stdout=-1)
    try:
        assert other.stdout is not None and other.stdout.readline()
        with alone(sign) as nobody_else:
            assert not nobody_else
        sweep(tmp_path, sign)
        assert all(path.exists() for path in temporary)
        long_ago = time.time() - OLD - 10
        os.utime(temporary[0], (long_ago, long_ago))
        sweep(tmp_path, sign)
        assert [path.exists() for path in temporary] == [False, True]
    finally:
        other.kill()
        other.communicate()
    litter()
    sweep(tmp_path, sign)
    assert not any(path.exists() for path in (*temporary, ray)) and all(path.exists() for path in kept)


def test_locks_that_fail_stop_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Locks:
        LOCK_SH, LOCK_EX, LOCK_NB = 1, 2, 4

        @staticmethod
        def flock(descriptor: int, kind: int) -> None:
            raise OSError(errno.ENOLCK, "no locks here")

    for stand_in in (Locks, None):
        monkeypatch.setattr(presence, "fcntl", stand_in)
        (tmp_path / ".a.tmp").touch()
        with at_work(tmp_path / "none"), one_at_a_time(tmp_path):
            sweep(tmp_path, tmp_path / ".table.lock")
        assert (tmp_path / ".a.tmp").exists()
