"""A full disk at every moment, and places that can't be written: a sentence, and the same command goes on."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from cli_zoo import World, failing_writes, read_only, refused, snapshot, unharmed, works

from isthmus.catalog.store import Catalog

FULL = ("the disk is full", "run the same command again")


def test_translate(cli_world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name, after, kept in (("settings.json", 0, 0), ("*.png", 3, 3), ("manifest.parquet", 0, 8),
                              ("translation.json", 0, 8)):  # fmt: skip
        with failing_writes(name, after=after) as refusals:
            refused(*cli_world.translate("photo", out=out), says=(out, *FULL))
        assert refusals() == 1
        assert len(list(out.rglob("*.png"))) == kept and not list(out.rglob("*.tmp"))
    works(*cli_world.translate("photo", out=out))
    assert contents(out) == contents(cli_world.made("photo"))


def test_train(cli_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    command = cli_world.train("--set", "train.epochs=2", out=out)
    for name, after in (("config.yaml", 0), ("manifest.parquet", 0), ("log.csv", 0), ("last.pt", 0), ("model", 0),
                        ("last.pt", 1)):  # fmt: skip
        with failing_writes(name, after=after) as refusals:
            refused(*command, says=(out, *FULL), alone=False)
        assert refusals() == 1
        assert not list(out.rglob(".*.tmp"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        refused(*command, says=(out / "model", *FULL), alone=False)
        assert not list(out.rglob(".*.tmp"))
    works(*command)
    works(*cli_world.train("--set", "train.epochs=2", out=tmp_path / "whole"))
    assert weights(out) == weights(tmp_path / "whole")
    assert log(out) == log(tmp_path / "whole")


def test_train_with_no_room_for_tensorboard(cli_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full)
        refused(*cli_world.train(out=tmp_path / "out"), says=("tensorboard", *FULL), alone=False)
    works(*cli_world.train(out=tmp_path / "out"))


def test_evaluate(cli_world: World, tmp_path: Path) -> None:
    run, out = cli_world.folder / "runs" / "syncdr", tmp_path / "scores.json"
    command = ["evaluate", run, "--bootstrap", 20, "--out", out]
    works(*command)
    whole = out.read_bytes()
    for name in ("scores.json", "scores.html"):
        with unharmed(tmp_path, run), failing_writes(name):
            refused(*command, says=(tmp_path / name, *FULL))
    for path in tmp_path.iterdir():
        path.unlink()
    works(*command)
    assert out.read_bytes() == whole


def test_index(cli_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lancedb.db import LanceDBConnection
    from lancedb.merge import LanceMergeInsertBuilder

    home, out = cli_world.folder, tmp_path / "catalog"
    command = ["index", home / "runs" / "syncdr", home / "photo", "--out", out, "--workers", 0]
    for owner, method in ((LanceDBConnection, "create_table"), (LanceMergeInsertBuilder, "execute")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, full_in_rust)
            refused(*command, says=(out, "is full", "run the same again"))
    works(*command)
    ids = sorted(row["id"] for row in Catalog.open(home / "catalog").rows())
    (ours, vectors), (theirs, expected) = (Catalog.open(place).items.fetch(ids) for place in (out, home / "catalog"))
    order, other = (sorted(range(len(rows)), key=lambda i: rows[i]["id"]) for rows in (ours, theirs))
    assert len(ours) == len(ids) == 12
    assert (vectors[order] == expected[other]).all()
    # What is there stays there when there is no room for more.
    with monkeypatch.context() as patch:
        patch.setattr(LanceMergeInsertBuilder, "execute", full_in_rust)
        with unharmed(out):
            refused("catalog", "add", out, home / "sketch", "--workers", 0, says=(out, "is full"))
    assert len(Catalog.open(out)) == 12


def test_search_and_check(cli_world: World, tmp_path: Path) -> None:
    home = cli_world.folder
    sheet, report = tmp_path / "hits.png", tmp_path / "report.json"
    sheet.write_bytes(b"older")
    search = ["search", home / "catalog", home / "sketch" / "test" / "cat" / "0.png", "--save", sheet]
    with unharmed(tmp_path, home):
        with failing_writes("hits.png"):
            refused(*search, says=(sheet, *FULL))
        with failing_writes("report.json"):
            refused("check", home / "photo", "--json", "--out", report, says=(report, *FULL), printed=True)
    works(*search)
    works("check", home / "photo", "--out", report)
    assert sheet.stat().st_size > 1000 and report.is_file()


def test_read_only_places(cli_world: World, tmp_path: Path) -> None:
    home, out = cli_world.folder, tmp_path / "out"
    run = home / "runs" / "syncdr"
    query = home / "sketch" / "test" / "cat" / "0.png"
    out.mkdir()
    with unharmed(tmp_path, home), read_only(tmp_path):
        for command in (
            cli_world.translate("photo", out=out),
            cli_world.translate("photo", out=out / "deep" / "er"),
            cli_world.train(out=out),
            cli_world.train(out=out / "deep" / "er"),
            ["evaluate", run, "--out", out / "scores.json"],
            ["index", run, home / "photo", "--out", out],
            ["index", run, home / "photo", "--out", out / "deep" / "er"],
            ["search", home / "catalog", query, "--save", out / "hits.png"],
        ):
            refused(*command, says=(out, "not writable", "choose another output folder"))


def test_a_read_only_run_can_be_measured_elsewhere(cli_world: World, tmp_path: Path) -> None:
    run = cli_world.folder / "runs" / "syncdr"
    with unharmed(run), read_only(run):
        refused("evaluate", run, says=(run, "not writable"))
        works("evaluate", run, "--bootstrap", 0, "--out", tmp_path / "scores.json")


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_a_file_in_the_way(cli_world: World, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    out, run = tmp_path / place, cli_world.folder / "runs" / "syncdr"
    with unharmed(tmp_path):
        for command in (cli_world.translate("photo", out=out), cli_world.train(out=out),
                        ["index", run, cli_world.folder / "photo", "--out", out]):  # fmt: skip
            refused(*command, says=(out, "file", "choose"))


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_rust(*_: Any, **__: Any) -> Any:
    # The words of LanceDB 0.30 on a full disk.
    raise RuntimeError(
        "lance error: LanceError(IO): Generic LocalFileSystem error: Unable to copy data to file: No space left on "
        "device (os error 28), /root/.cargo/registry/src/lance-io/src/object_writer.rs:499:41"
    )


def contents(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in snapshot(folder).items() if name != "manifest.parquet"}


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def log(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
