"""Every pixel format that a file can hold, as 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any Pillow mode as mode `"RGB"`, transparency laid on white.

    16-bit greys are divided by 257, so that 65535 is white. 32-bit integers that fit 16 bits count as such (from
    memory, without a file's format, values up to 255 are taken as 8-bit). Floats in 0..1 are scaled by 255, in 0..255
    taken as they are. What fits neither is stretched from its least to its greatest value.

    Returns:
        The image itself when it is RGB without transparency, else a new one.

    Raises:
        ValueError: Pillow knows no conversion.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _wide_grey(image)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "RGB":
        return image
    if image.mode == "LAB":
        return _lab(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(colour, tuple) and max(colour) > 255:
        # A 48-bit PNG: Pillow keeps the high bytes of the pixels and all 16 bits of the transparent colour.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode[:-1] + "A")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _wide_grey(image: Image.Image) -> Image.Image:
    values: NDArray[Any] = np.asarray(image)
    if image.mode == "F":
        grey = _from_float(values)
    elif image.mode == "I":
        grey = _from_int32(values, from_file=image.format is not None)
    else:
        grey = (values.astype(np.uint32) + 128) // 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _from_int32(values: NDArray[Any], *, from_file: bool) -> NDArray[Any]:
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 255 and not from_file:
        return values
    if low >= 0 and high <= 65535:
        return (values + 128) // 257
    return _stretch(values.astype(np.float64), low, high)


def _from_float(values: NDArray[Any]) -> NDArray[Any]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel value")
    low, high = float(values[finite].min()), float(values[finite].max())
    filled = np.where(finite, values, low).astype(np.float64)
    if low >= 0 and high <= 1:
        return np.rint(filled * 255)
    if low >= 0 and high <= 255:
        return np.rint(filled)
    return _stretch(filled, low, high)


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    return np.rint((values - low) * (255 / max(high - low, 1e-12)))


def _lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if converted is None:
        raise ValueError("the LAB colours could not be converted")
    return converted
