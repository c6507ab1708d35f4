"""What a catalog is, and reading all of it to find damage before a customer does."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.catalog.columns import checksum, matrix
from isthmus.catalog.items import Items
from isthmus.catalog.storage import is_remote
from isthmus.catalog.table import Facts
from isthmus.data.files import content_hash, exists, show_name
from isthmus.data.manifest import some_of
from isthmus.errors import IsthmusError


@dataclass
class Report:
    """What `Catalog.verify` found.

    Attributes:
        rows: items read.
        problems: one sentence for each kind of damage; empty for a sound catalog.
        files_missing: items whose image file is gone (only looked for with `files=True`).
        files_changed: items whose image file has another content now (likewise).
    """

    rows: int = 0
    problems: list[str] = field(default_factory=list)
    files_missing: list[str] = field(default_factory=list)
    files_changed: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether the catalog itself is whole; image files are not part of it."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**asdict(self), "sound": self.sound}


def verify(items: Items, *, files: bool = False) -> Report:
    """Read every row: checksums, lengths of vectors, ids, counts; with `files` also the images' content."""
    report = Report()
    ids: Counter[str] = Counter()
    broken: list[str] = []
    crooked: list[str] = []
    try:
        for batch in items.scan(["id", "path", "hash", "crc", "vector", "domain", *items.kinds()]):
            vectors = matrix(batch.column("vector"), items.dim)
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
            rows = batch.select(["id", "path", "hash", "crc"]).to_pylist()
            for row, vector, length in zip(rows, vectors, lengths, strict=True):
                ids[row["id"]] += 1
                if row["crc"] != checksum(str(row["id"]), str(row["hash"]), vector):
                    broken.append(str(row["id"]))
                elif not abs(length - 1) < 1e-3:
                    crooked.append(str(row["id"]))
                if files:
                    _look_at_file(row, report)
        report.rows = ids.total()
        counted = items.count()
        if counted != report.rows:
            report.problems.append(f"The table says that it has {counted} items, and {report.rows} can be read.")
        items.indexed()
    except IsthmusError as error:
        report.rows = ids.total()
        report.problems.append(str(error))
    twice = [id for id, times in ids.items() if times > 1]
    for what, found in (
        ("vectors are not what was written", broken),
        ("vectors are not of unit length", crooked),
        ("ids stand there more than once", twice),
    ):
        if found:
            report.problems.append(f"{len(found)} {what}: {some_of(found)}.")
    return report


def _look_at_file(row: dict[str, Any], report: Report) -> None:
    if not exists(row["path"]):
        report.files_missing.append(show_name(row["path"]))
        return
    try:
        same = content_hash(row["path"]) == row["hash"]
    except IsthmusError:
        same = False
    if not same:
        report.files_changed.append(show_name(row["path"]))


def describe(items: Items, facts: Facts) -> dict[str, Any]:
    """`Catalog.info`."""
    index = items.indexed()
    return {
        "path": items.place,
        "items": items.count(),
        "dim": facts.dim,
        "model": facts.fingerprint,
        "model_path": facts.model or None,
        "domains": list(facts.domains),
        "domain": facts.domain,
        "centring": facts.centring,
        "metadata": dict(items.kinds()),
        "search": "exact" if index is None else "approximate",
        "indexed": 0 if index is None else index[0],
        "effort": None if index is None else items.effort().to_dict(),
        "index_above": facts.index_above,
        "version": items.version,
        "created": facts.created,
        "bytes": None if is_remote(items.place) else folder_size(Path(items.place)),
    }


def folder_size(folder: Path) -> int:
    """Bytes of all files beneath a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
