"""What is known of a catalog's items beside their vectors, in memory: reading ten hits from the table costs more than
finding them among a hundred thousand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from isthmus.catalog.items import Items

ROWS = 16_384
Numbers = np.ndarray[Any, Any]
_NAMES = ("id", "path", "hash", "domain", "label")


@dataclass(frozen=True)
class Known:
    """The columns that a hit shows, of all items of one version.

    Attributes:
        places: int64 (n,), LanceDB's row ids, ascending.
        rows: Arrow table (n rows) in their order.
    """

    places: Numbers
    rows: Any

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return int(self.rows.nbytes) + int(self.places.nbytes)

    def of(self, places: Numbers) -> dict[str, dict[str, Any]] | None:
        """Id -> row of the items at these places; None where one is not known.

        Example:
            >>> read_known(catalog.items, 10**9).of(found.places)                           # doctest: +SKIP
            {'photo/1.png': {'id': 'photo/1.png', 'path': ..., 'price': 12.0}}
        """
        if not len(self.places):
            return None if len(places) else {}
        at = np.minimum(np.searchsorted(self.places, places), len(self.places) - 1)
        if not np.array_equal(self.places[at], places):
            return None
        return {row["id"]: row for row in self.rows.take(at).to_pylist()}


def read_known(items: Items, limit: int) -> Known | None:
    """Of the newest version; None where it would take more than `limit` bytes."""
    batches: list[Any] = []
    size = 0
    for batch in items.scan([*_NAMES, *items.kinds()], row_ids=True, rows=ROWS):
        size += batch.nbytes
        if 2 * size > limit:  # sorting makes a copy
            return None
        batches.append(batch)
    if not batches:
        return Known(np.empty(0, np.int64), pa.table({}))
    whole = pa.Table.from_batches(batches)
    places = np.asarray(whole.column("_rowid").to_numpy()).astype(np.int64)
    order = np.argsort(places, kind="stable")
    # In one piece: rows of many pieces are found slowly.
    return Known(places[order], whole.drop_columns(["_rowid"]).take(order).combine_chunks())
