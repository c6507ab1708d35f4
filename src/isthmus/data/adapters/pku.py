"""PKU-Sketch: 200 people, two photos and one drawing of each; splits are stratified by the five drawing styles."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.data.adapters.base import GALLERY, QUERY, Adapter, Options, Prepared, image_row, missing, with_splits
from isthmus.data.adapters.choosing import by_number, held_out, largest_remainder, order, pair_up
from isthmus.data.adapters.reading import images_in, need_folder, read_lines
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, some_of
from isthmus.errors import IsthmusError

# People drawn in the styles a to e, and how many of them are trained on.
PUBLISHED = ((46, 20, 79, 33, 22), (34, 15, 60, 25, 16))
TEST_SHARE = 0.25


def read(options: Options, adapter: Adapter) -> Prepared:
    """Every photo and sketch, and seeded splits stratified by style.

    Raises:
        IsthmusError: a folder is missing, a file has another name than the publication's, a person has no style or two,
            or is in one domain only.
    """
    root = options.root
    photos = _by_person(root, "photo", GALLERY, adapter)
    sketches = _by_person(root, "sketch", QUERY, adapter)
    people, note = pair_up(sketches, photos, options.unmatched, "people")
    styles = _styles(root, people, adapter)
    rows = [row for person in people for row in (*sketches[person], *photos[person])]
    notes = [note] if note else []
    counts = Counter(styles[person] for person in people)
    names = sorted(counts)
    train = _sizes([counts[name] for name in names], options, notes)
    splits = []
    for k in range(adapter.default_splits if options.splits is None else options.splits):
        test: list[str] = []
        for name, size in zip(names, train, strict=True):
            drawn = order((p for p in people if styles[p] == name), adapter.name, options.seed, k)
            test += [_identity(person) for person in drawn[size:]]
        splits.append(with_splits(rows, test))
    return Prepared(Manifest(rows), tuple(splits), texts={"styles.csv": _table(people, styles)}, notes=tuple(notes))


def _identity(person: str) -> str:
    return f"pku-{person}"


def _by_person(root: Path, folder: str, domain: str, adapter: Adapter) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    strange = []
    for path in images_in(root / folder, adapter):
        person = path.stem.split("_")[0] if domain == GALLERY else path.stem
        if not (person.isdecimal() and person.isascii()):
            strange.append(f"{folder}/{path.name}")
            continue
        person = str(int(person))
        found.setdefault(person, []).append(image_row(path, root, domain, _identity(person)))
    if strange:
        raise missing(f"{len(strange)} file names do not begin with a person's number ({some_of(strange)})", adapter)
    return found


def _styles(root: Path, people: Sequence[str], adapter: Adapter) -> dict[str, str]:
    """Person -> style, from `styleAnnotation/a_46.txt` and its like: a person's number on each line."""
    files = sorted(need_folder(root / "styleAnnotation", adapter).glob("*.txt"), key=lambda path: by_number(path.name))
    if not files:
        raise missing(f"The folder {show_name(root / 'styleAnnotation')} holds no .txt file", adapter)
    short = [path.stem.split("_")[0] for path in files]
    names = short if len(set(short)) == len(files) else [path.stem for path in files]
    styles: dict[str, str] = {}
    for path, name in zip(files, names, strict=True):
        for line in read_lines(path, adapter):
            if not (line.isdecimal() and line.isascii()):
                raise IsthmusError(f"{show_name(path)} holds '{line}' where a person's number belongs; correct it.")
            person = str(int(line))
            if styles.setdefault(person, name) != name:
                raise IsthmusError(
                    f"Person {person} has two styles, {styles[person]} and {name}, in {show_name(path.parent)}; "
                    "leave one."
                )
    if unknown := [person for person in people if person not in styles]:
        raise missing(
            f"{len(unknown)} people have no style in {show_name(root / 'styleAnnotation')} ({some_of(unknown)})",
            adapter,
        )
    return styles


def _sizes(counts: Sequence[int], options: Options, notes: list[str]) -> list[int]:
    """How many people of each style to train on."""
    if tuple(counts) == PUBLISHED[0] and options.test_share is None:
        return list(PUBLISHED[1])
    share = TEST_SHARE if options.test_share is None else options.test_share
    people = sum(counts)
    sizes = largest_remainder(people - held_out(people, share), counts)
    if tuple(counts) != PUBLISHED[0]:
        notes.append(
            f"the styles have {'/'.join(map(str, counts))} people, the publication {'/'.join(map(str, PUBLISHED[0]))}: "
            f"{'/'.join(map(str, sizes))} are trained on, in proportion (largest remainder)"
        )
    return sizes


def _table(people: Sequence[str], styles: Mapping[str, str]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("identity", "style"))
    writer.writerows((_identity(person), styles[person]) for person in people)
    return buffer.getvalue()


ADAPTERS = (
    Adapter(
        name="pku",
        title="PKU-Sketch",
        page="https://www.pkuml.org",
        licence="research only, a licence to sign",
        layout="photo/<id>_<camera>_<n>.jpg, sketch/<id>.jpg, styleAnnotation/*.txt",
        gives="10 splits of 150/50 people stratified by drawing style; styles.csv",
        parts=("photo", "sketch", "styleAnnotation"),
        counts={"sketch": 200, "photo": 400},
        read=read,
        default_splits=10,
        partner="market",
        takes=("test_share", "unmatched"),
    ),
)
