"""Which run of a benchmark comes next, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.benchmark.jobs import HEAVY, Job, clear, clear_step_1
from isthmus.progress import clock

OVERHEAD = 10  # steps' worth of time that a run takes to start and to be measured
Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Queue:
    """Runs to do, in order; one that needs another waits until it is done.

    Args:
        jobs: in the order wanted. Those that are done are dropped, and steps 1 that no run needs any more.
        say: takes the lines of progress.

    Attributes:
        failed: sentences about runs that could not be done.
    """

    jobs: Sequence[Job]
    say: Say = to_stderr
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = [job for job in self.jobs if job.result is not None]
        self.total = len(rows)
        open_rows = []
        for job in rows:
            if job.done():
                clear(job, HEAVY)  # it may have been killed right after its result was written
            else:
                open_rows.append(job)
        wanted = {folder for job in open_rows for folder in job.needs.values()}
        open_steps = {job.run for job in self.jobs if job.result is None and job.run in wanted and not job.done()}
        names = {id(job) for job in open_rows}
        self.todo = [job for job in self.jobs if id(job) in names or (job.result is None and job.run in open_steps)]
        self.blocked = open_steps
        self.finished = self.total - len(open_rows)
        self._users = {path: {job.run for job in open_rows if path in job.needs.values()} for path in wanted}
        self._kept = {job.run for job in self.jobs if job.keep or job.lasting}
        self._weight = sum(job.steps + OVERHEAD for job in self.todo)
        self._done_weight = 0
        self._start = time.monotonic()

    def next(self) -> Job | None:
        """The first run that can begin; None where all that are left wait for others."""
        for position, job in enumerate(self.todo):
            if not self.blocked.intersection(job.needs.values()):
                return self.todo.pop(position)
        return None

    def end(self, job: Job, outcome: str, value: Any) -> None:
        """Take note of what became of a run."""
        self._done_weight += job.steps + OVERHEAD
        if outcome == "done":
            if job.result is None:
                self.blocked.discard(job.run)
            else:
                self.finished += 1
            self._tell(job, value)
        else:
            self.failed.append(f"{job.name}: {value}")
            self.say(f"FAILED {job.name}: {value}")
            if job.result is None:
                for lost in [other for other in self.todo if job.run in other.needs.values()]:
                    self.todo.remove(lost)
                    self._done_weight += lost.steps + OVERHEAD
                    self.failed.append(f"{lost.name}: its step 1 failed")
        for folder in set(job.needs.values()):
            self._users[folder].discard(job.run)
            if not self._users[folder] and folder not in self._kept:
                clear_step_1(folder)

    def _tell(self, job: Job, record: dict[str, Any]) -> None:
        passed = max(time.monotonic() - self._start, 1e-9)
        rate = self._done_weight / passed
        left = clock((self._weight - self._done_weight) / max(rate, 1e-9))
        shown = ""
        for side in record.get("sides", []):
            if side["setting"] == record["setting"]:
                metric = next(name for name in ("R@1", "mAP@all") if name in side["scores"])
                shown += f" {side['direction']} {metric} {side['scores'][metric]:.3f},"
        seconds = record.get("seconds", {}).get("wall", 0.0)
        self.say(f"[{self.finished}/{self.total}] {job.name}:{shown} {seconds:.0f} s; {rate:.2f} steps/s, {left} left")
