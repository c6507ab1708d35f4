"""Image files on the disk: their names, their bytes, and the folders that hold them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from isthmus.errors import IsthmusError

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
    )
)


class ImageError(IsthmusError):
    """An image that can't be used; the message names the file, the reason and the mend."""


def show_name(path: str | os.PathLike[str]) -> str:
    """A file name fit for one line of a message: as it is, or quoted and escaped when it holds control characters.

    Example:
        >>> show_name("a cat.png"), show_name("a\\ncat.png")
        ('a cat.png', "'a\\\\ncat.png'")
    """
    name = os.fspath(path)
    return name if name.isprintable() else repr(name)


def exists(path: str) -> bool:
    """Whether a file is there and can be reached; a folder that may not be entered is a no, not an error."""
    return os.path.exists(path)  # noqa: PTH110 - `Path.exists` raises there


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ImageError: the file can't be read.
    """
    with open_file(path, show_name(path)) as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def list_images(folder: str | Path) -> list[Path]:
    """All images under `folder`, by suffix, sorted by their relative path; hidden files and folders are left out.

    Links to folders are followed, each folder once. Links that lead nowhere are listed, so that they can be reported.

    Raises:
        IsthmusError: `folder` is missing, no folder or not readable.
    """
    top = Path(folder)
    if not top.is_dir():
        what = "is a file, not a folder" if top.exists() else "does not exist"
        raise IsthmusError(f"The folder {show_name(top)} {what}; check the path.")
    found: list[tuple[tuple[str, ...], Path]] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        name = show_name(error.filename or str(top))
        raise IsthmusError(f"The folder {name} can't be read ({error.strerror}); change its permissions.") from error

    for place, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        here = Path(place)
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = here / name
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES:
                found.append((path.relative_to(top).parts, path))
    return [path for parts, path in sorted(found, key=lambda item: "/".join(item[0]))]


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str], name: str) -> Iterator[BinaryIO]:
    """Open an ordinary, non-empty file; every `OSError`, in the block too, becomes an `ImageError` about `name`."""
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name} is a folder, not an image; name a file in it.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError(f"{name} is no ordinary file; name an image file.")
        if status.st_size == 0:
            raise ImageError(f"{name} is empty (0 bytes); fetch it again or remove it.")
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist; check the path.") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read; change its permissions.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(f"{name} can't be read ({error}); fetch it again or remove it.") from error
