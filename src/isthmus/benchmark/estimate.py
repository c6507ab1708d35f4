"""What a benchmark will take, from a few measured steps of each kind of run."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.benchmark.jobs import Job
from isthmus.benchmark.queue import Queue
from isthmus.plan import Plan
from isthmus.train.estimate import estimate

RESULT = 12_000  # bytes of a result with its log and settings


def estimate_jobs(jobs: Sequence[Job], processes: int) -> Plan:
    """Time, memory and disk of the runs that have no result yet.

    Args:
        jobs: all runs.
        processes: how many at once; they are taken to share the cores without loss.
    """
    todo = Queue(jobs, say=lambda _: None).todo
    kinds: dict[tuple[str, str, bool, bool], Plan] = {}
    seconds = 0.0
    for job in todo:
        settings = job.config.ihda
        joint = bool(settings.source_identity_weight)
        kind = (job.config.method, settings.stages, job.config.data.source is not None, joint)
        if kind not in kinds:
            kinds[kind] = estimate(job.config)
        measured = kinds[kind]
        seconds += measured.seconds * job.steps / measured.units if measured.units else measured.seconds
    weights = max((plan.disk for plan in kinds.values()), default=0)
    waiting = len({job.needs for job in todo if job.needs is not None})
    rows = sum(job.result is not None for job in todo)
    speed = "; ".join(f"{kind[1] if kind[0] == 'ihda' else kind[0]}: {plan.probe}" for kind, plan in kinds.items())
    return Plan(
        what=f"benchmark ihda-ablation, {processes} at once",
        units=rows,
        unit=f"results from {len(todo)} runs",
        seconds=seconds / processes,
        memory=processes * max((plan.memory for plan in kinds.values()), default=0),
        disk=processes * weights + waiting * weights // 4 + len(todo) * RESULT,
        probe=speed or "nothing is left to do",
    )
