"""The one decoder: training, translation, index and page all read images through `load_image`.

Whatever the file holds comes out as 8-bit RGB, upright, with transparency laid on white, or as an `ImageError` that
names the file and says what to do. Nothing comes out half decoded.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from isthmus.data.files import IMAGE_SUFFIXES, ImageError, content_hash, list_images, open_file, show_name
from isthmus.data.modes import to_rgb

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Decoded",
    "ImageError",
    "content_hash",
    "decode_image",
    "list_images",
    "load_image",
    "show_name",
]

MAX_PIXELS = 100_000_000
# Pillow can open EPS and WMF too, but starts other programs for them: not for files from strangers.
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
_ANIMATIONS = ("GIF", "WEBP", "PNG", "AVIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_pillow_lock = threading.RLock()


@dataclass(frozen=True)
class Decoded:
    """An image and what its file was like.

    Attributes:
        image: 8-bit RGB, upright.
        size: (width, height) of the upright image before any reduction by `min_side`.
        format: Pillow's name of the format, such as `"JPEG"`; None for an image that came from memory.
        mode: Pillow's mode in the file, such as `"CMYK"` or `"I;16"`.
        animated: whether there are more frames than the one that was taken.
        rotated: whether the EXIF orientation turned or flipped it.
    """

    image: Image.Image
    size: tuple[int, int]
    format: str | None
    mode: str
    animated: bool
    rotated: bool


def load_image(
    source: str | Path | bytes | BinaryIO | Image.Image,
    *,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Read an image as 8-bit RGB.

    Transparency is laid on white, EXIF orientation applied, 16-bit and float greys are scaled to 0..255, CMYK and
    palettes are converted, and of an animation the first frame is taken.

    Args:
        source: a path, the bytes of a file, a binary file (read from where it stands, left open) or a Pillow image
            (not changed).
        min_side: lets a larger JPEG be decoded at 1/2, 1/4 or 1/8 of its size, to no less than `min_side` on the
            shorter side: about twice as fast. Other formats ignore it.
        max_pixels: images whose header claims more pixels are refused before anything is decoded.

    Returns:
        A new image of mode `"RGB"`, independent of the source.

    Raises:
        ImageError: the file is missing, a folder, unreadable, empty, no image, broken, truncated or too large.

    Example:
        >>> load_image(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    return decode_image(source, min_side=min_side, max_pixels=max_pixels).image


def decode_image(
    source: str | Path | bytes | BinaryIO | Image.Image,
    *,
    min_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """`load_image` that also tells what the file was like; same arguments and errors."""
    if isinstance(source, Image.Image):
        with _strict_pillow(max_pixels):
            # No reduced decoding: it would change an image that its owner has opened and not yet loaded.
            return _decode(source, "the image given from memory", None, max_pixels)
    if isinstance(source, (str, os.PathLike)):
        name = show_name(source)
        with open_file(source, name) as file:
            return _open_and_decode(file, name, min_side, max_pixels)
    data = source if isinstance(source, bytes) else source.read()
    if not data:
        raise ImageError("The image given as bytes is empty (0 bytes); send the whole file.")
    return _open_and_decode(io.BytesIO(data), "the image given as bytes", min_side, max_pixels)


def _open_and_decode(file: BinaryIO, name: str, min_side: int | None, max_pixels: int) -> Decoded:
    with _strict_pillow(max_pixels):
        Image.init()
        try:
            image = Image.open(file, formats=[known for known in _FORMATS if known in Image.OPEN])
        except UnidentifiedImageError:
            raise ImageError(
                f"{name} is not an image in a known format (JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000, AVIF), or "
                "its start is damaged; convert it or remove it."
            ) from None
        except Image.DecompressionBombError as error:  # Pillow's own limit, met before ours could be
            count = re.search(r"\d+", str(error))
            claim = f"{int(count[0]):,} pixels" if count else "more pixels than can be meant"
            raise ImageError(_too_large(name, claim, max_pixels)) from None
        except Exception as error:  # a decoder meets damage with whatever it trips over
            raise ImageError(_damaged(name, error)) from error
        with image:
            return _decode(image, name, min_side, max_pixels)


def _decode(image: Image.Image, name: str, min_side: int | None, max_pixels: int) -> Decoded:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(_too_large(name, f"{width} x {height} pixels", max_pixels))
    if width == 0 or height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); remove it.")
    form, mode = image.format, image.mode
    try:
        animated = form in _ANIMATIONS and bool(getattr(image, "is_animated", False))
        if min_side is not None and form in ("JPEG", "MPO"):
            image.draft(None, (min_side, min_side))
        image.load()
        orientation = _orientation(image)
        rgb = to_rgb(image)
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory ({width} x {height} pixels); make it smaller.") from None
    except Exception as error:
        raise ImageError(_damaged(name, error)) from error
    if orientation != 1:
        rgb = rgb.transpose(_TURNS[orientation])
    elif rgb is image:
        rgb = image.copy()
    # The orientation has been applied: left in the metadata it would be applied again by the next reader.
    rgb.info = {}
    size = (height, width) if orientation >= 5 else (width, height)
    return Decoded(rgb, size, form, mode, animated, orientation != 1)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose a sound image
        return 1
    return value if value in _TURNS else 1


def _too_large(name: str, claim: str, max_pixels: int) -> str:
    return (
        f"{name} claims {claim}, over the limit of {max_pixels:,}, and was not decoded; make it smaller, or raise "
        "max_pixels if it is to be trusted."
    )


def _damaged(name: str, error: Exception) -> str:
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return f"{name} is damaged or incomplete ({reason}); fetch it again or remove it."


@contextlib.contextmanager
def _strict_pillow(max_pixels: int) -> Iterator[None]:
    """Hold Pillow's process-wide switches at what this decoder promises, where another library moved them.

    They are touched (under a lock) only where they stand in the way: in the common case threads decode side by side.
    """
    limit = Image.MAX_IMAGE_PIXELS
    lift = limit is not None and max_pixels > 2 * limit
    if not (lift or ImageFile.LOAD_TRUNCATED_IMAGES):
        yield
        return
    with _pillow_lock:
        truncated, limit = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        if lift:
            Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = truncated, limit
