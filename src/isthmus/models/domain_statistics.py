"""Cheap figures of how an image looks, whatever it shows: ink or colour, flat or grainy, on white or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from isthmus.data.images import load_image

SIDE = 96
Numbers = np.ndarray[Any, np.dtype[np.float64]]
NAMES = (
    "white", "black", "grey_middle", "commonest_grey", "grey_entropy", "grey_mean", "grey_std", "grey_10", "grey_50",
    "grey_90", "border_mean", "border_std", "chroma_mean", "chroma_std", "coloured", "red_green", "blue_yellow",
    "colours", "edge_mean", "edge_std", "weak_edges", "edges", "strong_edges", "edge_directions", "contrast_10",
    "contrast_50", "contrast_90", "flat", "grain",
)  # fmt: skip


def load_small(source: Any) -> Image.Image:
    """An image for `statistics`: a path, bytes or a Pillow image as the one decoder reads it.

    Raises:
        ImageError: it can't be read.
    """
    return load_image(source, min_side=2 * SIDE)


def statistics(image: Image.Image) -> Numbers:
    """The figures `NAMES` of an RGB image, float64 (29,), all finite.

    The image is shrunk to 96 x 96 first, so that neither its size nor its shape counts.

    Example:
        >>> values = statistics(Image.new("RGB", (300, 200), "white"))
        >>> dict(zip(NAMES, values.tolist()))["white"]
        1.0
    """
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    # A plane for each channel: figures over a last axis of three are slow.
    planes = np.ascontiguousarray(np.asarray(small, np.float64).transpose(2, 0, 1)) / 255
    red, green, blue = planes
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    if _border(grey).mean() < 0.5:
        # A drawing in chalk is a drawing: what is dark around the edge is looked at as its negative.
        planes, grey = 1 - planes, 1 - grey
    low, high = planes.min(axis=0), planes.max(axis=0)
    return np.array([*_greys(grey, low, high), *_colours(planes, high - low), *_lines(grey)], np.float64)


def _border(grey: Numbers) -> Numbers:
    return np.concatenate([grey[:4].ravel(), grey[-4:].ravel(), grey[4:-4, :4].ravel(), grey[4:-4, -4:].ravel()])


def _greys(grey: Numbers, low: Numbers, high: Numbers) -> list[float]:
    histogram = np.bincount((grey * 31.999).astype(np.int64).ravel(), minlength=32) / grey.size
    border = _border(grey)
    return [
        (low > 0.94).mean(),
        (high < 0.12).mean(),
        ((grey > 0.2) & (grey < 0.8)).mean(),
        histogram.max(),
        _entropy(histogram),
        grey.mean(),
        grey.std(),
        *np.quantile(grey, (0.1, 0.5, 0.9)),
        border.mean(),
        border.std(),
    ]


def _colours(planes: Numbers, chroma: Numbers) -> list[float]:
    red, green, blue = planes
    levels = (planes * 15.999).astype(np.int64)  # 16 a channel: JPEG's noise makes no new colour
    distinct = np.count_nonzero(np.bincount((256 * levels[0] + 16 * levels[1] + levels[2]).ravel()))
    return [
        chroma.mean(),
        chroma.std(),
        (chroma > 0.1).mean(),
        (red - green).mean(),
        (blue - (red + green) / 2).mean(),
        np.log(distinct),
    ]


def _lines(grey: Numbers) -> list[float]:
    down = grey[2:, 1:-1] - grey[:-2, 1:-1]
    across = grey[1:-1, 2:] - grey[1:-1, :-2]
    edge = np.hypot(down, across)
    bins = (np.mod(np.arctan2(down, across), np.pi) / np.pi * 8).astype(np.int64) % 8
    strength = np.bincount(bins.ravel(), weights=edge.ravel(), minlength=8)
    windows = np.lib.stride_tricks.sliding_window_view(grey, (6, 6))[::6, ::6].reshape(-1, 36)  # 256 tiles
    contrast = windows.std(axis=1)
    grain = np.abs(4 * grey[1:-1, 1:-1] - grey[2:, 1:-1] - grey[:-2, 1:-1] - grey[1:-1, 2:] - grey[1:-1, :-2])
    return [
        edge.mean(),
        edge.std(),
        (edge > 0.02).mean(),
        (edge > 0.1).mean(),
        (edge > 0.4).mean(),
        _entropy(strength / strength.sum()) if strength.sum() > 0 else 0.0,
        *np.quantile(contrast, (0.1, 0.5, 0.9)),
        (contrast < 0.005).mean(),
        np.median(grain),
    ]


def _entropy(shares: Numbers) -> float:
    filled = shares[shares > 0]
    return float(-(filled * np.log(filled)).sum())
