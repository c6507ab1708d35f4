"""Estimates of time, memory and disk from a short measured probe, before the work starts."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from isthmus.progress import clock


def size(count: float) -> str:
    """Bytes as people say them.

    Example:
        >>> size(3_500_000)
        '3.5 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@dataclass(frozen=True)
class Plan:
    """What a job will take.

    Attributes:
        what: the job, such as `"translate"`.
        units: how many units of work there are.
        unit: what a unit is, such as `"images"`.
        seconds: estimated wall time.
        memory: estimated peak resident memory in bytes.
        disk: bytes that will be written.
        probe: what was measured, in words.
    """

    what: str
    units: int
    unit: str
    seconds: float
    memory: int
    disk: int
    probe: str

    def text(self) -> str:
        """The plan as the command line prints it."""
        return (
            f"{self.what}: {self.units} {self.unit}, about {clock(self.seconds)}, "
            f"{size(self.memory)} of memory, {size(self.disk)} of disk (measured: {self.probe})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        return asdict(self)


def measure(step: Callable[[], object], *, warmup: int = 1, repeats: int = 3, limit: float = 10.0) -> float:
    """Median seconds of one call of `step`, after `warmup` calls; stops repeating after `limit` seconds.

    Example:
        >>> measure(lambda: None) < 0.1
        True
    """
    for _ in range(warmup):
        step()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < repeats and (not times or time.perf_counter() - began < limit):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
