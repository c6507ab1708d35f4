"""CelebA: photos of faces with 40 attributes, the source that goes with sketches of faces."""

from __future__ import annotations

from pathlib import Path

from isthmus.data.adapters.base import GALLERY, Adapter, Options, Prepared, image_row, missing, refuse_leak
from isthmus.data.adapters.reading import images_in, need_folder, read_lines
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, some_of
from isthmus.errors import IsthmusError

SPLITS = {"0": "train", "1": "val", "2": "test"}
VALUES = {"-1": 0.0, "1": 1.0}


def read(options: Options, adapter: Adapter) -> Prepared:
    """Every face with its person, its attributes and the official split.

    Raises:
        IsthmusError: a file or folder is missing, a file has another shape, or a listed image is not there.
    """
    root = need_folder(options.root, adapter)
    names, attributes = _attributes(_find(root, "list_attr_celeba.txt"), adapter)
    people = _column(_find(root, "identity_CelebA.txt"), adapter)
    partition = _column(_find(root, "list_eval_partition.txt"), adapter)
    if strange := [f"{name} {value}" for name, value in partition.items() if value not in SPLITS]:
        raise IsthmusError(f"list_eval_partition.txt has other values than 0, 1 and 2: {some_of(strange)}; restore it.")
    folder = root / "img_align_celeba"
    folder = folder if folder.is_dir() else root / "Img" / "img_align_celeba"
    paths = {path.name: path for path in images_in(folder if folder.is_dir() else root / "img_align_celeba", adapter)}
    if gone := [name for name in attributes if name not in paths]:
        raise missing(
            f"{len(gone)} of the {len(attributes)} listed images are not in {show_name(folder)} ({some_of(gone)})",
            adapter,
        )
    rows = [
        image_row(
            paths[name],
            root,
            GALLERY,
            f"celeba-{people[name]}" if name in people else None,
            attributes={key: value for key, value in zip(names, values, strict=True) if value is not None} or None,
            split=SPLITS[partition[name]] if name in partition else None,
        )
        for name, values in attributes.items()
    ]
    refuse_leak(rows)
    notes = []
    for what, lacking in (
        ("are not in identity_CelebA.txt and have no identity", [n for n in attributes if n not in people]),
        ("are not in list_eval_partition.txt and have no split", [n for n in attributes if n not in partition]),
        ("are in no list and left out", [n for n in paths if n not in attributes]),
    ):
        if lacking:
            notes.append(f"{len(lacking)} images {what}: {some_of(lacking)}")
    return Prepared(Manifest(rows), source=True, notes=tuple(notes))


def _find(root: Path, name: str) -> Path:
    return next(
        (place / name for place in (root, root / "Anno", root / "Eval") if (place / name).is_file()), root / name
    )


def _attributes(path: Path, adapter: Adapter) -> tuple[list[str], dict[str, list[float | None]]]:
    """The names, and image -> values; 0 in the file would be unknown."""
    lines = read_lines(path, adapter)
    if len(lines) < 3 or not lines[0].isdecimal():
        raise missing(
            f"{show_name(path)} does not begin with a count, a line of names and a line for each image", adapter
        )
    names = lines[1].split()
    table: dict[str, list[float | None]] = {}
    for number, line in enumerate(lines[2:], start=3):
        image, *values = line.split()
        if len(values) != len(names) or any(value not in ("-1", "0", "1") for value in values):
            raise IsthmusError(
                f"Line {number} of {show_name(path)} needs an image and {len(names)} values of -1 or 1; restore it."
            )
        table[image] = [VALUES.get(value) for value in values]
    if len(table) != int(lines[0]):
        raise missing(f"{show_name(path)} announces {lines[0]} images and lists {len(table)}", adapter)
    return names, table


def _column(path: Path, adapter: Adapter) -> dict[str, str]:
    table = {}
    for number, line in enumerate(read_lines(path, adapter), start=1):
        fields = line.split()
        if len(fields) != 2:
            raise IsthmusError(f"Line {number} of {show_name(path)} needs an image and a number; restore it.")
        table[fields[0]] = fields[1]
    return table


ADAPTERS = (
    Adapter(
        name="celeba",
        title="CelebA",
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="non-commercial research",
        layout="img_align_celeba/, list_attr_celeba.txt, identity_CelebA.txt and list_eval_partition.txt",
        gives="faces with 40 attributes and the official train/val/test split",
        parts=("img_align_celeba|Img/img_align_celeba", "list_attr_celeba.txt|Anno/list_attr_celeba.txt"),
        counts={"photo": 202_599},
        read=read,
        default_splits=0,
        partner="iiitd",
    ),
)
