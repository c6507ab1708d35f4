"""LanceDB held at arm's length: opening and making its table, and its errors as sentences."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.catalog.columns import Kind, schema
from isthmus.catalog.storage import (
    check_address,
    for_first_contact,
    is_remote,
    require_safe_commits,
    storage_sentence,
)
from isthmus.errors import IsthmusError
from isthmus.io import make_folder

FORMAT = 1
TABLE = "items"
RECALL = 0.98  # wanted of an index where nobody said anything
DESCRIPTION = b"isthmus"  # where the facts stand in the schema's metadata


@dataclass(frozen=True)
class Facts:
    """What a catalog knows of itself from its making; it stands in the table's schema, so it can't get lost.

    Attributes:
        fingerprint: the model's; vectors of another model are worth nothing beside these.
        dim: width of a vector.
        domains: the model's query domain and gallery domain.
        domain: the domain that items are of when nothing else is said.
        model: where the model was found when the catalog was made; empty when it was given as an object.
        centring: whether vectors were centred; None: as the model does by itself.
        index_above: number of items above which an approximate index is built.
        recall: wanted recall@10 of that index.
        created: ISO time in UTC.
        format: version of the catalog's layout.
    """

    fingerprint: str
    dim: int
    domains: tuple[str, str]
    domain: str
    model: str = ""
    model_relative: str = ""
    centring: bool | None = None
    index_above: int = 50_000
    recall: float = RECALL
    created: str = ""
    format: int = FORMAT


def locate(path: str | os.PathLike[str]) -> str:
    """The place as text; local ones absolute, so that a later change of folder does no harm.

    Raises:
        IsthmusError: an address with one slash for two, of which a folder named `s3:` would be made.
    """
    place = os.fspath(path)
    if re.match(r"(s3|gs|az):/(?!/)", place):
        raise IsthmusError(f"{place} is no address; write {place.replace(':/', '://', 1)}")
    return place if is_remote(place) else str(Path(place).expanduser().absolute())


@contextlib.contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn what LanceDB and Arrow raise into one sentence; nothing damaged is served and no traceback shown."""
    try:
        yield
    except IsthmusError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, NotImplementedError):
            raise
        raise IsthmusError(_sentence(str(error), place)) from error


def _sentence(text: str, place: str) -> str:
    reason = re.sub(r", /\S+\.rs:\d+:\d+.*$", "", text.splitlines()[0] if text else "no reason given")[:300]
    if is_remote(place) and (sentence := storage_sentence(text, place)) is not None:
        return sentence
    lower = text.lower()
    if "no space left" in lower:
        return f"The disk of the catalog {place} is full; free some and run the same again, finished work is kept."
    if "permission denied" in lower or "read-only" in lower or "accessdenied" in lower:
        return f"The catalog {place} can't be written or read ({reason}); change permissions or the place."
    if "conflict" in lower or "concurrent" in lower:
        return f"Another process changed the catalog {place} at the same time; run the same again, nothing is lost."
    # On a disk these words may stand in a path.
    words = ("connect", "credential", "timed out", "bucket") if is_remote(place) else ()
    if any(word in lower for word in ("dispatch failure", *words)):
        return f"The storage of the catalog {place} can't be reached ({reason}); check address, bucket and credentials."
    if any(word in lower for word in ("not found", "corrupt", "lanceerror(io)", "invalid", "buffer", "too small")):
        return (
            f"The catalog {place} is damaged ({reason}); nothing was read from it: restore it from a copy, or "
            "index the images into a new one."
        )
    return f"The catalog {place} could not be used ({reason}); see  isthmus catalog verify."


def connect(place: str, storage_options: Mapping[str, str] | None, *, follow: bool = True) -> Any:
    """A connection whose tables see what other processes have written at each read (costs 0.2 ms on a disk).

    Without `follow` a table stays at the version that it was opened at, but for what is written through it.
    """
    import lancedb

    options = dict(storage_options) if storage_options else None
    interval = dt.timedelta(0) if follow else None
    return lancedb.connect(place, storage_options=options, read_consistency_interval=interval)


def table_exists(place: str, storage_options: Mapping[str, str] | None) -> bool:
    """Whether there is a table of ours at a place, sound or not."""
    if not is_remote(place):
        return (Path(place) / f"{TABLE}.lance").exists()
    check_address(place, storage_options)
    with explained(place):
        return TABLE in connect(place, for_first_contact(storage_options)).list_tables().tables


def create_table(
    place: str, facts: Facts, metadata: Mapping[str, Kind], storage_options: Mapping[str, str] | None
) -> Any:
    """An empty table at a place where nothing is yet.

    Raises:
        IsthmusError: something is there, the place can't be written, or it is a store that loses changes of two
            writers (`isthmus.catalog.storage`).
    """
    if not is_remote(place):
        folder = Path(place)
        if table_exists(place, None):
            raise IsthmusError(f"There is a catalog in {place} already; open it, or choose another place.")
        if folder.is_dir() and any(folder.iterdir()):
            raise IsthmusError(f"The folder {place} holds other files; choose an empty or a new one for the catalog.")
        make_folder(folder)
    with explained(place):
        if is_remote(place) and table_exists(place, storage_options):
            raise IsthmusError(f"There is a catalog at {place} already; open it, or choose another place.")
        if is_remote(place):
            require_safe_commits(place, storage_options)
        return connect(place, storage_options).create_table(
            TABLE, schema=schema(facts.dim, metadata, json.dumps(asdict(facts)).encode())
        )


def open_table(place: str, storage_options: Mapping[str, str] | None) -> tuple[Any, Facts]:
    """The table of an existing catalog and its facts.

    Raises:
        IsthmusError: no such place, no catalog, one of a later version, or a damaged one.
    """
    remedy = "make one with  isthmus index RUN PHOTOS --out CATALOG"
    if not is_remote(place):
        folder = Path(place)
        if not folder.exists():
            raise IsthmusError(f"There is no catalog {place}; check the path, or {remedy}")
        if not folder.is_dir() or not (folder / f"{TABLE}.lance").is_dir():
            raise IsthmusError(f"{place} is no catalog; check the path, or {remedy}")
        versions = folder / f"{TABLE}.lance" / "_versions"
        if not versions.is_dir() or not any(versions.iterdir()):
            raise IsthmusError(
                f"The catalog {place} is damaged (its list of versions is gone); restore it from a copy, or {remedy}"
            )
    with explained(place):
        if is_remote(place) and not table_exists(place, storage_options):
            raise IsthmusError(f"There is no catalog at {place}; check the address, or {remedy}")
        table = connect(place, storage_options).open_table(TABLE)
        stored = (table.schema.metadata or {}).get(DESCRIPTION)
    if stored is None:
        raise IsthmusError(f"{place} is a LanceDB table, but no catalog of Isthmus; check the path, or {remedy}")
    return table, read_facts(stored, place)


def read_facts(stored: bytes, place: str) -> Facts:
    """The facts from the schema of a table.

    Raises:
        IsthmusError: they are of a later version of Isthmus, or damaged.
    """
    try:
        values = json.loads(stored)
        if values["format"] > FORMAT:
            raise IsthmusError(f"The catalog {place} was made by a later version of Isthmus; update Isthmus.")
        first, second = values.pop("domains")
        return Facts(domains=(str(first), str(second)), **values)
    except (ValueError, KeyError, TypeError) as error:
        raise IsthmusError(
            f"The catalog {place} is damaged (its description: {error}); restore it from a copy, or make one with  "
            "isthmus index RUN PHOTOS --out CATALOG"
        ) from error
