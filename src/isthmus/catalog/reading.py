"""An image file as it is found, and who looks: this process, or others that embed it at the same time."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from isthmus.catalog.columns import check_text
from isthmus.catalog.embed import Vectors
from isthmus.data.images import content_hash, show_name
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.sync import Writer

RECENT = 2 * 10**9  # nanoseconds: a file this young may change again without a change of its time


@dataclass(frozen=True)
class Seen:
    """An image file as it was found.

    Attributes:
        row: the image.
        content: hash of the file.
        size: its bytes.
        mtime: its time of change in nanoseconds; 0 where that says nothing.
        fault: why the file could not be read; empty where it could.
        made: its vector, or why it has none, where whoever read the file has embedded it; else None.
    """

    row: Row
    content: str = ""
    size: int = 0
    mtime: int = 0
    fault: str = ""
    made: Vectors | str | None = None


class Reader(Protocol):
    """Reads the images of a `Writer` and gives all of them back, in parts of at most `isthmus.catalog.sync.PART`."""

    def __call__(self, writer: Writer) -> Generator[list[Seen], None, None]: ...


def look(row: Row, old: Mapping[str, Any] | None, thorough: bool = False) -> Seen | None:
    """What the catalog says of an image where size and time tell that its file is unchanged; None: it has to be read.

    Args:
        row: the image.
        old: its item, where the catalog has one.
        thorough: trust neither size nor time.
    """
    if old is None or thorough or old["path"] != row.path:
        return None
    try:
        size, mtime = _size_and_time(row.path)
    except (OSError, ValueError):
        return None
    return Seen(row, old["hash"], size, mtime) if mtime and (old["size"], old["mtime"]) == (size, mtime) else None


def read(row: Row) -> Seen:
    """Read and hash an image's file."""
    try:
        for text in (row.id, row.path, row.label or ""):
            check_text(text, "The image")
        # Before the content: a change in between has the next run read the file again.
        size, mtime = _size_and_time(row.path)
        return Seen(row, content_hash(row.path), size, mtime)
    except IsthmusError as error:
        return Seen(row, fault=str(error))
    except (OSError, ValueError):
        return Seen(row, fault=f"{show_name(row.path)} does not exist or may not be read; check the path.")


def _size_and_time(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    age = time.time_ns() - status.st_mtime_ns
    return status.st_size, status.st_mtime_ns if age > RECENT else 0
