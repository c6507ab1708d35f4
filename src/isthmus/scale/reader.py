"""The images of a catalog's writer read and embedded by a Ray cluster, in the order that one process would take."""

from __future__ import annotations

import contextlib
import heapq
import os
import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from isthmus import __version__
from isthmus.catalog.reading import Seen, look
from isthmus.catalog.sync import PART, Writer
from isthmus.data.manifest import Row, absolute
from isthmus.errors import IsthmusError
from isthmus.scale.worker import (
    BLOCK,
    DONE,
    ERROR,
    NUMBER,
    Answer,
    Block,
    EmbedWorker,
    Errand,
    Image,
    Marks,
    Notes,
    marks,
    pack,
)
from isthmus.translate.ray_connect import quiet_data
from isthmus.translate.ray_stream import Rows, Share, stream

T = TypeVar("T")
PARTS = 8  # of 64 images that a worker takes at a time, at most: within a block, decoding overlaps with the model
WAVE = 2**18  # images that an actor gets before Ray Data begins anew: their names lie in Ray's memory
WAVE_MOST = 2**22
WINDOW = 64  # blocks that wait for one that is late
THREADS = 4  # of the driver, that compare files with their items by size and time
LOOKED_AT = 5  # images that each node has to see


@dataclass
class RayReader:
    """A `isthmus.catalog.reading.Reader` whose images are embedded by the actors of a cluster.

    Files whose size and time are those of their item are passed over here. The others are read, hashed and embedded by
    the actors, but for contents that the catalog has. One run at a time.

    Attributes:
        address: of the cluster, for messages.
        share: the actors.
        model: absolute path of the model or run folder.
        fingerprint: the catalog's.
    """

    address: str
    share: Share
    model: str
    fingerprint: str
    precision: str = "float32"
    _said: bool = field(default=False, init=False)

    def __call__(self, writer: Writer) -> Generator[list[Seen], None, None]:
        """All images of `writer`, those that are embedded wave by wave."""
        from isthmus.data.loading import prefetch

        rows, thorough = writer.manifest.rows, writer.options.thorough
        most = min(WAVE * self.share.actors, WAVE_MOST)
        unchanged: list[Seen] = []
        wave: list[Row] = []

        def glance(part: Sequence[Row]) -> list[tuple[Row, Seen | None]]:
            return [(row, look(row, writer.known.get(row.id), thorough)) for row in part]

        parts = (rows[at : at + PART] for at in range(0, len(rows), PART))
        for part in prefetch(parts, glance, THREADS, ahead=2 * THREADS):
            for row, seen in part:
                if seen is None:
                    wave.append(row)
                else:
                    unchanged.append(seen)
            if len(unchanged) >= PART:
                yield unchanged[:PART]
                del unchanged[:PART]
            if len(wave) >= most:
                yield from self.embedded(writer, wave)
                wave = []
        if unchanged:
            yield unchanged
        yield from self.embedded(writer, wave)

    def embedded(self, writer: Writer, rows: Sequence[Row]) -> Generator[list[Seen], None, None]:
        """`rows` as the actors found them, in parts.

        Raises:
            IsthmusError: what a worker raised, a node that is not fit for the work, or a failure of Ray's.
        """
        if not rows:
            return
        taken = blocks(rows, self.share.actors)
        share = replace(self.share, actors=min(self.share.actors, len(taken)))
        if not self._said:
            share.say(self.address)
            self._said = True
        errand = Errand(
            __version__,
            self.model,
            self.fingerprint,
            writer.centring,
            share.cpus,
            share.gpus,
            _some_sources(rows),
            precision=self.precision,
        )
        texts = [pack(_to_travel(number, part)) for number, part in enumerate(taken)]
        back = 0
        given = stream(self.address, results, texts, errand, share, marks(list(writer.holders)))
        with contextlib.closing(given):
            for number, answer in in_order(_answers(given)):
                writer.changes.embedded += answer.embedded
                seen = [Seen(row, *found) for row, found in zip(taken[number], answer.found, strict=True)]
                for at in range(0, len(seen), PART):
                    yield seen[at : at + PART]
                back += 1
        if back != len(taken):
            raise IsthmusError(
                f"Ray at {self.address} gave back {back} of {len(taken)} blocks of images: run the same command again, "
                "finished images are kept."
            )


def results(texts: Sequence[str], errand: Errand, share: Share, known: Marks) -> Rows:
    """A row for each of the blocks `texts`, as they are finished."""
    import ray
    import ray.data

    # What counts has to outlive those who are counted.
    notes = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Notes).remote()
    errand = replace(errand, notes=notes, known=ray.put(known) if len(known) else None)
    with quiet_data():
        rows = ray.data.from_items([{BLOCK: text} for text in texts], override_num_blocks=len(texts))
        yield from rows.map_batches(
            EmbedWorker,
            fn_constructor_args=(errand,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=share.actors, max_tasks_in_flight_per_actor=2),
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
        ).iter_rows()


def blocks(rows: Sequence[Row], actors: int) -> list[list[Row]]:
    """Rows in blocks of one domain each: whole batches of the model, and a few blocks for each actor where it can be.

    Example:
        >>> [len(part) for part in blocks([Row(str(i), f"/{i}", "photo") for i in range(200)], 2)]
        [64, 64, 64, 8]
    """
    size = PART * max(1, min(PARTS, len(rows) // PART // (4 * actors)))
    by_domain: dict[str, list[Row]] = {}
    for row in rows:
        by_domain.setdefault(row.domain, []).append(row)
    return [some[at : at + size] for some in by_domain.values() for at in range(0, len(some), size)]


def in_order(answers: Iterable[tuple[int, T]], window: int = WINDOW) -> Iterator[tuple[int, T]]:
    """What comes numbered from 0 in the order of the numbers; at most `window` wait for one that is late.

    Example:
        >>> [number for number, _ in in_order([(1, ""), (0, ""), (2, "")])]
        [0, 1, 2]
    """
    waiting: list[tuple[int, T]] = []
    following = 0
    for answer in answers:
        heapq.heappush(waiting, answer)
        while waiting and (waiting[0][0] <= following or len(waiting) > window):
            number, one = heapq.heappop(waiting)
            following = max(following, number + 1)
            yield number, one
    while waiting:
        yield heapq.heappop(waiting)


def _answers(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, Answer]]:
    for row in rows:
        if row[ERROR]:
            error = pickle.loads(row[ERROR])
            if isinstance(error, IsthmusError):
                raise error
            text = next(iter(str(error).splitlines()), "no reason given").rstrip(".")
            raise IsthmusError(
                f"A Ray worker failed ({type(error).__name__}: {text}): run the same command again, finished images "
                "are kept."
            ) from error
        yield int(row[NUMBER]), pickle.loads(row[DONE])


def _to_travel(number: int, rows: Sequence[Row]) -> Block:
    return Block(number, rows[0].domain, tuple(Image(row.id, absolute(row.path), row.label) for row in rows))


def _some_sources(rows: Sequence[Row]) -> tuple[str, ...]:
    step = max(1, len(rows) // LOOKED_AT)
    paths = [absolute(row.path) for row in rows[::step][:LOOKED_AT]]
    return tuple(path for path in paths if os.path.isfile(path))  # noqa: PTH113
