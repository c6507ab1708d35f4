"""Small pictures inside a page: thumbnails as data URIs, so that a report is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from isthmus.data.images import load_image
from isthmus.errors import IsthmusError

SIDE = 112  # twice the 56 px of a phone's smallest tile, for dense screens

ImageLookup = Mapping[str, "str | Path"] | Callable[[str], "str | Path | None"]


def data_uri(image: Image.Image, side: int = SIDE) -> str:
    """An image as a data URI with its longer side at most `side`: PNG or JPEG, whichever is smaller.

    Example:
        >>> data_uri(Image.new("RGB", (300, 200), "white"))[:22]
        'data:image/png;base64,'
    """
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    photo, drawing = io.BytesIO(), io.BytesIO()
    small.save(photo, "JPEG", quality=78, optimize=True)
    # Line drawings and icons: few colours, and JPEG's ringing would show.
    small.quantize(32, dither=Image.Dither.NONE).save(drawing, "PNG", optimize=True)
    few_colours = small.getcolors(256) is not None
    if few_colours or drawing.tell() < photo.tell() // 2:
        return "data:image/png;base64," + base64.b64encode(drawing.getvalue()).decode("ascii")
    return "data:image/jpeg;base64," + base64.b64encode(photo.getvalue()).decode("ascii")


class Pictures:
    """Thumbnails by image id, made when first asked for.

    A picture that is missing or broken is None (the page shows a blank tile): a report never fails for want of one.

    Args:
        images: paths by id, as a mapping or a function; None for a report without pictures.
        side: the longer side in pixels.

    Example:
        >>> Pictures(None)("photo/a.jpg") is None
        True
    """

    def __init__(self, images: ImageLookup | None, side: int = SIDE) -> None:
        self._images = images
        self._side = side
        self._made: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        return self._images is not None

    def __call__(self, image_id: str) -> str | None:
        if image_id not in self._made:
            self._made[image_id] = self._make(image_id)
        return self._made[image_id]

    def _make(self, image_id: str) -> str | None:
        try:
            if self._images is None:
                return None
            path = self._images.get(image_id) if isinstance(self._images, Mapping) else self._images(image_id)
            return None if path is None else data_uri(load_image(path, min_side=self._side), self._side)
        except IsthmusError:
            return None
