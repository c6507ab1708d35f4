"""The columns of a catalog: what every item has, and the free metadata columns of four kinds."""

from __future__ import annotations

import datetime as dt
import math
import numbers
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from isthmus.errors import IsthmusError

Kind = Literal["number", "text", "flag", "time"]
Value = float | str | bool | dt.datetime | None

# Whole numbers are stored as doubles too: the next table's price may be 49.90, and a column can't be widened.
ARROW: dict[Kind, Any] = {
    "number": pa.float64(), "text": pa.string(), "flag": pa.bool_(), "time": pa.timestamp("us"),
}  # fmt: skip
SYSTEM = ("id", "path", "hash", "domain", "label", "size", "mtime", "crc", "vector")
FILTERABLE: dict[str, Kind] = {
    "id": "text", "path": "text", "hash": "text", "domain": "text", "label": "text", "size": "number",
}  # fmt: skip
_EXACT = 2**53  # beyond it a double no longer holds every whole number
_NAME = re.compile(r"[^\W\d][\w :%()€$/+#-]{0,79}")


def schema(dim: int, metadata: Mapping[str, Kind], facts: bytes = b"") -> Any:
    """The Arrow schema of a catalog's table."""
    fields = [pa.field(name, pa.string()) for name in ("id", "path", "hash", "domain", "label")]
    fields += [pa.field(name, pa.int64()) for name in ("size", "mtime", "crc")]
    fields += [pa.field("vector", pa.list_(pa.float32(), dim))]
    fields += [pa.field(name, ARROW[kind]) for name, kind in metadata.items()]
    return pa.schema(fields, metadata={b"isthmus": facts} if facts else None)


def metadata_kinds(table_schema: Any) -> dict[str, Kind]:
    """Name -> kind of the metadata columns of a table."""
    kinds = {str(kind): name for name, kind in ARROW.items()}
    return {field.name: kinds[str(field.type)] for field in table_schema if field.name not in SYSTEM}


def checksum(id: str, content: str, vector: np.ndarray[Any, Any]) -> int:
    """Ties id, content and vector of an item together, so that a damaged file is told and not served."""
    head = zlib.crc32(f"{id}\0{content}".encode())
    return zlib.crc32(np.ascontiguousarray(vector, dtype="<f4").tobytes(), head)


def to_arrow(rows: list[dict[str, Any]], vectors: np.ndarray[Any, Any], table_schema: Any) -> Any:
    """Rows (dictionaries without the vector) and their vectors (n, dim) as a table of the given schema."""
    arrays = []
    for field in table_schema:
        if field.name == "vector":
            flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:
            arrays.append(pa.array([row.get(field.name) for row in rows], type=field.type))
    return pa.Table.from_arrays(arrays, schema=table_schema)


def matrix(column: Any, dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector column (array or chunks) as float32 (n, dim)."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim) for chunk in chunks if len(chunk)]
    if len(parts) == 1:
        return np.asarray(parts[0], dtype=np.float32)
    return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)


def check_name(name: str) -> None:
    """Raise where a metadata column's name can't be one."""
    if name.lower() in SYSTEM or name.startswith("_"):
        raise IsthmusError(f"The metadata column '{name}' has a name that the catalog itself uses; rename it.")
    if not _NAME.fullmatch(name):
        raise IsthmusError(
            f"The metadata column {name!r} can't be filtered by that name; rename it: a letter first, then letters, "
            "digits, spaces, _ - : % ( ) / + # $ €, at most 80 characters."
        )


def kind_of(values: Iterable[Any], name: str) -> Kind | None:
    """The kind that holds all `values`; None when all are missing.

    Raises:
        IsthmusError: mixed kinds, or values that are no number, text, flag or time.
    """
    found: set[Kind] = set()
    for value in values:
        if missing(value):
            continue
        if isinstance(value, (bool, np.bool_)):
            found.add("flag")
        elif isinstance(value, numbers.Number):
            # An identifier in digits would silently become its neighbour.
            exact = not isinstance(value, numbers.Integral) or abs(int(value)) <= _EXACT
            found.add("number" if exact else "text")
        elif isinstance(value, str):
            found.add("text")
        elif isinstance(value, dt.date):  # a datetime is one too
            found.add("time")
        else:
            raise IsthmusError(
                f"The metadata column '{name}' holds a {type(value).__name__}; only numbers, text, true/false and "
                "times can be stored: leave the column out or turn it into text."
            )
    if not found or len(found) == 1:
        return next(iter(found), None)
    if found == {"number", "text"}:
        return "text"
    raise IsthmusError(f"The metadata column '{name}' mixes {' and '.join(sorted(found))}; use one kind.")


def convert(value: Any, kind: Kind, name: str) -> Value:
    """`value` as the column stores it.

    Raises:
        IsthmusError: it is of another kind than the column.
    """
    if missing(value):
        return None
    if kind == "text":
        if not isinstance(value, (bool, np.bool_, dt.date)):
            return check_text(str(value), f"The metadata column '{name}'")
    elif kind == "flag":
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
    elif kind == "number":
        if not isinstance(value, (bool, np.bool_)) and isinstance(value, numbers.Real):
            return float(value)
    elif isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
    elif isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day)
    raise IsthmusError(f"The metadata column '{name}' of the catalog holds {kind}s, and {value!r} is none; mend it.")


def check_text(text: str, what: str) -> str:
    """`text`, or an error where it is no Unicode (file names need not be)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise IsthmusError(f"{what}: {text!r} is not valid UTF-8 and can't be stored; rename it.") from None
    return text


def missing(value: Any) -> bool:
    """None and NaN are missing values; infinities are too, they have no place in JSON."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def parse_texts(texts: list[str]) -> list[Value]:
    """A CSV column: as numbers, flags or times where every filled field is one, else as text; empty is missing.

    `007` is text, because a leading zero means an identifier, and so is a whole number too large for a double.

    Example:
        >>> parse_texts(["1", "2.5", ""]), parse_texts(["007", "8"])
        ([1.0, 2.5, None], ['007', '8'])
    """
    filled = [text.strip() for text in texts if text.strip()]
    parse: Any
    for parse in (_number, _flag, _time):
        try:
            for text in filled:
                parse(text)
        except (ValueError, KeyError, OverflowError):  # the last: a time beyond the years once it is in UTC
            continue
        return [parse(text.strip()) if text.strip() else None for text in texts]
    return [text if text.strip() else None for text in texts]


def _number(text: str) -> float:
    digits = text.lstrip("+-")
    if (digits[:1] == "0" and digits[1:2].isdigit()) or "_" in text:
        raise ValueError(text)
    value = float(text)
    if digits.isdigit() and abs(int(text)) > _EXACT:
        raise ValueError(text)
    if not math.isfinite(value) and digits.lower() != "nan":
        raise ValueError(text)
    return value


def _flag(text: str) -> bool:
    return {"true": True, "false": False, "yes": True, "no": False}[text.lower()]


def _time(text: str) -> dt.datetime:
    if not re.match(r"\d{4}-\d\d-\d\d", text):  # newer Pythons take "20240101" too, which is rather a number
        raise ValueError(text)
    value = dt.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    return value.astimezone(dt.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
