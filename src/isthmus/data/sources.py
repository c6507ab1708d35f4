"""What people have in hand (a folder, a list of paths, a table) as a `Manifest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isthmus.data.files import IMAGE_SUFFIXES, list_images, show_name
from isthmus.data.manifest import Manifest, Row, absolute, image_id, some_of
from isthmus.data.tables import TABLE_SUFFIXES, read_table
from isthmus.errors import IsthmusError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LIST_SUFFIXES = (".txt", ".lst")


def read_source(
    source: str | Path, domain: str, *, split: str | None = None, root: str | Path | None = None
) -> Manifest:
    """Read the images of one domain from a folder, a list or a table.

    - A folder: its `manifest.parquet` when it has one, else `read_folder`.
    - `*.txt`: `read_list`.
    - `*.csv`, `*.parquet`: a table (see `Manifest.load`). Its domain column may be missing; where it is there, only the
      rows of `domain` are taken.

    Args:
        source: the folder or file.
        domain: the domain's name.
        split: the split of the images where the source names none; where it does, only that split's images are taken.
        root: the folder that relative paths of a list or table start from.

    Raises:
        IsthmusError: the source is missing, empty or holds nothing of this domain and split.

    Example:
        >>> manifest = read_source("data/sketch", "sketch", split="train")  # doctest: +SKIP
        >>> manifest[0].id  # doctest: +SKIP
        'sketch/dog/5281.png'
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir():
        table = path / "manifest.parquet"
        if not table.is_file():
            return read_folder(path, domain, split=split)
        return _of_domain(table, domain, split, root)
    if not path.exists():
        raise IsthmusError(
            f"There is no folder, list or table {show_name(path)} for domain '{domain}'; check the path."
        )
    if suffix in LIST_SUFFIXES:
        return read_list(path, domain, root=root, split=split)
    if suffix in TABLE_SUFFIXES:
        return _of_domain(path, domain, split, root)
    raise IsthmusError(
        f"{show_name(path)} is neither a folder, a list (.txt) nor a table (.csv, .parquet); name one of these."
    )


def read_folder(folder: str | Path, domain: str, *, split: str | None = None) -> Manifest:
    """Every image beneath a folder.

    When all images lie in subfolders named train, val (valid, validation) or test, these are splits; the next level of
    subfolders are labels; images without such a subfolder have none. A class folder that happens to be called `train`,
    beside other classes, is a label.

    Args:
        folder: where to look, at any depth; hidden files and folders are left out.
        domain: the domain of all images.
        split: as in `read_source`.

    Raises:
        IsthmusError: no such folder, no image in it, or none of this split.
    """
    base = absolute(folder)
    paths = list_images(base)
    if not paths:
        raise IsthmusError(
            f"The folder {show_name(folder)} for domain '{domain}' holds no image (looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}); check the path."
        )
    parts = [path.relative_to(base).parts[:-1] for path in paths]
    has_splits = all(part and part[0].lower() in SPLITS for part in parts)
    rows = []
    for path, part in zip(paths, parts, strict=True):
        own = SPLITS[part[0].lower()] if has_splits else None
        above = part[1:] if has_splits else part
        label = above[0] if above else None
        rows.append(Row(image_id(domain, str(path), base), str(path), domain, label=label, split=own))
    return with_split(Manifest(rows), split, show_name(folder))


def with_split(manifest: Manifest, split: str | None, source: str) -> Manifest:
    """Take only the rows of `split` where the rows name splits; else give all of them this one.

    Raises:
        IsthmusError: the source names splits, but not this one.
    """
    if split is None:
        return manifest
    own = sorted({row.split for row in manifest if row.split is not None})
    if not own:
        return Manifest(replace(row, split=split) for row in manifest)
    chosen = manifest.select(split=split)
    if not len(chosen):
        raise IsthmusError(f"{source} holds no image of the split '{split}' (it has: {', '.join(own)}); name another.")
    return chosen


def _of_domain(table: Path, domain: str, split: str | None, root: str | Path | None) -> Manifest:
    manifest = read_table(table, root=root, domain=domain)
    chosen = manifest.select(domain=domain)
    name = show_name(table)
    if not len(manifest):
        raise IsthmusError(f"The table {name} for domain '{domain}' has no rows; fill it in.")
    if not len(chosen):
        raise IsthmusError(
            f"The table {name} holds no image of the domain '{domain}' (it has: {', '.join(manifest.domains)}); "
            "name one of these."
        )
    return with_split(chosen, split, f"The table {name}")


def read_list(path: str | Path, domain: str, *, root: str | Path | None = None, split: str | None = None) -> Manifest:
    """The images that a text file lists, `path label` on each line; see `isthmus.data.lists.parse_line`.

    Args:
        path: the list. A `classes.txt` beside it turns numbers into names: a name on each line, or `index name`, or
            `name index`.
        domain: the domain of all images.
        root: the folder that the paths start from; None: the list's folder or its parent, whichever holds more of them.
        split: the split of all images.

    Raises:
        IsthmusError: no such list, nothing in it, images missing, or a file listed twice.
    """
    from isthmus.data.lists import parse_list

    return parse_list(Path(path), domain, root=root, split=split)


def require_usable(manifest: Manifest, domain: str, *, split: str | None = None) -> None:
    """Check that a domain holds enough images to train on or to search in.

    Raises:
        IsthmusError: fewer than 2 images of `domain` (and `split`).
    """
    count = len(manifest.select(domain=domain, split=split))
    where = f"The domain '{domain}'" + (f", split '{split}'," if split else "")
    if count == 0:
        has = ", ".join(manifest.domains) or "no domain"
        raise IsthmusError(f"{where} is empty (the manifest has: {has}); check the paths of its images.")
    if count == 1:
        raise IsthmusError(f"{where} holds a single image; at least 2 are needed, so add more.")


@dataclass(frozen=True)
class Matched:
    """Which labels two sets of images share.

    Attributes:
        labels: the shared labels, sorted.
        left_out_a: how many images of the first set have another label or none.
        left_out_b: the same for the second set.
    """

    labels: tuple[str, ...]
    left_out_a: int
    left_out_b: int


def matched_labels(a: Manifest, b: Manifest, *, by: str = "label") -> Matched:
    """The labels (or identities) that the queries `a` and the gallery `b` share.

    Args:
        a, b: the two sets.
        by: `"label"` or `"identity"`.

    Raises:
        IsthmusError: either set has no label at all, or they share none.

    Example:
        >>> a = Manifest([Row("s/1", "/1", "s", label="cat"), Row("s/2", "/2", "s", label="dog")])
        >>> b = Manifest([Row("p/1", "/3", "p", label="cat")])
        >>> matched_labels(a, b)
        Matched(labels=('cat',), left_out_a=1, left_out_b=0)
    """
    mine = [_value(row, by) for row in a]
    theirs = [_value(row, by) for row in b]
    for manifest, values in ((a, mine), (b, theirs)):
        if not any(values):
            name = ", ".join(manifest.domains) or "an empty domain"
            raise IsthmusError(
                f"The {len(values)} images of {name} have no {by}; put them into a folder for each {by}, or list or "
                "tabulate it."
            )
    shared = {value for value in mine if value} & {value for value in theirs if value}
    if not shared:
        raise IsthmusError(
            f"No {by} of {', '.join(a.domains)} ({_examples(mine)}) occurs in {', '.join(b.domains)} "
            f"({_examples(theirs)}): nothing could be found; use the same names in both."
        )
    return Matched(
        tuple(sorted(shared)),
        sum(value not in shared for value in mine),
        sum(value not in shared for value in theirs),
    )


def _value(row: Row, by: str) -> str | None:
    if by not in ("label", "identity"):
        raise IsthmusError(f"Images are matched by 'label' or 'identity', not by '{by}'.")
    return row.label if by == "label" else row.identity


def _examples(values: Sequence[str | None]) -> str:
    return some_of(sorted({value for value in values if value}))
