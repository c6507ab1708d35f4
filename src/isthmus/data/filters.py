"""What a domain's images become before the network sees them: grey, or the drawing of their edges.

A sketch has neither colour nor surfaces. Taking them from the photos as well leaves the network less to bridge.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from isthmus.errors import IsthmusError

FILTERS = ("none", "grey", "edges")


def check_filter(name: str) -> None:
    """Raise where there is no such filter."""
    if name not in FILTERS:
        raise IsthmusError(f"There is no filter '{name}'; choose {', '.join(FILTERS[:-1])} or {FILTERS[-1]}.")


def resized(image: Image.Image, size: tuple[int, int], method: Image.Resampling, name: str = "none") -> Image.Image:
    """An RGB image squashed to `size` = (width, height) and filtered, in RGB.

    Grey is taken first: luminance is a weighted sum, as resizing is, so the order changes no more than the rounding,
    and one plane is resized instead of three. Edges are drawn last, at the network's resolution: lines drawn in a large
    photo would fade as it shrinks, so that the drawing would depend on the camera.

    Raises:
        IsthmusError: there is no such filter.

    Example:
        >>> resized(Image.new("RGB", (40, 20), "red"), (8, 8), Image.Resampling.BILINEAR, "grey").getpixel((0, 0))
        (76, 76, 76)
    """
    check_filter(name)
    if name == "grey":
        return image.convert("L").resize(size, method, reducing_gap=2.0).convert("RGB")
    small = image.resize(size, method, reducing_gap=2.0)
    return draw_edges(small) if name == "edges" else small


def draw_edges(image: Image.Image) -> Image.Image:
    """An RGB image as a line drawing: dark lines on white, in RGB.

    For each channel v, ink = clip(8 v - sum of the 8 neighbours, 0, 255): a Laplacian, of which the brighter side of an
    edge remains. What is drawn is 255 - ink, its luminance taken. It is the edge filter that IHDA's authors used for
    photos of shoes, but at the image's own border pixels are repeated, where theirs leaves a frame of the photo.

    Example:
        >>> draw_edges(Image.new("RGB", (4, 4), "red")).getextrema()
        ((255, 255), (255, 255), (255, 255))
    """
    wider = Image.fromarray(np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)), mode="edge"))
    ink = wider.filter(ImageFilter.FIND_EDGES).crop((1, 1, 1 + image.width, 1 + image.height))
    return Image.fromarray(255 - np.asarray(ink)).convert("L").convert("RGB")
