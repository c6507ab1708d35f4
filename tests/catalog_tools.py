"""What the catalog's tests share: a model that is quick and exact, pictures, and the obvious slow search."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from isthmus.data.images import ImageError, load_image

SIDE = 4


class FakeModel:
    """A vector is the image's pixels at 4 x 4, less the middle grey; the query domain sees it mirrored."""

    domains = ("sketch", "photo")
    dim = SIDE * SIDE * 3

    def __init__(self, name: str = "a", before: Callable[[int], None] | None = None) -> None:
        self.fingerprint = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.encoded: list[str] = []
        self.before = before

    def encode(
        self,
        images: Sequence[Any],
        *,
        domain: str,
        batch_size: int = 64,
        workers: int = 0,
        centring: bool | None = None,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        vectors = np.full((len(images), self.dim), np.nan, np.float32)
        for position, image in enumerate(images):
            if self.before is not None:
                self.before(len(self.encoded))
            try:
                vectors[position] = self.one(load_image(image), domain)
            except ImageError:
                if on_bad == "raise":
                    raise
            self.encoded.append(str(image))
        return vectors

    def one(self, image: Image.Image, domain: str) -> np.ndarray[Any, Any]:
        small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
        if domain == self.domains[0]:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        vector = np.asarray(small, np.float64).ravel() - 127.3
        return vector / np.linalg.norm(vector)


class Other(FakeModel):
    """Another model: one of another width, or of the same, and of other neighbours."""

    def __init__(self, name: str = "other", before: Callable[[int], None] | None = None, dim: int = 20) -> None:
        super().__init__(name, before)
        self.dim = dim
        self.turn = np.random.default_rng(dim).normal(size=(FakeModel.dim, dim))

    def one(self, image: Image.Image, domain: str) -> np.ndarray[Any, Any]:
        vector = super().one(image, domain) @ self.turn
        return vector / np.linalg.norm(vector)


def picture(path: Path, seed: int) -> Path:
    """A PNG of 4 x 4 squares of random colours; equal seeds give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((8, 8), Image.Resampling.NEAREST).save(path)
    return path


def photos(folder: Path, count: int, *, start: int = 0) -> Path:
    """A folder of pictures `000.png`, `001.png`, ..."""
    for number in range(start, start + count):
        picture(folder / f"{number:03}.png", number)
    return folder


@functools.cache
def tie(id: str) -> int:
    """The hash that `isthmus.ops.tie_keys` documents."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little", signed=True)


def brute_force(
    query: np.ndarray[Any, Any], gallery: Mapping[str, np.ndarray[Any, Any]], k: int
) -> list[tuple[str, float]]:
    """Ids and cosines of the k nearest, in float64, ties by the hash of the id."""
    if not gallery:
        return []
    scores = (np.stack(list(gallery.values())).astype(np.float64) * np.asarray(query, np.float64)).sum(axis=1)
    ranked = sorted(zip(-scores, map(tie, gallery), gallery, strict=True))
    return [(id, -float(score)) for score, _, id in ranked[:k]]
