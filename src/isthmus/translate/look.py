"""What the images of a domain look like: line drawings, silhouettes or pictures; how wide, how much, how placed.

Unlabelled images of the target domain are what every user of SynCDR has, so its strokes are measured, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Kind = Literal["lines", "silhouettes", "pictures"]
SIDE = 256  # looks are measured at this longer side


@dataclass(frozen=True)
class Look:
    """The look of a domain, medians over a sample; lengths are fractions of the longer side.

    Attributes:
        kind: line drawings, silhouettes (black shapes on white), or anything else.
        stroke: width of the ink.
        thick: widest ink of an image.
        ink: ink area over stroke width: the length of the strokes.
        extent: how much of the sheet the drawing's longer side takes.
        extent_spread: interquartile range of `extent`.
        images: how many were looked at.
    """

    kind: Kind
    stroke: float
    thick: float
    ink: float
    extent: float
    extent_spread: float
    images: int


def dark_pixels(image: Image.Image) -> NDArray[np.bool_]:
    """The ink (h, w) of a drawing."""
    return np.asarray(image.convert("L")) < 128


def shrink(image: Image.Image, side: int) -> Image.Image:
    """`image` with a longer side of at most `side`."""
    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def survey(images: Sequence[Image.Image]) -> Look:
    """The look of a sample of RGB images; at least one."""
    rows = np.array([_measure(shrink(image, SIDE)) for image in images])
    drawn = rows[rows[:, 0] > 0]
    if 2 * len(drawn) < len(rows) or len(drawn) == 0:
        return Look("pictures", 0.0, 0.0, 0.0, 0.0, 0.0, len(rows))
    _, stroke, thick, ink, extent = np.median(drawn, axis=0)
    low, high = np.quantile(drawn[:, 4], [0.25, 0.75])
    # A drawing's widest ink is a few strokes (a pupil, a badge); a silhouette's is the shape itself.
    kind: Kind = "silhouettes" if thick > 0.2 or (thick > 0.12 and thick > 2.5 * stroke) else "lines"
    return Look(kind, float(stroke), float(thick), float(ink), float(extent), float(high - low), len(rows))


def _measure(image: Image.Image) -> tuple[float, float, float, float, float]:
    """(is black on white, stroke, widest ink, length, extent) of one image."""
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    grey = pixels.mean(-1)
    plain = (np.ptp(pixels, axis=-1) < 40) & ((grey < 60) | (grey > 200))
    dark = grey < 128
    if plain.mean() < 0.85 or (grey > 200).mean() < 0.4 or not dark.any():
        return 0.0, 0.0, 0.0, 0.0, 0.0
    height, width = dark.shape
    side = max(height, width)
    thick = 2 * float(ndimage.distance_transform_edt(np.pad(dark, 1)).max())
    # Area over half the outline's length, both from the greys, so that also strokes of a pixel or two are measured.
    # Steps along rows and columns overstate the length of a line by 4 / pi, averaged over its directions.
    ink = np.clip(1 - grey / 255, 0, 1)
    ink[ink < 0.1] = 0  # paper
    border = np.abs(np.diff(ink, axis=0, prepend=0, append=0)).sum()
    border += np.abs(np.diff(ink, axis=1, prepend=0, append=0)).sum()
    area = float(ink.sum())
    stroke = 2 * area / (float(border) * np.pi / 4)
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    extent = max((rows[-1] - rows[0] + 1) / height, (columns[-1] - columns[0] + 1) / width)
    return 1.0, stroke / side, thick / side, area / stroke / side, float(extent)
