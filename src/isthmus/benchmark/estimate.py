"""What a benchmark will take, from a few measured steps of each kind of run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isthmus.benchmark.jobs import Job
from isthmus.benchmark.queue import Queue
from isthmus.plan import Plan
from isthmus.train.estimate import estimate

RESULT = 12_000  # bytes of a result with its log and settings


def estimate_jobs(
    jobs: Sequence[Job],
    processes: int,
    *,
    what: str = "ihda-ablation",
    kind: Callable[[Job], tuple[Any, ...]] | None = None,
    one: Callable[[Job], Plan] = lambda job: estimate(job.config),
) -> Plan:
    """Time, memory and disk of the runs that have no result yet.

    Args:
        jobs: all runs.
        processes: how many at once; they are taken to share the cores without loss.
        what: the benchmark's name.
        kind: what runs of one speed have in common; its first part names it.
        one: measures a run.
    """
    todo = Queue(jobs, say=lambda _: None).todo
    kinds: dict[tuple[Any, ...], Plan] = {}
    seconds = 0.0
    for job in todo:
        alike = (kind or _ihda)(job)
        if alike not in kinds:
            kinds[alike] = one(job)
        measured = kinds[alike]
        seconds += measured.seconds * job.steps / measured.units if measured.units else measured.seconds
    weights = max((plan.disk for plan in kinds.values()), default=0)
    waiting = len({folder for job in todo for folder in job.needs.values()})
    rows = sum(job.result is not None for job in todo)
    probes = {alike[0]: plan.probe for alike, plan in reversed(kinds.items())}
    speed = "; ".join(f"{name}: {probe}" for name, probe in reversed(probes.items()))
    return Plan(
        what=f"benchmark {what}, {processes} at once",
        units=rows,
        unit=f"results from {len(todo)} runs",
        seconds=seconds / processes,
        memory=processes * max((plan.memory for plan in kinds.values()), default=0),
        disk=processes * weights + waiting * weights // 4 + len(todo) * RESULT,
        probe=speed or "nothing is left to do",
    )


def _ihda(job: Job) -> tuple[Any, ...]:
    settings, method = job.config.ihda, job.config.method
    joint = bool(settings.source_identity_weight)
    return settings.stages if method == "ihda" else method, method, job.config.data.source is not None, joint
