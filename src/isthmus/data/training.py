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
        names: the two domains' names; empty for a side that a method of one domain goes without.
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

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides that there are."""
        return tuple(side for side, name in enumerate(self.names) if name)

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
    if config.query is None or config.gallery is None:
        raise IsthmusError("Two domains are needed: give --query-domain NAME=PATH and --gallery-domain NAME=PATH.")
    data = _read_domains(config, seed, by_label=False)
    if synthetic:
        data.counterparts = _read_counterparts(config.synthetic, data)
    return data


def read_labelled_data(config: DataConfig, *, seed: int, by_label: bool = True) -> TrainingData:
    """Read one domain or both, for training on labels.

    Args:
        config: `query`, `gallery` or both of them.
        seed: of the choice of held-out images.
        by_label: every image must have a label, and of each label's images a share is held out.

    Raises:
        IsthmusError: there is no domain, or an image without a label.
    """
    if config.query is None and config.gallery is None:
        raise IsthmusError("A domain is needed: give --query-domain NAME=PATH, --gallery-domain NAME=PATH or both.")
    return _read_domains(config, seed, by_label=by_label)


def _read_domains(config: DataConfig, seed: int, *, by_label: bool) -> TrainingData:
    data = TrainingData(("", ""), ([], []), ([], []))
    names = ["", ""]
    for side, domain in enumerate((config.query, config.gallery)):
        if domain is None:
            continue
        names[side] = domain.name
        manifest = read_domain(domain, "train")
        if manifest is None:
            raise IsthmusError(f"The domain '{domain.name}' has no training images: name a folder, list or table.")
        manifest = manifest.select(domain=domain.name, real=True)
        require_usable(manifest, domain.name)
        rows = list(manifest)
        own = read_domain(domain, "val")
        chosen = [] if own is None else list(own.select(domain=domain.name, real=True))
        if by_label:
            _require_labels([*rows, *chosen], domain.name)
        if own is not None:
            twice = {row.id for row in rows} & {row.id for row in chosen}
            if twice:
                raise IsthmusError(
                    f"{len(twice)} images of '{domain.name}' are training and validation images at once, such as "
                    f"{min(twice)}; take them out of one of the two."
                )
        else:
            rows, chosen = (_hold_out_of_each if by_label else _hold_out)(rows, config.holdout, seed)
            data.held_out = True
        data.train[side].extend(rows)
        data.val[side].extend(chosen)
    data.names = (names[0], names[1])
    if data.held_out and config.holdout:
        counts = " and ".join(str(len(data.val[side])) for side in data.sides)
        data.notes.append(
            f"No validation images are named: {counts} training images are kept apart to choose the epoch."
        )
    return data


def _require_labels(rows: list[Row], domain: str) -> None:
    missing = [row.id for row in rows if row.label is None]
    if missing:
        raise IsthmusError(
            f"{len(missing)} of {len(rows)} images of '{domain}' have no label, such as {missing[0]}; put each class "
            "into a folder of its own, or list them as  path label."
        )


def _hold_out(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split rows by a hash of their ids, so that adding an image moves no other one."""
    count = min(round(len(rows) * share), len(rows) - 2)
    order = sorted(rows, key=lambda row: stable_hash("holdout", seed, row.id))
    apart = {row.id for row in order[: max(0, count)]}
    return [row for row in rows if row.id not in apart], [row for row in rows if row.id in apart]


def _hold_out_of_each(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """The same for each label alone: one image at least where that is no more than a fifth of them."""
    of_label: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        of_label[row.label].append(row)
    apart: set[str] = set()
    for members in of_label.values():
        order = sorted(members, key=lambda row: stable_hash("holdout", seed, row.id))
        count = min(max(round(len(order) * share), len(order) >= 5), len(order) - 1) if share else 0
        apart |= {row.id for row in order[:count]}
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
