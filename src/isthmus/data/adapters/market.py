"""Market-1501 with the attributes of vana77: photos of people, the source that goes with PKU-Sketch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.data.adapters.base import GALLERY, Adapter, Options, Prepared, image_row, missing, refuse_leak
from isthmus.data.adapters.reading import images_in, read_mat
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, some_of
from isthmus.errors import IsthmusError

FOLDERS = {"bounding_box_train": "train", "query": "test", "bounding_box_test": "test"}
PUBLISHED = {"train": 751, "test": 750}
JUNK, DISTRACTOR = "-1", "0000"
_NAME = re.compile(r"(-1|\d{4})_c\d")
MAT = "market_attribute.mat"

# The name says what 1 means; beside it the fields of the file of which one has to have one of the values.
_COMMON: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "female": (("gender",), (2,)),
    "long_hair": (("hair",), (2,)),
    "short_sleeve": (("up",), (2,)),
    "short_lower": (("down",), (2,)),
    "pants": (("clothes",), (2,)),
    "hat": (("hat",), (2,)),
}
SETS: dict[str, dict[str, tuple[tuple[str, ...], tuple[int, ...]]]] = {
    "paper": {**_COMMON, "adult": (("age",), (3, 4)), "any_bag": (("backpack", "bag", "handbag"), (2,))},
    "code": {**_COMMON, "backpack": (("backpack",), (2,)), "bag": (("bag", "handbag"), (2,))},
}


def read(options: Options, adapter: Adapter) -> Prepared:
    """Every photo but the junk; distractors have no identity, the test half is split test.

    Raises:
        IsthmusError: a folder or the attribute file is missing or another than the published one, or another word for
            `options.attributes`.
    """
    if options.attributes not in SETS:
        raise IsthmusError(f"--attributes is '{options.attributes}'; write {' or '.join(SETS)}.")
    root = _root(options.root)
    table = _table(root, options.root, SETS[options.attributes], adapter)
    notes: list[str] = []
    rows: list[Row] = []
    junk = 0
    strange: list[str] = []
    for folder, split in FOLDERS.items():
        for path in images_in(root / folder, adapter):
            match = _NAME.match(path.name)
            if match is None:
                strange.append(f"{folder}/{path.name}")
            elif match[1] == JUNK:
                junk += 1
            else:
                person = None if match[1] == DISTRACTOR else match[1]
                known = table.get(person) if person else None
                identity = f"market-{person}" if person else None
                rows.append(image_row(path, options.root, GALLERY, identity, attributes=known or None, split=split))
    if strange:
        raise missing(
            f"{len(strange)} file names do not begin with a person's four figures and a camera ({some_of(strange)})",
            adapter,
        )
    refuse_leak(rows)
    _count(rows, junk, notes)
    return Prepared(Manifest(rows), source=True, notes=tuple(notes))


def _root(root: Path) -> Path:
    inner = sorted(path for path in root.glob("Market-1501*") if (path / "bounding_box_train").is_dir())
    return inner[0] if inner and not (root / "bounding_box_train").is_dir() else root


def _table(
    root: Path, top: Path, wanted: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]], adapter: Adapter
) -> dict[str, dict[str, float]]:
    """Person -> attributes, of both halves; what the file leaves open is left out."""
    places = [place / sub for place in dict.fromkeys((root, top)) for sub in (".", "attribute", "Attribute")]
    places += sorted(top.glob("Market-1501_Attribute*"))
    path = next((place / MAT for place in places if (place / MAT).is_file()), root / MAT)
    content = read_mat(path, ("market_attribute",), adapter)
    result: dict[str, dict[str, float]] = {}
    for half in ("train", "test"):
        try:
            fields = content[0, 0][half][0, 0]
            people = [str(cell.squeeze()).strip().zfill(4) for cell in fields["image_index"].ravel()]
            needed = {field for names, _ in wanted.values() for field in names}
            columns = {field: fields[field].ravel().tolist() for field in needed}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            has = ", ".join(_fields(content, half)) or "nothing"
            raise IsthmusError(
                f"{show_name(path)} has not the fields of the published file for its '{half}' half (it has: {has}); "
                f"get it from {adapter.page}."
            ) from None
        if any(len(column) != len(people) for column in columns.values()):
            raise IsthmusError(
                f"{show_name(path)} names {len(people)} people in '{half}' and has another number of values; get it "
                f"from {adapter.page}."
            )
        for number, person in enumerate(people):
            values = {name: _value([columns[f][number] for f in names], yes) for name, (names, yes) in wanted.items()}
            result[person] = {name: value for name, value in values.items() if value is not None}
    return result


def _fields(content: Any, half: str) -> tuple[str, ...]:
    try:
        return tuple(content[0, 0][half][0, 0].dtype.names or ())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return tuple(getattr(getattr(content, "dtype", None), "names", None) or ())


def _value(said: Iterable[Any], yes: tuple[int, ...]) -> float | None:
    """1 where any of the fields says yes, 0 where all say no, None where it is not known."""
    values = [int(value) for value in said]
    if any(value in yes for value in values):
        return 1.0
    return None if any(value < 1 for value in values) else 0.0


def _count(rows: Iterable[Row], junk: int, notes: list[str]) -> None:
    people: dict[str, set[str]] = {"train": set(), "test": set()}
    bare: Counter[str] = Counter()
    distractors = 0
    for row in rows:
        if row.identity is None:
            distractors += 1
            continue
        people[str(row.split)].add(row.identity)
        bare[row.identity] += row.attributes is None
    found = {split: len(those) for split, those in people.items()}
    if found != PUBLISHED:
        notes.append(
            f"{found['train']} people to train and {found['test']} to test on; the publication has 751 and 750"
        )
    if junk:
        notes.append(f"{junk} junk images (-1) left out")
    if distractors:
        notes.append(f"{distractors} distractors (0000) have no identity and no attributes")
    if unknown := sorted(person for person, count in bare.items() if count):
        notes.append(f"{len(unknown)} people are not in {MAT}, their attributes are unknown: {some_of(unknown)}")


ADAPTERS = (
    Adapter(
        name="market",
        title="Market-1501 with attributes",
        page="liangzheng.org (images) and https://github.com/vana77/Market-1501_Attribute (attributes)",
        licence="research only",
        layout="bounding_box_train/, query/, bounding_box_test/ and market_attribute.mat",
        gives="photos of 751 people to train and 750 to test on, 8 attributes",
        parts=tuple(f"{name}|Market-1501*/{name}" for name in FOLDERS),
        read=read,
        default_splits=0,
        partner="pku",
        takes=("attributes",),
    ),
)
