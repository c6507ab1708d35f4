"""The gate that every picture passes while a run makes it: a picture that shows nothing is a failure."""

from __future__ import annotations

from PIL import Image, ImageStat

from isthmus.translate.base import NoPicture

BLANK_SPREAD = 2.0  # grey levels; four dark pixels on a white page of 256 x 256 spread as much
BLANK = "the picture is blank although its source is not"


def shows_nothing(image: Image.Image) -> bool:
    """Whether the pixels of each colour channel spread less than two grey levels: one colour, or faint noise.

    A safety checker's black image is one of these.

    Example:
        >>> shows_nothing(Image.new("RGB", (64, 64), "black"))
        True
    """
    return max(ImageStat.Stat(image.convert("RGB")).stddev) < BLANK_SPREAD


def passed(picture: Image.Image | NoPicture | None, source: Image.Image) -> Image.Image | NoPicture | None:
    """`picture`, or why it is none: a blank picture is let through only where its source is blank too."""
    if isinstance(picture, Image.Image) and shows_nothing(picture) and not shows_nothing(source):
        return NoPicture(BLANK)
    return picture
