"""Two domains of a data set of classes as tables, under a named protocol: the reading that its adapters share."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isthmus.data.adapters.base import Adapter, Options, Prepared, image_row, missing
from isthmus.data.adapters.file_lists import read_halves, read_splits
from isthmus.data.adapters.layouts import Domain, Family, by_class, folders_of, plain
from isthmus.data.adapters.protocols import PROTOCOLS, ZERO_SHOT, draw_roles, draw_splits, table
from isthmus.data.adapters.unseen import draw_unseen
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, some_of
from isthmus.errors import IsthmusError

OfficialSplits = Callable[[Options, Domain, Sequence[Row], Adapter], "tuple[dict[str, str], list[str]] | None"]
Sides = tuple[list[Row], list[Row]]


@dataclass(frozen=True)
class _Chosen:
    protocol: str
    domains: tuple[Domain, Domain]
    class_split: int


def reader(official: OfficialSplits | None = None) -> Callable[[Options, Adapter], Prepared]:
    """The `read` of an adapter with a family.

    Args:
        official: the data set's own split of one domain, image id -> split, and notes; None where the folder has none.
    """

    def read(options: Options, adapter: Adapter) -> Prepared:
        return _read(options, adapter, official)

    return read


def _read(options: Options, adapter: Adapter, official: OfficialSplits | None) -> Prepared:
    chosen = _choose(options, adapter)
    family = family_of(adapter)
    notes: list[str] = []
    sides = _two_sides(options, adapter, chosen.domains, notes)
    fixed = _given_splits(options, adapter, chosen, sides, official, notes)
    everything = sides
    if fixed is not None:
        sides = (
            [row for row in sides[0] if row.id in fixed],
            [row for row in sides[1] if row.id in fixed],
        )
        sides = _shared(sides, notes)
    halves = None
    if options.lists is not None and {"half 1", "half 2"} & {*PROTOCOLS[chosen.protocol]}:
        halves = read_halves(options.lists, chosen.domains, everything, fixed or {}, adapter)
        known = {row.label for row in sides[0]}
        halves = {name: half for name, half in halves.items() if name in known}
        counts = tuple(sum(half == name for half in halves.values()) for name in ("half 1", "half 2"))
        if family.halves is not None and counts != family.halves:
            notes.append(
                f"the lists' halves have {counts[0]} and {counts[1]} classes, the publication {family.halves[0]} and "
                f"{family.halves[1]}"
            )
    group = photo_of if family.drawn_after else _itself
    tables: list[Manifest] = []
    texts: dict[str, str] = {}
    for k in range(1 if options.splits is None else options.splits):
        said: list[str] = []
        own = halves if k == 0 else None
        roles = dict(own) if own is not None else _roles(options, adapter, chosen, sides, k, said)
        notes += [note for note in said if note not in notes]
        splits = fixed
        if splits is None:
            key = (adapter.name, options.seed, k)
            splits = draw_splits([*sides[0], *sides[1]], family.share, group, *key)
        tables.append(table(*sides, splits, chosen.protocol, roles))
        texts[f"classes-{k:02d}.csv"] = _as_text(roles)
    rows = [row if fixed is None else replace(row, split=fixed[row.id]) for side in sides for row in side]
    return Prepared(Manifest(rows), tuple(tables), texts=texts, notes=tuple(notes))


def family_of(adapter: Adapter) -> Family:
    """What is known of the data set."""
    if adapter.family is None:
        raise IsthmusError(f"'{adapter.name}' is no data set of classes in several domains.")
    return adapter.family


def _choose(options: Options, adapter: Adapter) -> _Chosen:
    family = family_of(adapter)
    protocol = options.protocol or family.protocols[0]
    if protocol not in PROTOCOLS:
        raise IsthmusError(f"There is no protocol '{protocol}'; '{adapter.name}' has: {', '.join(family.protocols)}.")
    if protocol not in family.protocols:
        raise IsthmusError(
            f"'{adapter.name}' has no {protocol} split in the literature; it has: {', '.join(family.protocols)}."
        )
    for value, name in ((options.class_split, "class-split"), (options.unseen, "unseen")):
        if value is not None and protocol not in ZERO_SHOT:
            raise IsthmusError(f"--{name} is for zero-shot protocols, and this one is {protocol}; leave it out.")
    split = max(family.unseen, default=1) if options.class_split is None else options.class_split
    if protocol in ZERO_SHOT and split not in family.unseen:
        raise IsthmusError(
            f"--class-split is {split}; '{adapter.name}' has: {', '.join(str(n) for n in sorted(family.unseen))}."
        )
    query = find_domain(options.query or family.domains[0].name, adapter, "--query")
    usual = next(domain for domain in (family.domains[1], family.domains[0]) if domain != query)
    gallery = find_domain(options.gallery, adapter, "--gallery") if options.gallery else usual
    if query == gallery:
        raise IsthmusError(f"--query and --gallery are both '{query.name}'; name two domains.")
    if options.lists is not None and not (query.listed and gallery.listed):
        lacking = query if not query.listed else gallery
        raise IsthmusError(f"There are no published lists of '{lacking.name}'; leave out --lists, or name another.")
    return _Chosen(protocol, (query, gallery), split)


def find_domain(name: str, adapter: Adapter, option: str) -> Domain:
    """The domain of this name, folder or list name, without regard to case and spaces."""
    domains = family_of(adapter).domains
    for domain in domains:
        names = (domain.name, domain.listed, *domain.other, *(n for places in domain.places for n in places))
        if plain(name) in {plain(known) for known in names if known}:
            return domain
    raise IsthmusError(
        f"{option} is '{name}', which is no domain of '{adapter.name}'; it has: {', '.join(d.name for d in domains)}."
    )


def _two_sides(options: Options, adapter: Adapter, domains: tuple[Domain, Domain], notes: list[str]) -> Sides:
    """The images of both domains, labelled; only classes that both have."""
    spelled: dict[str, str] = {}
    found: list[dict[str, list[Path]]] = []
    for domain in domains:
        folders = folders_of(options.root, domain)
        if not folders:
            raise missing(f"There is no folder {domain.places[0][0]} in {show_name(options.root)}", adapter)
        classes, outside = by_class(folders)
        if not classes:
            raise missing(f"The folder {show_name(folders[0])} holds no class folder with images", adapter)
        if outside:
            notes.append(f"{domain.name}: {outside} images lie in no class folder and are left out")
        of_name: dict[str, list[Path]] = {}
        for name, paths in classes.items():
            key = plain(name)
            if key in of_name:
                raise IsthmusError(
                    f"Two class folders of '{domain.name}' differ in spelling only, one of them '{show_name(name)}'; "
                    "put their images into one."
                )
            of_name[key] = paths
            # The longest spelling keeps the spaces; the same one whichever domain asks.
            spelled[key] = max(spelled.get(key, name), name, key=lambda text: (len(text), text))
        count = sum(map(len, classes.values()))
        if not domain.fits(count):
            notes.append(f"{domain.name}: {count} images on the disk, the publication has {domain.images}")
        found.append(of_name)
    rows: Sides = ([], [])
    for side, of_name in enumerate(found):
        for key, paths in of_name.items():
            label = spelled[key]
            rows[side].extend(image_row(p, options.root, domains[side].name, label=label) for p in paths)
    return _shared(rows, notes)


def _shared(sides: Sides, notes: list[str]) -> Sides:
    labels = [{str(row.label) for row in side} for side in sides]
    both = labels[0] & labels[1]
    if not both:
        raise IsthmusError(
            f"No class is in both domains: {some_of(sorted(labels[0])) or 'none'} on one side, "
            f"{some_of(sorted(labels[1])) or 'none'} on the other; complete the data set."
        )
    if alone := sorted((labels[0] | labels[1]) - both):
        notes.append(f"{len(alone)} classes are in one domain only and left out: {some_of(alone)}")
    return [row for row in sides[0] if row.label in both], [row for row in sides[1] if row.label in both]


def _given_splits(
    options: Options,
    adapter: Adapter,
    chosen: _Chosen,
    sides: Sides,
    official: OfficialSplits | None,
    notes: list[str],
) -> dict[str, str] | None:
    """Image id -> split from the published lists, or None: splits are drawn."""
    given: list[dict[str, str]] = []
    said: list[str] = []
    for domain, rows in zip(chosen.domains, sides, strict=True):
        if options.lists is not None:
            answer = read_splits(options.lists, domain, rows, adapter, options.unmatched)
        else:
            own = official(options, domain, rows, adapter) if official is not None else None
            if own is None:
                why = "no published lists are given: " if "lists" in adapter.takes else ""
                notes.append(f"{why}which images train, validate and test is drawn by the seed")
                return None
            answer = own
        given.append(answer[0])
        said += answer[1]
    notes += said
    return {**given[0], **given[1]}


def _roles(
    options: Options,
    adapter: Adapter,
    chosen: _Chosen,
    sides: Sides,
    k: int,
    notes: list[str],
) -> dict[str, str]:
    """Class -> role in split number `k`."""
    classes = sorted({str(row.label) for row in sides[0]})
    if chosen.protocol not in ZERO_SHOT:
        return draw_roles(chosen.protocol, classes, adapter.name, options.seed, k)
    unseen = draw_unseen(options, adapter, chosen.class_split, sides, k, notes)
    return {name: "unseen" if name in unseen else "seen" for name in classes}


def _as_text(roles: Mapping[str, str]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("class", "role"))
    writer.writerows(sorted(roles.items()))
    return buffer.getvalue()


def _itself(row: Row) -> str:
    return row.id


def photo_of(row: Row) -> str:
    """The photo that an image is, or was drawn after: `n01_7-2.png` belongs to `n01_7.jpg`."""
    return f"/{Path(row.path).stem.split('-')[0]}"
