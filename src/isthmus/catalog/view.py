"""Pictures of queries and their hits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from isthmus.catalog.search import Hit
from isthmus.data.sheets import Tile, contact_sheet


def hit_sheet(query: str | Path | Image.Image, hits: Sequence[Hit], *, tile: int = 160) -> Image.Image:
    """A row: the query with a blue border, then its hits with their cosine.

    Example:
        >>> hit_sheet("cat.png", catalog.search("cat.png")).save("hits.png")                # doctest: +SKIP
    """
    return hit_sheets([(query, hits)], tile=tile)


def hit_sheets(answers: Sequence[tuple[str | Path | Image.Image, Sequence[Hit]]], *, tile: int = 160) -> Image.Image:
    """`hit_sheet` with a row for each query."""
    rows = []
    for query, hits in answers:
        name = "query" if isinstance(query, Image.Image) else Path(query).name
        found = [Tile(hit.path, f"{hit.score:.3f} {Path(hit.path).name}") for hit in hits]
        rows.append([Tile(query, name, "blue"), *found])
    return contact_sheet(rows, tile=tile)
