"""Images by id, decoded once, augmented anew, ready in time: threads and a cache of bounded size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from isthmus.config import AugmentConfig
from isthmus.data.images import ImageError, load_image
from isthmus.data.manifest import Row
from isthmus.data.transforms import Preprocessing, augment
from isthmus.errors import IsthmusError
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
        filters: filter by the name of a row's domain, as `preprocessing.filters_of(names)` says; None is for rows
            whose domains the preprocessing treats alike.

    Raises:
        IsthmusError: the preprocessing has a filter for one of its domains, and nobody said which are whose.

    Example:
        >>> half = (0.5, 0.5, 0.5)
        >>> drawn = Preprocessing((384, 128), (384, 128), half, half, filters=("none", "edges"))
        >>> source = ImageSource(drawn, 500, drawn.filters_of(["sketch", "photo"]))
    """

    def __init__(
        self, preprocessing: Preprocessing, cache_mb: int = 0, filters: Mapping[str, str] | None = None
    ) -> None:
        self.preprocessing = preprocessing
        self._same = preprocessing.filters[0]
        if filters is None and len(set(preprocessing.filters)) > 1:
            raise IsthmusError("The two domains have filters of their own: tell ImageSource which name has which.")
        self._filters = filters
        self._room = cache_mb * 1_000_000
        self._cache: dict[tuple[str, str], Tensor] = {}
        self._lock = threading.Lock()

    def filter_of(self, row: Row) -> str:
        """What the row's image becomes; a domain without a filter is an error, as a silent mix-up costs a run."""
        if self._filters is None:
            return self._same
        try:
            return self._filters[row.domain]
        except KeyError:
            known = " and ".join(self._filters)
            raise IsthmusError(
                f"{row.id} is of domain '{row.domain}', not of {known}; name the domains alike."
            ) from None

    def pixels(self, row: Row) -> Tensor:
        """uint8 (3, *resize) of the row's image after its domain's filter; raises `ImageError`."""
        name = self.filter_of(row)
        key = (row.path, name)
        found = self._cache.get(key)
        if found is None:
            image = load_image(row.path, min_side=self.preprocessing.min_side)
            found = self.preprocessing.pixels(image, name)
            with self._lock:
                if self._room >= found.nbytes and key not in self._cache:
                    self._room -= found.nbytes
                    self._cache[key] = found
        return found

    def test_view(self, row: Row) -> Tensor:
        """uint8 (3, *size) as at test time."""
        return self.preprocessing.crop(self.pixels(row))

    def train_view(self, row: Row, settings: AugmentConfig, *draw: str | int, drawn: float = 0.0) -> Tensor:
        """uint8 (3, *size), changed at random as `augment` says; a function of `draw` and the row's id."""
        seed, looks = stable_hash(row.id, *draw), self.preprocessing
        return augment(self.pixels(row), looks.size, settings, looks.interpolation, seed, drawn=drawn)


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
    """Batches of test views: uint8 (b, 3, *size), the positions of their rows, and what could not be read."""

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
        return (torch.stack(views) if views else source.preprocessing.blank(0)), kept, bad

    parts = [range(start, min(len(rows), start + batch_size)) for start in range(0, len(rows), batch_size)]
    yield from prefetch(parts, read, threads, ahead=2 * max(1, threads))
