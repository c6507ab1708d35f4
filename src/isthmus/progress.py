"""Progress of long work: how far, how fast, how much longer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
QUIET_SECONDS = 30.0  # a log file wants a line now and then, not a bar


def clock(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `3 min 20 s`, `2 h 05 min`.

    Example:
        >>> clock(200)
        '3 min 20 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate_text(rate: float) -> str:
    """Units a second as people read them: a diffusion model's rate is not 0.0.

    Example:
        >>> rate_text(123.4), rate_text(2.54), rate_text(0.0213)
        ('123', '2.5', '0.021')
    """
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 or rate <= 0 else f"{rate:.2g}"


def track(items: Iterable[T], total: int, what: str, unit: str = "images", per_item: int = 1) -> Iterator[T]:
    """Yield `items` and show progress on standard error, with rate and time left.

    Args:
        items: anything iterable.
        total: how many units there are in all.
        what: what is being done, such as `"embedding"`.
        unit: what is counted.
        per_item: units that one item stands for at most (a batch of 64 images: 64).
    """
    if sys.stderr.isatty():
        yield from _bar(items, total, what, unit, per_item)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(total, done + per_item)
        now = time.monotonic()
        if now - last >= QUIET_SECONDS and done:
            last = now
            rate = done / (now - start)
            left = clock((total - done) / rate)
            print(
                f"{what}: {done}/{total} {unit}, {rate_text(rate)} {unit}/s, {left} left", file=sys.stderr, flush=True
            )


def _bar(items: Iterable[T], total: int, what: str, unit: str, per_item: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")
        done = 0
        for item in items:
            yield item
            done = min(total, done + per_item)
            rate = done / max(time.monotonic() - start, 1e-9)
            progress.update(task, completed=done, rate=f"{rate_text(rate)} {unit}/s")
