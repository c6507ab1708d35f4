"""Do the runs of a benchmark: one after the other, or several at once in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from isthmus.benchmark.jobs import Job, perform
from isthmus.benchmark.queue import Queue, Say, to_stderr
from isthmus.errors import IsthmusError
from isthmus.train.interrupt import Interrupted, StopRequest


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(jobs: Sequence[Job], *, processes: int = 1, say: Say = to_stderr) -> list[str]:
    """Do all runs that have no result yet.

    Args:
        jobs: in the order wanted.
        processes: how many at once; each gets its share of the cores.
        say: takes the lines of progress.

    Returns:
        Sentences about runs that failed; the others are done.

    Raises:
        IsthmusError: a result of other settings is in the way, or a process died.
        Interrupted: Ctrl-C or SIGTERM; what was finished is kept, a run under way goes on from its checkpoint.
    """
    queue = Queue(jobs, say)
    if processes < 1:
        raise IsthmusError(f"--jobs is {processes}; write 1 or more.")
    if processes == 1:
        while (job := queue.next()) is not None:
            queue.end(job, *attempt(job))
    elif queue.todo:
        _in_processes(queue, min(processes, len(queue.todo)), max(1, cores() // processes))
    return queue.failed


def attempt(job: Job) -> tuple[str, Any]:
    """Do a run: `("done", record)`, or `("failed", sentence)` where its data or settings won't do."""
    try:
        return "done", perform(job)
    except IsthmusError as error:
        return "failed", str(error)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Job | None = None


def _in_processes(queue: Queue, count: int, threads: int) -> None:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers: list[_Worker] = []
    try:
        with StopRequest() as stop:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, threads))
                process.start()
                theirs.close()
                workers.append(_Worker(process, ours))
            while True:
                if stop.number is not None:
                    _stop(workers)
                    raise Interrupted(f"Stopped; {queue.finished} of {queue.total} results are there.", stop.number)
                for worker in workers:
                    if worker.job is None and (job := queue.next()) is not None:
                        worker.job = job
                        with contextlib.suppress(OSError):  # of a dead process the pipe tells below
                            worker.pipe.send(job)
                busy = {worker.pipe: worker for worker in workers if worker.job is not None}
                if not busy:
                    break
                for pipe in wait(list(busy), timeout=0.5):
                    worker = busy[pipe]  # type: ignore[index]
                    job, worker.job = worker.job, None
                    assert job is not None
                    try:
                        outcome, value = worker.pipe.recv()
                    except EOFError:
                        raise IsthmusError(
                            f"The process that trained {job.name} died, perhaps for want of memory; run the same "
                            "command again, with fewer --jobs."
                        ) from None
                    if outcome == "broken":
                        raise RuntimeError(f"{job.name}: {value}")
                    queue.end(job, outcome, value)
    finally:
        _stop(workers)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.job is not None and worker.process.is_alive():
            worker.process.terminate()  # training takes it as a request, and saves
        worker.pipe.close()
    for worker in workers:
        worker.process.join()


def _serve(pipe: Connection, threads: int) -> None:
    """What a process does: runs, until the pipe is closed."""
    if hasattr(os, "setsid"):
        os.setsid()  # the terminal's Ctrl-C goes to the first process alone, which passes on one request
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = attempt(job)
        except Interrupted:
            return
        except Exception:
            answer = ("broken", traceback.format_exc())
        try:
            pipe.send(answer)
        except OSError:
            return


def _follow_parent() -> None:
    """Without its parent nobody would stop this process: ask it to save and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def lock(folder: Path) -> Any:
    """Hold a folder against a second benchmark, as long as the returned file is open.

    Raises:
        IsthmusError: another one works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / ".lock").open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise IsthmusError(f"Another benchmark works in {folder}; wait for it, or choose another --out.") from None
    except (ImportError, OSError):
        pass  # no locks on this system
    return file
