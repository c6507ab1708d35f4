"""What a result depends on, in sixteen digits; and a part of the training identities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.data.paired import identity_of
from isthmus.io import fingerprint, stable_hash


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
    values.pop("preset", None)  # what it sets stands in the settings themselves
    if "weights" in model:
        model["weights"] = Path(model["weights"]).name
    return fingerprint(values)
