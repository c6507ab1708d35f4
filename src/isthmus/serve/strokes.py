"""Strokes from a canvas, drawn the way the sketches looked that the model was trained on.

A canvas holds a small drawing in a corner, in whatever width the pen had. Training sketches are black on white, fill
their square up to a margin and have one width of line. So the strokes are drawn anew at the size that the model
sees, never scaled as pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from pydantic import BaseModel, ConfigDict, Field, model_validator

from isthmus.errors import IsthmusError
from isthmus.models.drawn_look import DrawnLook

MAX_LINES = 2_000
MAX_POINTS = 50_000
# Medians of width / side and margin / side: PACS .0104 and .106, Sketchy .0100 and .18, QMUL-Shoe .0043 and .061.
LINE = 0.010
MARGIN = 0.10
_FAR = 16_384.0
_FINER = 4
_SCRIBBLED = 400  # drawn length in sides of the picture from which on smoothness costs more than it shows
_LARGEST = 2048  # side in pixels up to which more of them make lines smoother; an eraser may cover all of it often
_LOOK = 512  # side at which the erased drawing's box is measured
_BOLDEST = 6.0  # a filled-in area is no line any more

Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-_FAR, le=_FAR)]
Point = tuple[Coordinate, Coordinate]
Segment = list[tuple[float, float]]
Box = tuple[float, float, float, float]


class Line(BaseModel):
    """One stroke: its points in canvas pixels, its width, and whether it was made with the eraser."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: list[Point] = Field(min_length=1, max_length=MAX_POINTS)
    width: float = Field(4.0, strict=True, allow_inf_nan=False, gt=0, le=512, description="in canvas pixels")
    erase: bool = Field(False, strict=True)


class Strokes(BaseModel):
    """A drawing: its canvas and its lines in the order in which they were drawn.

    Example:
        >>> Strokes(width=300, height=300, lines=[Line(points=[(10, 10), (90, 40)])]).height
        300
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(strict=True, ge=16, le=4096, description="of the canvas, in pixels")
    height: int = Field(strict=True, ge=16, le=4096)
    lines: list[Line] = Field(min_length=1, max_length=MAX_LINES)

    @model_validator(mode="after")
    def _few_enough(self) -> Strokes:
        points = sum(len(line.points) for line in self.lines)
        if points > MAX_POINTS:
            raise ValueError(f"the drawing has {points:,} points, and {MAX_POINTS:,} is the limit; send fewer of them")
        return self


@dataclass(frozen=True)
class _View:
    """Where canvas coordinates come to lie on the picture: `x * scale + left`."""

    scale: float
    left: float
    top: float

    def place(self, points: list[Point], step: float) -> Segment:
        """The points on the picture, without those nearer than `step` to the one before."""
        placed = [(x * self.scale + self.left, y * self.scale + self.top) for x, y in points]
        kept = placed[:1]
        for x, y in placed[1:]:
            if abs(x - kept[-1][0]) + abs(y - kept[-1][1]) >= step:
                kept.append((x, y))
        if kept[-1] != placed[-1]:
            kept.append(placed[-1])
        return kept


def draw(strokes: Strokes, *, size: int = 256, line: float = LINE, margin: float = MARGIN) -> Image.Image:
    """The drawing as a query: black on white, its box in the middle of a square.

    Lines are as wide as in training, whatever the pen: the drawing's usual width becomes `line`, and a stroke twice as
    wide as that stays twice as wide. The eraser takes away what it took away on the canvas.

    Args:
        strokes: the drawing.
        size: side of the picture in pixels, 16 to 2048.
        line: width of a usual line, as a share of the side.
        margin: white on each side of the drawing, as a share of the side, below .5.

    Returns:
        An RGB image of `size` x `size`.

    Raises:
        IsthmusError: nothing is left to be seen: every line was erased or lies outside the canvas.

    Example:
        >>> draw(Strokes(width=300, height=300, lines=[Line(points=[(10, 10), (90, 40)])]), size=64).size
        (64, 64)
    """
    if not 16 <= size <= 2048 or not 0 < line < 0.5 or not 0 <= margin < 0.5:
        raise IsthmusError(
            f"A drawing is drawn 16 to 2048 pixels large, with lines and margin below half of that, not with "
            f"size={size}, line={line}, margin={margin}."
        )
    box = _box(strokes)
    if box is None:
        raise IsthmusError("The drawing is empty: there is no line left on the canvas; draw one.")
    left, top, right, bottom = box
    extent = max(right - left, bottom - top, 1.0)
    smooth = sum(map(_length, strokes.lines)) < _SCRIBBLED * extent
    finer = min(_FINER, max(1, _LARGEST // size)) if smooth else 1
    side = size * finer
    pen = line * side
    room = max(side * (1 - 2 * margin) - pen, 1.0)
    scale = room / extent
    view = _View(scale, (side - (left + right) * scale) / 2, (side - (top + bottom) * scale) / 2)
    usual = _usual_width(strokes)
    picture = Image.new("L", (side, side), 255)
    pencil = ImageDraw.Draw(picture)
    for stroke in strokes.lines:
        if stroke.erase:
            # A line drawn wider than on the canvas would leave its rims beside the eraser's path.
            width = stroke.width * scale + max(0.0, pen - usual * scale)
        else:
            width = pen * min(stroke.width / usual, _BOLDEST)
        _stroke(pencil, view.place(stroke.points, finer / 4), min(width, 2.0 * side), 255 if stroke.erase else 0)
    _clip(pencil, view, strokes, pen, side)
    return picture.reduce(finer).convert("RGB")


def draw_as_trained(strokes: Strokes, look: DrawnLook | None, size: int) -> Image.Image:
    """`draw` with the lines, margins and ground of the drawings that the model learned from; the usual ones if None."""
    if look is None:
        return draw(strokes, size=size)
    drawn = draw(strokes, size=size, line=look.line, margin=look.margin)
    return ImageOps.invert(drawn) if look.dark else drawn


def _usual_width(strokes: Strokes) -> float:
    """The width that half of the drawn length has at most: a few bold dots do not make the rest thin."""
    lengths = sorted((stroke.width, _length(stroke)) for stroke in strokes.lines if not stroke.erase)
    half = sum(length for _, length in lengths) / 2
    for width, length in lengths:
        half -= length
        if half <= 0:
            return width
    return lengths[-1][0]


def _length(stroke: Line) -> float:
    """How far the pen went; a dot counts a little."""
    return 1.0 + sum(math.dist(a, b) for a, b in zip(stroke.points, stroke.points[1:], strict=False))


def _box(strokes: Strokes) -> Box | None:
    """What is to be seen on the canvas: left, top, right, bottom of the lines' middles; None where nothing is."""
    drawn = [stroke for stroke in strokes.lines if not stroke.erase]
    if not drawn:
        return None
    points = np.array([point for stroke in drawn for point in stroke.points], dtype=np.float64)
    inside = (points >= 0).all() and (points <= (strokes.width, strokes.height)).all()
    if inside and len(drawn) == len(strokes.lines):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)
    # What the eraser or the canvas' edge leaves has no formula: it is looked at.
    scale = _LOOK / max(strokes.width, strokes.height)
    size = (max(1, math.ceil(strokes.width * scale)), max(1, math.ceil(strokes.height * scale)))
    picture = Image.new("L", size, 0)
    pencil = ImageDraw.Draw(picture)
    view = _View(scale, 0.0, 0.0)
    usual = _usual_width(strokes)
    for stroke in strokes.lines:
        # A line is gone where the eraser covered all of its width; here it is drawn one pixel wide.
        width = max(1.0, (stroke.width - usual) * scale + 1) if stroke.erase else 1.0
        _stroke(pencil, view.place(stroke.points, 0.5), width, 0 if stroke.erase else 255)
    box = picture.getbbox()
    if box is None:
        return None
    return box[0] / scale, box[1] / scale, (box[2] - 1) / scale, (box[3] - 1) / scale


def _stroke(pencil: ImageDraw.ImageDraw, points: Segment, width: float, shade: int) -> None:
    """A polyline with round joints and ends."""
    if len(points) > 1:
        pencil.line(points, fill=shade, width=max(1, round(width)))
    radius = width / 2
    if radius >= 1 or len(points) == 1:
        for x, y in points:
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)


def _clip(pencil: ImageDraw.ImageDraw, view: _View, strokes: Strokes, pen: float, side: int) -> None:
    """White over what lies outside the canvas, where nobody saw it."""
    left, top = view.left - pen / 2, view.top - pen / 2
    right, bottom = strokes.width * view.scale + view.left + pen / 2, strokes.height * view.scale + view.top + pen / 2
    for box in ((0, 0, left, side), (0, 0, side, top), (right, 0, side, side), (0, bottom, side, side)):
        if box[2] > box[0] and box[3] > box[1]:
            pencil.rectangle(box, fill=255)
