"""What is known about the items besides their image: read from a table, a dictionary or the manifest itself."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.catalog.columns import Kind, Value, check_name, convert, kind_of, parse_texts
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, absolute, relative_path, some_of
from isthmus.errors import IsthmusError

Source = str | Path | Mapping[str, Mapping[str, Any]] | Iterable[Mapping[str, Any]]
# What a manifest's table says of an image; everything else in it is metadata.
_OWN = ("id", "path", "domain", "label", "identity", "split", "source_id", "hash")
_KEYS = ("id", "path", "file", "filename")


class Metadata:
    """Values for items, found by an item's id or its path.

    Attributes:
        name: what to call the source in messages.
        names: its columns.
        kinds: column -> kind, for the columns that hold anything.
        rows: the values of each row; an update may leave a column out (keep the old value) or hold None (clear it).
        entries: id or path as it was given -> number of the row.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], name: str, base: str | None = None) -> None:
        self.name, self.base = name, base
        self.kinds: dict[str, Kind] = {}
        self.rows: list[dict[str, Value]] = []
        self.entries: dict[str, int] = {}
        self._used: set[int] = set()
        rows = [dict(record) for record in records]
        columns = dict.fromkeys(column for row in rows for column in row)
        # Attributes and the manifest's own columns come with the manifest.
        self.names = [column for column in columns if column not in (*_OWN, *_KEYS) and not column.startswith("attr:")]
        for column in self.names:
            check_name(column)
            kind = kind_of((row.get(column) for row in rows), column)
            if kind is not None:
                self.kinds[column] = kind
        for number, row in enumerate(rows):
            keys = [str(row[key]) for key in _KEYS if row.get(key) not in (None, "")]
            if not keys:
                raise IsthmusError(f"Row {number + 1} of {name} has neither id nor path, so it belongs to no image.")
            kinds = self.kinds
            self.rows.append({c: convert(row[c], kinds.get(c, "text"), c) for c in self.names if c in row})
            for key in keys:
                other = self.entries.setdefault(key, number)
                if self.rows[other] != self.rows[number]:
                    raise IsthmusError(f"{name} has two different rows for {show_name(key)}; leave one out.")

    @classmethod
    def read(cls, source: Source) -> Metadata:
        """Read a CSV or Parquet table (with a column id, path, file or filename), `{id: {column: value}}`, or rows."""
        if isinstance(source, (str, Path)):
            path = Path(source)
            return cls(_read_file(path), f"the table {show_name(path)}", absolute(path.parent))
        if isinstance(source, Mapping):
            return cls(({**values, "id": id} for id, values in source.items()), "the metadata")
        return cls(source, "the metadata")

    @property
    def unmatched(self) -> int:
        """Rows that belonged to no image so far."""
        return len(self.rows) - len(self._used)

    def find(self, id: str, path: str, base: str | None = None) -> dict[str, Value] | None:
        """The values of an image; None where nothing is said of it. `base`: the folder that its id is relative to."""
        keys = [id, path, id.partition("/")[2]]
        keys += [relative for folder in (self.base, base) if folder and (relative := relative_path(path, folder))]
        for key in keys:
            if key in self.entries:
                self._used.add(self.entries[key])
                return self.rows[self.entries[key]]
        return None

    def require_match(self, ids: Iterable[str]) -> None:
        """Raise where not one row belonged to an image."""
        if self.rows and not self._used:
            raise IsthmusError(
                f"No row of {self.name} belongs to an image: it speaks of {some_of(self.entries, 2)}, the images are "
                f"{some_of(ids, 2)}; give their ids or paths."
            )


def manifest_values(row: Row) -> dict[str, Value]:
    """What a manifest row knows beyond the catalog's own columns."""
    texts = {"identity": row.identity, "split": row.split, "source_id": row.source_id}
    values: dict[str, Value] = {name: text for name, text in texts.items() if text is not None}
    for name, value in (row.attributes or {}).items():
        values[name] = float(value)
    return values


def manifest_kinds(manifest: Manifest) -> dict[str, Kind]:
    """Columns that `manifest_values` needs."""
    kinds: dict[str, Kind] = {}
    for row in manifest:
        for name in row.attributes or ():
            if name not in kinds:
                check_name(name)
                kinds[name] = "number"
        for name, value in (("identity", row.identity), ("split", row.split), ("source_id", row.source_id)):
            if value is not None:
                kinds[name] = "text"
    return kinds


def _read_file(path: Path) -> list[dict[str, Any]]:
    name = show_name(path)
    if not path.is_file():
        raise IsthmusError(f"There is no metadata table {name}; check the path.")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise IsthmusError(f"{name} is no table by its name; end it in .csv or .parquet.")
    try:
        columns = _csv(path, name) if suffix == ".csv" else _parquet(path)
    except IsthmusError:
        raise
    except Exception as error:  # a broken file meets readers in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IsthmusError(f"The table {name} can't be read ({reason}); write it again.") from error
    if not any(key in columns for key in _KEYS):
        raise IsthmusError(f"The table {name} has none of the columns {', '.join(_KEYS)}; add one, to say which image.")
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _csv(path: Path, name: str) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [column.strip() for column in next(reader, [])]
        if len(set(header)) < len(header):
            raise IsthmusError(f"The table {name} has two columns of one name; rename one.")
        lines = []
        for line in reader:
            if not line:
                continue
            if len(line) != len(header):
                raise IsthmusError(
                    f"Line {reader.line_num} of the table {name} has {len(line)} fields, the header {len(header)}; "
                    "quote fields that hold commas."
                )
            lines.append(line)
    columns: dict[str, list[Any]] = {}
    for position, column in enumerate(header):
        texts = [line[position] for line in lines]
        columns[column] = list(texts) if column in (*_OWN, *_KEYS) else list(parse_texts(texts))
    return columns


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        table = pq.read_table(file)
    return {column: table.column(column).to_pylist() for column in table.column_names}
