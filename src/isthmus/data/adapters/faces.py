"""Sketches of faces drawn from a photo: IIIT-D's viewed sketches, and CUHK's (CUFS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from isthmus.data.adapters.base import GALLERY, QUERY, Adapter, Options, Prepared, missing
from isthmus.data.adapters.choosing import pair_up
from isthmus.data.adapters.pairs import both_sides, seeded
from isthmus.data.adapters.reading import images_in, need_folder
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError

FOLDERS = {
    QUERY: ("sketches", "sketch", "viewed_sketch", "viewed_sketches", "original_sketch", "cropped_sketch"),
    GALLERY: ("photos", "photo", "images", "image", "original_photo", "cropped_photo"),
}
_WORDS = frozenset({"sketch", "sketches", "photo", "photos", "image", "sk", "viewed"})
_SIZE = re.compile(r"sz\d*")
_TOKEN = re.compile(r"[a-z]+\d*|\d+")


def read(options: Options, adapter: Adapter) -> Prepared:
    """Pairs by name: `f-005-01.jpg` goes with `F2-005-01-sz1.jpg`.

    Raises:
        IsthmusError: a folder is missing, two files of a folder have one name, or some have no partner and
            `options.unmatched` is not skip.
    """
    root = need_folder(options.root, adapter)
    sketches = images_in(_folder(root, QUERY, options.query, adapter), adapter, deep=True)
    photos = images_in(_folder(root, GALLERY, options.gallery, adapter), adapter, deep=True)
    found = match(sketches, photos)
    names, note = pair_up(found[0], found[1], options.unmatched, "faces")
    rows = both_sides(
        {name: [path] for name, path in found[0].items()},
        {name: [path] for name, path in found[1].items()},
        root,
        adapter.name,
    )
    splits = seeded(rows, [f"{adapter.name}-{name}" for name in names], options, adapter)
    return Prepared(Manifest(rows), splits, notes=(note,) if note else ())


def match(sketches: Sequence[Path], photos: Sequence[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Name -> file of each side, with a common name for those that belong together.

    First by the name without sizes and words such as "sketch"; what is left over then without the number behind the
    letter that it begins with, which CUHK's sketches and photos have unlike.

    Raises:
        IsthmusError: two files of one side have the same name.

    Example:
        >>> [list(side) for side in match([Path("F2-005-01-sz1.jpg")], [Path("f-005-01.jpg")])]
        [['f-5-1'], ['f-5-1']]
    """
    left, right = _by_key(sketches), _by_key(photos)
    alone = left.keys() ^ right.keys()
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for side, keys in enumerate((left, right)):
        for key in sorted(alone & keys.keys()):
            groups.setdefault(loose(key), ([], []))[side].append(key)
    renamed = {mine[0]: theirs[0] for mine, theirs in groups.values() if len(mine) == len(theirs) == 1}
    return {renamed.get(key, key): path for key, path in left.items()}, right


def exact(stem: str) -> str:
    """A name's letters and numbers without case, leading zeros, sizes and words.

    Example:
        >>> exact("M2-008-01-sz1"), exact("12_sketch")
        ('m2-8-1', '12')
    """
    tokens = [token for token in _TOKEN.findall(stem.lower()) if token not in _WORDS and not _SIZE.fullmatch(token)]
    return "-".join(str(int(token)) if token.isdecimal() else token for token in tokens) or stem.lower()


def loose(key: str) -> str:
    """What `exact` gave without the number behind a leading letter: `m2-8-1` becomes `m-8-1`."""
    return re.sub(r"^([a-z])\d(?=-)", r"\1", key)


def _by_key(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = exact(path.stem)
        if name in found:
            raise IsthmusError(
                f"{show_name(found[name])} and {show_name(path)} have the same name but for case, size and words, so "
                "pairs can't be told by name; rename or move one."
            )
        found[name] = path
    return found


def _folder(root: Path, domain: str, named: str | None, adapter: Adapter) -> Path:
    if named is not None:
        return root / named
    inside = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    for name in FOLDERS[domain]:
        if name in inside:
            return inside[name]
    option = "--query" if domain == QUERY else "--gallery"
    raise missing(
        f"The folder {show_name(root)} holds no folder '{FOLDERS[domain][0]}' (nor {', '.join(FOLDERS[domain][1:])}; "
        f"name another with {option})",
        adapter,
    )


def _faces(name: str, title: str, page: str, licence: str, gives: str) -> Adapter:
    return Adapter(
        name=name,
        title=title,
        page=page,
        licence=licence,
        layout="photos/ and sketches/ with matching names",
        gives=gives,
        read=read,
        partner="celeba",
        takes=("query", "gallery", "test_share", "unmatched"),
    )


ADAPTERS = (
    _faces(
        "iiitd",
        "IIIT-D viewed sketches",
        "iab-rubric.org (IIIT-D sketch database, a licence to sign)",
        "research only, a licence to sign",
        "238 pairs in seeded splits, a quarter to test on",
    ),
    _faces(
        "cufs",
        "CUHK face sketches (CUFS)",
        "https://mmlab.ie.cuhk.edu.hk/archive/facesketch.html",
        "research only",
        "pairs in seeded splits, a quarter to test on",
    ),
)
