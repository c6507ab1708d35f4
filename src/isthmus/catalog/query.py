"""What a person searches with, as unit vectors; and pages of hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from isthmus.catalog.embed import Embedder, Picture, Vectors, embed
from isthmus.catalog.filters import Condition
from isthmus.catalog.items import Items
from isthmus.catalog.search import Found, Hit, Searcher
from isthmus.catalog.where import compile_where
from isthmus.data.files import exists, show_name
from isthmus.errors import IsthmusError

Query = str | Path | bytes | Image.Image | Vectors | Sequence[float]
AT_ONCE = 256


class Queries:
    """Unit vectors float32 (q, dim), each query's domain where known, and the item to leave out of its hits."""

    def __init__(self, count: int, dim: int) -> None:
        self.vectors = np.zeros((count, dim), np.float32)
        self.without: list[str | None] = [None] * count
        self.domains: list[str | None] = [None] * count


def query_vectors(
    items: Items,
    model: Callable[[], Embedder],
    queries: Sequence[Query | None] | Vectors,
    *,
    id: str | None = None,
    domain: str | None = None,
    centring: bool | None = None,
) -> Queries:
    """Embed what are images, look up what are ids, and check what are vectors.

    Args:
        items: where ids are looked up.
        model: gives the model; called only where an image is among the queries.
        queries: images, vectors or ids.
        id: the one query, certainly an id.
        domain: of the images; the model's query domain if None.
        centring: as in `Model.encode`.
    """
    result = Queries(len(queries), items.dim)
    pictures: dict[int, Picture] = {}
    ids: dict[int, str] = {} if id is None else {0: id}
    for position, query in enumerate(queries):
        if query is None:
            continue
        if isinstance(query, str) and not exists(query):
            ids[position] = query
        elif isinstance(query, (str, Path, bytes, Image.Image)):
            pictures[position] = query
        else:
            result.vectors[position] = _unit(query, items.dim)
            result.domains[position] = domain
    if ids:
        rows, vectors = items.fetch(ids.values())
        places = {row["id"]: place for place, row in enumerate(rows)}
        for position, wanted in ids.items():
            if wanted not in places:
                what = "has no item" if id is not None else "is no file, and the catalog has no item of that id"
                name = show_name(wanted)
                raise IsthmusError(
                    f"The catalog {what} {name}; check the id." if id is not None else f"{name} {what}; check the path."
                )
            result.vectors[position] = vectors[places[wanted]]
            result.without[position] = wanted
            result.domains[position] = rows[places[wanted]]["domain"]
    if pictures:
        encoder = model()
        vectors, _ = embed(
            encoder, list(pictures.values()), domain=domain or encoder.domains[0], centring=centring, on_bad="raise"
        )
        result.vectors[list(pictures)] = vectors
        for position in pictures:
            result.domains[position] = domain or encoder.domains[0]
    return result


def search(
    searcher: Searcher, queries: Queries, k: int, where: str | Condition | None, offset: int, exact: bool
) -> list[list[Hit]]:
    """Hits `offset` to `offset + k` of each query."""
    if k < 1 or offset < 0:
        raise IsthmusError(f"k is at least 1 and offset at least 0, not k={k}, offset={offset}.")
    sql = compile_where(where, searcher.items.columns()) if where is not None else None
    need = offset + k + any(name is not None for name in queries.without)
    hits: list[list[Hit]] = []
    for start in range(0, len(queries.vectors), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        for found, without in zip(
            searcher.nearest(queries.vectors[part], need, sql, exact=exact), queries.without[part], strict=True
        ):
            hits.append(searcher.hits(_without(found, without), offset, offset + k))
    return hits


def _without(found: Found, id: str | None) -> Found:
    if id is None or id not in found.ids:
        return found
    keep = np.array([name != id for name in found.ids])
    ids = [name for name in found.ids if name != id]
    return Found(found.scores[keep], found.ties[keep], found.places[keep], ids, found.known)


def _unit(query: Any, dim: int) -> Vectors:
    try:
        vector = np.asarray(query, dtype=np.float64)
    except (TypeError, ValueError):
        raise IsthmusError(f"A query is an image, a path, an id or a vector, not a {type(query).__name__}.") from None
    if vector.shape != (dim,):
        raise IsthmusError(f"The query vector has the shape {vector.shape}; the catalog's vectors are ({dim},).")
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise IsthmusError("The query vector is zero or not finite; it has no direction to search in.")
    return (vector / length).astype(np.float32)
