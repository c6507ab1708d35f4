"""How drawings look: width of line, margin and ground, measured on what was drawn with known ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from isthmus.models.domains import DomainChooser
from isthmus.models.drawn_look import DrawnLook, as_usual, is_drawing, measure, usual_look


def ring(line: int, margin: int, *, side: int = 400, dark: bool = False) -> Image.Image:
    """A ring and a cross of `line` pixels, `margin` pixels from the border."""
    image = Image.new("RGB", (side, side), "black" if dark else "white")
    pencil, ink = ImageDraw.Draw(image), "white" if dark else "black"
    pencil.ellipse((margin, margin, side - margin, side - margin), outline=ink, width=line)
    pencil.line((margin + 60, side // 2, side - margin - 60, side // 2), fill=ink, width=line)
    return image


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("line", "margin"), [(3, 20), (6, 60), (12, 100)])
def test_line_margin_and_ground_are_found(line: int, margin: int, dark: bool) -> None:
    found = measure(ring(line, margin, dark=dark))
    assert found is not None and found.dark == dark
    assert found.line == pytest.approx(line / 400, rel=0.2)
    assert found.margin == pytest.approx(margin / 400, abs=0.005)


def test_a_smaller_copy_and_jpeg_look_alike(tmp_path: Path) -> None:
    drawing = ring(8, 40, side=800)
    drawing.save(tmp_path / "a.jpg", quality=60)
    for other in (drawing.resize((200, 200), Image.Resampling.LANCZOS), Image.open(tmp_path / "a.jpg")):
        found = measure(other.convert("RGB"))
        assert found is not None and found.line == pytest.approx(0.01, rel=0.25)
        assert found.margin == pytest.approx(0.05, abs=0.01)


def test_what_is_no_drawing_has_no_look() -> None:
    dice = np.random.default_rng(0)
    night = Image.fromarray(dice.integers(0, 120, (100, 100, 3), dtype=np.uint8))
    ramp = np.repeat(np.tile(np.linspace(0, 200, 100).astype(np.uint8)[:, None], (1, 100))[..., None], 3, axis=2)
    blue = np.zeros((60, 60, 3), np.uint8) + np.array([10, 20, 90], np.uint8)
    for picture in (night, Image.fromarray(ramp), Image.fromarray(blue), Image.new("RGB", (50, 50), (128, 128, 128))):
        assert is_drawing(picture) is None and measure(picture) is None
        assert as_usual(picture) is picture and as_usual(picture, dark=True) is picture
    assert measure(Image.new("RGB", (50, 50), "white")) is None  # nothing is drawn
    assert usual_look([night] * 6 + [ring(6, 60)] * 5, workers=0) is None
    assert usual_look([ring(6, 60)] * 4, workers=0) is None  # too few to say what is usual


def test_medians_are_the_usual_and_the_ground_that_of_most() -> None:
    drawings = [ring(line, margin) for line, margin in ((4, 20), (6, 60), (6, 60), (6, 60), (20, 90))]
    found = usual_look([*drawings, b"no image", ring(6, 60, dark=True)], workers=0)
    assert found is not None and not found.dark
    assert found.line == pytest.approx(6 / 400, rel=0.2) and found.margin == pytest.approx(0.15, abs=0.01)


def test_a_drawing_gets_the_usual_ground() -> None:
    sheet, board = ring(6, 60), ring(6, 60, dark=True)
    assert np.array_equal(as_usual(board), sheet) and as_usual(sheet) is sheet
    assert np.array_equal(as_usual(sheet, dark=True), board) and as_usual(board, dark=True) is board
    chalk = Image.new("RGB", (200, 150), (38, 40, 39))
    ImageDraw.Draw(chalk).line([(20, 20), (180, 130)], fill=(210, 212, 205), width=3)
    assert np.asarray(as_usual(chalk).convert("L")).mean() > 190


def test_the_chooser_keeps_the_look(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    photos = [Image.fromarray(dice.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(12)]
    sketches = [ring(6, 40 + number) for number in range(12)]
    made = DomainChooser.fit(sketches, photos, ("sketch", "photo"), workers=0)
    assert made.look == usual_look(sketches, workers=0) and isinstance(made.look, DrawnLook)
    made.save(tmp_path)
    assert DomainChooser.load(tmp_path) == made
    assert DomainChooser.fit(photos, sketches, ("photo", "sketch"), workers=0).look is None
