"""Published data sets, and pairs of one's own, as manifests and splits: what `isthmus data prepare` does.

A data set is one `Adapter` in the file of its family; `ADAPTERS` is the list of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.data.adapters import (
    celeba,
    faces,
    market,
    multidomain,
    pairs,
    pku,
    qmul,
    qmul_v2,
    zappos,
    zero_shot,
)
from isthmus.data.adapters.base import Adapter, Options, Prepared, refuse_leak
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, atomic_write_text, explain_os_errors, make_folder, read_json

__all__ = ["ADAPTERS", "Adapter", "Options", "Prepared", "find", "prepare", "refuse_leak", "write"]

ADAPTERS: Mapping[str, Adapter] = {
    adapter.name: adapter
    for family in (pku, market, qmul, qmul_v2, zappos, faces, celeba, multidomain, zero_shot, pairs)
    for adapter in family.ADAPTERS
}
RECORD = "prepared.json"


def find(name: str) -> Adapter:
    """The adapter of this name.

    Raises:
        IsthmusError: there is none.
    """
    try:
        return ADAPTERS[name]
    except KeyError:
        raise IsthmusError(f"There is no data set '{name}'; there are: {', '.join(ADAPTERS)}.") from None


def prepare(name: str, options: Options) -> Prepared:
    """Read a data set in its published layout; nothing is written.

    Args:
        name: one of `ADAPTERS`.
        options: what was asked for; an option that this data set does not listen to is refused.

    Raises:
        IsthmusError: no such data set, an option out of place, or what the adapter's `read` says of the folder.

    Example:
        >>> prepared = prepare("shoes", Options(Path("shoes"), splits=5))  # doctest: +SKIP
        >>> [len(rows.select(domain="sketch", split="test")) for rows in prepared.splits]  # doctest: +SKIP
        [115, 115, 115, 115, 115]
    """
    adapter = find(name)
    plain = Options(options.root)
    for option in (name for name in vars(plain) if name not in ("root", "splits", "seed")):
        if getattr(options, option) != getattr(plain, option) and option not in adapter.takes:
            said = ", ".join(f"--{taken.replace('_', '-')}" for taken in adapter.takes) or "none of these options"
            raise IsthmusError(
                f"--{option.replace('_', '-')} says nothing to '{name}', which takes {said}; leave it out."
            )
    if options.splits is not None and adapter.default_splits == 0:
        raise IsthmusError(f"'{name}' is a source of photos, of which no splits are made; leave out --splits.")
    if options.splits is not None and options.splits < 1:
        raise IsthmusError(f"--splits is {options.splits}; write 1 or more.")
    prepared = adapter.read(options, adapter)
    for rows in prepared.splits:
        refuse_leak(rows)
    return prepared


def write(prepared: Prepared, out: str | Path, facts: Mapping[str, Any]) -> list[Path]:
    """Write the tables and texts, each whole or not at all, and last `prepared.json`, the record of them.

    What an earlier run wrote here and this one does not (a split 09 of ten, now five) is removed.

    Args:
        prepared: what `prepare` gave.
        out: the folder; made where it is missing.
        facts: name, root, seed and whatever else the record should hold.

    Returns:
        The files, the record last.

    Raises:
        IsthmusError: the folder or a file can't be written.
    """
    folder = make_folder(out)
    tables = prepared.files()
    names = [*tables, *prepared.texts]
    old = _written_before(folder / RECORD)
    for name, rows in tables.items():
        rows.save(folder / name)
    for name, text in prepared.texts.items():
        atomic_write_text(folder / name, text)
    for name in sorted(old - set(names)):
        with explain_os_errors(folder / name):
            (folder / name).unlink(missing_ok=True)
    atomic_write_json(folder / RECORD, {**facts, "notes": list(prepared.notes), "files": names})
    return [folder / name for name in (*names, RECORD)]


def _written_before(record: Path) -> set[str]:
    """The files that the record of an earlier run names; only plain names, so nothing outside the folder is touched."""
    with contextlib.suppress(IsthmusError, AttributeError, TypeError):
        return {
            name for name in read_json(record).get("files", []) if isinstance(name, str) and Path(name).name == name
        }
    return set()
