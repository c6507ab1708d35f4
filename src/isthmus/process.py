"""What a process is told before it computes on a CPU: to keep freed memory, and to wait for its threads awake.

**Memory.** A network allocates and frees the same large tensors at each step. The GNU C library hands blocks of more
than 32 MB back to the system each time, and whatever lies at the top of its heap; the next step gets them anew, page by
page, each page zeroed. A forward pass of MobileNetV2 with 64 photos then spends two thirds of its time in the kernel.
Told to keep what was freed, the process has the same peak and stays there.

**Threads.** OpenMP's threads wait for the next part of the work awake for a while, but give up at once where it counts
more threads than cores; so it does as soon as a second thread of the program computes, as in a service.

Measured on two cores (MobileNetV2, 224 px): 64 images 31 -> 136 images a second, one image in a service's thread
27 -> 60 (`benchmarks/process.py`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

KEEP = "ISTHMUS_KEEP_MEMORY"
#: mallopt's names for: hand back from the top of the heap, from which size on a block stands alone, pools for threads.
_TRIM, _ALONE, _POOLS = -1, -3, -8
_MOST = 2**31 - 1  # of bytes, as mallopt takes an int
_SPINS = 50_000  # half a millisecond: enough between two layers, and what comes next has the core soon


@functools.cache
def keep_memory() -> bool:
    """Have the C library keep what is freed, for this process's next tensors; the first call does it, others nothing.

    The command line, `isthmus.load` and the trainer call it. It changes nothing where the GNU C library is not in use,
    where its settings or another allocator are named in the environment (`MALLOC_...`, `GLIBC_TUNABLES`,
    `LD_PRELOAD`), or with `ISTHMUS_KEEP_MEMORY=0`.

    Returns:
        Whether it is so now.

    Example:
        >>> keep_memory() == keep_memory()
        True
    """
    if os.environ.get(KEEP, "1").lower() in ("0", "no", "off", "false") or _chosen_by_others():
        return False
    library = _glibc()
    if library is None:
        return False
    # One pool: those of other threads hold blocks of 64 MB at most, and would ask the system for what is larger.
    return all(library.mallopt(name, value) for name, value in ((_ALONE, _MOST), (_TRIM, _MOST), (_POOLS, 1)))


def release_memory() -> None:
    """Give what was kept, and is not in use, back to the system: after work that took much and won't come again."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def wait_awake() -> None:
    """Have OpenMP's threads stay awake between two parts of the work; before torch is imported, else it does nothing.

    For a service, whose model computes in a thread of its own: a single image takes less than half as long.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


def _chosen_by_others() -> bool:
    named = any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ)
    preloaded = os.environ.get("LD_PRELOAD", "")
    return named or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or "malloc" in preloaded


@functools.cache
def _glibc() -> Any:
    """The GNU C library of this process; None elsewhere, as musl's and macOS's have other ways."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (looked up: it is there, or it is another library)
    except (OSError, AttributeError):
        return None
    return library
