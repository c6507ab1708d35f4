"""Strokes become the picture that a training sketch would have been; limits hold; dark drawings are turned."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from isthmus.errors import IsthmusError
from isthmus.models.drawn_look import DrawnLook, measure
from isthmus.serve.strokes import LINE, MARGIN, MAX_LINES, MAX_POINTS, Line, Strokes, draw, draw_as_trained

SQUARE = [(100.0, 120.0), (300.0, 120.0), (300.0, 320.0), (100.0, 320.0), (100.0, 120.0)]


def drawing(*lines: list[tuple[float, float]], width: float = 4.0, side: int = 512, erased: Any = ()) -> Strokes:
    drawn = [Line(points=line, width=width) for line in lines]
    return Strokes(width=side, height=side, lines=[*drawn, *erased])


def ink(image: Image.Image) -> np.ndarray[Any, Any]:
    """0 white to 1 black."""
    return 1 - np.asarray(image.convert("L"), np.float64) / 255


def box(image: Image.Image) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(ink(image) > 0.25)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(("size", "line", "margin"), [(256, LINE, MARGIN), (200, 0.02, 0.06), (128, 0.03, 0.2)])
def test_margin_and_line_are_as_in_training(size: int, line: float, margin: float) -> None:
    image = draw(drawing(SQUARE), size=size, line=line, margin=margin)
    assert image.size == (size, size) and image.mode == "RGB"
    left, top, right, bottom = box(image)
    for space in (left, top, size - right, size - bottom):
        assert abs(space - margin * size) <= 1.01
    middle = ink(image)[size // 2]  # crosses the left and the right side
    assert middle.sum() / 2 == pytest.approx(line * size, abs=0.5)
    assert middle.max() > 0.95 and ink(image)[size // 4 : size // 2, size // 3 : size // 2].max() == 0


def test_place_size_and_pen_of_the_drawing_do_not_matter() -> None:
    expected = ink(draw(drawing(SQUARE)))
    small = [(x / 4 + 300, y / 4 + 20) for x, y in SQUARE]
    for same in (drawing(small), drawing(SQUARE, width=20.0), drawing(SQUARE, side=4096)):
        assert np.abs(ink(draw(same)) - expected).mean() < 0.002
    flat = draw(drawing([(10.0, 50.0), (500.0, 50.0)]))
    left, top, right, bottom = box(flat)
    assert abs(left - 25.6) <= 1 and abs(256 - right - 25.6) <= 1  # a wide drawing lies in the middle of its square
    assert abs((top + bottom) / 2 - 128) <= 1


def test_a_bolder_stroke_stays_bolder() -> None:
    lines = [Line(points=[(50, y), (450, y)], width=width) for y, width in ((50, 4), (150, 4), (350, 12))]
    rows = ink(draw(Strokes(width=512, height=512, lines=lines)))[:, 128]
    thin, bold = rows[:128].sum() / 2, rows[128:].sum()
    assert bold / thin == pytest.approx(3, rel=0.1)


def test_edges_are_smooth_and_corners_round() -> None:
    values = np.asarray(draw(drawing([(20.0, 30.0), (400.0, 330.0)])).convert("L"))
    assert values.min() == 0 and values.max() == 255
    assert ((values > 40) & (values < 215)).sum() > 100
    corner = ink(draw(drawing([(0.0, 0.0), (100.0, 0.0), (100.0, 100.0)]), line=0.1))
    assert corner[27, 228] == 0 and corner[38, 217] == 1  # the joint is filled, its outer corner is not square


def test_the_eraser_takes_away_what_it_took_on_the_canvas() -> None:
    rubber = Line(points=[(200, 60), (200, 200)], width=60, erase=True)
    image = ink(draw(drawing(SQUARE, erased=[rubber])))
    assert image[20:40, 118:138].max() == 0  # the top side's middle
    assert image[20:40, 30:60].max() > 0.9 and image[20:40, 200:220].max() > 0.9
    again = Line(points=[(100, 120), (300, 120)], width=4)
    back = ink(draw(Strokes(width=512, height=512, lines=[*drawing(SQUARE).lines, rubber, again])))
    assert np.abs(back - ink(draw(drawing(SQUARE)))).mean() < 0.002


def test_the_box_is_of_what_is_left() -> None:
    blot = [(460.0, 460.0), (500.0, 500.0)]
    rubber = Line(points=[(450, 450), (510, 510)], width=40, erase=True)
    image = ink(draw(drawing(SQUARE, blot, erased=[rubber])))
    assert np.abs(image - ink(draw(drawing(SQUARE)))).mean() < 0.01
    outside = [(600.0, 100.0), (900.0, 400.0)]
    assert np.abs(ink(draw(drawing(SQUARE, outside))) - ink(draw(drawing(SQUARE)))).mean() < 0.01
    crossing = ink(draw(drawing([(256.0, 100.0), (256.0, 300.0)], [(256.0, 200.0), (2000.0, 200.0)])))
    left, _, right, _ = box(draw(drawing([(256.0, 100.0), (256.0, 300.0)], [(256.0, 200.0), (2000.0, 200.0)])))
    assert left <= 27 and right >= 229 and crossing[:, 235:].max() == 0


def test_nothing_to_see_is_a_sentence() -> None:
    rubber = Line(points=[(0, 220), (512, 220)], width=512, erase=True)
    for empty in (
        drawing(SQUARE, erased=[rubber]),
        drawing([(700.0, 700.0), (800.0, 800.0)]),
        Strokes(width=512, height=512, lines=[rubber]),
    ):
        with pytest.raises(IsthmusError, match="The drawing is empty"):
            draw(empty)
    with pytest.raises(IsthmusError, match=r"margin=0\.5"):
        draw(drawing(SQUARE), margin=0.5)


def test_a_dot_and_a_scribble_are_drawings() -> None:
    left, top, right, bottom = box(draw(drawing([(7.0, 500.0)])))
    assert 1 <= right - left <= 5 and abs(left + right - 256) <= 2 and abs(top + bottom - 256) <= 2
    points = np.random.default_rng(0).uniform(0, 512, (3000, 2)).tolist()
    assert ink(draw(drawing([tuple(point) for point in points]), size=64)).mean() > 0.2


def payload(**changes: Any) -> dict[str, Any]:
    return {"width": 300, "height": 200, "lines": [{"points": [[1, 2], [3.5, 4]]}], **changes}


def test_limits_are_the_contract() -> None:
    read = Strokes.model_validate_json(json.dumps(payload()))
    assert read.lines[0].points == [(1.0, 2.0), (3.5, 4.0)] and not read.lines[0].erase
    many = {"points": [[1, 2]] * 1000}
    Strokes.model_validate(payload(lines=[many] * (MAX_POINTS // 1000)))
    Strokes.model_validate(payload(lines=[{"points": [[1, 2]]}] * MAX_LINES))
    with pytest.raises(ValidationError, match="51,000 points"):
        Strokes.model_validate(payload(lines=[many] * (MAX_POINTS // 1000 + 1)))


@pytest.mark.parametrize(
    "wrong",
    [
        payload(width=15),
        payload(height=4097),
        payload(width=300.5),
        payload(lines=[]),
        payload(lines=[{"points": [[1, 2]]}] * (MAX_LINES + 1)),
        payload(more=1),
        payload(lines=[{"points": []}]),
        payload(lines=[{"points": [[1, 2, 3]]}]),
        payload(lines=[{"points": [[1, "2"]]}]),
        payload(lines=[{"points": [[1, float("nan")]]}]),
        payload(lines=[{"points": [[1e9, 2]]}]),
        payload(lines=[{"points": [[1, 2]], "width": 0}]),
        payload(lines=[{"points": [[1, 2]], "width": float("inf")}]),
        payload(lines=[{"points": [[1, 2]], "erase": "yes"}]),
    ],
)
def test_what_is_no_drawing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Strokes.model_validate_json(json.dumps(wrong))


def test_drawn_as_the_model_learned() -> None:
    look = DrawnLook(line=0.03, margin=0.2, dark=True)
    found = measure(draw_as_trained(drawing(SQUARE), look, 256))
    assert found is not None and found.dark
    assert found.line == pytest.approx(0.03, rel=0.15) and found.margin == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(draw_as_trained(drawing(SQUARE), None, 256), draw(drawing(SQUARE), size=256))
