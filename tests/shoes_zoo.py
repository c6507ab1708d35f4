"""Real shoes for the tests of IHDA: pairs, held-out pairs and attribute-labelled photos, none of the test part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from isthmus.data.adapters import Options, prepare
from isthmus.data.manifest import Manifest


def shoe_tables(shared_data: Path, out: Path, pairs: int, source: int, held_out: int, seed: int = 0) -> None:
    """`t.parquet` with training and held-out pairs, and `s.parquet` with photos of other shoes, domain `stock`."""
    rows = list(prepare("shoes", Options(shared_data / "data" / "qmul_shoes")).manifest.select(split="train"))
    names = sorted({str(row.identity) for row in rows})
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    train, photos = set(order[:pairs]), set(order[pairs : pairs + source])
    kept = set(order[pairs + source : pairs + source + held_out])
    target = [row for row in rows if row.identity in train]
    Manifest(target + [replace(row, split="val") for row in rows if row.identity in kept]).save(out / "t.parquet")
    shop = [replace(row, domain="stock") for row in rows if row.identity in photos and row.domain == "photo"]
    Manifest(shop).save(out / "s.parquet")
