"""Contact sheets: rows of pictures with captions and coloured borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from isthmus.data.files import ImageError
from isthmus.data.images import load_image

COLOURS = {"green": "#1a7f37", "red": "#cf222e", "blue": "#0969da"}
GAP = 8
BORDER = 4
FONT_SIZE = 13
BROKEN = "can't be read"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        image: a picture, or the path of one; one that can't be read becomes a grey tile that says so.
        caption: one line below it, shortened in the middle where it is too long.
        colour: border: `green` right, `red` wrong, `blue` query, or any colour Pillow knows; None for no border.
    """

    image: Image.Image | str | Path
    caption: str = ""
    colour: str | None = None


def contact_sheet(rows: Sequence[Sequence[Tile | None]], *, tile: int = 160, title: str = "") -> Image.Image:
    """Draw rows of tiles, RGB on white; None leaves a place empty.

    Args:
        rows: may differ in length; an empty list gives an empty sheet.
        tile: side of a picture in pixels; pictures keep their proportions.
        title: a line above everything.

    Example:
        >>> contact_sheet([[Tile(Image.new("RGB", (8, 8)), "a cat", "blue"), None]], tile=64).size
        (152, 101)
    """
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + 8
    columns = max((len(row) for row in rows), default=0)
    cell = tile + GAP
    top = line + GAP if title else 0
    height = tile + line + GAP
    sheet = Image.new("RGB", (max(1, columns * cell + GAP), max(1, top + len(rows) * height + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP, GAP), _fitted(title, font, sheet.width - 2 * GAP), font=font, fill="black")
    for r, row in enumerate(rows):
        for c, entry in enumerate(row):
            if entry is None:
                continue
            x, y = GAP + c * cell, GAP + top + r * height
            picture = _picture(entry.image, tile - 2 * BORDER)
            sheet.paste(picture, (x + (tile - picture.width) // 2, y + (tile - picture.height) // 2))
            if entry.colour is not None:
                colour = COLOURS.get(entry.colour, entry.colour)
                draw.rectangle((x, y, x + tile - 1, y + tile - 1), outline=colour, width=BORDER)
            text = _fitted(entry.caption, font, tile)
            draw.text((x + (tile - font.getlength(text)) / 2, y + tile + 2), text, font=font, fill="black")
    return sheet


def _picture(image: Image.Image | str | Path, side: int) -> Image.Image:
    try:
        picture = load_image(image, min_side=side)
    except ImageError:
        picture = Image.new("RGB", (side, side), "#d0d7de")
        draw = ImageDraw.Draw(picture)
        draw.text((4, side / 2 - FONT_SIZE), BROKEN, font=ImageFont.load_default(FONT_SIZE), fill="black")
        return picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Enlarging an icon smoothly would make a blot of it.
    kind = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return picture.resize(size, kind)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """`text` on one line of at most `width` pixels: control characters shown, the middle left out where too long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if font.getlength(shown) <= width:
        return shown
    keep = len(shown)
    while keep > 2 and font.getlength(_cut(shown, keep)) > width:
        keep -= 1
    return _cut(shown, keep)


def _cut(text: str, keep: int) -> str:
    tail = keep // 2
    return f"{text[: keep - tail]}…{text[len(text) - tail :]}"
