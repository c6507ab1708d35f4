"""Batches through one process or several, and an orderly stop in between."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import FrameType

from isthmus.errors import IsthmusError
from isthmus.translate.base import translator_class
from isthmus.translate.work import (
    Done,
    Item,
    Job,
    Loaded,
    load_batch,
    run_batch,
    start_worker,
    translate_batch,
    work,
    write_batch,
)

Batch = Sequence[Item]
SMALL_JOB = 96  # images: below, starting processes takes longer than the work


def default_workers(job: Job, images: int) -> int:
    """How many worker processes a run takes when nobody says; 0 is the main process alone."""
    if not translator_class(job.choice.name).independent or images < SMALL_JOB:
        return 0
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count if count > 1 else 0


def run_batches(batches: Sequence[Batch], job: Job, workers: int) -> Iterator[Done]:
    """Do `batches` and yield what became of each, in the order in which they are finished."""
    if workers == 0 or not translator_class(job.choice.name).independent:
        yield from _here(batches, job)
    else:
        yield from _in_processes(batches, job, workers)


def _here(batches: Sequence[Batch], job: Job) -> Iterator[Done]:
    """One process; reading the next batch and writing the last one overlap with the model where that helps."""
    translator = job.choice.build()
    if translator_class(job.choice.name).independent:
        for batch in batches:
            yield run_batch(batch, job, translator)
        return
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading: Future[Loaded] | None = reader.submit(load_batch, batches[0], job) if batches else None
        writing: Future[Done] | None = None
        for place in range(len(batches)):
            assert reading is not None
            loaded = reading.result()
            reading = reader.submit(load_batch, batches[place + 1], job) if place + 1 < len(batches) else None
            pictures = translate_batch(loaded, job, translator)
            if writing is not None:
                yield writing.result()
            writing = writer.submit(write_batch, loaded, pictures, job)
        if writing is not None:
            yield writing.result()


def _in_processes(batches: Sequence[Batch], job: Job, workers: int) -> Iterator[Done]:
    # Spawned, not forked: a fork of a process with threads (a test runner, a notebook) can hang.
    context = multiprocessing.get_context("spawn")
    count = max(1, min(workers, len(batches)))
    with _single_threaded():
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=start_worker, initargs=(job,))
        waiting: set[Future[Done]] = set()
        todo = iter(batches)
        try:
            while True:
                # Few in flight: an orderly stop waits for them.
                while len(waiting) < 2 * count and (batch := next(todo, None)) is not None:
                    waiting.add(pool.submit(work, batch))
                if not waiting:
                    break
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool as error:
            raise IsthmusError(
                "A worker process died, most likely for lack of memory: run the same command again with fewer "
                "--workers; finished images are kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers share the cores among themselves: no numeric library may take them all again."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM (a scheduler's or container's "please end") stops like Ctrl-C within the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
