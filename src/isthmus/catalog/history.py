"""The versions of a catalog: what each changed, going back to one, and clearing away those that nobody needs.

Every change of a catalog is one version, made by one atomic commit of LanceDB. All that stands here is made of such
commits too, so that a process killed at any moment leaves the state before or the state after, and the same command
goes on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from isthmus.catalog.columns import SYSTEM
from isthmus.catalog.effort import read_effort
from isthmus.catalog.handle import Live, description
from isthmus.catalog.table import explained, read_facts
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.items import Items

AGE = dt.timedelta(days=7)
# An hour for whoever reads, and one because LanceDB tells times by the local clock, which repeats an hour in autumn.
YOUNGEST = dt.timedelta(hours=2)
NEVER = dt.timedelta(days=36_500)
SUMMARY = ("rows", "data_file_rows", "deletion_file_rows", "fragments", "files_size")  # of `_Listed`, in its order
SLACK = dt.timedelta(seconds=1)  # between our look at the clock and LanceDB's


@dataclass(frozen=True)
class Version:
    """One version of a catalog.

    Attributes:
        number: counts up with every change.
        time: when it was made, in UTC.
        rows: items in it.
        what: the change in words.
        model: fingerprint of the model of its vectors.
        added: new items; None where LanceDB does not tell.
        updated: items written anew or with other metadata; None where LanceDB does not tell.
        deleted: items gone; None where LanceDB does not tell.
    """

    number: int
    time: dt.datetime
    rows: int
    what: str
    model: str
    added: int | None = None
    updated: int | None = None
    deleted: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The version as plain values, the time as ISO text."""
        return {**asdict(self), "time": self.time.isoformat(timespec="seconds")}


@dataclass(frozen=True)
class Compaction:
    """What `compact` did: files and versions before and after, and the version that it left."""

    files_before: int
    files_after: int
    versions_before: int
    versions_after: int
    version: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Listed:
    """What LanceDB says of a version without opening it."""

    number: int
    time: dt.datetime
    rows: int  # items
    written: int  # rows in the data files, also those deleted since
    struck: int  # rows in the lists of deleted ones
    fragments: int
    size: int


def versions(live: Live, limit: int = 20) -> list[Version]:
    """The newest versions, newest first.

    The counts come from LanceDB's summary of each version: rows, rows in files, and rows marked as deleted. A commit
    that rewrites a whole file leaves no such trace, and its counts are None rather than a guess.

    Args:
        live: the catalog's table.
        limit: how many.

    Raises:
        IsthmusError: a limit below 1, or the catalog can't be read.
    """
    if limit < 1:
        raise IsthmusError(f"The number of versions to show is at least 1, not {limit}.")
    table = live.private()
    with explained(live.place):
        listed = _listed(table)
        chosen = listed[-limit - 1 :]
        schemas = {}
        for one in chosen:
            table.checkout(one.number)
            names = {field.name for field in table.schema} - set(SYSTEM)
            schemas[one.number] = (_model(table, live.place), names, read_effort(table))
    earlier = {_print(one): one.number for one in reversed(listed)}
    found = []
    if len(chosen) <= limit:  # the oldest that is kept has nothing before it to compare with
        first = chosen[0]
        what = "made" if first.number == 1 else "oldest version kept"
        found.append(Version(first.number, first.time, first.rows, what, schemas[first.number][0]))
    for before, after in pairwise(chosen):
        (old_model, old_columns, old_effort), (model, columns, effort) = schemas[before.number], schemas[after.number]
        added = updated = deleted = None
        same = earlier[_print(after)]
        if same < before.number and _print(before) != _print(after):
            what = f"rolled back to version {same}"
        elif model != old_model:
            what = f"re-embedded: model {old_model} became {model}"
        elif columns - old_columns:
            what = f"new columns: {', '.join(sorted(columns - old_columns))}"
        elif effort != old_effort:
            what, added, updated, deleted = "how hard the index looks", 0, 0, 0
        else:
            what, added, updated, deleted = _changes(before, after)
        found.append(Version(after.number, after.time, after.rows, what, model, added, updated, deleted))
    return found[::-1]


def _changes(before: _Listed, after: _Listed) -> tuple[str, int | None, int | None, int | None]:
    more, written, struck = after.rows - before.rows, after.written - before.written, after.struck - before.struck
    if more < 0:  # no change of ours adds and deletes at once
        return f"{-more} deleted", 0, 0, -more
    if after.fragments == before.fragments + 1 and struck >= 0:  # one new file, and no older one went
        parts = [f"{count} {word}" for count, word in ((more, "added"), (struck, "updated")) if count]
        return ", ".join(parts), more, struck, 0
    if _print(before) == _print(after):
        return "index", 0, 0, 0
    if more == 0 and written <= 0 and after.fragments < before.fragments:
        return "files merged, or whole files of items updated", None, None, None
    return (f"{more} added, and items updated" if more else "items updated"), more, None, 0


def _print(one: _Listed) -> tuple[int, ...]:
    # The bytes of all files too: only going back makes a whole state stand there twice.
    return one.rows, one.written, one.struck, one.fragments, one.size


def _listed(table: Any) -> list[_Listed]:
    result = []
    for one in table.list_versions():
        facts = {name.removeprefix("total_"): int(value) for name, value in one["metadata"].items()}
        numbers = [facts.get(name, 0) for name in SUMMARY]
        result.append(_Listed(int(one["version"]), one["timestamp"].astimezone(dt.timezone.utc), *numbers))
    return sorted(result, key=lambda one: one.number)


def _model(table: Any, place: str) -> str:
    stored = description(table)
    return read_facts(stored, place).fingerprint if stored is not None else ""


def rollback(live: Live, number: int) -> int:
    """Make the state of an older version the newest, as one new version; what came in between stays listed.

    Going back over a re-embedding brings the old model back with its vectors; open catalogs then go on as they do
    after `reembed`.

    Returns:
        The number of the new version; `number` itself where it is the newest already.

    Raises:
        IsthmusError: there is no such version (any more), or its files can't be read; nothing is changed then.
    """
    table = live.private()
    with explained(live.place):
        numbers = [one.number for one in _listed(table)]
        if number not in numbers:
            raise IsthmusError(
                f"The catalog {live.place} has no version {number}; it keeps {len(numbers)}, from {numbers[0]} to "
                f"{numbers[-1]}: see  isthmus catalog versions."
            )
        if number == int(table.version):
            return number
        table.checkout(number)
        _model(table, live.place)
        # A small column of every file: going back to a version whose files are gone would be worse than not going.
        read = sum(len(batch) for batch in table.search().select(["crc"]).to_batches())
        if read != int(table.count_rows()):
            raise IsthmusError(f"Version {number} of the catalog {live.place} can't be read whole; choose another.")
        table.restore()
        return int(table.version)


def compact(items: Items, live: Live, older_than: dt.timedelta = AGE, *, alone: bool = False) -> Compaction:
    """Merge small files, extend the approximate index, and drop versions that have been out of use for long enough.

    Processes that read go on: a version is kept as long as the one that followed it is younger than `older_than`. (By
    the age of the version itself, the one that everybody was reading a second ago would go, where nothing had changed
    for a week.)

    Args:
        items: the catalog's items.
        live: its table.
        older_than: at least 2 hours, so that no version goes that someone may still be reading.
        alone: promises that no other process uses the catalog; then all ages are allowed, and files that a killed
            process left behind are removed too.

    Raises:
        IsthmusError: an age below 2 hours without `alone`, or another process wrote at the same time.
    """
    if older_than < YOUNGEST and not alone:
        raise IsthmusError(
            "Versions younger than 2 hours may be in use by other processes: choose an age of 2 hours or more, or say "
            "that no other process uses the catalog (--alone)."
        )
    items.to_write()
    table = live.private()
    with explained(live.place):
        before = int(table.stats()["fragment_stats"]["num_fragments"]), len(table.list_versions())
        merge_files(table, older_than, alone=alone)
        after = int(table.stats()["fragment_stats"]["num_fragments"]), len(table.list_versions())
        return Compaction(before[0], after[0], before[1], after[1], int(table.version))


def merge_files(table: Any, older_than: dt.timedelta = AGE, *, alone: bool = False) -> None:
    """`compact`, on a LanceDB table; its own `optimize` would drop what was in use a moment ago."""
    now = dt.datetime.now(dt.timezone.utc)
    used = [one for one in _listed(table) if one.time <= now - older_than]
    # The newest of these was in use `older_than` ago; all before it were not.
    age = now - used[-1].time + SLACK if len(used) > 1 else NEVER
    if alone and older_than <= dt.timedelta(0):
        age = dt.timedelta(milliseconds=1)
    table.optimize(cleanup_older_than=age, delete_unverified=alone)
