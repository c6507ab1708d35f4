"""SynCDR's file lists, `path label` a line, re-rooted to the folder as it lies on this disk.

Their paths are those of one machine and their numbers mean another class in every second list, so both are left
alone: the last two parts of a path, class folder and file, say which image is meant and what it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from isthmus.data.adapters.base import Adapter
from isthmus.data.adapters.layouts import Domain, plain
from isthmus.data.adapters.reading import read_lines
from isthmus.data.files import show_name
from isthmus.data.lists import parse_line
from isthmus.data.manifest import Row, some_of
from isthmus.errors import IsthmusError

SPLITS = ("train", "val", "test")
HALVES = ("train_cls_disjoint1", "train_cls_disjoint2")


def read_splits(
    folder: Path, domain: Domain, rows: Sequence[Row], adapter: Adapter, unmatched: str
) -> tuple[dict[str, str], list[str]]:
    """Image id -> split, as the three lists of a domain say, and notes.

    Raises:
        IsthmusError: a list is missing or not of this form, an image is in two of them, or with `unmatched` refuse one
            that they name is not on the disk.
    """
    if unmatched not in ("refuse", "skip"):
        raise IsthmusError(f"--unmatched is '{unmatched}'; write refuse or skip.")
    found: dict[str, str] = {}
    absent: list[str] = []
    counts = []
    for split in SPLITS:
        path = folder / f"{domain.listed}_{split}.txt"
        images, gone = images_of_list(path, rows, adapter)
        absent += gone
        counts.append(len(images) + len(gone))
        for id in images:
            if id in found:
                where = f"in the {found[id]} and the {split} list" if found[id] != split else "twice in one list"
                raise IsthmusError(
                    f"{id} is {where} of '{domain.listed}' in {show_name(folder)}; each image belongs in one split, so "
                    "fetch the lists anew."
                )
            found[id] = split
    if absent and unmatched == "refuse":
        raise IsthmusError(
            f"{len(absent)} of the {sum(counts)} images that the lists of '{domain.listed}' name are not there "
            f"({some_of(absent)}); complete the data set from {adapter.page}, or --unmatched skip leaves them out."
        )
    notes = [f"{domain.name}: {len(absent)} listed images are not on the disk and left out"] if absent else []
    if domain.splits is not None and tuple(counts) != domain.splits:
        notes.append(
            f"{domain.name}: the lists name {'/'.join(map(str, counts))} images to train, validate and test on, the "
            f"publication {'/'.join(map(str, domain.splits))}"
        )
    if left := len(rows) - len(found):
        notes.append(f"{domain.name}: {left} images are in no list and left out")
    return found, notes


def read_halves(
    folder: Path, domains: Sequence[Domain], rows: Sequence[Sequence[Row]], splits: Mapping[str, str], adapter: Adapter
) -> dict[str, str]:
    """Class -> "half 1" or "half 2", as the lists of both domains say together.

    Raises:
        IsthmusError: a list is missing, a class is in both halves or in none, or an image in a half is no training
            image.
    """
    halves: dict[str, str] = {}
    for domain, images in zip(domains, rows, strict=True):
        label = {row.id: str(row.label) for row in images}
        for number, name in enumerate(HALVES, start=1):
            path = folder / f"{domain.listed}_{name}.txt"
            for id in images_of_list(path, images, adapter)[0]:
                if splits.get(id) != "train":
                    raise IsthmusError(
                        f"{show_name(path)} names {id}, which is no training image in {domain.listed}_train.txt; fetch "
                        "the lists anew."
                    )
                if halves.setdefault(label[id], f"half {number}") != f"half {number}":
                    raise IsthmusError(
                        f"The class '{label[id]}' is in both halves of the lists in {show_name(folder)}, which are to "
                        "share none; fetch the lists anew."
                    )
    used = {str(row.label) for images in rows for row in images if row.id in splits}
    if bare := sorted(used - halves.keys()):
        raise IsthmusError(
            f"{len(bare)} classes are in neither half of the lists in {show_name(folder)} ({some_of(bare)}); fetch the "
            "lists anew."
        )
    return halves


def images_of_list(path: Path, rows: Sequence[Row], adapter: Adapter) -> tuple[list[str], list[str]]:
    """The ids of the images that a list names, and what of it is not on the disk.

    Raises:
        IsthmusError: no such list, nothing in it, a line of another form, or one that means several files.
    """
    if not path.is_file():
        raise IsthmusError(
            f"There is no list {show_name(path)}; --lists is a folder with <Domain>_train.txt, _val.txt and _test.txt, "
            "and for halves <Domain>_train_cls_disjoint1.txt and 2, as SynCDR publishes them."
        )
    exact: dict[tuple[str, str], list[str]] = defaultdict(list)
    loose: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        file = Path(row.path)
        exact[plain(file.parent.name), file.name].append(row.id)
        loose[plain(file.parent.name), file.name.casefold()].append(row.id)
    found: list[str] = []
    absent: list[str] = []
    lines = read_lines(path, adapter)
    if not lines:
        raise IsthmusError(f"The list {show_name(path)} is empty; fetch it anew.")
    for number, line in enumerate(lines, start=1):
        file_name, _ = parse_line(line)
        parts = PurePosixPath(file_name.replace("\\", "/")).parts
        if len(parts) < 2:
            raise IsthmusError(
                f"Line {number} of {show_name(path)} is '{show_name(line[:80])}', and a line is  path label  with the "
                "class folder before the file; correct it."
            )
        key = plain(parts[-2])
        ids = exact.get((key, parts[-1])) or loose.get((key, parts[-1].casefold())) or []
        if len(ids) > 1:
            raise IsthmusError(
                f"{parts[-2]}/{parts[-1]} in {show_name(path)} means {len(ids)} files on the disk ({some_of(ids)}); "
                "leave one of them."
            )
        found += ids
        if not ids:
            absent.append(f"{parts[-2]}/{parts[-1]}")
    return found, absent
