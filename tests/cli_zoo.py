"""The command line in-process, a little world to use it on, and what "refused without loss" means."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from training_zoo import INK, PAINT, draw
from typer.testing import CliRunner

from isthmus.cli.main import build

BACKBONE = "resnet10t"
CLASSES = ("cat", "dog")
STYLES = {"sketch": INK, "photo": PAINT}


@dataclass(frozen=True)
class World:
    """`sketch/` and `photo/`, each `train/` and `test/` of two classes; `made/` for translations, `runs/` for runs."""

    folder: Path

    def domain(self, name: str, path: Path | str | None = None) -> str:
        """`NAME=PATH` of a domain, of another path if given."""
        return f"{name}={path or self.folder / name}"

    def made(self, source: str) -> Path:
        """The folder of the translation of a domain."""
        return self.folder / "made" / source

    def translate(self, source: str, *more: Any, out: Path | None = None) -> list[str]:
        """The words of `isthmus translate` for one direction; later options win."""
        target = "photo" if source == "sketch" else "sketch"
        return words("translate", "--source", self.domain(source), "--target", target, "--set", "direction=lines",
                     "--workers", 0, "--out", out or self.made(source), *more)  # fmt: skip

    def train(self, *more: Any, method: str = "cds", out: Path | None = None) -> list[str]:
        """The words of `isthmus train` with two steps of a tiny network; later options win."""
        settings = {
            "model.dim": 8, "model.image_size": 32, "data.workers": 0, "train.epochs": 1, "train.steps_per_epoch": 2,
            "train.batch_size": 4, "train.accelerator": "cpu", "train.precision": "32-true",
        }  # fmt: skip
        synthetic = [x for source in STYLES for x in ("--synthetic", self.made(source))] if method == "syncdr" else []
        return words("train", "--method", method, "--backbone", BACKBONE, "--weights", "random", *synthetic,
                     "--query-domain", self.domain("sketch"), "--gallery-domain", self.domain("photo"),
                     *[x for key, value in settings.items() for x in ("--set", f"{key}={value}")],
                     "--out", out or self.folder / "runs" / method, *more)  # fmt: skip


def make_world(folder: Path, count: int = 4) -> World:
    """Drawn images, `count` of a class to train on and 2 to test with, in each domain."""
    for start, (domain, style) in enumerate(STYLES.items()):
        for split, images in (("train", count), ("test", 2)):
            for label_number, label in enumerate(CLASSES):
                for number in range(images):
                    path = folder / domain / split / label / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    draw(1000 * start + 100 * label_number + 10 * number + (split == "test"), style).save(path)
    return World(folder)


def make_ready(folder: Path) -> World:
    """A world with both translations, a SynCDR run in `runs/syncdr` and a catalog of the photos in `catalog`."""
    world = make_world(folder)
    for source in STYLES:
        works(*world.translate(source))
    works(*world.train(method="syncdr"))
    works("index", folder / "runs" / "syncdr", folder / "photo", "--out", folder / "catalog", "--workers", 0)
    return world


def words(*parts: Any) -> list[str]:
    """Arguments as the shell would hand them over."""
    return [os.fspath(part) if isinstance(part, Path) else str(part) for part in parts]


def call(*parts: Any) -> Result:
    """`isthmus PARTS` in this process."""
    return CliRunner().invoke(build(), words(*parts))


def works(*parts: Any) -> Result:
    """`isthmus PARTS`, which has to end well."""
    answer = call(*parts)
    assert answer.exit_code == 0, (parts, answer.output, answer.exception)
    return answer


def answer_of(*parts: Any) -> Any:
    """What `isthmus PARTS --json` prints."""
    return json.loads(works(*parts, "--json").stdout)


def refused(*parts: Any, says: tuple[Any, ...], alone: bool = True, printed: bool = False) -> str:
    """`isthmus PARTS` ends with 2 and one sentence that holds every text of `says`; returns the sentence.

    `alone`: nothing else stands on standard error, as befits what shows before any work begins; `printed`: there are
    results on standard output.
    """
    answer = call(*parts)
    lines = answer.stderr.splitlines()
    assert answer.exit_code == 2, (parts, answer.output, answer.exception)
    assert "Traceback" not in answer.output, answer.output
    assert lines and lines[-1].startswith("isthmus: "), answer.output
    assert len([line for line in lines if line.startswith("isthmus: ")]) == 1, lines
    if alone:
        assert len(lines) == 1, lines
    assert printed or answer.stdout == "", answer.stdout
    sentence = lines[-1].removeprefix("isthmus: ")
    for text in says:
        assert str(text) in sentence, (str(text), sentence)
    assert "bug in Isthmus" not in sentence
    return sentence


def misused(*parts: Any, says: str) -> None:
    """`isthmus PARTS` is no valid command line: usage, then one line that holds `says`; exit code 2."""
    answer = call(*parts)
    assert answer.exit_code == 2, (parts, answer.output)
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and says in last, answer.stderr
    assert "Traceback" not in answer.output and answer.stdout == ""


def snapshot(folder: Path) -> dict[str, str]:
    """Path -> hash of every file beneath `folder`, temporary and hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def unharmed(*folders: Path) -> Iterator[None]:
    """Within the block nothing beneath these folders comes, goes or changes; those that are missing stay missing."""
    before = [snapshot(folder) if folder.exists() else None for folder in folders]
    yield
    after = [snapshot(folder) if folder.exists() else None for folder in folders]
    assert after == before


@contextlib.contextmanager
def failing_writes(name: str, *, code: int = errno.ENOSPC, after: int = 0) -> Iterator[Callable[[], int]]:
    """Each write of a file or folder called `name` (a pattern) fails, after the first `after` of them went well.

    It is the last step of every atomic write that fails: the whole content has been produced by then. Yields a function
    that tells how many were refused.
    """
    refusals = 0
    seen = 0
    real = Path.replace

    def replace(source: Path, target: Any) -> Any:
        nonlocal refusals, seen
        if fnmatch.fnmatch(Path(target).name, name):
            seen += 1
            if seen > after:
                refusals += 1
                raise OSError(code, os.strerror(code), os.fspath(target))
        return real(source, target)

    def hardlink_to(self: Path, target: Any) -> None:
        if fnmatch.fnmatch(self.name, name):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(self))  # as where there are no links
        real_link(self, target)

    real_link = Path.hardlink_to
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "hardlink_to", hardlink_to)
        yield lambda: refusals


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Beneath `folder` nothing can be made: permission bits would not stop the superuser, who may run the tests."""
    real_open, real_mkdir = os.open, os.mkdir

    def refuse(path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and Path(path).absolute().is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return real_open(path, flags, *rest, **more)

    def mkdir(path: Any, *rest: Any, **more: Any) -> None:
        if not os.path.isdir(path):  # noqa: PTH112 - it is what `os.mkdir` is given
            refuse(path)
        real_mkdir(path, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_)
        patch.setattr(os, "mkdir", mkdir)
        yield
