"""The images of a run on labelled pairs: identities seen in both domains, and attribute-labelled images beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from isthmus.config import DataConfig, DomainConfig
from isthmus.data.manifest import Row, some_of
from isthmus.data.training import TrainingData, read_domain
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash


@dataclass
class PairedData(TrainingData):
    """Training data whose rows have identities.

    Attributes:
        attributes: names of the source's attributes that are learned; rows of the target carry none.
    """

    attributes: tuple[str, ...] = ()


def identity_of(row: Row) -> str | None:
    """The single thing an image shows; where only labels are known, these (a folder for each thing)."""
    return row.identity or row.label


def read_paired_data(
    config: DataConfig,
    *,
    seed: int,
    attributes: list[str],
    source: Literal["needed", "optional"] = "needed",
    unpaired: Literal["raise", "skip"] = "raise",
) -> PairedData:
    """Read both domains of the target, and the source.

    Without validation images a share of the training identities (`config.holdout`) is kept apart, the same in both
    domains. Attributes of the target are dropped here, so that nothing in training can look at them.

    Args:
        config: `query`, `gallery` and `source`.
        seed: of the held-out identities.
        attributes: names to learn, or with a minus before them names to leave out; empty: all of the source's.
        source: whether a run without a source is an error.
        unpaired: what to do with an identity that is in one domain only.

    Raises:
        IsthmusError: images without an identity, an identity in one domain only or in two splits, attributes that are
            unknown, out of range or never vary.
    """
    if config.query is None or config.gallery is None:
        raise IsthmusError("Two domains are needed: give --query-domain NAME=PATH and --gallery-domain NAME=PATH.")
    if config.source is None and source == "needed":
        raise IsthmusError(
            "IHDA's first step learns from attribute-labelled images: name them with --source-domain NAME=PATH, or "
            "train on the pairs alone with --set ihda.stages=target."
        )
    if config.source is not None and config.source.name == config.query.name:
        raise IsthmusError(
            f"The source is named '{config.source.name}' like the query domain, but its images look like the "
            "gallery's; name it otherwise with --source-domain NAME=PATH."
        )
    domains = (config.query, config.gallery)
    names = (domains[0].name, domains[1].name)
    notes: list[str] = []
    train = [_rows(domain, "train") for domain in domains]
    val = [_rows(domain, "val") for domain in domains]
    test = [_rows(domain, "test") for domain in domains]
    for domain, side in zip(domains, train, strict=True):
        if not side:
            raise IsthmusError(f"The domain '{domain.name}' has no training images: name a folder, list or table.")
    _refuse_leaks(names, {"training": train, "validation": val, "test": test})
    train = _in_both(names, train, unpaired, notes)
    held_out = not any(val)
    if held_out:
        train, val = _hold_out(train, config.holdout, seed)
    if held_out and config.holdout:
        notes.append(
            f"No validation images are named: {len(_identities(val[0]))} training identities are kept apart to choose "
            "the epoch."
        )
    if len(_identities(train[0])) < 2:
        raise IsthmusError(
            f"'{names[0]}' and '{names[1]}' share {len(_identities(train[0]))} identity to train on; a batch without "
            "another one has no negatives: add pairs, or lower data.holdout."
        )
    photos = [] if config.source is None else _source(config.source, [*val, *test])
    chosen = _attributes(photos, attributes, config.source.name) if config.source is not None else ()
    _compare(chosen, [*train, *val], names)
    kept = [[[replace(row, attributes=None) for row in side] for side in part] for part in (train, val)]
    return PairedData(
        names,
        (kept[0][0], kept[0][1]),
        (kept[1][0], kept[1][1]),
        held_out=held_out,
        notes=notes,
        source=photos,
        attributes=chosen,
    )


def _rows(domain: DomainConfig, split: str) -> list[Row]:
    manifest = read_domain(domain, split)
    rows = [] if manifest is None else list(manifest.select(domain=domain.name, real=True))
    without = [row.id for row in rows if identity_of(row) is None]
    if without:
        raise IsthmusError(
            f"{len(without)} {split} images of '{domain.name}' have no identity, such as {without[0]}; give the table "
            "a column 'identity', or make one from equal file names with  isthmus data prepare pairs."
        )
    return rows


def _identities(rows: list[Row]) -> set[str]:
    return {str(identity_of(row)) for row in rows}


def _refuse_leaks(names: tuple[str, str], parts: dict[str, list[list[Row]]]) -> None:
    kinds = list(parts)
    for n, first in enumerate(kinds):
        for second in kinds[n + 1 :]:
            # An identity of one domain in training and of the other in the test leaks as well.
            shared = set().union(*map(_identities, parts[first])) & set().union(*map(_identities, parts[second]))
            if shared:
                raise IsthmusError(
                    f"The split leaks: {len(shared)} identities of '{names[0]}' and '{names[1]}' are in the {first} "
                    f"and the {second} images ({some_of(sorted(shared))}); keep each identity in one of them."
                )


def _in_both(
    names: tuple[str, str], sides: list[list[Row]], unpaired: Literal["raise", "skip"], notes: list[str]
) -> list[list[Row]]:
    shared = _identities(sides[0]) & _identities(sides[1])
    for name, other, side in ((names[0], names[1], sides[0]), (names[1], names[0], sides[1])):
        alone = sorted(_identities(side) - shared)
        if not alone:
            continue
        if unpaired == "raise":
            raise IsthmusError(
                f"{len(alone)} training identities are in '{name}' only and have no image in '{other}' "
                f"({some_of(alone)}); add their images, or leave them out with --set ihda.unpaired=skip."
            )
        notes.append(f"{len(alone)} identities of '{name}' have no image in '{other}' and are left out.")
    return [[row for row in side if identity_of(row) in shared] for side in sides]


def _hold_out(sides: list[list[Row]], share: float, seed: int) -> tuple[list[list[Row]], list[list[Row]]]:
    identities = sorted(_identities(sides[0]), key=lambda name: stable_hash("holdout", seed, name))
    apart = set(identities[: max(0, min(round(len(identities) * share), len(identities) - 2))])
    return (
        [[row for row in side if identity_of(row) not in apart] for side in sides],
        [[row for row in side if identity_of(row) in apart] for side in sides],
    )


def _source(domain: DomainConfig, kept_apart: list[list[Row]]) -> list[Row]:
    manifest = read_domain(domain, "train")
    rows = [] if manifest is None else list(manifest.select(domain=domain.name, real=True))
    if len(rows) < 2:
        raise IsthmusError(
            f"The source '{domain.name}' has {len(rows)} training images; name a table with --source-domain."
        )
    files = {row.path for side in kept_apart for row in side}
    leaked = [row.id for row in rows if row.path in files]
    if leaked:
        raise IsthmusError(
            f"The split leaks: {len(leaked)} source images are validation or test images of the target, such as "
            f"{leaked[0]}; take them out of the source."
        )
    return rows


def _attributes(rows: list[Row], wanted: list[str], domain: str) -> tuple[str, ...]:
    known = list(dict.fromkeys(name for row in rows for name in row.attributes or ()))
    if not known:
        raise IsthmusError(
            f"The source '{domain}' has no attributes; give its table columns attr:NAME with 0, 1 or nothing where "
            "unknown."
        )
    strange = [name for name in wanted if name.removeprefix("-") not in known]
    if strange:
        raise IsthmusError(
            f"ihda.attributes names '{strange[0].removeprefix('-')}', which the source '{domain}' hasn't (it has: "
            f"{', '.join(known)}); correct the name."
        )
    keep = [name for name in wanted if not name.startswith("-")] or known
    chosen = tuple(name for name in keep if f"-{name}" not in wanted)
    constant: dict[str, float] = {}
    for name in chosen:
        values = [row.attributes[name] for row in rows if row.attributes and name in row.attributes]
        wrong = next((value for value in values if not 0 <= value <= 1), None)
        if wrong is not None:
            raise IsthmusError(f"The attribute '{name}' of the source '{domain}' has the value {wrong:g}; use 0 to 1.")
        if min(values) == max(values):
            constant[name] = values[0]
    if constant:
        shown = ", ".join(f"'{name}' (always {value:g})" for name, value in constant.items())
        raise IsthmusError(
            f"Attributes of the source '{domain}' never vary and teach nothing: {shown}; leave them out with --set "
            f"ihda.attributes=[{','.join(f'-{name}' for name in constant)}]."
        )
    if not chosen:
        raise IsthmusError("ihda.attributes leaves no attribute; name at least one.")
    return chosen


def _compare(chosen: tuple[str, ...], sides: list[list[Row]], names: tuple[str, str]) -> None:
    """Where the target's attributes are known (for measuring), they have to be the source's."""
    known = {name for side in sides for row in side for name in row.attributes or ()}
    missing = [name for name in chosen if name not in known]
    if known and missing:
        raise IsthmusError(
            f"Source and target have different attributes: '{missing[0]}' is not among those of '{names[0]}' and "
            f"'{names[1]}' ({', '.join(sorted(known))}); use the same names, or choose some with --set "
            "ihda.attributes=[...]."
        )
