"""The images of a training run: two domains, their counterparts, and what is kept apart for choosing."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from isthmus.config import DataConfig, DomainConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_source, require_usable, with_split
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash


@dataclass
class TrainingData:
    """What a method trains on. `query` and `gallery` are index 0 and 1 everywhere.

    Attributes:
        names: the two domains' names.
        train: real training rows of each domain.
        val: rows of each domain for choosing an epoch.
        counterparts: synthetic rows by the id of the image they were made from.
        source: attribute-labelled rows of a third set, which look like the gallery's.
        held_out: whether `val` was taken out of the training images.
        notes: what the user should hear.
    """

    names: tuple[str, str]
    train: tuple[list[Row], list[Row]]
    val: tuple[list[Row], list[Row]]
    counterparts: dict[str, list[Row]] = field(default_factory=dict)
    held_out: bool = False
    notes: list[str] = field(default_factory=list)
    source: list[Row] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Every image that training may look at."""
        return [*itertools.chain(*self.train, *self.val, *self.counterparts.values(), self.source)]

    def manifest(self) -> Manifest:
        """All rows, with their split."""
        splits = [replace(row, split="train") for side in self.train for row in side]
        splits += [replace(row, split="val") for side in self.val for row in side]
        known = {row.id: row.split for row in splits}
        made = [replace(row, split=known.get(key)) for key, rows in self.counterparts.items() for row in rows]
        source = [replace(row, split="train") for row in self.source if row.id not in known]
        return Manifest([*splits, *made, *source])


def read_domain(domain: DomainConfig, split: str) -> Manifest | None:
    """The rows of one split of a domain, or None where the settings name none.

    Raises:
        IsthmusError: a path is missing, empty or unreadable.
    """
    path: str | None = getattr(domain, split)
    if path is not None:
        manifest = read_source(path, domain.name, root=domain.root)
        # A table or a folder may hold several splits; one that names none is all of this split.
        return with_split(manifest, split, f"{path} for domain '{domain.name}'")
    if domain.train is None:
        return None
    rest = read_source(domain.train, domain.name, root=domain.root).select(split=split)
    return rest if len(rest) else None


def read_training_data(config: DataConfig, *, synthetic: bool, seed: int) -> TrainingData:
    """Read both domains, and with `synthetic` their counterparts, as the settings say."""
    query, gallery = config.query, config.gallery
    if query is None or gallery is None:
        raise IsthmusError("Two domains are needed: give --query-domain NAME=PATH and --gallery-domain NAME=PATH.")
    train, val = [], []
    held_out = False
    for domain in (query, gallery):
        manifest = read_domain(domain, "train")
        if manifest is None:
            raise IsthmusError(f"The domain '{domain.name}' has no training images: name a folder, list or table.")
        manifest = manifest.select(domain=domain.name, real=True)
        require_usable(manifest, domain.name)
        rows = list(manifest)
        own = read_domain(domain, "val")
        if own is not None:
            chosen = list(own.select(domain=domain.name, real=True))
            twice = {row.id for row in rows} & {row.id for row in chosen}
            if twice:
                raise IsthmusError(
                    f"{len(twice)} images of '{domain.name}' are training and validation images at once, such as "
                    f"{min(twice)}; take them out of one of the two."
                )
        else:
            rows, chosen = _hold_out(rows, config.holdout, seed)
            held_out = True
        train.append(rows)
        val.append(chosen)
    data = TrainingData((query.name, gallery.name), (train[0], train[1]), (val[0], val[1]), held_out=held_out)
    if held_out and config.holdout:
        data.notes.append(
            f"No validation images are named: {len(val[0])} and {len(val[1])} training images are kept apart to choose "
            "the epoch."
        )
    if synthetic:
        data.counterparts = _read_counterparts(config.synthetic, data)
    return data


def _hold_out(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows by a hash of their ids, so that adding an image moves no other one."""
    count = min(round(len(rows) * share), len(rows) - 2)
    order = sorted(rows, key=lambda row: stable_hash("holdout", seed, row.id))
    apart = {row.id for row in order[: max(0, count)]}
    return [row for row in rows if row.id not in apart], [row for row in rows if row.id in apart]


def _read_counterparts(folders: list[str], data: TrainingData) -> dict[str, list[Row]]:
    if not folders:
        raise IsthmusError(
            "SynCDR needs synthetic counterparts: make them with  isthmus translate  and name each folder with "
            "--synthetic, or train with --method cds."
        )
    known = {row.id: row.domain for side in (*data.train, *data.val) for row in side}
    found: dict[str, list[Row]] = defaultdict(list)
    for folder in folders:
        if not (Path(folder) / "manifest.parquet").is_file():
            raise IsthmusError(
                f"{folder} holds no finished translation (no manifest.parquet); run  isthmus translate --out {folder}."
            )
        rows = [row for row in Manifest.load(Path(folder) / "manifest.parquet") if row.source_id is not None]
        matched = [row for row in rows if row.source_id in known]
        same = next((row for row in matched if known[str(row.source_id)] == row.domain), None)
        if same is not None:
            raise IsthmusError(
                f"{folder} holds images of '{same.domain}' in the look of '{same.domain}' itself; translate them to "
                "the other domain."
            )
        strange = {row.domain for row in rows} - set(data.names)
        if strange:
            raise IsthmusError(
                f"{folder} was translated to '{min(strange)}', but the domains are {' and '.join(data.names)}; "
                "name the domains as in  isthmus translate."
            )
        if not matched:
            example = rows[0].source_id if rows else "none"
            raise IsthmusError(
                f"{folder} holds no counterpart of a training image (its first is of '{example}'); translate the same "
                "folder or list that you train on."
            )
        for row in matched:
            found[str(row.source_id)].append(row)
    for side, other in ((0, 1), (1, 0)):
        with_counterpart = sum(row.id in found for row in data.train[side])
        missing = len(data.train[side]) - with_counterpart
        if not with_counterpart:
            data.notes.append(
                f"No image of '{data.names[side]}' has a counterpart in '{data.names[other]}'; only the other "
                "direction is synthetic."
            )
        elif missing:
            data.notes.append(
                f"{missing} of {len(data.train[side])} images of '{data.names[side]}' have no counterpart and are left "
                "out of training."
            )
    for name, side_rows in zip(data.names, data.val, strict=True):
        if side_rows and not any(row.id in found for row in side_rows):
            data.notes.append(
                f"The validation images of '{name}' have no counterparts; translate them too (isthmus translate "
                "--split all), without them the last epoch is chosen."
            )
    return dict(found)
