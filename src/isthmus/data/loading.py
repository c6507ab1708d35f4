"""Images by id, decoded once, augmented anew, ready in time: threads and a cache of bounded size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from isthmus.config import AugmentConfig
from isthmus.data.images import ImageError, load_image
from isthmus.data.manifest import Row
from isthmus.data.transforms import Preprocessing, augment
from isthmus.io import stable_hash

T = TypeVar("T")
U = TypeVar("U")


class ImageSource:
    """Decoded, resized pixels of manifest rows.

    Decoding costs more than everything else on the way to a small network, so decoded images stay in memory as uint8
    up to a limit; what does not fit is decoded again.

    Args:
        preprocessing: the model's.
        cache_mb: limit of the cache in megabytes.
    """

    def __init__(self, preprocessing: Preprocessing, cache_mb: int = 0) -> None:
        self.preprocessing = preprocessing
        self._room = cache_mb * 1_000_000
        self._cache: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def pixels(self, row: Row) -> Tensor:
        """uint8 (3, resize, resize) of the row's image; raises `ImageError`."""
        found = self._cache.get(row.path)
        if found is None:
            found = self.preprocessing.pixels(load_image(row.path, min_side=self.preprocessing.resize))
            with self._lock:
                if self._room >= found.nbytes and row.path not in self._cache:
                    self._room -= found.nbytes
                    self._cache[row.path] = found
        return found

    def test_view(self, row: Row) -> Tensor:
        """uint8 (3, size, size) as at test time."""
        return self.preprocessing.crop(self.pixels(row))

    def train_view(self, row: Row, settings: AugmentConfig, *draw: str | int) -> Tensor:
        """uint8 (3, size, size), changed at random; the draw is a function of `draw` and the row's id."""
        seed = stable_hash(row.id, *draw)
        return augment(self.pixels(row), self.preprocessing.size, settings, self.preprocessing.interpolation, seed)


def prefetch(items: Iterable[T], work: Callable[[T], U], threads: int, ahead: int = 2) -> Iterator[U]:
    """Yield `work(item)` in order, with up to `ahead` items worked on before they are asked for."""
    if threads == 0:
        for item in items:
            yield work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[U]] = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def test_batches(
    source: ImageSource, rows: list[Row], batch_size: int, threads: int, *, on_bad: str = "raise"
) -> Iterator[tuple[Tensor, list[int], list[ImageError]]]:
    """Batches of test views: uint8 (b, 3, size, size), the positions of their rows, and what could not be read."""

    def read(positions: range) -> tuple[Tensor, list[int], list[ImageError]]:
        views: list[Tensor] = []
        kept: list[int] = []
        bad: list[ImageError] = []
        for position in positions:
            try:
                views.append(source.test_view(rows[position]))
                kept.append(position)
            except ImageError as error:
                if on_bad == "raise":
                    raise
                bad.append(error)
        size = source.preprocessing.size
        return (torch.stack(views) if views else torch.empty(0, 3, size, size, dtype=torch.uint8)), kept, bad

    parts = [range(start, min(len(rows), start + batch_size)) for start in range(0, len(rows), batch_size)]
    yield from prefetch(parts, read, threads, ahead=2 * max(1, threads))
