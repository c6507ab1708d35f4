"""The items of a catalog: reading, writing and the approximate index, each write one whole new version or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from isthmus.catalog.columns import (
    ARROW,
    FILTERABLE,
    Kind,
    Value,
    check_name,
    checksum,
    convert,
    matrix,
    metadata_kinds,
    schema,
    to_arrow,
)
from isthmus.catalog.effort import Effort, changed_much, choose_effort, keep_effort, read_effort
from isthmus.catalog.embed import Vectors
from isthmus.catalog.filters import ids_in
from isthmus.catalog.handle import Source
from isthmus.catalog.history import merge_files
from isthmus.catalog.table import RECALL, explained
from isthmus.errors import IsthmusError

IDS_AT_ONCE = 10_000
FRAGMENTS = 100  # more files than that slow every search down
T = TypeVar("T")


class Items:
    """A LanceDB table whose errors are sentences.

    Attributes:
        place: where the catalog is.
        source: gives the LanceDB table, see `isthmus.catalog.handle`.
        dim: width of a vector.
    """

    def __init__(self, place: str, source: Source, dim: int) -> None:
        self.place, self.source, self.dim = place, source, dim
        self._kept: dict[str, tuple[int, Any]] = {}

    @property
    def table(self) -> Any:
        """The LanceDB table, at the newest version that is of this catalog's model."""
        with explained(self.place):
            return self.source.current()[1]

    @property
    def version(self) -> int:
        """Moves with every change, also with another process's."""
        with explained(self.place):
            return self.source.current()[0]

    def to_write(self) -> Any:
        """The table, for a change.

        Raises:
            IsthmusError: it was re-embedded with another model, or rolled back to one, since it was opened.
        """
        table = self.source.to_write()
        if table is None:
            raise IsthmusError(
                f"The catalog {self.place} is of another model since it was opened here (reembed or rollback); nothing "
                "was written: open it again and repeat the change."
            )
        return table

    def _of_version(self, name: str, work: Callable[[], T]) -> T:
        # A search asks for these again and again, and each answer is a visit to the storage.
        version = self.version
        kept = self._kept.get(name)
        if kept is None or kept[0] != version:
            with explained(self.place):
                kept = self._kept[name] = (version, work())
        return kept[1]

    def kinds(self) -> dict[str, Kind]:
        """Name -> kind of the metadata columns."""
        return dict(self._of_version("kinds", lambda: metadata_kinds(self.table.schema)))

    def columns(self) -> dict[str, Kind]:
        """Name -> kind of all columns that a filter may name."""
        return {**FILTERABLE, **self.kinds()}

    def count(self, sql: str | None = None) -> int:
        """How many items there are (that a filter lets pass)."""
        if sql is None:
            return self._of_version("count", lambda: int(self.table.count_rows()))
        with explained(self.place):
            return int(self.table.count_rows(sql))

    def scan(
        self, names: Sequence[str], sql: str | None = None, *, row_ids: bool = False, rows: int = 8192
    ) -> Iterator[Any]:
        """Arrow batches of the named columns, in no particular order; `row_ids` adds `_rowid`."""
        with explained(self.place):
            query = self.table.search().select(list(names))
            if row_ids:
                query = query.with_row_id(True)
            if sql is not None:
                query = query.where(sql)
            batches = iter(query.to_batches(rows))
        while True:
            with explained(self.place):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def read(self, names: Sequence[str], sql: str | None = None) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        return [row for batch in self.scan(names, sql) for row in batch.to_pylist()]

    def fetch(self, ids: Iterable[str]) -> tuple[list[dict[str, Any]], Vectors]:
        """Whole rows of these ids (those that exist, in any order) and their vectors, checked for damage."""
        wanted = list(dict.fromkeys(ids))
        names = ["id", "path", "hash", "domain", "label", "size", "mtime", "crc", "vector", *self.kinds()]
        rows: list[dict[str, Any]] = []
        parts: list[Vectors] = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(wanted), IDS_AT_ONCE):
            for batch in self.scan(names, ids_in(wanted[start : start + IDS_AT_ONCE])):
                parts.append(matrix(batch.column("vector"), self.dim))
                rows.extend(batch.drop_columns(["vector"]).to_pylist())
        vectors = np.concatenate(parts)
        self.check(rows, vectors)
        return rows, vectors

    def check(self, rows: Sequence[Mapping[str, Any]], vectors: Vectors) -> None:
        """Raise where a row and its vector no longer fit together."""
        for row, vector in zip(rows, vectors, strict=True):
            if row["crc"] != checksum(str(row["id"]), str(row["hash"]), vector):
                raise IsthmusError(
                    f"The catalog {self.place} is damaged: the stored vector of {row['id']!r} is not what was written; "
                    "isthmus catalog verify  counts the damage, a copy or a new catalog mends it."
                )

    def upsert(self, rows: list[dict[str, Any]], vectors: Vectors) -> None:
        """Insert rows, or replace those of the same id, with their vectors (n, dim), as one version."""
        if not rows:
            return
        for row, vector in zip(rows, vectors, strict=True):
            row["crc"] = checksum(str(row["id"]), str(row["hash"]), vector)
        table = self.to_write()
        with explained(self.place):
            data = to_arrow(rows, vectors, schema(self.dim, metadata_kinds(table.schema)))
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(data)

    def revise(self, rows: list[dict[str, Any]], names: Sequence[str]) -> None:
        """Replace the named metadata columns of existing rows; vectors stay untouched."""
        kinds = self.kinds()
        fields = [pa.field("id", pa.string()), *(pa.field(name, ARROW[kinds[name]]) for name in names)]
        table = self.to_write()
        with explained(self.place):
            data = pa.Table.from_pylist(
                [{field.name: row.get(field.name) for field in fields} for row in rows], schema=pa.schema(fields)
            )
            table.merge_insert("id").when_matched_update_all().execute(data)

    def remove(self, sql: str) -> int:
        """Delete what the filter lets pass; returns how many items that were."""
        table = self.to_write()
        with explained(self.place):
            return int(table.delete(sql).num_deleted_rows)

    def remove_ids(self, ids: Sequence[str]) -> int:
        """Delete by id; unknown ids are passed over."""
        starts = range(0, len(ids), IDS_AT_ONCE)
        return sum(self.remove(ids_in(ids[start : start + IDS_AT_ONCE])) for start in starts)

    def make_columns(self, wanted: Mapping[str, Kind]) -> None:
        """Add the metadata columns that are missing, empty.

        Raises:
            IsthmusError: a name that can't be a column's, or a column of that name holds another kind.
        """
        have = self.kinds()
        lower = {name.lower(): name for name in have}
        new = {}
        for name, kind in wanted.items():
            if name not in have:
                check_name(name)
                if name.lower() in lower:
                    raise IsthmusError(
                        f"The metadata column '{name}' differs from the catalog's '{lower[name.lower()]}' by capitals "
                        "only; use one spelling."
                    )
                lower[name.lower()] = name
                new[name] = kind
            elif have[name] != kind and not (have[name] == "text" and kind == "number"):
                convert({"number": 1.5, "text": "text", "flag": True, "time": None}[kind], have[name], name)
                raise IsthmusError(f"The metadata column '{name}' of the catalog holds {have[name]}s, not {kind}s.")
        if new:
            table = self.to_write()
            with explained(self.place):
                table.add_columns([pa.field(name, ARROW[kind]) for name, kind in new.items()])

    def fit(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Values as the columns store them; what has no column (because it is always missing) is left out."""
        kinds = self.kinds()
        return {name: convert(value, kinds[name], name) for name, value in values.items() if name in kinds}

    def indexed(self) -> tuple[int, int] | None:
        """(rows in the approximate index, rows outside it), or None where there is no index."""
        return self._of_version("indexed", self._indexed)

    def _indexed(self) -> tuple[int, int] | None:
        for config in self.table.list_indices():
            if list(config.columns) == ["vector"]:
                return int(config.num_indexed_rows or 0), int(config.num_unindexed_rows or 0)
        return None

    def effort(self) -> Effort:
        """What a search of the approximate index spends."""
        return self._of_version("effort", lambda: read_effort(self.table))

    def tidy(self, index_above: int, wanted: float = RECALL) -> str | None:
        """Build, extend or compact where it pays; returns what was done, in words.

        Args:
            index_above: number of items above which an approximate index is built.
            wanted: recall@10 of a new index.
        """
        before, rows = self.effort(), self.count()
        done = self._tidy(rows, index_above)
        if self.indexed() is not None and changed_much(before, rows):
            keep_effort(self, choose_effort(self, before.wanted if before.recall is not None else wanted))
        return done

    def _tidy(self, rows: int, index_above: int) -> str | None:
        from lancedb.index import HnswSq

        state = self.indexed()
        table = self.to_write()
        with explained(self.place):
            if state is None and rows > index_above:
                # Twice as fast to build as with LanceDB's defaults, at the same recall once hits are refined.
                config = HnswSq(distance_type="cosine", ef_construction=150)
                table.create_index("vector", config=config)
                return "built the approximate index"
            if state is not None and state[1] > max(2000, rows // 10):
                merge_files(table)
                return "extended the approximate index"
            if int(table.stats()["fragment_stats"]["num_fragments"]) > FRAGMENTS:
                merge_files(table)
                return "compacted the table"
        return None
