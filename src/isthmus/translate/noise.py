"""Smooth random fields: the wobble of a hand, the grain of a surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.translate.saliency import Floats


def smooth_noise(
    height: int, width: int, rng: np.random.Generator, sizes: tuple[int, ...], amounts: tuple[float, ...]
) -> Floats:
    """Smooth noise (h, w) of several grain sizes, in pixels of a 256-pixel picture, of deviations `amounts`."""
    total = np.zeros((height, width), dtype=np.float32)
    for size, amount in zip(sizes, amounts, strict=True):
        grain = max(1.0, size * max(height, width) / 256)
        rows, columns = int(height / grain) + 3, int(width / grain) + 3
        coarse = rng.normal(0, amount, (rows, columns)).astype(np.float32)
        y = np.linspace(0.5, rows - 1.5, height)
        x = np.linspace(0.5, columns - 1.5, width)
        total += _bilinear(coarse, y, x)
    return total


def _bilinear(image: Floats, y: NDArray[np.float64], x: NDArray[np.float64]) -> Floats:
    """`image` sampled on the grid y (h,) by x (w,)."""
    y0, x0 = y.astype(np.intp), x.astype(np.intp)
    fy, fx = (y - y0).astype(np.float32)[:, None], (x - x0).astype(np.float32)[None]
    top = image[y0][:, x0] * (1 - fx) + image[y0][:, x0 + 1] * fx
    bottom = image[y0 + 1][:, x0] * (1 - fx) + image[y0 + 1][:, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)
