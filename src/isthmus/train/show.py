"""What training shows while it runs: progress, rate and time left, and a line an epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

from isthmus.progress import QUIET_SECONDS, clock


class Display:
    """A live line on a terminal, a line now and then in a log file; silent where it is not active."""

    def __init__(self, active: bool, epochs: int) -> None:
        self.active, self.epochs = active, epochs
        self.live = active and sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def say(self, text: str) -> None:
        """One line."""
        if self.active:
            self._clear()
            print(text, file=sys.stderr, flush=True)

    def step(self, epoch: int, step: int, steps: int, done: int, total: int, loss: float) -> None:
        """After each step; shown at most ten times a second."""
        if not self.active:
            return
        now = time.monotonic()
        if self._first is None:
            # The first step carries start-up costs: the rate is counted from its end.
            self._first, self._start = done, now
            return
        if now - self._last < (0.1 if self.live else QUIET_SECONDS):
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        text = (
            f"epoch {epoch}/{self.epochs}, step {step}/{steps}, loss {loss:.3f}, {rate:.2f} steps/s, "
            f"{clock((total - done) / max(rate, 1e-9))} left"
        )
        print(f"\r\x1b[2K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def epoch(self, record: dict[str, Any], *, chosen: bool) -> None:
        """The figures of an epoch in one line."""
        names = (
            "loss",
            "accuracy",
            "val/Prec@1",
            "val/mAP@all",
            "snd",
            "mutual_nn",
            "counterpart_r1",
            "effective_rank",
        )
        shown = [f"{name.removeprefix('val/')} {record[name]:.3f}" for name in names if name in record]
        mark = "  <- best so far" if chosen and record["epoch"] else ""
        if shown:
            self.say(f"epoch {record['epoch']}: " + ", ".join(shown) + mark)

    def _clear(self) -> None:
        if self.live:
            print("\r\x1b[2K", end="", file=sys.stderr)

    def close(self) -> None:
        """Leave a clean line behind."""
        self._clear()
