"""Strokes on a sheet: thin lines as ink, laid out as a person would, and silhouettes as outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isthmus.translate.noise import smooth_noise
from isthmus.translate.saliency import Floats, gaussian


@dataclass(frozen=True)
class Placement:
    """How a drawing is laid on its sheet.

    Attributes:
        fit: share of the sheet that the drawing's longer side takes, centred; None leaves it where the photo has it.
        wobble: how far a stroke strays from the edge, as a fraction of the longer side: hands are no rulers.
        seed: of the wobble.
    """

    fit: float | None = None
    wobble: float = 0.0
    seed: int = 0


PLAIN = Placement()
BLUR = 0.9
FLOOR = np.float32(0.72)  # of the distance to a straight line, blurred by BLUR: sqrt(2 / pi) * BLUR


def ink_lines(thin: NDArray[np.bool_], width: float, place: Placement = PLAIN) -> NDArray[np.uint8]:
    """Thin lines as smooth black strokes of `width` pixels on white: uint8 (h, w)."""
    if not thin.any():
        return np.full(thin.shape, 255, dtype=np.uint8)
    # Strokes are cut out of a distance map: moving or scaling that map keeps their width, and blurring it straightens
    # the steps of a pixel chain.
    distance: Floats = ndimage.distance_transform_edt(~thin).astype(np.float32)
    smooth = gaussian(np.minimum(distance, 8 * width), BLUR)
    # Blurred, the map doesn't reach 0 on the line itself: without this, thin strokes would fade where enlarged.
    smooth = np.sqrt(np.maximum(smooth**2 - FLOOR**2, 0))
    scale = 1.0
    if place.fit is not None or place.wobble > 0:
        coordinates, scale = _sheet(thin, place)
        far = float(smooth.max())  # beyond the photo there is nothing to draw
        smooth = ndimage.map_coordinates(smooth, coordinates, order=1, mode="constant", cval=far) * scale
    ink = np.clip(width / 2 + 0.3 - smooth, 0, 1)
    return np.asarray(np.rint(255 * (1 - ink)), dtype=np.uint8)


def _sheet(thin: NDArray[np.bool_], place: Placement) -> tuple[Floats, float]:
    """Where in the drawing each pixel of the sheet lies (2, h, w), and how much larger the sheet shows it."""
    height, width = thin.shape
    side = max(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    scale = 1.0
    if place.fit is not None:
        rows, columns = np.flatnonzero(thin.any(1)), np.flatnonzero(thin.any(0))
        extent = max((rows[-1] - rows[0] + 1) / height, (columns[-1] - columns[0] + 1) / width)
        scale = float(np.clip(place.fit / extent, 0.5, 4.0))
        y = (y - (height - 1) / 2) / scale + (rows[0] + rows[-1]) / 2
        x = (x - (width - 1) / 2) / scale + (columns[0] + columns[-1]) / 2
    if place.wobble > 0:
        rng = np.random.default_rng(place.seed)
        amounts = (0.45 * place.wobble * side, 0.75 * place.wobble * side)
        y = y + smooth_noise(height, width, rng, (24, 60), amounts)
        x = x + smooth_noise(height, width, rng, (24, 60), amounts)
    return np.stack([y, x]), scale


def outline(dark: NDArray[np.bool_], width: float) -> NDArray[np.uint8]:
    """Filled shapes (h, w) as their outline drawing: black on white, uint8.

    The border of each shape becomes a stroke, `width` pixels wide, inside the shape. A white mark in a shape, as thin
    as a few strokes, becomes a black mark: it would not be seen in an empty shape otherwise.
    """
    padded = np.pad(dark, 1)  # what the frame cuts off has a border there
    gaps, count = ndimage.label(~padded)
    depth = ndimage.maximum(ndimage.distance_transform_edt(~padded), gaps, np.arange(count + 1))
    mark = np.asarray(depth) <= 1.7 * width
    mark[[0, gaps[0, 0]]] = False
    marks = mark[gaps]
    distance = ndimage.distance_transform_edt(padded | marks)
    ink = np.clip(width + 0.5 - distance, 0, 1) * padded
    ink = np.where(marks, 1.0, ink)[1:-1, 1:-1]
    return np.asarray(np.rint(255 * (1 - ink)), dtype=np.uint8)
