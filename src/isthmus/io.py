"""Files that are whole or absent: atomic writes, and the hashes that tie things together."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError


@contextlib.contextmanager
def explain_os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            reason = "the disk is full; free some space and run the same command again, finished work is kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "the place is not writable; choose another output folder or change its permissions"
        elif error.errno == errno.EISDIR:
            reason = "a folder of that name is in the way; choose another name"
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            reason = "a file stands where a folder is needed; choose another output folder"
        else:
            reason = error.strerror or str(error)
        raise IsthmusError(f"Could not write {path}: {reason}.") from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create `path` and its parents, and check that it can be written to."""
    folder = Path(path)
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A permission bit says little (root, read-only mounts): only a real write tells.
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new, also after a crash."""
    target = Path(path)
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """`atomic_write_bytes` for UTF-8 text."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | os.PathLike[str], value: Any) -> None:
    """`atomic_write_bytes` for JSON, indented and with a closing newline."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a missing or broken one is an `IsthmusError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IsthmusError(f"There is no file {path}; check the path.") from None
    except (OSError, ValueError) as error:
        raise IsthmusError(f"{path} can't be read as JSON ({error}); restore it or make it anew.") from error


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder that takes the place of `path` when the block ends well, and vanishes otherwise.

    An older folder at `path` is moved aside first and removed last, so that at each moment one whole folder exists.
    """
    target = Path(path)
    with explain_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        yield scratch
        with explain_os_errors(target):
            scratch.chmod(0o755)
            old = target.with_name(f".{target.name}.old")
            if old.exists():
                shutil.rmtree(old)
            if target.exists():
                target.replace(old)
            scratch.replace(target)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def stable_hash(*parts: str | int) -> int:
    """A 63-bit non-negative hash that is the same in every process, on every machine.

    Example:
        >>> stable_hash("photo/cat.png", 0) == stable_hash("photo/cat.png", 0)
        True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "little") >> 1
