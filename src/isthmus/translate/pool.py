"""Batches through one process or several of this machine, and an orderly stop in between."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from isthmus.errors import IsthmusError
from isthmus.translate.base import TRANSLATORS, Samples, Translator, TranslatorChoice, choose, translator_class
from isthmus.translate.presence import stay_at_work
from isthmus.translate.record import SETTINGS
from isthmus.translate.work import (
    Done,
    Item,
    Job,
    Loaded,
    load_batch,
    run_batch,
    translate_batch,
    write_batch,
)

Batch = Sequence[Item]
SMALL_JOB = 96  # images: below, starting processes takes longer than the work
UNGUARDED = 78  # exit code of a worker that found itself running the script which started it
RERUN = (
    "A worker process runs your script anew up to the call that started it: put what the script does under "
    "if __name__ == '__main__':  or pass workers=0."
)
NO_SCRIPT = "Worker processes can't be started from a script on standard input: save it to a file, or pass workers=0."


class Crew(Protocol):
    """Whoever does the batches: processes of this machine, or a cluster."""

    def choose(self, name: str, settings: Mapping[str, Any], samples: Samples) -> TranslatorChoice:
        """`isthmus.translate.base.choose` on a machine that is like those which do the work."""
        ...

    def processes(self, name: str, images: int) -> int:
        """How many processes will share so many images among them; 0 is this one alone."""
        ...

    def run(self, batches: Sequence[Batch], job: Job) -> Iterator[Done]:
        """Do `batches` and yield what became of each, in the order in which they are finished."""
        ...


@dataclass(frozen=True)
class Local:
    """This machine. `workers`: processes of an independent translator, None for as many as make sense."""

    workers: int | None = None

    def choose(self, name: str, settings: Mapping[str, Any], samples: Samples) -> TranslatorChoice:
        """Here."""
        return choose(name, settings, samples)

    def processes(self, name: str, images: int) -> int:
        """0 for few images, on one core, and for models: those take all cores themselves."""
        if not translator_class(name).independent:
            return 0
        if self.workers is not None:
            return self.workers
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return count if count > 1 and images >= SMALL_JOB and _startable() else 0

    def run(self, batches: Sequence[Batch], job: Job) -> Iterator[Done]:
        """In this process or in workers."""
        workers = self.processes(job.choice.name, sum(len(batch) for batch in batches))
        return _in_processes(batches, job, workers) if workers else run_here(batches, job, job.choice.build())


def run_here(batches: Iterable[Batch], job: Job, translator: Translator) -> Iterator[Done]:
    """One process; reading the next batch and writing the last one overlap with the model where that helps."""
    if translator_class(job.choice.name).independent:
        for batch in batches:
            yield run_batch(batch, job, translator)
        return
    todo = iter(batches)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def read() -> Future[Loaded] | None:
            batch = next(todo, None)
            return None if batch is None else reader.submit(load_batch, batch, job)

        reading = read()
        writing: Future[Done] | None = None
        while reading is not None:
            loaded = reading.result()
            reading = read()
            pictures = translate_batch(loaded, job, translator)
            if writing is not None:
                yield writing.result()
            writing = writer.submit(write_batch, loaded, pictures, job)
        if writing is not None:
            yield writing.result()


def _in_processes(batches: Sequence[Batch], job: Job, workers: int) -> Iterator[Done]:
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # Quietly: the process that started this one says what is wrong.
        os._exit(UNGUARDED)
    if not _startable():
        raise IsthmusError(NO_SCRIPT)
    # Spawned, not forked: a fork of a process with threads (a test runner, a notebook) can hang.
    context = multiprocessing.get_context("spawn")
    count = max(1, min(workers, len(batches)))
    before = set(multiprocessing.active_children())
    started: set[BaseProcess] = set()
    with _single_threaded():
        arguments = (job, TRANSLATORS[job.choice.name])
        pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=arguments)
        waiting: set[Future[Done]] = set()
        todo = iter(batches)
        try:
            while True:
                # Few in flight: an orderly stop waits for them.
                while len(waiting) < 2 * count and (batch := next(todo, None)) is not None:
                    waiting.add(pool.submit(work, batch))
                if not waiting:
                    break
                started.update(set(multiprocessing.active_children()) - before)
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BrokenProcessPool as error:
            pool.shutdown(wait=True, cancel_futures=True)
            raise IsthmusError(_why_it_died([process.exitcode for process in started])) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Job, Translator] | None = None


def start_worker(job: Job) -> None:
    """Make this worker process ready: its own translator, no say in Ctrl-C, and an end when its parent ends."""
    global _worker
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent can't say goodbye, and an orphan would wait for work for ever.
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _worker = (job, job.choice.build())


def _end_with(parent: int) -> None:
    from multiprocessing.connection import wait

    wait([parent])
    os._exit(1)


def work(batch: Sequence[Item]) -> Done:
    """`run_batch` in a worker process."""
    if _worker is None:
        raise RuntimeError("start_worker has not run in this process")
    return run_batch(batch, *_worker)


def _start(job: Job, place: str) -> None:
    """`start_worker` with a translator that may be known to the parent's table only, and a sign of presence."""
    TRANSLATORS[job.choice.name] = place
    start_worker(job)
    stay_at_work(job.out / SETTINGS)


def _startable() -> bool:
    """Whether a spawned process could read the main script, as it will try to."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return path is None or Path(path).exists()


def _why_it_died(codes: Sequence[int | None]) -> str:
    if UNGUARDED in codes:
        return RERUN
    if 0 in codes or 1 in codes:
        return "A worker process ended with the error above; finished images are kept."
    return (
        "A worker process died, most likely for lack of memory: run the same command again with fewer "
        "--workers; finished images are kept."
    )


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers share the cores among themselves: no numeric library may take them all again."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    with environment(dict.fromkeys(names, "1")):
        yield


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
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
