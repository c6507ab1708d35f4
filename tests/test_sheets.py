"""Contact sheets: geometry, borders, captions of any kind, broken pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from isthmus.data.sheets import BORDER, GAP, Tile, _fitted, contact_sheet


def test_geometry_and_colours() -> None:
    red = Image.new("RGB", (30, 30), (200, 0, 0))
    sheet = contact_sheet([[Tile(red, colour="green"), Tile(red)], [Tile(red), None]], tile=64)
    assert sheet.mode == "RGB" and sheet.width == 2 * (64 + GAP) + GAP
    pixels = np.asarray(sheet)
    assert tuple(pixels[GAP + 32, GAP + 32]) == (200, 0, 0)
    assert tuple(pixels[GAP + 1, GAP + 1]) == (0x1A, 0x7F, 0x37)
    assert tuple(pixels[GAP + 1, GAP + 64 + GAP + 1]) == (255, 255, 255)  # no border asked for
    assert (pixels[-40:, -40:] == 255).all()  # the empty place
    assert contact_sheet([]).size[0] >= 1
    assert contact_sheet([[Tile(red)]], title="a title").height > contact_sheet([[Tile(red)]]).height


def test_pictures_keep_their_proportions() -> None:
    wide = Image.new("RGB", (200, 50), (0, 0, 200))
    pixels = np.asarray(contact_sheet([[Tile(wide)]], tile=108))
    rows, columns = np.nonzero((pixels == (0, 0, 200)).all(-1))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (108 - 2 * BORDER, 25)


@pytest.mark.parametrize("caption", ["naïve 猫 \U0001f408", "a\nb\x00c", "\udce9.png", "x" * 500, ""])
def test_any_caption(caption: str) -> None:
    sheet = contact_sheet([[Tile(Image.new("RGB", (8, 8)), caption)]], tile=64, title=caption)
    assert sheet.size[0] == 64 + 2 * GAP


def test_long_captions_lose_their_middle() -> None:
    font = ImageFont.load_default(13)
    text = _fitted("photo/elephant/n02503517_10275.jpg", font, 100)
    assert font.getlength(text) <= 100 and text.startswith("pho") and text.endswith("jpg") and "…" in text
    assert _fitted("cat", font, 100) == "cat"


def test_a_broken_file_becomes_a_grey_tile(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    sheet = contact_sheet([[Tile(tmp_path / "broken.png"), Tile(tmp_path / "missing.png", colour="red")]], tile=100)
    assert tuple(np.asarray(sheet)[GAP + 20, GAP + 20]) == (0xD0, 0xD7, 0xDE)
