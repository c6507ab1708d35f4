"""What one looks at before one commits: pairs of source and counterpart, and figures of a translator's failures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isthmus.data.images import load_image
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sheets import Tile, contact_sheet
from isthmus.io import atomic_write_bytes, atomic_write_text
from isthmus.translate.base import TranslatorChoice

SHEET, PAGE = "pairs.png", "pairs.html"
BLANK_SPREAD = 2.0  # grey levels; a picture whose pixels spread less shows nothing
ALIKE = 3.0  # grey levels of mean difference between 16 x 16 thumbnails: the same picture
SHOWN = 64


@dataclass(frozen=True)
class Figures:
    """Figures of a set of counterparts.

    Attributes:
        images: how many were looked at.
        blank: ids of counterparts that show nothing.
        duplicates: ids of counterparts that look like an earlier one, although their sources don't.
        ink: median share of dark pixels.
        shortest_side, longest_side: over all counterparts, in pixels.
    """

    images: int
    blank: tuple[str, ...]
    duplicates: tuple[str, ...]
    ink: float
    shortest_side: int
    longest_side: int


def measure_pairs(pairs: Sequence[tuple[Row, Row]]) -> Figures:
    """Figures of (source, counterpart) rows; at least one."""
    blank: list[str] = []
    duplicates: list[str] = []
    inks: list[float] = []
    sides: list[int] = []
    seen: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for source, made in pairs:
        picture = load_image(made.path)
        grey = np.asarray(picture.convert("L"), dtype=np.float32)
        inks.append(float((grey < 128).mean()))
        sides.extend(picture.size)
        if float(grey.std()) < BLANK_SPREAD:
            blank.append(made.id)
            continue
        one, other = _thumbnail(load_image(source.path, min_side=32)), _thumbnail(picture)
        if any(_alike(other, known) and not _alike(one, origin) for origin, known in seen):
            duplicates.append(made.id)
        seen.append((one, other))
    return Figures(len(pairs), tuple(blank), tuple(duplicates), float(np.median(inks)), min(sides), max(sides))


def _thumbnail(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return float(np.abs(one - other).mean()) < ALIKE


def write_report(
    out: Path, source: Manifest, made: Manifest, choice: TranslatorChoice, failed: Mapping[str, str]
) -> Figures:
    """Write `pairs.png`, a contact sheet, and `pairs.html`, one self-contained page, to `out`; returns the figures.

    At most 64 pairs are shown, spread evenly over the id-sorted list.
    """
    rows = list(made)
    if len(rows) > SHOWN:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, SHOWN).astype(int)]
    pairs = [(source.by_id(str(row.source_id)), row) for row in rows]
    figures = measure_pairs(pairs)
    columns = min(8, len(pairs))
    tiles: list[list[Tile | None]] = []
    for start in range(0, len(pairs), columns):
        part = pairs[start : start + columns]
        tiles.append([Tile(a.path, a.id.rpartition("/")[2], "blue") for a, _ in part])
        tiles.append([Tile(b.path, a.label or "") for a, b in part])
    title = f"{choice.name}: {pairs[0][0].domain} (blue) and its counterparts in {pairs[0][1].domain}"
    stream = io.BytesIO()
    contact_sheet(tiles, tile=144, title=title).save(stream, format="PNG")
    atomic_write_bytes(out / SHEET, stream.getvalue())
    atomic_write_text(out / PAGE, _page(title, pairs, choice, figures, failed))
    return figures


def _page(
    title: str,
    pairs: Sequence[tuple[Row, Row]],
    choice: TranslatorChoice,
    figures: Figures,
    failed: Mapping[str, str],
) -> str:
    cards = "".join(
        f"<figure><img src='{_inline(a.path)}' alt='source'><img src='{_inline(b.path)}' alt='counterpart'>"
        f"<figcaption>{_text(a.id)}</figcaption></figure>"
        for a, b in pairs
    )
    facts = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in _facts(figures))
    settings = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in choice.settings.items())
    notes = "".join(f"<p>{_text(note)}</p>" for note in choice.notes)
    bad = "".join(f"<li>{_text(id)}: {_text(reason)}</li>" for id, reason in failed.items())
    failures = f"<h2>Left out ({len(failed)})</h2><ul>{bad}</ul>" if failed else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{_text(title)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
img {{ width: 50%; aspect-ratio: 1; object-fit: contain; background: #fff; }}
figcaption {{ font-size: 12px; overflow-wrap: anywhere; }}
th {{ text-align: left; font-weight: 500; padding-right: 1rem; vertical-align: top; }}
</style></head>
<body><h1>{_text(title)}</h1>{notes}
<table>{facts}</table>
<main>{cards}</main>
{failures}
<h2>Settings</h2><table>{settings}</table>
</body></html>
"""


def _facts(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("pairs shown", str(figures.images)),
        ("blank counterparts", _some(figures.blank)),
        ("counterparts alike although their sources differ", _some(figures.duplicates)),
        ("dark pixels, median", f"{100 * figures.ink:.1f} %"),
        ("sides", f"{figures.shortest_side} to {figures.longest_side} pixels"),
    ]


def _some(ids: Sequence[str]) -> str:
    return f"{len(ids)} ({', '.join(ids[:5])})" if ids else "none"


def _inline(path: str) -> str:
    image = load_image(path, min_side=192)
    image.thumbnail((256, 256))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _text(value: object) -> str:
    # A file name need not be valid Unicode, a page has to be.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))


def summary(figures: Figures) -> dict[str, object]:
    """The figures as plain values."""
    return asdict(figures)
