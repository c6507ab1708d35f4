"""Writing: adding and synchronising images by their content, in chunks that stay when the rest is interrupted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isthmus.catalog.changes import Bad, Changes, Options
from isthmus.catalog.columns import Value
from isthmus.catalog.embed import Embedder, Vectors, embed
from isthmus.catalog.items import Items
from isthmus.catalog.metadata import manifest_values
from isthmus.catalog.reading import Reader, Seen, look, read
from isthmus.data.manifest import Manifest, Row, relative_path
from isthmus.errors import IsthmusError
from isthmus.progress import track

PART = 64
CHUNK_SECONDS = 5.0  # so much work is lost at most when it is interrupted
CHUNK_ROWS = (128, 4096)
PENDING_ROWS = 8192
READY_BYTES = 2**27  # of rows with ready-made vectors that wait to be written
ROW_BYTES = 2048  # of a row at least
WRITING = 10  # so many times longer than a write takes is waited for the next, where vectors come ready-made


@dataclass
class _Pending:
    """A row to write: its vector comes from the item `donor`, from `made`, or from the model where both are None."""

    values: dict[str, Any]
    donor: str | None
    count: Literal["added", "updated", "refreshed", "moved", "unchanged"]
    made: Vectors | str | None = None


class Writer:
    """One run of `add` or `sync`.

    Args:
        items: the catalog's items.
        model: what encodes.
        manifest: the images.
        values: item id -> metadata beyond the manifest's.
        centring: the catalog's.
        options: what to do with bad images, and whether to remove what is gone.
        folder: where the images come from; with `options.prune`, items beneath it whose image is not in the manifest
            are removed at the end.
        reader: who reads the images; this process if None. One that embeds them too gives vectors ready-made, and only
            what it left out is embedded here.
    """

    def __init__(
        self,
        items: Items,
        model: Embedder,
        manifest: Manifest,
        values: Mapping[str, Mapping[str, Value]],
        *,
        centring: bool | None,
        options: Options,
        folder: str | None,
        reader: Reader | None = None,
    ) -> None:
        self.items, self.model, self.manifest, self.values = items, model, manifest, values
        self.centring, self.options = centring, options
        self.kinds = items.kinds()
        columns = ["id", "path", "hash", "domain", "label", "size", "mtime", *self.kinds]
        self.known: dict[str, dict[str, Any]] = {row["id"]: row for row in items.read(columns)}
        self.holders = {(row["hash"], row["domain"]): id for id, row in self.known.items()}
        self.gone: set[str] = set()
        if folder is not None and options.prune:
            self.gone = {
                id
                for id, row in self.known.items()
                if id not in manifest and row["domain"] in manifest.domains and relative_path(row["path"], folder)
            }
        self.moved: set[str] = set()
        self.pending: list[_Pending] = []
        self.to_embed = 0
        self.limit = 4 * PART
        self.reader = reader
        self.written = (0.0, 0.0)  # when the last write ended, and how long it took
        self.changes = Changes()

    def run(self) -> Changes:
        """Do it; what raises or interrupts leaves all finished chunks in the catalog."""
        start = time.perf_counter()
        self.written = (start, 0.0)
        seen = self.read_here() if self.reader is None else self.reader(self)
        with contextlib.closing(seen):
            for part in track(seen, len(self.manifest), "indexing", per_item=PART):
                for one in part:
                    self.place(one)
                if self.due():
                    self.flush()
        self.flush()
        self.items.remove_ids(sorted(self.gone))
        self.changes.removed = len(self.gone - self.moved)
        self.changes.seconds = time.perf_counter() - start
        return self.changes

    def read_here(self) -> Generator[list[Seen], None, None]:
        """Read the images in threads of this process."""
        from isthmus.data.loading import prefetch

        rows = self.manifest.rows
        parts = [rows[at : at + PART] for at in range(0, len(rows), PART)]
        yield from prefetch(parts, lambda part: [self.examine(row) for row in part], self.options.workers, ahead=8)

    def examine(self, row: Row) -> Seen:
        """Read what is needed to tell whether the image is new or changed."""
        return look(row, self.known.get(row.id), self.options.thorough) or read(row)

    def due(self) -> bool:
        """Whether what is pending should be written now."""
        if self.reader is None:
            return self.to_embed >= self.limit or len(self.pending) >= PENDING_ROWS
        # Others embed meanwhile: writing should neither let much work hang in the balance nor hold them up.
        ended, took = self.written
        waited = time.perf_counter() - ended
        full = len(self.pending) * max(ROW_BYTES, self.items.dim * 4) >= READY_BYTES
        return full or waited >= max(CHUNK_SECONDS, WRITING * took)

    def place(self, seen: Seen) -> None:
        """Decide what has to be done for an image."""
        row = seen.row
        if seen.fault:
            self.left_out(row.id, row.path, seen.fault)
            return
        old = self.known.get(row.id)
        content = (seen.content, row.domain)
        same = old is not None and (old["hash"], old["domain"]) == content
        donor = row.id if same else self.holders.get(content)
        moved = old is None and donor in self.gone and donor not in self.moved
        origin = old or (self.known[donor] if moved and donor else {})
        values = {name: origin.get(name) for name in self.kinds}
        values.update(manifest_values(row))
        values.update(self.values.get(row.id, {}))
        values.update(id=row.id, path=row.path, hash=seen.content, domain=row.domain, label=row.label)
        values.update(size=seen.size, mtime=seen.mtime)
        if same and old is not None:
            differ = {name for name, value in values.items() if old.get(name) != value}
            if not differ:
                self.changes.unchanged += 1
                return
            self.pending.append(_Pending(values, row.id, "refreshed" if differ - {"mtime", "size"} else "unchanged"))
            return
        if moved and donor:
            self.moved.add(donor)
        elif donor:
            self.changes.same.append((row.id, donor))
        self.pending.append(_Pending(values, donor, "moved" if moved else "updated" if old else "added", seen.made))
        self.to_embed += donor is None

    def left_out(self, id: str, path: str, reason: str) -> None:
        """Note a bad image, or raise after what is pending has been written."""
        self.changes.bad.append(Bad(id, path, reason))
        if self.options.on_bad == "raise" and len(self.changes.bad) == 1:
            self.flush()
            raise IsthmusError(reason)

    def flush(self) -> None:
        """Write what is pending, as one version of the table."""
        pending, self.pending, self.to_embed = self.pending, [], 0
        if not pending:
            return
        start = time.perf_counter()
        vectors = self.borrow({one.donor for one in pending if one.donor is not None})
        faults = self.encode([one for one in pending if one.donor is None], vectors)
        ready = [one for one in pending if (one.donor or _key(one.values)) in vectors]
        stacked = np.stack([vectors[one.donor or _key(one.values)] for one in ready]) if ready else None
        if stacked is not None:
            self.items.upsert([one.values for one in ready], stacked)
        for one in ready:
            self.note(one)
        for one in pending:
            if one.donor is None and (fault := faults.get(_key(one.values))):
                self.left_out(one.values["id"], one.values["path"], fault)
        ended = time.perf_counter()
        self.written = (ended, ended - start)

    def borrow(self, donors: set[str]) -> dict[Any, Vectors]:
        """Vectors that the catalog has already."""
        rows, vectors = self.items.fetch(donors)
        return {row["id"]: vector for row, vector in zip(rows, vectors, strict=True)}

    def encode(self, pending: list[_Pending], into: dict[Any, Vectors]) -> dict[tuple[str, str], str]:
        """Embed each content once; returns content -> reason for what could not be used."""
        faults: dict[tuple[str, str], str] = {}
        first: dict[tuple[str, str], dict[str, Any]] = {}
        for one in pending:
            key = _key(one.values)
            holder = first.setdefault(key, one.values)
            if holder is not one.values:
                self.changes.same.append((one.values["id"], holder["id"]))
            if isinstance(one.made, str):
                faults.setdefault(key, one.made)
            elif one.made is not None:
                into.setdefault(key, one.made)
        left = [key for key in first if key not in faults and key not in into]
        start = time.perf_counter()
        for domain in dict.fromkeys(domain for _, domain in left):
            keys = [key for key in left if key[1] == domain]
            vectors, bad = embed(
                self.model, [first[key]["path"] for key in keys], domain=domain, centring=self.centring,
                workers=self.options.workers, on_bad="skip",
            )  # fmt: skip
            faults.update({keys[position]: reason for position, reason in bad.items()})
            into.update({key: vectors[position] for position, key in enumerate(keys) if position not in bad})
            self.changes.embedded += len(keys) - len(bad)
        if left:
            rate = len(left) / max(time.perf_counter() - start, 1e-6)
            self.limit = int(min(max(rate * CHUNK_SECONDS, CHUNK_ROWS[0]), CHUNK_ROWS[1]))
        return faults

    def note(self, one: _Pending) -> None:
        """Count a written row and remember it for the rows that follow."""
        setattr(self.changes, one.count, getattr(self.changes, one.count) + 1)
        id = one.values["id"]
        old = self.known.get(id)
        if old is not None and self.holders.get(_key(old)) == id:
            del self.holders[_key(old)]
        self.known[id] = one.values
        self.holders.setdefault(_key(one.values), id)


def _key(values: Mapping[str, Any]) -> tuple[str, str]:
    return values["hash"], values["domain"]
