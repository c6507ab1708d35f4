"""Images of several requests through the model together: a bounded queue, a deadline, and nobody fails for another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from PIL import Image

from isthmus.catalog.embed import Vectors
from isthmus.serve.errors import ApiError, busy

Encode = Callable[[Sequence[Image.Image], str], Sequence[Vectors | Exception]]
CROWD = 0.05  # seconds: requests that came together are answered together, and their clients soon ask again


@dataclass(frozen=True)
class Embedded:
    """A vector (dim,), and the seconds that the model took for the batch it was in."""

    vector: Vectors
    seconds: float


@dataclass(eq=False)
class _Job:
    image: Image.Image
    domain: str
    answer: asyncio.Future[Embedded]


class Batcher:
    """Collects images and embeds those of one domain together.

    While the model is at work, what comes in waits and becomes the next batch. So a lone request is never held back;
    only in a crowd a batch waits for `wait` seconds to fill up.

    Args:
        encode: images of one domain -> for each its vector, or what is wrong with it; called in `pool`.
        pool: a pool of one thread, so that batches don't compete for the same cores.
        queue: images that may wait; one more is refused.
        pixels: likewise of all that wait; a single one may be larger.
        batch: images in a batch, at most.
        wait: seconds, see above.
        deadline: seconds an image may take from its arrival to its vector.
        done: told of each batch: its size and the seconds it took.
    """

    def __init__(
        self,
        encode: Encode,
        pool: Executor,
        *,
        queue: int,
        pixels: int,
        batch: int,
        wait: float,
        deadline: float,
        done: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._encode, self._pool, self._done = encode, pool, done
        self.queue, self.pixels, self.batch, self.wait, self.deadline = queue, pixels, batch, wait, deadline
        self._waiting: list[_Job] = []
        self._closed = False
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = asyncio.Event()
        self._crowded = float("-inf")

    @property
    def depth(self) -> int:
        """How many images wait; those that the model has at work are not among them."""
        return len(self._waiting)

    async def embed(self, image: Image.Image, domain: str) -> Embedded:
        """The image's vector.

        A caller that is cancelled takes its image out of the queue.

        Raises:
            ApiError: 429 where the queue is full, 504 after the deadline, 503 after `close`.
            Exception: what the model says of this image.
        """
        if self._closed:
            raise ApiError(503, "not_ready", "The service is stopping; try again in a moment.")
        pixels = sum(_pixels(job.image) for job in self._waiting)
        if len(self._waiting) >= self.queue or (pixels and pixels + _pixels(image) > self.pixels):
            raise busy(f"{len(self._waiting)} searches wait already")
        self._run()
        job = _Job(image, domain, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._came.set()
        try:
            await asyncio.wait({job.answer}, timeout=self.deadline)
            if not job.answer.done():
                raise ApiError(504, "timeout", f"The search was not done within {self.deadline:g} s; try again later.")
            return job.answer.result()
        finally:
            job.answer.cancel()
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)

    async def close(self) -> None:
        """Refuse what is new, and return when what was accepted is answered."""
        self._closed = True
        self._came.set()
        if self._worker is not None and self._loop is asyncio.get_running_loop():
            await self._worker

    def _run(self) -> None:
        """Start the worker; anew where the loop is another, as in tests that make one for each call."""
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.done() or self._loop is not loop:
            self._loop, self._came = loop, asyncio.Event()
            self._worker = loop.create_task(self._work())

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                if self._closed:
                    return
                self._came.clear()
                await self._came.wait()
                continue
            await self._fill()
            jobs = self._next()
            try:
                await self._answer(jobs)
            except Exception as error:  # a fault here must neither leave them waiting nor end the worker
                for job in jobs:
                    if not job.answer.done():
                        job.answer.set_exception(error)

    async def _fill(self) -> None:
        """In a crowd, give a batch that is not full the time to become so."""
        until = time.monotonic() + self.wait
        if self._closed or until - self.wait - self._crowded > CROWD:
            return
        while 0 < len(self._waiting) < self.batch and (left := until - time.monotonic()) > 0:
            self._came.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), left)

    def _next(self) -> list[_Job]:
        """The oldest that waits and others of its domain, in the order they came."""
        if not self._waiting:
            return []
        domain = self._waiting[0].domain
        jobs = [job for job in self._waiting if job.domain == domain][: self.batch]
        self._waiting = [job for job in self._waiting if job not in jobs]
        return [job for job in jobs if not job.answer.done()]

    async def _answer(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        start = time.perf_counter()
        results = await self._results([job.image for job in jobs], jobs[0].domain)
        seconds = time.perf_counter() - start
        self._done(len(jobs), seconds)
        if len(jobs) > 1:
            self._crowded = time.monotonic()
        for job, result in zip(jobs, results, strict=True):
            if job.answer.done():  # its caller has gone
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(Embedded(result, seconds))

    async def _results(self, images: list[Image.Image], domain: str) -> Sequence[Vectors | Exception]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._encode, images, domain)
        except Exception as error:
            if len(images) == 1:
                return [error]
            # Whatever it was about one of them, the others have done nothing wrong.
            return [(await self._results([image], domain))[0] for image in images]


def _pixels(image: Image.Image) -> int:
    return image.width * image.height
