"""One catalog, one model and one writer behind the API: who computes where, how much may wait, what a failure says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from isthmus.catalog.embed import Embedder, Vectors, embed
from isthmus.catalog.filters import Condition
from isthmus.catalog.memory import Memory, use_memory
from isthmus.catalog.memory_settings import MemorySettings
from isthmus.catalog.search import Hit
from isthmus.catalog.store import Catalog
from isthmus.config.sizes import sides
from isthmus.errors import IsthmusError
from isthmus.models.domains import DomainChooser
from isthmus.models.precision import set_precision
from isthmus.serve.batcher import Batcher
from isthmus.serve.choice import find_chooser
from isthmus.serve.errors import ApiError, busy, from_isthmus
from isthmus.serve.metrics import Metrics
from isthmus.serve.recent import Recent
from isthmus.serve.settings import ServeSettings

T = TypeVar("T")
log = logging.getLogger("isthmus.serve")
READERS = 4
READS = 8  # times `queue`: a page asks for all its thumbnails at once
WRITES = 32
PIXELS = 4  # times `max_pixels`: what may wait decoded
DRAWN = 256  # side of a drawing where the model doesn't say how large it sees
STOPPING = "The service is stopping; try again in a moment."


class Locked:
    """A model that works for one thread at a time.

    A network of two domains is switched to one of them while it computes: the writer must not embed photos while a
    sketch is under way.
    """

    def __init__(self, model: Embedder) -> None:
        self.model = model
        self._lock = threading.Lock()
        self.dim, self.domains, self.fingerprint = model.dim, model.domains, model.fingerprint
        self.beside: dict[str, bytes] | None = getattr(model, "beside", None)

    def encode(self, images: Sequence[Any], **options: Any) -> Vectors:
        """As the model's own."""
        with self._lock:
            return self.model.encode(images, **options)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hits: best first.
        more: whether there are further hits.
        version: of the catalog when the search began.
        model_seconds: of the batch that the query was embedded in; 0 for an item.
        search_seconds: of the search itself.
    """

    hits: list[Hit]
    more: bool
    version: int
    model_seconds: float
    search_seconds: float


class Engine:
    """What the routes work with.

    The model has one thread and so has the search: more would compete for the same cores, and the search keeps vectors
    that one thread at a time may renew. Reads have a few threads, and there is one writer.

    Args:
        catalog: opened; its model is loaded here.
        settings: of the service.
        model: the folder of the model, where it is no longer in its old place.
        before: the engine that this one takes the place of: figures and remembered searches go on.

    Raises:
        IsthmusError: the model is not to be found, or it is another.

    Attributes:
        catalog: the same; its model is guarded from now on, so that a writer may use it too.
        settings: of the service.
        metrics: what `/metrics` shows.
        recent: the last searches, for marks (right, wrong) that come later; kept only where feedback is on.
        chooser: the classifier of domains that was stored with the model, if there is one.
        look: what drawings looked like in training, where that is known.
        memory: the catalog's vectors in memory, unless that is off.
        drawn_side: side in pixels of what is drawn for the model: what it sees, so that nothing is scaled.
        closing: whether the service is about to stop.
    """

    def __init__(
        self, catalog: Catalog, settings: ServeSettings, *, model: str | None = None, before: Engine | None = None
    ) -> None:
        guarded = catalog.model if isinstance(catalog.model, Locked) else Locked(catalog.model)
        set_precision(guarded.model, settings.precision)
        catalog.use(guarded)
        self.catalog = catalog
        self.settings = settings
        self.metrics: Metrics = before.metrics if before is not None else Metrics()
        self.recent: Recent = before.recent if before is not None else Recent()
        self.chooser = _chooser(catalog, model)
        self.look = self.chooser.look if self.chooser is not None else None
        _check_calibration(catalog)
        self.memory: Memory | None = None
        if settings.memory != "off":
            wanted = MemorySettings(settings.memory, settings.recall, settings.memory_mb, background=True)
            self.memory = use_memory(catalog, wanted)
        preprocessing = getattr(guarded.model, "preprocessing", None)
        self.drawn_side = DRAWN if preprocessing is None else min(2048, max(16, *sides(preprocessing.resize)))
        self.closing = False
        self._model = ThreadPoolExecutor(1, "isthmus-model")
        self._search = ThreadPoolExecutor(1, "isthmus-search")
        self._reads = ThreadPoolExecutor(READERS, "isthmus-read")
        self._writes = ThreadPoolExecutor(1, "isthmus-write")
        self._under_way = {"searches": 0, "reads": 0, "changes": 0}
        self._batcher = Batcher(
            self._encode,
            self._model,
            queue=settings.queue,
            pixels=PIXELS * settings.max_pixels,
            batch=settings.batch,
            wait=settings.batch_wait,
            deadline=settings.deadline,
            done=self.metrics.batch_done,
        )
        self.metrics.queue.set_function(lambda: self._batcher.depth)

    def warm(self) -> None:
        """Let the model see an image of each domain, and the search a vector: the first of both costs more."""
        blank = Image.new("RGB", (64, 64), "white")
        blank.paste("black", (16, 16, 48, 48))
        for domain in dict.fromkeys(self.catalog.facts.domains):
            result = self._encode([blank], domain)[0]
        if not isinstance(result, Exception):
            for _ in range(2):  # from the second search on, vectors are kept in memory
                self.catalog.search(result, k=1)

    async def search(
        self,
        query: Image.Image | str,
        *,
        is_id: bool,
        domain: str,
        k: int,
        offset: int = 0,
        where: Condition | None = None,
        exact: bool = False,
        matches_only: bool = False,
    ) -> Found:
        """Search with an image (through the batcher), or with the id of an item, which is left out of the hits.

        Raises:
            ApiError: 404 no such item, 400 an image without a usable vector, 429, 503, 504.
        """
        until = time.monotonic() + self.settings.deadline
        with self._accepted("searches", self.settings.queue + 2 * self.settings.batch):
            vector, seconds = None, 0.0
            if not is_id:
                assert isinstance(query, Image.Image)
                try:
                    embedded = await self._batcher.embed(query, domain)
                except IsthmusError as error:
                    raise ApiError(400, "bad_image", str(error)) from error
                vector, seconds = embedded.vector, embedded.seconds
            id = str(query) if is_id else None

            def work() -> Found:
                start = time.perf_counter()
                try:
                    with self.catalog.steady():
                        version = self.catalog.items.version
                        hits = self.catalog.search(
                            vector, id=id, domain=domain, k=k + 1, offset=offset, where=where, exact=exact,
                            matches_only=matches_only,
                        )  # fmt: skip
                except IsthmusError:
                    if id is not None and not self.catalog.items.fetch([id])[0]:
                        raise ApiError(404, "no_item", "The catalog has no item of that id.") from None
                    raise
                took = time.perf_counter() - start
                self.metrics.search.observe(took)
                return Found(hits[:k], len(hits) > k, version, seconds, took)

            try:
                return await asyncio.wait_for(self._run(self._search, work), max(0.001, until - time.monotonic()))
            except asyncio.TimeoutError:
                reason = f"The search was not done within {self.settings.deadline:g} s; try again later."
                raise ApiError(504, "timeout", reason) from None

    async def read(self, work: Callable[[], T]) -> T:
        """Run what reads the catalog or decodes an image in a thread.

        Raises:
            ApiError: what `work` raises, an IsthmusError as `from_isthmus` tells it, 429 where too much waits.
        """
        with self._accepted("reads", READS * self.settings.queue):
            return await self._run(self._reads, work)

    async def write(self, work: Callable[[], T]) -> T:
        """Run what changes the catalog, one at a time, in the order of acceptance.

        What was accepted is done, also where its client leaves before it is answered or the service stops.

        Raises:
            ApiError: as `read`; 409 where another process wrote at the same time.
        """

        async def change() -> T:
            with self._accepted("changes", WRITES):
                return await self._run(self._writes, work)

        return await asyncio.shield(asyncio.ensure_future(change()))

    async def close(self) -> None:
        """Refuse what is new, and return when what was accepted is done."""
        self.closing = True
        while any(self._under_way.values()):
            await asyncio.sleep(0.01)
        await self._batcher.close()
        for pool in (self._model, self._search, self._reads, self._writes):
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)
        if self.memory is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.memory.close)

    @contextlib.contextmanager
    def _accepted(self, what: str, limit: int) -> Iterator[None]:
        """Count what is under way, so that a stop can wait for it; refuse where it is too much or too late."""
        if self.closing:
            raise ApiError(503, "not_ready", STOPPING)
        if self._under_way[what] >= limit:
            raise busy(f"{limit} {what} are under way already")
        self._under_way[what] += 1
        try:
            yield
        finally:
            self._under_way[what] -= 1

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except IsthmusError as error:
            raise from_isthmus(error, self.catalog.path) from error

    def _encode(self, images: Sequence[Image.Image], domain: str) -> list[Vectors | Exception]:
        model, centring = self.catalog.model, self.catalog.facts.centring
        vectors, bad = embed(model, images, domain=domain, centring=centring, workers=0, on_bad="skip")
        return [IsthmusError(bad[place]) if place in bad else vector for place, vector in enumerate(vectors)]


def _check_calibration(catalog: Catalog) -> None:
    """Read the model's thresholds; damaged ones are told and left out, as searches do without."""
    try:
        catalog.judge_by(catalog.calibration)
    except IsthmusError as error:
        log.warning("%s", error)
        catalog.judge_by(None)


def _chooser(catalog: Catalog, model: str | None) -> DomainChooser | None:
    """The model's own classifier of domains; a damaged one is told and left out, as searches do without."""
    try:
        return find_chooser(catalog.facts, catalog.path, model)
    except IsthmusError as error:
        log.warning("%s", error)
        return None
