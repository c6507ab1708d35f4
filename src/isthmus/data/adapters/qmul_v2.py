"""QMUL's ShoeV2 and ChairV2: photos with several sketches each."""

from __future__ import annotations

from pathlib import Path

from isthmus.data.adapters.base import GALLERY, QUERY, Adapter, Options, Prepared, missing, with_splits
from isthmus.data.adapters.choosing import pair_up
from isthmus.data.adapters.pairs import both_sides, seeded
from isthmus.data.adapters.reading import images_in, need_folder, read_lines
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, some_of
from isthmus.errors import IsthmusError

# Photos to train on and to test on.
PUBLISHED = {"shoev2": (1800, 200), "chairv2": (300, 100)}
LISTS = ("photo_test.txt", "test.txt")
HALVES = ("train", "test")


def read(options: Options, adapter: Adapter) -> Prepared:
    """Photos and their sketches; the official split where the folder says which it is, else seeded ones of its sizes.

    Raises:
        IsthmusError: a folder is missing, a split list names unknown photos, a sketch has no photo, or a photo has no
            sketch and `options.unmatched` is not skip.
    """
    root = need_folder(options.root, adapter)
    halves = _halves(root, adapter)
    photos: dict[str, list[Path]] = {}
    parts: dict[str, set[str]] = {}
    for half, folder, _ in halves:
        for path in images_in(folder, adapter, deep=True):
            photos.setdefault(path.stem, []).append(path)
            own = path.relative_to(folder).parts[0] if half is None else half
            if own in HALVES:
                parts.setdefault(path.stem, set()).add(own)
    if twice := [name for name, paths in photos.items() if len(paths) > 1]:
        raise IsthmusError(f"{len(twice)} photos are there more than once: {some_of(twice)}; leave one of each.")
    sketches: dict[str, list[Path]] = {}
    for half, _, folder in halves:
        for path in images_in(folder, adapter, deep=True):
            name = _drawn_after(path.stem, photos)
            sketches.setdefault(name, []).append(path)
            own = path.relative_to(folder).parts[0] if half is None else half
            if own in HALVES and name in photos:
                parts.setdefault(name, set()).add(own)
    names, note = pair_up(sketches, photos, options.unmatched, "photos")
    rows = both_sides(sketches, photos, root, adapter.name)
    notes = [note] if note else []
    test = _listed(root, photos, adapter)
    if test is None and parts:
        test = _of_folders(names, parts)
    train_count, test_count = PUBLISHED[adapter.name]
    if len(names) != train_count + test_count:
        notes.append(
            f"{len(names)} photos with sketches; the publication has {train_count} to train, {test_count} to test"
        )
    share = test_count / (train_count + test_count)
    size = test_count if len(names) == train_count + test_count else None
    identities = [f"{adapter.name}-{name}" for name in names]
    wanted = adapter.default_splits if options.splits is None else options.splits
    if test is None:
        notes.append(f"no {' or '.join(LISTS)} says which photos are tested on, so all splits are seeded")
        splits = seeded(rows, identities, options, adapter, share=share, size=size)
    else:
        official = with_splits(rows, (f"{adapter.name}-{name}" for name in test))
        splits = (official, *seeded(rows, identities, options, adapter, share=share, size=size, first=1))[:wanted]
    return Prepared(splits[0] if test is not None and splits else Manifest(rows), splits, notes=tuple(notes))


def _halves(root: Path, adapter: Adapter) -> list[tuple[str | None, Path, Path]]:
    """(split or None, folder of photos, folder of sketches) of either layout."""
    if (root / "trainA").is_dir():
        found: list[tuple[str | None, Path, Path]] = []
        for half in HALVES:
            a, b = need_folder(root / f"{half}A", adapter), need_folder(root / f"{half}B", adapter)
            found.append((half, b, a) if _are_sketches(a, b, adapter) else (half, a, b))
        return found
    return [(None, _kind(root, GALLERY, adapter), _kind(root, QUERY, adapter))]


def _kind(root: Path, kind: str, adapter: Adapter) -> Path:
    for place in (root / kind, *sorted(root.glob(f"*_{kind}"))):
        if place.is_dir():
            return place
    raise missing(f"The folder {show_name(root)} holds no folder '{kind}', and no trainA", adapter)


def _are_sketches(folder: Path, other: Path, adapter: Adapter) -> bool:
    """Whether the names in `folder` are those in `other` with `_k` behind them."""
    names = {path.stem for path in images_in(other, adapter)}
    return any(path.stem.rpartition("_")[0] in names for path in images_in(folder, adapter))


def _drawn_after(stem: str, photos: dict[str, list[Path]]) -> str:
    # A photo's own name may hold an underscore and a number.
    before = stem.rpartition("_")[0]
    return before if before and (before in photos or stem not in photos) else stem


def _listed(root: Path, photos: dict[str, list[Path]], adapter: Adapter) -> set[str] | None:
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        return None
    listed = {_drawn_after(Path(line.split()[0]).stem, photos) for line in read_lines(path, adapter)}
    if unknown := sorted(listed - photos.keys()):
        raise IsthmusError(
            f"{show_name(path)} lists {len(unknown)} photos that are not there ({some_of(unknown)}); mend one."
        )
    if not listed or len(listed) == len(photos):
        raise IsthmusError(f"{show_name(path)} leaves {'nothing to test on' if not listed else 'nothing to train on'}.")
    return listed


def _of_folders(names: list[str], parts: dict[str, set[str]]) -> set[str]:
    both = [name for name in names if len(parts.get(name, ())) > 1]
    if both:
        raise IsthmusError(
            f"{len(both)} photos or sketches of one photo are both in train and in test: {some_of(both)}; "
            "a photo and its sketches need one split."
        )
    if none := [name for name in names if name not in parts]:
        raise IsthmusError(f"{len(none)} photos are neither in train nor in test: {some_of(none)}; move them.")
    return {name for name in names if parts[name] == {"test"}}


def _release(name: str, title: str) -> Adapter:
    train, test = PUBLISHED[name]
    return Adapter(
        name=name,
        title=title,
        page="https://sketchx.eecs.qmul.ac.uk/downloads",
        licence="research only",
        layout=f"photo/NAME.png and sketch/NAME_k.png (or {title}_photo/ and {title}_sketch/; or trainA/, trainB/, "
        "testA/, testB/), and photo_test.txt where there is one",
        gives=f"the official split of {train}/{test} photos where the folder says which, else seeded ones",
        read=read,
        partner="zappos" if name == "shoev2" else "",
        takes=("test_share", "unmatched"),
    )


ADAPTERS = (_release("shoev2", "ShoeV2"), _release("chairv2", "ChairV2"))
