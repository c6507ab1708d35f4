"""Images to the square a model works on, and its pictures back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from isthmus.translate.diffusion.settings import Fit

THREADS = 4  # Pillow resizes outside Python's lock; the model waits meanwhile


@dataclass(frozen=True)
class Square:
    """How images become squares of `size` pixels, and pictures images with a longer side of `output` pixels.

    Example:
        >>> wide = Image.new("RGB", (200, 100))
        >>> square = Square(64, "pad", 32)
        >>> square.image(wide).size, square.back(square.image(wide), wide.size).size
        ((64, 64), (32, 16))
    """

    size: int
    fit: Fit
    output: int

    def images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """`image` for each of several, side by side."""
        if len(images) < 2:
            return [self.image(image) for image in images]
        with ThreadPoolExecutor(min(THREADS, len(images))) as pool:
            return list(pool.map(self.image, images))

    def image(self, image: Image.Image) -> Image.Image:
        """An RGB square for the model."""
        side = (self.size, self.size)
        image = image.convert("RGB")
        if self.fit == "pad":
            width, height = _within(image.size, self.size)
            padded = Image.new("RGB", side, "white")
            padded.paste(image.resize((width, height), _filter(image.size, self.size)), self._corner(width, height))
            return padded
        if self.fit == "crop":
            return ImageOps.fit(image, side, _filter(image.size, self.size))
        return image if image.size == side else image.resize(side, _filter(image.size, self.size))

    def back(self, picture: Image.Image, source: tuple[int, int]) -> Image.Image:
        """A picture of the model in the output's size, padding cut off; `source` is the image's (width, height)."""
        if picture.size != (self.size, self.size) and self.fit == "pad":
            picture = picture.resize((self.size, self.size), Image.Resampling.LANCZOS)
        wanted = (self.output, self.output)
        if self.fit == "pad":
            width, height = _within(source, self.size)
            left, top = self._corner(width, height)
            picture = picture.crop((left, top, left + width, top + height))
            wanted = _within(source, self.output)
        return picture if picture.size == wanted else picture.resize(wanted, Image.Resampling.LANCZOS)

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        return (self.size - width) // 2, (self.size - height) // 2


def _within(source: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) of `source` with a longer side of `side`."""
    scale = side / max(source)
    return max(1, round(source[0] * scale)), max(1, round(source[1] * scale))


def _filter(source: tuple[int, int], side: int) -> Image.Resampling:
    # Lanczos rings on enlarged line drawings, bicubic less.
    return Image.Resampling.LANCZOS if min(source) > side else Image.Resampling.BICUBIC


def to_picture(pixels: NDArray[np.float32]) -> Image.Image | None:
    """A picture from (h, w, 3) in [0, 1], rounded as diffusers does; None where it holds something other than numbers.

    Example:
        >>> to_picture(np.full((2, 2, 3), 0.5, np.float32)).getpixel((0, 0))
        (128, 128, 128)
        >>> to_picture(np.full((2, 2, 3), np.nan, np.float32)) is None
        True
    """
    if not np.isfinite(pixels).all():
        return None
    return Image.fromarray((pixels * 255).round().clip(0, 255).astype(np.uint8))
