"""What an open catalog reads from: always the newest version of the table, as long as it is of the same model.

LanceDB's own way of following a table has one handle jump to the newest version at each read. That is wrong the moment
`reembed` puts the vectors of another model in: a search would compare a query of the old model with vectors of the new
one, and where both have one width nobody would notice. So a handle here never moves by itself. Each use looks for a
newer version, opens it beside the old handle, compares the description in its schema, and only then goes over to it.
Where the description is another, the catalog stays on the version that it has: reads go on, on what was there before
the switch, and writes are refused. LanceDB refuses them too, because a commit that starts from the version before an
overwrite conflicts with it; that holds also where the switch falls between the look and the commit.

A look is a request to the storage: on a disk up to a millisecond through LanceDB's threads, and tens of them on object
storage, where each is paid for. A search uses the table many times; within `steady` it looks once, and is of one
version from end to end. On a disk the time of change of the folder of versions says whether there is one to look for.
That a handle never moves holds for our own changes too: each is made through a handle of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from isthmus.catalog.storage import is_remote
from isthmus.catalog.table import DESCRIPTION, TABLE, connect, explained

SETTLED = 2 * 10**9  # nanoseconds: a folder changed more recently may change again within one tick of its clock
TRUST = 1.0  # seconds: network file systems tell of changes made elsewhere later than they list them


class Source(Protocol):
    """Where `Items` finds its LanceDB table."""

    def current(self) -> tuple[int, Any]: ...
    def to_write(self) -> Any | None: ...


class Still:
    """A table that this process alone moves: a new one being filled, or one version of an old one."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def current(self) -> tuple[int, Any]:
        """Version and table."""
        return int(self._table.version), self._table

    def to_write(self) -> Any:
        """The same table."""
        return self._table


class Live:
    """The newest version of a catalog's table that has the description it was opened with.

    Args:
        place: where the catalog is.
        storage_options: of object storage.
        table: a handle that sees new versions by itself, as `open_table` gives it.
    """

    def __init__(self, place: str, storage_options: Mapping[str, str] | None, table: Any) -> None:
        self.place, self.storage_options = place, storage_options
        self._probe = table
        self._lock = threading.Lock()
        self._steady = threading.local()
        self._refused = -1
        self._versions = None if is_remote(place) else Path(place) / f"{TABLE}.lance" / "_versions"
        self._unchanged: tuple[int, float] | None = None  # the folder's time of change, and until when it is believed
        # One connection for all: LanceDB's caches of an index belong to it.
        self._connection = connect(place, storage_options, follow=False)
        first = self.private()
        self._description = description(first)
        self._kept = (int(first.version), first)

    @property
    def superseded(self) -> bool:
        """Whether the table has the vectors of another model by now, so that this catalog should be opened anew."""
        self.current()
        return self._refused >= 0

    def current(self) -> tuple[int, Any]:
        """Version and table; other threads may go on with the one that they have."""
        kept: tuple[int, Any] | None = getattr(self._steady, "kept", None)
        if kept is None:
            kept = self._newest()
            if getattr(self._steady, "depth", 0):
                self._steady.kept = kept
        return kept

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Within it this thread stays on one version, the newest at its first use of the table."""
        self._steady.depth = getattr(self._steady, "depth", 0) + 1
        try:
            yield
        finally:
            self._steady.depth -= 1
            if not self._steady.depth:
                self._steady.kept = None

    def to_write(self) -> Any | None:
        """A handle for one change, on the newest version; None where that is of another model."""
        table = self.private()
        with explained(self.place):
            return table if description(table) == self._description else None

    def _newest(self) -> tuple[int, Any]:
        if self._is_newest():
            return self._kept
        with explained(self.place):
            # Before the look: what is committed in between has the next one look again.
            now, changed = time.time_ns(), self._changed()
            newest = int(self._probe.version)
            with self._lock:
                if newest not in (self._kept[0], self._refused):
                    table = self.private()
                    version = int(table.version)
                    if description(table) == self._description:
                        self._kept, self._refused = (version, table), -1
                    else:
                        self._refused = version
                settled = changed and now - changed > SETTLED
                self._unchanged = (changed, time.monotonic() + TRUST) if settled else None
                return self._kept

    def _is_newest(self) -> bool:
        known = self._unchanged
        return known is not None and time.monotonic() < known[1] and self._changed() == known[0]

    def _changed(self) -> int:
        """When a version was last added, in nanoseconds; 0 where that can't be said."""
        if self._versions is None:
            return 0
        try:
            return self._versions.stat().st_mtime_ns
        except OSError:
            return 0

    def private(self, version: int | None = None) -> Any:
        """A handle of its own, on the newest version of any description or on the given one."""
        with explained(self.place):
            table = self._connection.open_table(TABLE)
            if version is not None:
                table.checkout(version)
            return table


def description(table: Any) -> bytes | None:
    """The catalog's facts as they stand in the table's schema."""
    return (table.schema.metadata or {}).get(DESCRIPTION)
