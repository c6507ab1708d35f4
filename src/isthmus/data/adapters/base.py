"""What an adapter is: what it is given, what it hands back, and the split checks that all of them pass."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isthmus.data.adapters.layouts import Family
from isthmus.data.manifest import Manifest, Row, absolute, image_id, some_of
from isthmus.errors import IsthmusError

QUERY, GALLERY = "sketch", "photo"
MANIFEST = "manifest.parquet"
_DRAWINGS = frozenset({"sketch", "quickdraw"})


@dataclass(frozen=True)
class Options:
    """What `isthmus data prepare` was asked for.

    Attributes:
        root: the data set's folder.
        splits: how many splits to write; None: the data set's own number.
        seed: what all random choices follow from.
        attributes: the attribute set, where a data set has several (`market`: paper or code).
        test_share: the share of the identities that is tested on, where the data set has no split of its own.
        unmatched: "refuse" or "skip" an identity that only one domain has.
        query, gallery: the two folders, for `pairs` and `faces`, from `root`; the two domains of a set of classes.
        min_images: how many images an identity needs (`zappos`); None: the data set's own number.
        lists: the folder of SynCDR's file lists, for sets of classes.
        protocol: a name of `isthmus.data.adapters.protocols.PROTOCOLS`; None: the data set's usual one.
        class_split: which of the data set's zero-shot class splits; None: the last.
        unseen: a text file with the classes to test on, for zero-shot protocols.
    """

    root: Path
    splits: int | None = None
    seed: int = 0
    attributes: str = "paper"
    test_share: float | None = None
    unmatched: str = "refuse"
    query: str | None = None
    gallery: str | None = None
    min_images: int | None = None
    lists: Path | None = None
    protocol: str | None = None
    class_split: int | None = None
    unseen: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """What an adapter found: nothing is written yet (see `isthmus.data.adapters.write`).

    Attributes:
        manifest: every image.
        splits: the same images once a split, with `Row.split` filled in.
        source: whether this is an attribute-labelled source of photos rather than pairs of two domains.
        texts: further files, name -> content.
        notes: what a reader should know: counts that differ from the publication, images left out, attributes unknown.
    """

    manifest: Manifest
    splits: tuple[Manifest, ...] = ()
    source: bool = False
    texts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def files(self) -> dict[str, Manifest]:
        """File name -> table."""
        return {f"split-{k:02d}.parquet": rows for k, rows in enumerate(self.splits)} | {MANIFEST: self.manifest}


@dataclass(frozen=True)
class Adapter:
    """One data set.

    Attributes:
        name: as in `isthmus data prepare NAME`.
        title: the data set's name.
        page: where to get it.
        licence: what its owners allow, in a phrase.
        layout: the files and folders that are looked for beneath the root.
        gives: what is written, in a phrase.
        read: does the work.
        default_splits: how many splits are written where none are asked for; 0: the data set has no split to make.
        partner: the adapter of the other half of an IHDA run: a target's usual source, or a source's usual target.
        takes: names of the `Options` beyond root, splits and seed that it listens to.
        parts: what has to lie beneath the root, as glob patterns; `a|b`: either.
        counts: domain -> how many images were published, where the manifest holds all of them.
        family: what is known of a data set of classes in several domains; None: it is one of pairs or identities.
    """

    name: str
    title: str
    page: str
    licence: str
    layout: str
    gives: str
    read: Callable[[Options, Adapter], Prepared]
    default_splits: int = 1
    partner: str = ""
    takes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    family: Family | None = None


def with_splits(rows: Iterable[Row], test: Iterable[str]) -> Manifest:
    """The rows with `split` train or test by identity; rows without identity have none.

    Raises:
        IsthmusError: as `refuse_leak`.
    """
    held_out = frozenset(test)
    split = [
        replace(row, split=None if row.identity is None else "test" if row.identity in held_out else "train")
        for row in rows
    ]
    refuse_leak(split)
    return Manifest(split)


def refuse_leak(rows: Iterable[Row]) -> None:
    """Check that no identity is in two splits, in whichever domain.

    Raises:
        IsthmusError: one is; the message names some of them.

    Example:
        >>> refuse_leak([Row("a", "/a", "sketch", identity="7", split="train")])
    """
    seen: dict[str, set[str]] = {}
    for row in rows:
        if row.identity is not None and row.split is not None:
            seen.setdefault(row.identity, set()).add(row.split)
    leaks = [
        f"{identity} ({' and '.join(sorted(splits))})" for identity, splits in sorted(seen.items()) if len(splits) > 1
    ]
    if leaks:
        raise IsthmusError(
            f"{len(leaks)} identities are in more than one split, so the test would not be of new ones: "
            f"{some_of(leaks)}; give each identity one split."
        )


def image_row(path: Path, root: Path, domain: str, identity: str | None = None, **more: Any) -> Row:
    """A row whose id is `<domain>/<path from root>`."""
    full = absolute(path)
    return Row(image_id(domain, full, absolute(root)), full, domain, identity=identity, **more)


def missing(what: str, adapter: Adapter) -> IsthmusError:
    """The error for something that the published data set has and this folder has not."""
    return IsthmusError(
        f"{what}: {adapter.title} is laid out as {adapter.layout}; get it from {adapter.page}, or correct --root."
    )


def commands(prepared: Prepared, adapter: Adapter, out: Path) -> list[str]:
    """The next commands to type: a SynCDR run for classes in two domains; else an IHDA run and its other half."""
    if adapter.family is not None:
        return _with_classes(prepared, adapter, out)
    own = shlex.quote(str(out / (MANIFEST if prepared.source or not prepared.splits else "split-00.parquet")))
    placeholder = "TARGET" if prepared.source else "SOURCE"
    other = f"prepared/{adapter.partner}" if adapter.partner else placeholder
    target = f"{other}/split-00.parquet" if prepared.source else own
    source = own if prepared.source else f"{other}/{MANIFEST}"
    first = [f"isthmus data prepare {adapter.partner} --root DIR"] if adapter.partner else []
    return [
        *first,
        f"isthmus train --method ihda --query-domain {QUERY}={target} --gallery-domain {GALLERY}={target} "
        f"--source-domain {GALLERY}={source} --out runs/{adapter.name}",
    ]


def _with_classes(prepared: Prepared, adapter: Adapter, out: Path) -> list[str]:
    query, gallery = prepared.splits[0].domains
    ours = [shlex.quote(f"{name}={out / 'split-00.parquet'}") for name in (query, gallery)]
    made = [shlex.quote(f"made/{adapter.name}/{one}-as-{two}") for one, two in ((query, gallery), (gallery, query))]
    run = f"runs/{adapter.name}"
    first: list[str] = []
    how = ""
    if not {query, gallery} & _DRAWINGS:  # the translator without weights knows line drawings only
        first = [f"isthmus train --method cut --query-domain {ours[0]} --gallery-domain {ours[1]} --out {run}-cut"]
        how = f" --translator cut --set run={run}-cut"
    return [
        *first,
        f"isthmus translate --source {ours[0]} --target {ours[1]}{how} --out {made[0]}",
        f"isthmus translate --source {ours[1]} --target {ours[0]}{how} --out {made[1]}",
        f"isthmus train --method syncdr --query-domain {ours[0]} --gallery-domain {ours[1]} --synthetic {made[0]} "
        f"--synthetic {made[1]} --out {run}",
        f"isthmus evaluate {run}",
    ]
