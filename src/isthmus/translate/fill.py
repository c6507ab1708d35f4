"""Line drawing -> filled silhouette, and line drawing -> shaded picture: plain numpy and scipy.

What a drawing encloses is its object. Hand-drawn contours have gaps, so "enclosed" is a vote: a pixel is inside when
rays in nearly all directions meet a stroke. Inside, a height field inflated from the contour gives light and shade,
each region between strokes has its own colour; outside is a soft background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from isthmus.translate.noise import smooth_noise
from isthmus.translate.saliency import Floats

Mask = NDArray[np.bool_]
EIGHT = np.ones((3, 3), dtype=bool)
MAX_DEPTH = 64  # nesting of strokes in strokes: beyond it everything is texture


def nesting(ink: Mask) -> NDArray[np.int16]:
    """How deep each pixel (h, w) is nested: 0 background, 1 strokes that touch it, 2 what those enclose, and so on."""
    inside = np.pad(ink, 1)
    strokes, _ = ndimage.label(inside, EIGHT)
    gaps, _ = ndimage.label(~inside)
    depth = np.full(inside.shape, -1, dtype=np.int16)
    current = gaps == gaps[0, 0]
    for level in range(MAX_DEPTH):
        depth[current] = level
        near = ndimage.binary_dilation(current, EIGHT) & (depth < 0)
        labels = strokes if level % 2 == 0 else gaps
        numbers = np.unique(labels[near & (labels > 0)])
        if len(numbers) == 0:
            break
        current = np.isin(labels, numbers) & (depth < 0)
    depth[depth < 0] = MAX_DEPTH
    return depth[1:-1, 1:-1]


def fill_silhouette(ink: Mask) -> NDArray[np.uint8]:
    """A line drawing (h, w) as its filled picture: black on white, uint8.

    A contour and what it encloses turn black, also where the contour is open a little, as beside a badge; strokes
    inside it turn white, as they would vanish otherwise. A white seam stays around marks that stand apart.
    """
    depth = nesting(ink)
    turn = depth % 4
    black = (turn == 1) | (turn == 2)
    bay: Mask = ndimage.binary_opening((depth == 0) & (ray_votes(ink) >= 0.88))
    if bay.any():
        parts, _ = ndimage.label(ink, EIGHT)
        largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        seam = max(1, round(max(ink.shape) / 32))
        bay &= ~ndimage.binary_dilation(ink & (parts != largest), iterations=seam)
    return np.where(black | bay, 0, 255).astype(np.uint8)


def enclosed(ink: Mask, *, share: float = 0.85) -> Mask:
    """Pixels (h, w) from which at least `share` of 16 rays meet a stroke; the strokes among them included.

    Regions that the background can't reach at all are enclosed whatever the rays say.
    """
    inside = (ray_votes(ink) >= share).astype(np.float32)
    smooth = np.empty_like(inside)
    ndimage.uniform_filter(inside, max(3, 2 * (max(ink.shape) // 64) + 1), output=smooth)
    found: Mask = ndimage.binary_fill_holes((smooth > 0.5) | (nesting(ink) >= 1))
    return found


def ray_votes(ink: Mask) -> Floats:
    """From each pixel (h, w), the share of 16 rays that meet ink: 1 inside a closed contour, about 1/2 beside it."""
    votes = np.zeros(ink.shape, dtype=np.float32)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1)):
        for sign in (1, -1):
            votes += _hit(ink, sign * dy, sign * dx)
    return votes / np.float32(16)


def _hit(ink: Mask, dy: int, dx: int) -> Mask:
    """Whether the ray from each pixel in direction (dy, dx) meets ink: log2 steps of doubling length."""
    # Knight's moves would step over a thin line.
    seen = ndimage.binary_dilation(ink) if max(abs(dy), abs(dx)) > 1 or dy * dx else ink
    seen = seen.copy()
    height, width = ink.shape
    step = 1
    while step * max(abs(dy), abs(dx)) < max(height, width):
        seen |= _shifted(seen, -dy * step, -dx * step)
        step *= 2
    return seen


def _shifted(image: Mask, dy: int, dx: int) -> Mask:
    height, width = image.shape
    out = np.zeros_like(image)
    if abs(dy) >= height or abs(dx) >= width:
        return out
    rows, columns = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    from_rows, from_columns = slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0))
    out[rows, columns] = image[from_rows, from_columns]
    return out


def shade(ink: Mask, rng: np.random.Generator, *, texture: float = 1.0) -> NDArray[np.uint8]:
    """A line drawing (h, w) as a coloured, lit picture with a background: uint8 (h, w, 3).

    `rng` chooses colours, light and background; `texture` scales the surface noise.
    """
    height, width = ink.shape
    side = max(height, width)
    body = enclosed(ink)
    soft: Floats = ndimage.gaussian_filter(body.astype(np.float32), side / 200)
    background = _background(height, width, rng)
    colour = _surface(ink, body, rng, texture)
    light = _light(ink, body, rng)
    picture = colour * light[..., None]
    lines: Floats = ndimage.gaussian_filter(ink.astype(np.float32), side / 300)
    picture = picture * (1 - 0.75 * np.clip(1.4 * lines, 0, 1))[..., None]
    cast = ndimage.shift(soft, (side / 24, rng.uniform(-1, 1) * side / 24), order=1)
    shadow: Floats = ndimage.gaussian_filter(cast, side / 40)
    mixed = soft[..., None] * picture + (1 - soft[..., None]) * background * (1 - 0.35 * shadow)[..., None]
    mixed = mixed + rng.normal(0, 0.012, mixed.shape).astype(np.float32)
    return np.asarray(np.clip(np.rint(mixed * 255), 0, 255), dtype=np.uint8)


def _surface(ink: Mask, body: Mask, rng: np.random.Generator, texture: float) -> Floats:
    """Colours of the object: one family of hues, a shade for each region between strokes, and surface noise."""
    height, width = ink.shape
    base = _natural(rng)
    labels, count = ndimage.label(body & ~ink)
    tones = np.concatenate([[0.0], rng.normal(0, 0.10, count)]).astype(np.float32)
    tints = np.concatenate([np.zeros((1, 3)), rng.normal(0, 0.05, (count, 3))]).astype(np.float32)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    if count:
        tones[1 + int(np.argmax(area[1:]))] = 0.0
    colour = base + tones[labels][..., None] + tints[labels]
    noise = smooth_noise(height, width, rng, (3, 8, 24), (0.05, 0.06, 0.06))
    stretched = smooth_noise(height, width, rng, (2, 5), (0.05, 0.04))
    return np.asarray(np.clip(colour + texture * (noise + stretched)[..., None], 0.02, 1), dtype=np.float32)


def _light(ink: Mask, body: Mask, rng: np.random.Generator) -> Floats:
    """Lambert shading of a surface inflated from the contour, with a dent along each inner stroke."""
    side = max(ink.shape)
    from_contour = ndimage.distance_transform_edt(np.pad(body, 1))[1:-1, 1:-1]
    from_ink = ndimage.distance_transform_edt(~ink)
    height = np.sqrt(from_contour) * 2.2 + 1.2 * np.sqrt(np.minimum(from_ink, side / 12))
    height = ndimage.gaussian_filter(height, side / 60)
    dy, dx = (step[1:-1, 1:-1] for step in np.gradient(np.pad(height, 1, mode="edge")))
    angle = rng.uniform(-0.9, 0.9)
    toward = np.array([-np.cos(angle), np.sin(angle), 1.1])
    toward /= np.linalg.norm(toward)
    facing = (-dy * toward[0] - dx * toward[1] + toward[2]) / np.sqrt(1 + dx * dx + dy * dy)
    return np.asarray(0.42 + 0.75 * np.clip(facing, 0, 1), dtype=np.float32)


def _natural(rng: np.random.Generator) -> Floats:
    """A colour as objects have them: mostly browns, greys and dull tones, now and then a vivid one."""
    import colorsys

    vivid = rng.random() < 0.3
    hue = rng.random() if vivid else rng.normal(0.085, 0.05) % 1.0
    saturation = rng.uniform(0.45, 0.85) if vivid else rng.uniform(0.05, 0.5)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.3, 0.95)), dtype=np.float32)


def _background(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Plain studio, or land under sky, or blurred surroundings."""
    import colorsys

    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    kind = rng.random()
    if kind < 0.3:
        level = rng.uniform(0.55, 1.0)
        top = np.full(3, level, dtype=np.float32) + rng.normal(0, 0.02, 3).astype(np.float32)
        picture = np.broadcast_to(top * (1 - 0.15 * y), (height, width, 3)).copy()
        noise = smooth_noise(height, width, rng, (40,), (0.03,))
    else:
        sky = np.array(colorsys.hsv_to_rgb(rng.normal(0.57, 0.05) % 1, rng.uniform(0, 0.4), rng.uniform(0.6, 1)))
        ground_hue = rng.choice([0.28, 0.1, 0.08]) + rng.normal(0, 0.03)
        ground = np.array(colorsys.hsv_to_rgb(ground_hue % 1, rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.7)))
        horizon = rng.uniform(0.1, 0.8) if kind < 0.75 else -1.0
        blend = 1 / (1 + np.exp(-(y - horizon) * rng.uniform(15, 60)))
        picture = np.broadcast_to(sky * (1 - blend) + ground * blend, (height, width, 3)).copy()
        noise = smooth_noise(height, width, rng, (2, 6, 18, 40), (0.04, 0.05, 0.07, 0.07))
        noise = noise * (0.35 + 0.65 * blend[..., 0])
    return np.clip(picture + noise[..., None], 0, 1).astype(np.float32)
