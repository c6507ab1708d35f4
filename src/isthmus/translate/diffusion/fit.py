"""How many images at a time: found by trying."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isthmus.plan import peak_memory
from isthmus.translate.diffusion.explain import out_of_memory

GAIN = 1.05  # a batch twice as large has to bring this, or memory is spent for nothing
LARGEST = 64
SPARE = 0.8  # share of the free memory that may be used: other programs, fragmentation
SHORT = 0.5  # seconds: shorter trials are repeated, as one time says little
REPEATS = 3


@dataclass(frozen=True)
class Trial:
    """What was found.

    Attributes:
        size: images at a time.
        rates: (images at a time, images a second) as measured.
        stopped: why no larger batch was tried or taken.
    """

    size: int
    rates: tuple[tuple[int, float], ...]
    stopped: str

    def sentence(self) -> str:
        """For a run's notes."""
        rates = ", ".join(f"{size}: {rate:.3g}" for size, rate in self.rates)
        return f"Batch size {self.size}, found by trying ({self.stopped}); images/s by batch size: {rates}."


def find_batch_size(
    run: Callable[[int], None],
    device: str,
    *,
    largest: int = LARGEST,
    free: Callable[[], int | None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Trial:
    """Try 1, 2, 4, ... images at a time, and take the fastest that fits.

    It stops when memory runs out, would run out (extrapolated from what the trial before took; for memory of the CPU,
    where running out ends the process), or when twice the batch is less than 5 % faster.

    Args:
        run: does one batch of so many images, as the run will.
        device: "cuda", "mps" or "cpu".
        largest: not more than this.
        free: bytes that are free; None: asked of the machine.
        clock: seconds.

    Raises:
        Exception: what `run(1)` raises, out of memory included: nothing fits then.

    Example:
        >>> find_batch_size(lambda size: time.sleep(0.01), "cpu", largest=4).size
        4
    """
    free = free or (free_memory if device != "cuda" else (lambda: None))
    rates: list[tuple[int, float]] = []
    size, best = 1, 0
    peaks = [current_memory()]  # without an image, with 1, 2, 4, ...
    while True:
        there = free()
        if len(peaks) > 1 and there is not None:
            # Memory grows in line with the batch: from n to 2n by twice what it grew from n/2 to n.
            growth = (peaks[-1] - peaks[-2]) * (1 if len(peaks) == 2 else 2)
            if peaks[-1] + growth - current_memory() > SPARE * there:
                stopped = f"{size} would need more memory than is free"
                break
        try:
            with watch_memory() as peak:
                rate = _rate(run, size, device, clock)
        except Exception as error:
            _release(device)
            if not out_of_memory(error) or size == 1:
                raise
            stopped = f"memory runs out at {size}"
            break
        peaks.append(max(peak[0], peaks[-1]))
        rates.append((size, rate))
        if best and rate < GAIN * rates[-2][1]:
            stopped = f"{size} is hardly faster"
            break
        best = size
        if 2 * size > largest:
            stopped = "larger ones were not tried"
            break
        size *= 2
    _release(device)
    return Trial(best, tuple(rates), stopped)


def _rate(run: Callable[[int], None], size: int, device: str, clock: Callable[[], float]) -> float:
    """Images a second: the best of up to three times; on CUDA the first one also prepares kernels and doesn't count."""
    if device != "cpu":
        run(size)
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < SHORT:
        began = clock()
        run(size)
        times.append(clock() - began)
    return size / max(min(times), 1e-9)


def _release(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def current_memory() -> int:
    """Resident bytes of this process now; the peak so far where the system doesn't say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return peak_memory()


@contextmanager
def watch_memory() -> Iterator[list[int]]:
    """The highest resident memory within the block, in a list of one."""
    peak, done = [current_memory()], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], current_memory())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak[0] = max(peak[0], current_memory())


def free_memory() -> int | None:
    """Bytes that this process may still take, a container's limit included; None where the system doesn't say."""
    if not sys.platform.startswith("linux"):
        return None
    there: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        there += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            there.append(max(0, int(Path(limit).read_text()) - int(Path(used).read_text())))
        except (OSError, ValueError):
            continue  # no such limit, or it says "max"
    return min(there) if there else None
