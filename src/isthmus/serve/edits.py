"""What a client may change: one item at a time, by its very id, with values of its columns' kinds."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from isthmus.catalog.columns import SYSTEM, Kind, Value, check_name, kind_of, parse_texts
from isthmus.catalog.filters import ids_in
from isthmus.catalog.storage import is_remote
from isthmus.catalog.store import Catalog
from isthmus.data.manifest import Manifest, Row, absolute
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes, explain_os_errors
from isthmus.serve.errors import ApiError
from isthmus.serve.uploads import format_of

MAX_ID = 4_096
MAX_TEXT = 10_000
MAX_COLUMNS = 100
_EXACT = 2**53  # beyond it a double no longer holds every whole number
# Columns that come with images and their tables; a request that set them would be passed over without a word.
_OTHERS = frozenset([*SYSTEM, "file", "filename", "identity", "split", "source_id"])
_EXAMPLES: dict[Kind, str] = {
    "number": "a number", "text": "a text", "flag": "true or false", "time": "a time such as 2026-01-31T12:00:00Z",
}  # fmt: skip


def _plain(value: Any) -> Any:
    # One sentence, where a union would have one for each of its members.
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError("a value is a number, a text, true, false or null")
    return value


JsonValue = Annotated[StrictBool | StrictInt | StrictFloat | StrictStr | None, BeforeValidator(_plain)]
Metadata = dict[StrictStr, JsonValue]


class NewItem(BaseModel):
    """What is said of an image that is added; without an id it is named after its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StrictStr | None = Field(None, min_length=1, max_length=MAX_ID)
    domain: StrictStr | None = Field(None, max_length=200, description="the catalog's where it is left out")
    label: StrictStr | None = Field(None, min_length=1, max_length=1_000)
    metadata: Metadata = Field(default_factory=dict, max_length=MAX_COLUMNS)


class Change(BaseModel):
    """New metadata of an item; null clears a value, what isn't named stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: StrictStr = Field(min_length=1, max_length=MAX_ID)
    metadata: Metadata = Field(max_length=MAX_COLUMNS)


def values_of(metadata: Mapping[str, JsonValue], columns: Mapping[str, Kind]) -> dict[str, Value]:
    """Metadata from JSON as the columns hold it; a name that is no column yet becomes one, of the value's kind.

    Args:
        metadata: name -> value.
        columns: name -> kind of the catalog's metadata columns.

    Raises:
        ApiError: 400 `bad_request` for a name that can't be a column's, or a value of another kind.

    Example:
        >>> values_of({"price": 5, "made": "2026-01-31T12:00:00Z"}, {"price": "number", "made": "time"})
        {'price': 5.0, 'made': datetime.datetime(2026, 1, 31, 12, 0)}
    """
    lower = {name.lower(): name for name in columns}
    values: dict[str, Value] = {}
    for name, value in metadata.items():
        if name.lower() in _OTHERS or name.startswith("attr:"):
            raise _wrong(f"{_shown(name)} is no metadata column, and can't be set like one.")
        if name not in columns:
            try:
                check_name(name)
            except IsthmusError:
                raise _wrong(
                    f"{_shown(name)} can't be a column's name: a letter first, then letters, digits, spaces, "
                    "_ - : % ( ) / + # $ €, at most 80 characters."
                ) from None
            if name.lower() in lower:
                raise _wrong(f"{_shown(name)} differs from a known column or another one by capitals only.")
            lower[name.lower()] = name
        values[name] = None if value is None else _value(name, value, columns.get(name))
    return values


def _value(name: str, value: bool | int | float | str, kind: Kind | None) -> Value:
    if isinstance(value, str):
        if len(value) > MAX_TEXT or not _encodable(value):
            raise _wrong(f"The text for {_shown(name)} is longer than {MAX_TEXT:,} characters, or no valid Unicode.")
    elif not isinstance(value, bool) and not (
        math.isfinite(value) if isinstance(value, float) else -_EXACT <= value <= _EXACT
    ):
        raise _wrong(f"The number for {_shown(name)} is too large; send it as a text, in a column of its own.")
    wanted = kind or kind_of([value], name)
    if wanted == "time" and isinstance(value, str):
        return _time(name, value)
    if wanted == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if (wanted == "text" and isinstance(value, str)) or (wanted == "flag" and isinstance(value, bool)):
        return value
    raise _wrong(f"The column {_shown(name)} holds {wanted}s: send {_EXAMPLES[wanted or 'text']}, or null.")


def _time(name: str, text: str) -> dt.datetime:
    try:
        moment = parse_texts([text])[0]
    except OverflowError:  # in another time zone it would be before the year 1
        moment = None
    if not isinstance(moment, dt.datetime):
        raise _wrong(f"The column {_shown(name)} holds times: send {_EXAMPLES['time']}, or null.")
    return moment


def add_image(catalog: Catalog, uploads: Path | None, data: bytes, item: NewItem) -> tuple[str, bool, int]:
    """Store an uploaded image by the hash of its content and add it; to be called by the one writer.

    Args:
        catalog: to add to; an item of the same id is replaced.
        uploads: folder for images; one beside the catalog if None.
        data: the bytes of an image that `read_image` has accepted.
        item: what is said of it.

    Returns:
        The item's id, whether it is new, and the catalog's version.

    Raises:
        ApiError: 400 for a wrong domain or metadata or an image without a vector, 403 where there is no place for
            images.
        IsthmusError: the disk or the catalog can't be written.
    """
    domain = catalog.facts.domain if item.domain is None else item.domain
    if domain not in catalog.facts.domains:
        raise _wrong(f"The model's domains are {' and '.join(catalog.facts.domains)}; send one of them.")
    values = values_of(item.metadata, catalog.items.kinds())
    content = hashlib.sha256(data).hexdigest()
    id = f"{domain}/{content}" if item.id is None else item.id
    for text in (id, item.label or ""):
        if not text.isprintable():
            raise _wrong("An id and a label are printable text, without line breaks and control characters.")
    known = format_of(data)
    assert known is not None
    # The name comes from the content alone: nothing that a client wrote becomes a path.
    path = _folder(catalog, uploads) / content[:2] / f"{content}{known.suffix}"
    with explain_os_errors(path):
        fresh = not path.is_file() or path.stat().st_size != len(data)
    if fresh:
        atomic_write_bytes(path, data)
    row = Row(id, absolute(path), domain, label=item.label)
    changes = catalog.add(Manifest([row]), metadata={id: values} if values else None, on_bad="skip", workers=0)
    if changes.bad:  # it could be decoded: the model has no vector for it, such as for a wholly blank one
        if fresh:
            path.unlink(missing_ok=True)
        raise ApiError(400, "bad_image", "The model gives no usable vector for this image; send another one.")
    return id, changes.added == 1, catalog.items.version


def revise(catalog: Catalog, change: Change) -> int:
    """Change the metadata of one item, found by its id and nothing else; to be called by the one writer.

    Returns:
        The catalog's version afterwards.

    Raises:
        ApiError: 404 `no_item`, 400 for a wrong name or value.
    """
    rows = catalog.items.fetch([change.id])[0] if _encodable(change.id) else []
    if not rows:
        raise ApiError(404, "no_item", "The catalog has no item of that id.")
    values = values_of(change.metadata, catalog.items.kinds())
    filled = {name: kind for name, value in values.items() if (kind := kind_of([value], name)) is not None}
    catalog.items.make_columns(filled)
    fitted = catalog.items.fit(values)  # without what is cleared and was never there
    if any(rows[0].get(name) != value for name, value in fitted.items()):
        catalog.items.revise([{**rows[0], **fitted}], list(fitted))
    return catalog.items.version


def remove(catalog: Catalog, id: str) -> tuple[int, int]:
    """Delete an item; its image file stays. Returns how many were deleted (0 or 1) and the version."""
    # A delete of nothing would be a version too, after which everybody reads everything anew.
    there = _encodable(id) and catalog.items.count(ids_in([id])) > 0
    count = catalog.delete([id]) if there else 0
    return count, catalog.items.version


def _folder(catalog: Catalog, uploads: Path | None) -> Path:
    if uploads is not None:
        return Path(absolute(uploads))
    if is_remote(catalog.path):
        raise ApiError(
            403, "forbidden", "The service has no folder for images: it has to be started with one (uploads)."
        )
    return Path(catalog.path).parent / "uploads"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return repr(name[:80])


def _wrong(reason: str) -> ApiError:
    return ApiError(400, "bad_request", reason)
