"""Who is at work in a run's folder: several processes and machines may be, and only the last one sweeps up.

The signs are file locks, which the operating system takes back when a process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.translate.outputs import FAILED, IMAGES

fcntl: Any
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

PATIENCE = 10.0  # seconds: a worker that was told to end has done so by then, also on a busy machine
OLD = 24 * 3600.0  # seconds: nobody writes one file for so long
TABLE_LOCK = ".table.lock"


@contextlib.contextmanager
def at_work(sign: Path) -> Iterator[None]:
    """Hold a lock on the file `sign` that others may hold as well, so that `alone` can tell."""
    with _locked(sign, os.O_RDONLY, exclusive=False, patience=None):
        yield


def stay_at_work(sign: Path) -> None:
    """`at_work` for as long as this process lives."""
    with contextlib.suppress(OSError):
        _take(os.open(sign, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)), exclusive=False, patience=None)


@contextlib.contextmanager
def alone(sign: Path) -> Iterator[bool]:
    """Whether nobody is `at_work` any more; they have to wait while the block runs. False also where locks fail."""
    with _locked(sign, os.O_RDWR, exclusive=True, patience=PATIENCE) as held:
        yield held


@contextlib.contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Wait until no other process is within such a block for the folder `out`."""
    with _locked(out / TABLE_LOCK, os.O_RDWR | os.O_CREAT, exclusive=True, patience=None):
        yield


def sweep(out: Path, sign: Path) -> None:
    """Remove the hidden temporary files of killed processes from `out`, but none that somebody is about to use."""
    with alone(sign) as nobody_else:
        for leftover in _leftovers(out):
            with contextlib.suppress(OSError):
                # Where locks don't work, as on some network file systems, age has to do.
                if nobody_else or time.time() - leftover.stat().st_mtime > OLD:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _leftovers(out: Path) -> Iterator[Path]:
    yield from out.glob(".*.tmp")
    for folder in (out / IMAGES, out / FAILED):
        yield from folder.rglob(".*.tmp")


@contextlib.contextmanager
def _locked(path: Path, flags: int, *, exclusive: bool, patience: float | None) -> Iterator[bool]:
    """Whether the lock was got within `patience` seconds; None waits as long as it takes."""
    try:
        descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError:
        yield False
        return
    try:
        yield _take(descriptor, exclusive, patience)
    finally:
        os.close(descriptor)


def _take(descriptor: int, exclusive: bool, patience: float | None) -> bool:
    if fcntl is None:
        return False
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind if deadline is None else kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return False
