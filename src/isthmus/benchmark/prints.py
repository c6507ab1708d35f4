"""What a result depends on, in sixteen digits; and a part of the training identities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.data.paired import identity_of
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, fingerprint, read_json, stable_hash


def part_of(rows: Manifest, share: float, seed: int) -> Manifest:
    """The table with a share of the training identities; a smaller share of one seed lies in a larger one.

    Args:
        rows: all images.
        share: of the training identities, in (0, 1].
        seed: of the draw.
    """
    names = sorted({str(identity_of(row)) for row in rows if row.split == "train"})
    order = sorted(names, key=lambda name: stable_hash("pairs", seed, name))
    kept = set(order[: max(2, round(share * len(order)))])
    return Manifest([row for row in rows if row.split != "train" or str(identity_of(row)) in kept])


def table_fingerprint(*tables: Iterable[Row]) -> str:
    """Changes with what a run could learn from or be tested on, not with where the images lie."""
    return fingerprint(
        [
            [[row.id, Path(row.path).name, row.domain, identity_of(row), row.split, dict(row.attributes or {})]
             for row in table]
            for table in tables
        ]
    )  # fmt: skip


def labels_fingerprint(*tables: Iterable[Row]) -> str:
    """Changes with images, labels and splits, not with where the images lie."""
    return fingerprint([[[row.id, Path(row.path).name, row.label, row.split] for row in table] for table in tables])


def note_once(file: Path, value: Any, sentence: str) -> None:
    """Write a value down, or see that it is the one that was written down before.

    Raises:
        IsthmusError: the sentence; another value is there.
    """
    if not file.is_file():
        atomic_write_json(file, value)
    elif read_json(file) != value:
        raise IsthmusError(sentence)


def settings_fingerprint(config: RunConfig) -> str:
    """Of all settings that shape a result: those that differ from the defaults, without paths.

    So a result keeps its fingerprint on another machine, and when a later version has one setting more.
    """
    values = config.model_dump(exclude_defaults=True)
    data, model, ihda = (values.setdefault(name, {}) for name in ("data", "model", "ihda"))
    for name in ("workers", "cache_mb"):
        data.pop(name, None)
    for name in ("query", "gallery", "source"):
        if data.get(name):
            data[name] = data[name]["name"]
    ihda.pop("start", None)
    for name in ("photo", "sketch", "unified", "modality"):
        values.get("data_free", {}).pop(name, None)
    values.pop("preset", None)  # what it sets stands in the settings themselves
    if "weights" in model:
        model["weights"] = Path(model["weights"]).name
    return fingerprint(values)
