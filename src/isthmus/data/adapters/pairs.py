"""Any two folders whose file names match: what a team with pairs of its own uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.data.adapters.base import GALLERY, QUERY, Adapter, Options, Prepared, image_row, with_splits
from isthmus.data.adapters.choosing import by_number, held_out, order, pair_up
from isthmus.data.adapters.reading import images_in
from isthmus.data.manifest import Manifest, Row

TEST_SHARE = 0.25


def read(options: Options, adapter: Adapter) -> Prepared:
    """The images of two folders; a name without its suffix, with the subfolders before it, is an identity.

    Raises:
        IsthmusError: a folder is missing or empty, no name is in both, or some are in one only and
            `options.unmatched` is not skip.
    """
    query = _by_name(options.root / (options.query or QUERY), options.root, QUERY, adapter)
    gallery = _by_name(options.root / (options.gallery or GALLERY), options.root, GALLERY, adapter)
    names, note = pair_up(query, gallery, options.unmatched, "names")
    rows = [row for name in names for row in (*query[name], *gallery[name])]
    return Prepared(Manifest(rows), seeded(rows, names, options, adapter), notes=(note,) if note else ())


def _by_name(folder: Path, root: Path, domain: str, adapter: Adapter) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for path in images_in(folder, adapter, deep=True):
        name = path.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(name, []).append(image_row(path, root, domain, name))
    return found


def seeded(
    rows: Sequence[Row],
    identities: Sequence[str],
    options: Options,
    adapter: Adapter,
    *,
    share: float = TEST_SHARE,
    size: int | None = None,
    first: int = 0,
) -> tuple[Manifest, ...]:
    """Seeded splits number `first` and on: `size` identities are tested on, or a share of them.

    Raises:
        IsthmusError: as `held_out`.
    """
    if size is None or options.test_share is not None:
        size = held_out(len(identities), share if options.test_share is None else options.test_share)
    count = adapter.default_splits if options.splits is None else options.splits
    everyone = sorted(identities, key=by_number)
    return tuple(with_splits(rows, order(everyone, adapter.name, options.seed, k)[:size]) for k in range(first, count))


def both_sides(
    query: Mapping[str, Sequence[Path]], gallery: Mapping[str, Sequence[Path]], root: Path, prefix: str
) -> list[Row]:
    """The rows of identities that are in both, each called `<prefix>-<name>`; sketches first within an identity."""
    return [
        image_row(path, root, domain, f"{prefix}-{name}")
        for name in sorted(query.keys() & gallery.keys(), key=by_number)
        for domain, side in ((QUERY, query), (GALLERY, gallery))
        for path in side[name]
    ]


ADAPTERS = (
    Adapter(
        name="pairs",
        title="Your own pairs",
        page="your own disk",
        licence="yours",
        layout="sketch/NAME.png and photo/NAME.jpg (or other folders: --query DIR --gallery DIR)",
        gives="seeded splits, a quarter of the pairs to test on",
        read=read,
        parts=(QUERY, GALLERY),
        takes=("query", "gallery", "test_share", "unmatched"),
    ),
)
