"""Manifests as CSV and Parquet files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, absolute, image_id, relative_path
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes

TABLE_SUFFIXES = (".csv", ".parquet")
COLUMNS = ("id", "path", "domain", "label", "identity", "split", "source_id")
ATTRIBUTE = "attr:"
Cells = Mapping[str, str | float | None]


def write_table(manifest: Manifest, path: Path) -> None:
    """See `Manifest.save`."""
    suffix = _suffix(path)
    names = [f"{ATTRIBUTE}{name}" for name in dict.fromkeys(n for row in manifest for n in row.attributes or ())]
    folder = absolute(path.parent)
    try:
        data = (_to_csv if suffix == ".csv" else _to_parquet)([_cells(row, folder) for row in manifest], names)
    except UnicodeEncodeError as error:
        raise IsthmusError(
            f"{show_name(path)} can't be written: the file name or label {_shown(error)} is not valid UTF-8; rename it."
        ) from None
    atomic_write_bytes(path, data)


def read_table(
    path: Path, *, root: str | Path | None = None, domain: str | None = None, split: str | None = None
) -> Manifest:
    """`Manifest.load`, with the domain and split of the rows that name none."""
    suffix = _suffix(path)
    name = show_name(path)
    if not path.is_file():
        raise IsthmusError(f"There is no table {name}; check the path.")
    base = absolute(root) if root is not None else absolute(path.parent)
    try:
        columns, rows = (_from_csv if suffix == ".csv" else _from_parquet)(path)
    except IsthmusError:
        raise
    except Exception as error:  # csv.Error, UnicodeDecodeError, pyarrow's own, OSError
        raise IsthmusError(f"The table {name} can't be read ({error}); write it anew.") from error
    needed = ["path"] if domain is not None else ["path", "domain"]
    if lacking := [column for column in needed if column not in columns]:
        raise IsthmusError(
            f"The table {name} has no column '{lacking[0]}' (it has: {', '.join(columns) or 'none'}); an image table "
            f"needs the columns path and domain, and may have id, label, identity, split, source_id, {ATTRIBUTE}NAME."
        )
    found = [_row(cells, number, name, base, domain, split) for number, cells in enumerate(rows, start=1)]
    try:
        return Manifest(found)
    except IsthmusError as error:
        raise IsthmusError(f"The table {name} can't be used: {error}") from error


def _shown(error: UnicodeEncodeError) -> str:
    """The place around the character that can't be encoded: a CSV error carries the whole table."""
    return repr(error.object[max(0, error.start - 40) : error.end + 20])


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise IsthmusError(f"{show_name(path)} is no image table by its name; end it in .csv or .parquet.")
    return suffix


def _cells(row: Row, folder: str) -> dict[str, str | float | None]:
    relative = relative_path(row.path, folder)
    cells: dict[str, str | float | None] = {name: getattr(row, name) for name in COLUMNS}
    cells["path"] = row.path if relative is None else relative
    for name, value in (row.attributes or {}).items():
        cells[f"{ATTRIBUTE}{name}"] = float(value)
    return cells


def _row(cells: Cells, number: int, table: str, base: str, domain: str | None, split: str | None) -> Row:
    def text(column: str) -> str | None:
        value = cells.get(column)
        return None if value is None or value == "" else str(value)

    path, place = text("path"), text("domain") or domain
    if path is None or place is None:
        raise IsthmusError(f"Row {number} of the table {table} has no {'domain' if path else 'path'}; fill it in.")
    full = absolute(path, base)
    attributes: dict[str, float] = {}
    for column, value in cells.items():
        if column.startswith(ATTRIBUTE) and value is not None and value != "":
            try:
                attributes[column[len(ATTRIBUTE) :]] = float(value)
            except ValueError:
                raise IsthmusError(
                    f"Row {number} of the table {table} has {value!r} as '{column}'; attributes are numbers."
                ) from None
    return Row(
        id=text("id") or image_id(place, full, base),
        path=full,
        domain=place,
        label=text("label"),
        identity=text("identity"),
        attributes=attributes or None,
        split=text("split") or split,
        source_id=text("source_id"),
    )


def _to_csv(rows: list[dict[str, str | float | None]], attributes: list[str]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, fieldnames=[*COLUMNS, *attributes], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode("utf-8")


def _from_csv(path: Path) -> tuple[list[str], Iterable[Cells]]:
    # Not pyarrow's reader: it turns a label "NA" into null and "007" into 7.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows: list[Cells] = []
        for cells in reader:
            if None in cells or None in cells.values():
                raise IsthmusError(
                    f"Line {reader.line_num} of the table {show_name(path)} has another number of fields than the "
                    f"header's {len(columns)}; quote the fields that hold commas or line breaks."
                )
            rows.append(cells)
    return columns, rows


def _to_parquet(rows: list[dict[str, str | float | None]], attributes: list[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [(name, pa.string()) for name in COLUMNS] + [(name, pa.float64()) for name in attributes]
    arrays = [pa.array([row.get(name) for row in rows], type=kind) for name, kind in fields]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=[name for name, _ in fields]), sink)
    return sink.getvalue()


def _from_parquet(path: Path) -> tuple[list[str], Iterable[Cells]]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        table = pq.read_table(file)
    columns = list(table.column_names)
    known = [name for name in columns if name in COLUMNS or name.startswith(ATTRIBUTE)]
    return columns, list(table.select(known).to_pylist())
