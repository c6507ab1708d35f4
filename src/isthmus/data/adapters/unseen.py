"""Which classes a zero-shot protocol keeps for the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from isthmus.data.adapters.base import Adapter, Options
from isthmus.data.adapters.choosing import order
from isthmus.data.adapters.layouts import plain
from isthmus.data.adapters.reading import read_lines
from isthmus.data.files import show_name
from isthmus.data.manifest import Row, some_of
from isthmus.errors import IsthmusError


def draw_unseen(
    options: Options,
    adapter: Adapter,
    number: int,
    sides: tuple[Sequence[Row], Sequence[Row]],
    k: int,
    notes: list[str],
) -> set[str]:
    """The classes that are tested on: from `options.unseen`, from the publication, or drawn by the seed.

    Args:
        options: `unseen` is a text file with a class a line (a number behind it is left alone).
        number: of the data set's class split.
        sides: query and gallery images.
        k: number of the split among several; one that names its classes is the same each time.
        notes: what differs from the publication is added.

    Raises:
        IsthmusError: a class of the file is not in the data set, or all of them are named; too few classes.
    """
    family = adapter.family
    assert family is not None
    classes = sorted({str(row.label) for row in sides[0]})
    if len(classes) < 2:
        raise IsthmusError("There is a single class in both domains, and zero-shot protocols need two; add classes.")
    of_key = {plain(name): name for name in classes}
    count, names = family.unseen[number]
    if options.unseen is not None:
        found = _from_file(options.unseen, of_key, adapter)
    elif names:
        found = {of_key[plain(name)] for name in names if plain(name) in of_key}
        if absent := [name for name in names if plain(name) not in of_key]:
            notes.append(f"{len(absent)} of the {len(names)} published test classes are not there: {some_of(absent)}")
    else:
        wanted = count if len(classes) == family.classes else round(len(classes) * count / family.classes)
        photos = Counter(str(row.label) for row in sides[1])
        pool = [name for name in classes if photos[name] >= family.eligible]
        wanted = min(max(wanted, 1), len(classes) - 1)
        if len(pool) < wanted:
            notes.append(
                f"{len(pool)} classes have the {family.eligible} gallery images from which test classes are "
                "drawn in the literature; they are drawn from all"
            )
            pool = classes
        found = set(order(pool, adapter.name, "unseen", number, options.seed, k)[:wanted])
        notes.append(f"the {len(found)} test classes are drawn by the seed: the literature draws them at random too")
    if not found or len(found) == len(classes):
        raise IsthmusError(
            f"{len(found)} of {len(classes)} classes would be tested on, but both sides need some; "
            " complete the data set, or name other classes with --unseen."
        )
    return found


def _from_file(path: Path, of_key: dict[str, str], adapter: Adapter) -> set[str]:
    if not path.is_file():
        raise IsthmusError(f"There is no file {show_name(path)}; --unseen is a text file with a test class a line.")
    found: set[str] = set()
    strange: list[str] = []
    for line in read_lines(path, adapter):
        name, _, number = line.rpartition(" ")
        keys = [plain(line), *([plain(name)] if name and number.isdecimal() else [])]
        here = [of_key[key] for key in keys if key in of_key]
        found.update(here[:1])
        strange += [] if here else [line]
    if strange:
        raise IsthmusError(
            f"{show_name(path)} names {len(strange)} classes that are not in both domains: {some_of(strange)}; correct "
            "them."
        )
    return found
