"""Height and width of images in settings and models: one number for a square, else a pair."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator

Sides = int | tuple[int, int]

_WRITTEN = re.compile(r"\s*(\d{1,6})\s*(?:[x×,]\s*(\d{1,6})\s*)?")


def sides(value: Sides) -> tuple[int, int]:
    """Height and width in pixels.

    Example:
        >>> sides(128), sides((384, 128))
        ((128, 128), (384, 128))
    """
    return (value, value) if isinstance(value, int) else value


def compact(value: Any) -> Sides:
    """A square as one number, anything else as (height, width), so that a size is written in one way only.

    Args:
        value: an int, a pair of them, or text such as `"128"` and `"384x128"` (height first).

    Raises:
        ValueError: it is none of these, or a side is not positive.

    Example:
        >>> compact([128, 128]), compact("384x128")
        (128, (384, 128))
    """
    if isinstance(value, str) and (match := _WRITTEN.fullmatch(value)):
        value = [int(side) for side in match.groups() if side is not None]
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    numbers = [int(side) for side in given if _whole(side)]
    if len(numbers) != len(given) or len(given) not in (1, 2) or min(numbers) < 1:
        raise ValueError("a size is a side in pixels such as 128, or height x width such as 384x128")
    return numbers[0] if numbers[0] == numbers[-1] else (numbers[0], numbers[1])


def show(value: Any) -> str:
    """A size as a person writes it; also one that was read from JSON.

    Example:
        >>> show(128), show((384, 128))
        ('128', '384 x 128')
    """
    height, width = sides(compact(value))
    return str(height) if height == width else f"{height} x {width}"


def _whole(side: object) -> bool:
    return not isinstance(side, bool) and (isinstance(side, int) or (isinstance(side, float) and side.is_integer()))


def _network(value: Any) -> Sides:
    size = compact(value)
    if min(sides(size)) < 16:
        raise ValueError("each side should be greater than or equal to 16 pixels")
    return size


Size = Annotated[Sides, PlainValidator(compact)]
NetworkSize = Annotated[Sides, PlainValidator(_network)]
