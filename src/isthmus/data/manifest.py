"""The one table: which images there are, what is known about each, and which image each was made from.

Folders, lists of paths, CSV and Parquet all become a `Manifest` (see `isthmus.data.sources.read_source`). Ids tie
things together, never positions: a row that is left out shifts nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.files import show_name
from isthmus.errors import IsthmusError


@dataclass(frozen=True, slots=True)
class Row:
    """One image.

    Attributes:
        id: unique within a manifest; from folders and lists `<domain>/<path relative to the folder or root>`.
        path: absolute path of the file.
        domain: such as `"sketch"` or `"photo"`.
        label: its category, where known.
        identity: the single thing it shows, where known (the instance, the person): finer than a label.
        attributes: name -> value, where known.
        split: `"train"`, `"val"` or `"test"`, where known.
        source_id: the id of the image it was translated from; None for a real image.
    """

    id: str
    path: str
    domain: str
    label: str | None = None
    identity: str | None = None
    attributes: Mapping[str, float] | None = None
    split: str | None = None
    source_id: str | None = None


class Manifest:
    """An immutable sequence of `Row`s with unique ids.

    Raises:
        IsthmusError: two rows have the same id.

    Example:
        >>> rows = [Row("photo/a.png", "/data/a.png", "photo", label="cat"), Row("photo/b.png", "/data/b.png", "photo")]
        >>> manifest = Manifest(rows)
        >>> len(manifest), manifest.labels(), manifest.by_id("photo/b.png").path
        (2, ['cat', None], '/data/b.png')
    """

    __slots__ = ("_index", "rows")

    rows: tuple[Row, ...]

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = tuple(rows)
        self._index = {row.id: row for row in self.rows}
        if len(self._index) < len(self.rows):
            counts = Counter(row.id for row in self.rows)
            raise IsthmusError(
                f"Image ids must be unique, and {some_of([f'{id} ({n} times)' for id, n in counts.items() if n > 1])} "
                "repeat: leave the repeats out, or give them ids of their own."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, position: int) -> Row:
        return self.rows[position]

    def __contains__(self, id: object) -> bool:
        return id in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Manifest({len(self)} images, domains {self.domains})"

    def __add__(self, other: Manifest) -> Manifest:
        return Manifest(self.rows + other.rows)

    def by_id(self, id: str) -> Row:
        """The row with this id.

        Raises:
            IsthmusError: there is none.
        """
        try:
            return self._index[id]
        except KeyError:
            raise IsthmusError(
                f"The manifest of {len(self)} images has no id {show_name(id)}; check it against the table's id column."
            ) from None

    def select(self, *, domain: str | None = None, split: str | None = None, real: bool | None = None) -> Manifest:
        """The rows of a domain, of a split, and only the real images (`real=True`) or only the translated ones."""
        return Manifest(
            row
            for row in self.rows
            if (domain is None or row.domain == domain)
            and (split is None or row.split == split)
            and (real is None or (row.source_id is None) == real)
        )

    def labels(self) -> list[str | None]:
        """The label of each row, in order."""
        return [row.label for row in self.rows]

    @property
    def domains(self) -> list[str]:
        """The domains, in order of first appearance."""
        return list(dict.fromkeys(row.domain for row in self.rows))

    def save(self, path: str | Path) -> None:
        """Write a `.csv` or `.parquet` table, whole or not at all.

        Columns: id, path, domain, label, identity, split, source_id and one `attr:NAME` for each attribute; what is
        missing is empty (CSV) or null (Parquet). Paths beneath the table's folder are stored relative to it, so the
        folder can be moved as a whole.

        Raises:
            IsthmusError: another suffix, or the file can't be written.
        """
        from isthmus.data.tables import write_table

        write_table(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, root: str | Path | None = None) -> Manifest:
        """Read a `.csv` or `.parquet` table.

        Args:
            path: the table. It needs the columns path and domain; without an id column ids are `<domain>/<path>`.
            root: the folder that relative paths start from; None: the table's own folder.

        Raises:
            IsthmusError: no such file, another suffix, unreadable, a column missing, or ids that repeat.
        """
        from isthmus.data.tables import read_table

        return read_table(Path(path), root=root)

    @classmethod
    def from_folder(cls, folder: str | Path, domain: str, *, split: str | None = None) -> Manifest:
        """Every image beneath a folder; see `isthmus.data.sources.read_folder`."""
        from isthmus.data.sources import read_folder

        return read_folder(folder, domain, split=split)

    @classmethod
    def from_list(
        cls, path: str | Path, domain: str, *, root: str | Path | None = None, split: str | None = None
    ) -> Manifest:
        """The images that a text file lists; see `isthmus.data.sources.read_list`."""
        from isthmus.data.sources import read_list

        return read_list(path, domain, root=root, split=split)


def image_id(domain: str, path: str, root: str) -> str:
    """`<domain>/<path relative to root>`; a file elsewhere keeps its whole path. Both paths absolute."""
    relative = relative_path(path, root)
    return f"{domain}/{relative if relative is not None else Path(path).as_posix().lstrip('/')}"


def relative_path(path: str, root: str) -> str | None:
    """The posix path from `root` to `path`, or None when `path` does not lie beneath it. Both absolute."""
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return None


def absolute(path: str | Path, base: str | Path = "") -> str:
    """`path` (from `base`) as an absolute path without `.` and `..`; links are left as they are."""
    return os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 - pathlib resolves links or keeps `..`


def some_of(names: Iterable[str], most: int = 3) -> str:
    """The first few names of a list for a message, readable, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(show_name(name) for name in listed[:most]) + more
