"""Marks of hits (right, wrong), kept on this machine where that is switched on.

A folder with `marks.jsonl`, a line for each mark in the order in which they came, and `queries/`, the images that were
searched with, named after their content. Nothing is stored about who marked, or when.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes, explain_os_errors, make_folder

MARKS = "marks.jsonl"
QUERIES = "queries"
LIMIT = 1 << 30  # bytes in the folder
_LINE = 64 << 10


@dataclass(frozen=True)
class Side:
    """One side of a mark: an image and where it is.

    Attributes:
        id: of the item; None for an image that somebody searched with.
        path: of the image; that of a query starts at the folder of the marks.
        content: SHA-256 of the file, in hexadecimal.
        domain: of the image; a query was searched as of this domain.
    """

    id: str | None
    path: str
    content: str
    domain: str


@dataclass(frozen=True)
class Mark:
    """Somebody said that an item is what a query looks for, or that it isn't.

    Attributes:
        query: what was searched with.
        item: the hit.
        right: what was said.
        model: fingerprint of the model that found it.
    """

    query: Side
    item: Side
    right: bool
    model: str

    def line(self) -> bytes:
        """The mark as a line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of(cls, values: Any) -> Mark:
        """A mark from its JSON; ValueError where it is none."""
        if not isinstance(values, dict) or not isinstance(values.get("right"), bool):
            raise ValueError("no mark")
        return cls(_side(values.get("query")), _side(values.get("item")), values["right"], str(values.get("model", "")))


class Full(Exception):
    """There is no more room for marks."""


class Feedback:
    """The writer of a folder of marks; for use by several threads.

    Args:
        folder: is made where it is missing.
        limit: bytes that it may hold.

    Raises:
        IsthmusError: it can't be written, or there is a file of that name.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = make_folder(folder).absolute(), limit
        self._lock = threading.Lock()
        self._used = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def query(self, image: bytes, domain: str) -> Side:
        """The image that was searched with (a PNG or JPEG file), as a side of a mark; nothing is written yet."""
        content = hashlib.sha256(image).hexdigest()
        suffix = ".png" if image.startswith(b"\x89PNG") else ".jpg"
        return Side(None, f"{QUERIES}/{content[:2]}/{content}{suffix}", content, domain)

    def keep(self, mark: Mark, image: bytes | None) -> None:
        """Store a mark and the image of its query; both are on the disk when this returns.

        Raises:
            Full: there is no room; nothing was written.
            IsthmusError: the disk can't be written.
        """
        line = mark.line()
        with self._lock:
            target = self.folder / mark.query.path
            new = image if image is not None and not target.is_file() else None
            size = len(line) + len(new or b"")
            if self._used + size > self.limit or len(line) > _LINE:
                raise Full
            if new is not None:  # first the image: a mark never speaks of one that isn't there
                atomic_write_bytes(target, new)
                _sync_folder(target.parent)
            self._used += size
            _append(self.folder / MARKS, line)


def read_marks(folder: Path) -> tuple[list[Mark], int]:
    """The marks of a folder, in order, and how many lines could not be read (one may be, after a crash).

    Raises:
        IsthmusError: there are no marks, or they can't be read.
    """
    path = folder / MARKS
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise IsthmusError(
            f"{folder} holds no marks ({MARKS}); name the folder that  isthmus serve  keeps feedback in."
        ) from None
    except OSError as error:
        raise IsthmusError(f"{path} can't be read ({error.strerror}); change its permissions.") from None
    marks: list[Mark] = []
    torn = 0
    for line in filter(None, lines):
        try:
            marks.append(Mark.of(json.loads(line)))
        except (ValueError, RecursionError):
            torn += 1
    return marks, torn


def _append(path: Path, line: bytes) -> None:
    """Add a line, whole or (at a crash in between) as a torn one that spoils no other."""
    with explain_os_errors(path):
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            if end:
                os.lseek(descriptor, end - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":
                    line = b"\n" + line
            if os.write(descriptor, line) != len(line):
                raise OSError(28, "the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # A new name is safe only when its folder is on the disk too; some systems can't open folders.
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _side(values: Any) -> Side:
    if not isinstance(values, Mapping):
        raise ValueError("no side of a mark")
    id, rest = values.get("id"), [values.get(name) for name in ("path", "content", "domain")]
    if not (id is None or isinstance(id, str)) or not all(isinstance(value, str) and value for value in rest):
        raise ValueError("no side of a mark")
    return Side(id, *map(str, rest))
