"""What one looks at before one commits: pairs of source and counterpart, and three figures that judge them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.data.manifest import Manifest, Row
from isthmus.data.sheets import Tile, contact_sheet
from isthmus.io import atomic_write_bytes, atomic_write_json, atomic_write_text
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.gate_retry import JUDGED
from isthmus.translate.outputs import read_provenance
from isthmus.translate.quality import Quality, measure_quality
from isthmus.translate.quality.page import render

__all__ = ["JUDGED", "PAGE", "SHEET", "write_report"]

SHEET, PAGE = "pairs.png", "pairs.html"
SHOWN = 64
SUSPECTS_SHOWN = 24


def write_report(
    out: Path,
    source: Manifest,
    made: Manifest,
    choice: TranslatorChoice,
    failed: Mapping[str, str],
    *,
    target: Manifest | None = None,
    weights: str = "pretrained",
    seed: int = 0,
    progress: bool = True,
) -> Quality:
    """Judge counterparts, and write `pairs.png`, `pairs.html` and `quality.json` to `out`.

    The sheet shows at most 64 pairs, spread evenly over the id-sorted list; the page, which is self-contained, shows
    them too, after those found faulty. The JSON lists the faulty ones as `suspects`, which `--retry` takes up.

    Args:
        out: folder of the run.
        source: the images that were translated.
        made: their counterparts, at least one.
        choice: the translator.
        failed: id -> reason of the images that were left out.
        target: real images of the target domain, for the first figure.
        weights: of the network that looks, as in `measure_quality`.
        seed: of samples and splits.
        progress: show progress on standard error.
    """
    quality = measure_quality(source, made, target, weights=weights, seed=seed, progress=progress)
    rows = list(made)
    if len(rows) > SHOWN:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, SHOWN).astype(int)]
    pairs = [(source.by_id(str(row.source_id)), row) for row in rows]
    title = f"{choice.name}: {pairs[0][0].domain} and its counterparts in {pairs[0][1].domain}"
    stream = io.BytesIO()
    _sheet(pairs, title).save(stream, format="PNG")
    atomic_write_bytes(out / SHEET, stream.getvalue())
    reasons = quality.faults.found
    suspects = [(source.by_id(str(row.source_id)), row) for row in made if row.id in reasons]
    page = render(title, quality, pairs, suspects[:SUSPECTS_SHOWN], choice=choice, failed=failed)
    atomic_write_text(out / PAGE, page)
    atomic_write_json(out / JUDGED, {**quality.to_dict(), "suspects": [_suspect(row, reasons) for _, row in suspects]})
    return quality


def _suspect(row: Row, reasons: Mapping[str, str]) -> dict[str, Any]:
    attempt = (read_provenance(row.path) or {}).get("attempt", 0)
    return {"source": row.source_id, "counterpart": row.id, "attempt": attempt, "reason": reasons[row.id]}


def _sheet(pairs: Sequence[tuple[Row, Row]], title: str) -> Any:
    columns = min(8, len(pairs))
    tiles: list[list[Tile | None]] = []
    for start in range(0, len(pairs), columns):
        part = pairs[start : start + columns]
        tiles.append([Tile(a.path, a.id.rpartition("/")[2], "blue") for a, _ in part])
        tiles.append([Tile(b.path, a.label or "") for a, b in part])
    return contact_sheet(tiles, tile=144, title=f"{title} (sources framed in blue)")
