"""The demo's corpus: icons that exist as an outline and as a filled picture, drawn from a font.

An outline is to its filled icon what a sketch is to a catalog picture. The font comes with the package
`fonticon-materialdesignicons7` (extra `demo`), so nothing has to be downloaded beside packages.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError, need_extra
from isthmus.io import atomic_folder, atomic_write_json, fingerprint, read_json

OUTLINE, FILLED = "outline", "filled"
TABLE = "manifest.parquet"
_RECORD = "icons.json"
_VERSION = 1  # of the rendering: a change makes old folders stale


def icon_pairs() -> list[tuple[str, str, str]]:
    """(name, filled glyph, outline glyph) of each icon that exists in both styles, sorted by name.

    Raises:
        MissingExtraError: the font's package is not installed.
    """
    try:
        from fonticon_mdi7 import MDI7
    except ImportError as error:
        raise need_extra("demo", "fonticon-materialdesignicons7") from error
    # The package writes `mdi7.` before each character, for its own text format.
    glyphs = {name: value[-1] for name, value in vars(MDI7).items() if name[0] != "_" and isinstance(value, str)}
    outlines = {name: glyphs[f"{name}_outline"] for name in sorted(glyphs) if f"{name}_outline" in glyphs}
    return [(name, glyphs[name], outline) for name, outline in outlines.items()]


def draw_icon(glyph: str, size: int, *, font: ImageFont.FreeTypeFont | None = None) -> Image.Image:
    """One glyph, black on white, (size, size) greyscale, with a margin of a sixteenth on each side.

    The glyph keeps its place on the font's square, so that an outline and its filled icon lie on each other.
    """
    margin = size // 16
    em = size - 2 * margin
    font = font or icon_font(em)
    image = Image.new("L", (size, size), 255)
    # The font's square reaches from the ascender to the descender and is one em wide.
    ascent, descent = font.getmetrics()
    left = margin + (em - font.getlength(glyph)) / 2
    ImageDraw.Draw(image).text((left, margin + (em - ascent - descent) / 2), glyph, font=font, fill=0)
    return image


def icon_font(em: int) -> ImageFont.FreeTypeFont:
    """The icons' font with `em` pixels to the square."""
    try:
        from fonticon_mdi7 import MDI7
    except ImportError as error:
        raise need_extra("demo", "fonticon-materialdesignicons7") from error
    return ImageFont.truetype(str(MDI7.__font_file__), em)


def split_icons(names: list[str], seed: int) -> dict[str, tuple[str, ...]]:
    """Deal names into thirds: `{name: domains it is shown in}`, training icons in one domain, test icons in both.

    The last third (with the remainder) is the test part: with 1,838 icons 612, 612 and 614.
    """
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    third = len(shuffled) // 3
    parts: dict[str, tuple[str, ...]] = {}
    for place, name in enumerate(shuffled):
        parts[name] = (OUTLINE,) if place < third else (FILLED,) if place < 2 * third else (OUTLINE, FILLED)
    return parts


def write_icons(folder: str | Path, *, size: int = 64, seed: int = 0, limit: int | None = None) -> Manifest:
    """Draw the corpus into `folder` and return its manifest; a folder that is already complete is only read.

    `folder/outline/*.png` and `folder/filled/*.png` hold the images, `folder/manifest.parquet` the table: `identity` is
    the icon's name, `split` is `train` (a third of the icons as outlines, another third filled, none in common) or
    `test` (the remaining icons in both domains: known pairs). There is no validation part: the method under
    demonstration uses no labels, and takes held-out training images where it needs some.

    Args:
        folder: where to write; another folder of icons there is replaced, anything else is refused.
        size: side of the images in pixels, at least 16.
        seed: deals the icons into thirds.
        limit: only so many icons (seeded choice), for quick trials; at least 6.

    Example:
        >>> icons = write_icons("/tmp/icons", limit=30)                        # doctest: +SKIP
        >>> len(icons.select(domain="outline", split="train"))                 # doctest: +SKIP
        10
    """
    if size < 16:
        raise IsthmusError(f"size={size}: icons need at least 16 pixels to be told apart.")
    if limit is not None and limit < 6:
        raise IsthmusError(f"limit={limit}: at least 6 icons are needed to have two in each third.")
    target = Path(folder)
    pairs = icon_pairs()
    if limit is not None and limit < len(pairs):
        pairs = sorted(random.Random(seed).sample(pairs, limit))
    settings = {"version": _VERSION, "size": size, "seed": seed, "limit": limit, "icons": fingerprint(pairs)}
    if _complete(target, settings):
        return Manifest.load(target / TABLE)
    if target.exists() and any(target.iterdir()) and not (target / _RECORD).is_file():
        raise IsthmusError(f"{target} holds something other than icons; choose another folder for them.")
    parts = split_icons([name for name, _, _ in pairs], seed)
    font = icon_font(size - 2 * (size // 16))
    rows: list[Row] = []
    with atomic_folder(target) as scratch:
        for domain in (OUTLINE, FILLED):
            (scratch / domain).mkdir()
        for name, filled, outline in pairs:
            shown = parts[name]
            for domain in shown:
                file = f"{domain}/{name}.png"
                draw_icon(filled if domain == FILLED else outline, size, font=font).save(scratch / file)
                rows.append(
                    Row(
                        id=f"{domain}/{name}.png",
                        path=str(scratch.resolve() / file),
                        domain=domain,
                        identity=name,
                        split="test" if len(shown) == 2 else "train",
                    )
                )
        # Paths beneath the table are stored relative to it, so that the table holds after the folder is renamed.
        Manifest(sorted(rows, key=lambda row: row.id)).save(scratch / TABLE)
        atomic_write_json(scratch / _RECORD, {**settings, "images": len(rows)})
    return Manifest.load(target / TABLE)


def _complete(folder: Path, settings: Mapping[str, object]) -> bool:
    if not (folder / _RECORD).is_file() or not (folder / TABLE).is_file():
        return False
    record = read_json(folder / _RECORD)
    if {key: record.get(key) for key in settings} != settings:
        return False
    found = sum(1 for domain in (OUTLINE, FILLED) for _ in (folder / domain).glob("*.png"))
    return bool(found == record["images"])


__all__ = ["FILLED", "OUTLINE", "draw_icon", "icon_font", "icon_pairs", "split_icons", "write_icons"]
