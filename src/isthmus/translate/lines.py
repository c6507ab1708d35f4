"""Photo -> line drawing: the numerics, plain numpy and scipy.

A person who sketches draws few, long, connected strokes of one width, of the object and not of what is behind it. So
the drawing is made in four steps: edges that follow the form (edge tangent flow, flow-guided difference of Gaussians),
suppression of texture by its surroundings, thin strokes by hysteresis, and a budget of ink that goes to the longest,
strongest strokes of the salient object first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isthmus.translate.ink import PLAIN, Placement, ink_lines
from isthmus.translate.saliency import Floats, gaussian, guided_filter, lab, saliency

SPECK = 0.13  # of the best stroke's score: below it a stroke is clutter
EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Look:
    """What a line drawing looks like. Lengths are fractions of the longer side.

    Attributes:
        stroke: width of a stroke.
        ink: total length of the strokes at most.
        shortest: shortest stroke that is kept.
        detail: share of the ink's strength that a stroke needs to be drawn, 0 (everything) to 1 (hardly anything).
        background: weight of what isn't the object, 0 (leave it out) to 1 (draw it all).
    """

    stroke: float = 0.011
    ink: float = 7.0
    shortest: float = 0.04
    detail: float = 0.12
    background: float = 0.08


def wide_blur(image: Floats, sigma: float) -> Floats:
    """About `gaussian(image, sigma)` for a large sigma, by two running means: their cost doesn't grow with it."""
    size = max(1, round(sigma * 6**0.5))
    out = np.empty_like(image)
    ndimage.uniform_filter(image, size, output=out, mode="nearest")
    ndimage.uniform_filter(out.copy(), size, output=out, mode="nearest")
    return out


def difference_of_gaussians(grey: Floats, sigma: float, *, ratio: float = 1.6, weight: float = 1.0) -> Floats:
    """G(sigma) - weight * G(ratio * sigma) of `grey` (h, w): negative on an edge's dark side (XDoG, equation 1)."""
    return gaussian(grey, sigma) - weight * gaussian(grey, ratio * sigma)


def tangent_flow(channels: Sequence[Floats], sigma: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Gradient strength and edge direction of a multi-channel image, planes (h, w).

    The structure tensor of all channels (Di Zenzo, 1986), smoothed: its minor eigenvector is the edge tangent flow of
    coherent line drawing in closed form (Kyprianidis and Dollner, 2008).

    Returns:
        strength (h, w) before smoothing the tensor; unit tangent x and y (h, w); coherence (h, w) in 0..1.
    """
    xx, yy, xy = (np.zeros(channels[0].shape, dtype=np.float32) for _ in range(3))
    for plane in channels:
        padded = np.pad(plane, 1, mode="edge")
        dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
        dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
        xx += dx * dx
        yy += dy * dy
        xy += dx * dy
    strength = np.sqrt(0.5 * (xx + yy + np.sqrt((xx - yy) ** 2 + 4 * xy * xy)))
    xx, yy, xy = gaussian(xx, sigma), gaussian(yy, sigma), gaussian(xy, sigma)
    root = np.sqrt((xx - yy) ** 2 + 4 * xy * xy)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.float32(np.pi / 2)
    coherence = root / (xx + yy + 1e-3)
    return strength, np.cos(angle), np.sin(angle), coherence


def along_flow(image: Floats, tx: Floats, ty: Floats, length: float) -> Floats:
    """Gaussian-weighted mean of `image` along the tangent field, `length` pixels to each side (coherent line drawing).

    A line integral that follows the field: broken edges close, specks fade.
    """
    height, width = image.shape
    y0, x0 = np.mgrid[0:height, 0:width].astype(np.float32)
    total, norm = image.copy(), 1.0
    steps = max(1, round(length / 1.7))  # the field turns slowly: every second pixel is enough
    stride = np.float32(length / steps)
    for sign in (1, -1):
        y, x, vx, vy = y0, x0, sign * tx, sign * ty
        for step in range(1, steps + 1):
            y, x = np.clip(y + stride * vy, 0, height - 1), np.clip(x + stride * vx, 0, width - 1)
            at = np.rint(y).astype(np.int32) * width + np.rint(x).astype(np.int32)
            weight = float(np.exp(-0.5 * (2 * step / steps) ** 2))
            total = total + np.float32(weight) * image.take(at)
            norm += weight
            nx, ny = tx.take(at), ty.take(at)
            # The tensor has no sense of direction: keep walking the way we came.
            turn = np.sign(nx * vx + ny * vy + np.float32(1e-12))
            vx, vy = nx * turn, ny * turn
    return total / np.float32(norm)


def ridges(strength: Floats, tx: Floats, ty: Floats) -> NDArray[np.bool_]:
    """Pixels that are no weaker than both neighbours across the edge (Canny's non-maximum suppression)."""
    padded = np.pad(strength, 1, mode="edge")
    across = np.mod(np.arctan2(tx, -ty), np.pi)  # the normal's direction
    sector = np.rint(across / (np.pi / 4)).astype(np.intp) % 4
    keep = np.zeros(strength.shape, dtype=bool)
    height, width = strength.shape
    for number, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        one = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        other = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        keep |= (sector == number) & (strength > one) & (strength >= other)
    return keep & (strength > 0)


def edge_strength(pixels: Floats, scale: float) -> tuple[Floats, Floats, Floats]:
    """Strength of form-following edges of a Lab image (h, w, 3), with the tangent field; texture is suppressed.

    `scale` is the longer side in units of 256 pixels.
    """
    light = np.ascontiguousarray(pixels[..., 0])
    light = guided_filter(light, light, max(1, round(3 * scale)), 20.0)
    colours = [gaussian(np.ascontiguousarray(pixels[..., channel]), 1.5 * scale) for channel in (1, 2)]
    strength, tx, ty, coherence = tangent_flow([light, *colours], 2.0 * scale)
    # Thin dark lines (an eye, a rail) are one stroke to a person, but two edges to a gradient: XDoG sees them.
    dark: Floats = np.maximum(-difference_of_gaussians(light, scale), 0)
    mixed: Floats = gaussian(strength, 0.8 * scale) + 0.5 * dark
    mixed = along_flow(mixed, tx, ty, max(2.0, 5 * scale)) * (0.3 + 0.7 * coherence)
    # Non-classical receptive field inhibition (Grigorescu et al., 2003): an edge among many edges is texture.
    surround = np.maximum(wide_blur(mixed, 10.0 * scale) - 0.5 * gaussian(mixed, 3.0 * scale), 0)
    return np.maximum(mixed - 0.9 * surround, 0), tx, ty


def strokes(strength: Floats, tx: Floats, ty: Floats, interest: Floats, look: Look, side: int) -> NDArray[np.bool_]:
    """Thin lines (h, w) that spend the ink budget on the longest and strongest strokes of interest."""
    value = strength * interest
    peak = float(np.quantile(value[::2, ::2], 0.99))
    if peak < 0.25:  # Lab units a pixel: below that there is nothing to see
        return np.zeros(strength.shape, dtype=bool)
    thin = ridges(strength, tx, ty)
    weak = thin & (value > 0.4 * look.detail * peak)
    labels, count = ndimage.label(weak, EIGHT)
    if count == 0:
        return weak
    flat = labels.ravel()
    length = np.bincount(flat, minlength=count + 1).astype(np.float64)
    mass = np.bincount(flat, weights=np.minimum(value, peak).ravel(), minlength=count + 1)
    best = np.asarray(ndimage.maximum(value, labels, np.arange(count + 1)))
    # The photo's own frame, or a black bar along it, is nothing that anybody would draw.
    rim = np.ones(strength.shape, dtype=bool)
    inset = max(2, round(0.03 * side))
    rim[inset:-inset, inset:-inset] = False
    framing = np.bincount(flat[rim.ravel()], minlength=count + 1) / np.maximum(length, 1)
    usable = (length >= look.shortest * side) & (best > look.detail * peak) & (framing < 0.6)
    usable[0] = False
    score = np.where(usable, mass / np.maximum(length, 1) * np.sqrt(length), 0.0)
    order = np.argsort(-score, kind="stable")
    # What ink is left over isn't spent on specks.
    order = order[score[order] > max(0.0, SPECK * float(score.max()))]
    spent = np.cumsum(length[order])
    chosen = np.zeros(count + 1, dtype=bool)
    chosen[order[spent - length[order] < look.ink * side]] = True
    return np.asarray(chosen[labels])


def draw(rgb: NDArray[np.uint8], look: Look, place: Placement = PLAIN) -> NDArray[np.uint8]:
    """A photo (h, w, 3) as a line drawing (h, w), black strokes on white."""
    side = max(rgb.shape[:2])
    scale = side / 256
    pixels = lab(rgb)
    strength, tx, ty = edge_strength(pixels, scale)
    object_ness = saliency(pixels)
    interest = look.background + (1 - look.background) * ndimage.maximum_filter(object_ness, max(1, round(7 * scale)))
    thin = strokes(strength, tx, ty, interest, look, side)
    return ink_lines(thin, max(1.5, look.stroke * side), place)
