"""How the drawings looked that a model learned from: width of line, margin, black on white or white on black.

A canvas is drawn in any pen and any corner; what a model is asked with should look like what it was trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from isthmus.data.images import ImageError, load_image
from isthmus.data.loading import prefetch

Source = str | Path | bytes | Image.Image
SIDE = 768  # a line of .004 of the side is still 3 pixels wide
FAINT = 0.15  # of the ink's darkness: JPEG's ripples around a line are no ink
FEWEST = 5
SOFT, DARK, GREY, PLAIN = 40, 96, 16, 0.6
WIDEST, WIDEST_MARGIN = 0.1, 0.4


@dataclass(frozen=True)
class DrawnLook:
    """What is usual in drawings of a domain.

    Attributes:
        line: width of a line, as a share of the image's longer side.
        margin: empty on each side of the drawing, as a share of that side.
        dark: drawn in light lines on a dark ground.

    Example:
        >>> DrawnLook(line=0.01, margin=0.1, dark=False).line
        0.01
    """

    line: float
    margin: float
    dark: bool


def is_drawing(image: Image.Image) -> bool | None:
    """Whether an RGB image is a drawing on an even ground: None if not, else whether that ground is dark.

    A drawing has no colour, a border of the ground's shade, and most pixels are like it.

    Example:
        >>> is_drawing(Image.new("RGB", (8, 8), "white"))
        False
    """
    small = image.convert("RGB")
    small.thumbnail((128, 128), Image.Resampling.BOX)
    # Channel by channel: along the last axis the same takes several times as long, and a search waits for it.
    red, green, blue = np.asarray(small, dtype=np.int16).transpose(2, 0, 1).copy()
    grey = (red + green + blue) / 3
    ground = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    most, least = (choose(choose(red, green), blue) for choose in (np.maximum, np.minimum))
    colour = float((most - least).mean())
    plain = float((np.abs(grey - ground) <= SOFT).mean())
    if DARK <= ground < 255 - DARK or colour > GREY or plain < PLAIN:
        return None
    return ground < DARK


def as_usual(image: Image.Image, *, dark: bool = False) -> Image.Image:
    """A drawing with the usual ground: its negative where it has the other one; anything else as it is.

    Args:
        image: RGB.
        dark: whether drawings are usually on a dark ground.

    Example:
        >>> as_usual(Image.new("RGB", (8, 8), "black")).getpixel((0, 0))
        (255, 255, 255)
    """
    found = is_drawing(image)
    return image if found is None or found == dark else ImageOps.invert(image.convert("RGB"))


def measure(image: Image.Image) -> DrawnLook | None:
    """Width of line and margin of one drawing; None where it is none, or empty.

    Ink over half the length of its outline is the width of a line: `2 sum d / sum |grad d|` of the darkness d, which
    holds for soft edges too. Where areas are filled it is more than the pen's width.

    Args:
        image: RGB.
    """
    dark = is_drawing(image)
    if dark is None:
        return None
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    darkness = grey if dark else 1 - grey
    darkness = np.pad(darkness - np.median(darkness), 1)
    ink = float(darkness.max())
    if ink < 0.2:
        return None
    darkness = np.where(darkness < FAINT * ink, 0, darkness)
    rows, columns = (np.flatnonzero((darkness > 0.5 * ink).any(axis=axis)) for axis in (1, 0))
    down, across = np.diff(darkness, axis=0)[:, :-1], np.diff(darkness, axis=1)[:-1]
    outline = float(np.hypot(down, across).sum())
    side = max(image.size)
    extent = max(int(part[-1] - part[0]) + 1 for part in (rows, columns))
    return DrawnLook(2 * float(darkness.sum()) / outline / side, max(0.0, (1 - extent / side) / 2), dark)


def usual_look(images: Sequence[Source], *, workers: int = 2) -> DrawnLook | None:
    """The medians of a domain's drawings; None where most images are no drawings.

    Args:
        images: unreadable ones are passed over.
        workers: threads that decode.
    """

    def look(image: Source) -> DrawnLook | bool | None:
        with contextlib.suppress(ImageError):
            return measure(load_image(image, min_side=SIDE))
        return False

    read = [found for found in prefetch(images, look, workers, ahead=2 * max(1, workers)) if found is not False]
    drawn = [found for found in read if isinstance(found, DrawnLook)]
    if len(drawn) < max(FEWEST, len(read) / 2):
        return None
    line = float(np.median([found.line for found in drawn]))
    margin = float(np.median([found.margin for found in drawn]))
    dark = sum(found.dark for found in drawn) > len(drawn) / 2
    return DrawnLook(min(line, WIDEST), min(margin, WIDEST_MARGIN), dark)


def read_look(values: Any) -> DrawnLook | None:
    """The look as it was stored.

    Raises:
        ValueError, TypeError, KeyError: it is damaged.
    """
    if values is None:
        return None
    line, margin, dark = float(values["line"]), float(values["margin"]), values["dark"]
    if not 0 < line <= WIDEST or not 0 <= margin <= WIDEST_MARGIN or not isinstance(dark, bool):
        raise ValueError("the look of its drawings is out of range")
    return DrawnLook(line, margin, dark)
