"""Whether a data set lies complete on the disk: what `isthmus data verify` and `isthmus data list --root` look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.adapters.base import Adapter, Options
from isthmus.data.adapters.layouts import by_class, folders_of, inner_folders
from isthmus.data.files import ImageError, open_file, show_name
from isthmus.data.manifest import some_of
from isthmus.errors import IsthmusError
from isthmus.progress import track

_BLOCK = 1024
_DECODE_SIDE = 64


@dataclass(frozen=True)
class Count:
    """Of one domain: images and classes (0: it has none) found, images published (None: not known), and if they fit."""

    domain: str
    images: int
    classes: int
    published: int | None
    fits: bool


@dataclass(frozen=True)
class Verified:
    """What `verify` found; `problems` are sentences, none of them: the data set is complete and readable."""

    counts: tuple[Count, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is amiss."""
        return not self.problems


def missing_parts(adapter: Adapter, root: Path) -> list[str]:
    """What of the published layout is not beneath `root`; only folder and file names are looked at.

    Args:
        adapter: the data set.
        root: its folder.

    Returns:
        Names, empty where all is there. A data set without a fixed layout needs only the folder itself.
    """
    if not root.is_dir():
        return [f"the folder {show_name(root)}"]
    if adapter.family is not None:
        tops = (root, *inner_folders(root))
        return [
            names[0]
            for domain in adapter.family.domains
            for names in domain.places
            if not any((top / name).is_dir() for top in tops for name in names)
        ]
    return [part.split("|")[0] for part in adapter.parts if not any(any(root.glob(p)) for p in part.split("|"))]


def verify(adapter: Adapter, root: Path, *, decode: bool = True, progress: bool = True) -> Verified:
    """Count the images against the publication and read every one of them.

    Args:
        adapter: the data set.
        root: its folder, as extracted.
        decode: decode every image; without it only missing, empty and barred files are found.
        progress: show a bar on standard error.

    Example:
        >>> verify(find("pacs"), Path("PACS")).ok  # doctest: +SKIP
        True
    """
    problems: list[str] = []
    if absent := missing_parts(adapter, root):
        problems.append(f"{some_of(absent, 8)} missing beneath {show_name(root)}: get it from {adapter.page}")
    counts, paths = _of_classes(adapter, root, problems) if adapter.family else _of_others(adapter, root, problems)
    for count in counts:
        if not count.fits:
            problems.append(f"{count.domain}: {count.images} images, the publication has {count.published}")
    bad = [text for text in _looks(paths, decode, progress) if text]
    if bad:
        shown = "; ".join(bad[:3]) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")
        problems.append(f"{len(bad)} of {len(paths)} images can't be read: {shown}")
    return Verified(tuple(counts), tuple(text.removesuffix(".") + "." for text in problems))


def _of_classes(adapter: Adapter, root: Path, problems: list[str]) -> tuple[list[Count], list[str]]:
    family = adapter.family
    assert family is not None
    counts: list[Count] = []
    paths: list[str] = []
    for domain in family.domains:
        folders = folders_of(root, domain) if root.is_dir() else []
        if not folders:  # named as missing already
            continue
        classes, outside = by_class(folders)
        if outside:
            problems.append(f"{domain.name}: {outside} images lie in no class folder")
        if classes and len(classes) != family.classes:
            problems.append(f"{domain.name}: {len(classes)} classes, the publication has {family.classes}")
        found = [str(path) for images in classes.values() for path in images]
        counts.append(Count(domain.name, len(found), len(classes), domain.images, domain.fits(len(found))))
        paths += found
    return counts, paths


def _of_others(adapter: Adapter, root: Path, problems: list[str]) -> tuple[list[Count], list[str]]:
    try:
        found = adapter.read(Options(root), adapter)
    except IsthmusError as error:
        if not problems:
            problems.append(str(error))
        return [], []
    rows = found.manifest
    published = adapter.counts
    sizes = {name: len(rows.select(domain=name)) for name in rows.domains}
    counts = [Count(n, size, 0, published.get(n), published.get(n, size) == size) for n, size in sizes.items()]
    return counts, [row.path for row in rows]


def _looks(paths: Sequence[str], decode: bool, progress: bool) -> Iterable[str]:
    """For each image what is wrong with it, or nothing; a block at a time, so that memory does not grow."""

    def one(path: str) -> str:
        from isthmus.data.images import decode_image

        try:
            if decode:
                decode_image(path, min_side=_DECODE_SIDE)
            else:
                with open_file(path, show_name(path)):
                    pass
        except ImageError as error:
            return str(error)
        return ""

    def all_of_them() -> Iterable[str]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(paths), _BLOCK):
                yield from pool.map(one, paths[start : start + _BLOCK])

    return track(all_of_them(), len(paths), "reading") if progress else all_of_them()
