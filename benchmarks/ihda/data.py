"""The tables of the QMUL shoes protocol: five splits, a limited target of 50, 100 or 150 pairs, two kinds of source.

    python benchmarks/ihda/data.py --root DATA/qmul_shoes --out TABLES

Of the 304 training pairs of a split the photos of 154, drawn at random, are the attribute-labelled source; their
sketches are unused. The first 50, 100 and 150 of the others are the target, so that the smaller targets lie in the
larger ones. The 115 test pairs are the split's. Split 0 is the official one.

`source-K.parquet` has those photos as they are, `source-K-sensor.parquet` the same photos through a synthetic sensor
(`sensor` below). Both have four more attributes, of colour (`COLOURS`), which no sketch can show: the harmful group of
the ablation. Attributes of the target stand in its tables for the evaluator; training drops them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from isthmus.data.adapters import Options, prepare
from isthmus.data.images import load_image
from isthmus.data.manifest import Manifest, Row
from isthmus.io import atomic_write_bytes, atomic_write_text

SPLITS = 5
SOURCE_PAIRS = 154
SIZES = (50, 100, 150)
KINDS = ("as-is", "sensor")
BLUR, QUALITY = 1.5, 30
WHITE = 235  # a pixel is background where all its channels reach this
# Each attribute is 1 above its threshold; the thresholds are round numbers near the medians of the 419 photos.
COLOURS = {"colour-dark": -105.0, "colour-light": 0.12, "colour-colourful": 30.0, "colour-reddish": 24.0}


def colours(path: str) -> dict[str, float]:
    """Colour of the shoe: mean luma (negated), share of light pixels, mean chroma, mean of red minus blue."""
    pixels = np.asarray(load_image(path), dtype=np.float64).reshape(-1, 3)
    shoe = pixels[pixels.min(axis=1) < WHITE]
    luma = shoe @ [0.299, 0.587, 0.114]
    values = (
        -luma.mean(),
        (luma > 170).mean(),
        (shoe.max(axis=1) - shoe.min(axis=1)).mean(),
        (shoe[:, 0] - shoe[:, 2]).mean(),
    )
    return {name: float(value > COLOURS[name]) for name, value in zip(COLOURS, values, strict=True)}


def curve() -> NDArray[np.uint8]:
    """The sensor's contrast curve: shadows crushed by a gamma of 1.6, then squeezed into 38 to 217 of 255."""
    return np.round(255 * (0.15 + 0.70 * (np.arange(256) / 255) ** 1.6)).astype(np.uint8)


def sensor(path: str) -> bytes:
    """The photo in greyscale, Gaussian blur of `BLUR` pixels, the contrast curve, JPEG of quality `QUALITY`."""
    grey = load_image(path).convert("L").filter(ImageFilter.GaussianBlur(BLUR))
    image = Image.fromarray(curve()[np.asarray(grey)])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def with_colours(rows: Iterable[Row], known: dict[str, dict[str, float]]) -> list[Row]:
    """Photos with the harmful attributes beside their own; sketches as they are."""
    return [
        replace(row, attributes={**(row.attributes or {}), **known[row.path]}) if row.domain == "photo" else row
        for row in rows
    ]


def draw(split: int, rows: Manifest) -> tuple[set[str], list[str]]:
    """The identities of the source, and those of the target in their nested order."""
    train = sorted({str(row.identity) for row in rows if row.split == "train"})
    order = [train[at] for at in np.random.default_rng(1000 + split).permutation(len(train))]
    return set(order[:SOURCE_PAIRS]), order[SOURCE_PAIRS:]


def build(root: Path, out: Path) -> None:
    """Write every table, the sensor's images and the human triplets."""
    prepared = prepare("shoes", Options(root, splits=SPLITS))
    for note in prepared.notes:
        print(f"note: {note}")
    for name, text in prepared.texts.items():
        atomic_write_text(out / name, text)
    photos = {row.path for row in prepared.manifest if row.domain == "photo"}
    known = {path: colours(path) for path in sorted(photos)}
    for name in COLOURS:
        print(f"{name}: {np.mean([value[name] for value in known.values()]):.2f} of the photos")
    seen: dict[str, str] = {}
    for split, manifest in enumerate(prepared.splits):
        rows = with_colours(manifest, known)
        source, target = draw(split, manifest)
        photo = [row for row in rows if row.identity in source and row.domain == "photo"]
        plain = [replace(row, domain="source", split="train") for row in photo]
        Manifest(plain).save(out / f"source-{split}.parquet")
        shifted = []
        for row in plain:
            if row.path not in seen:
                file = out / "sensor" / f"{row.identity}.jpg"
                atomic_write_bytes(file, sensor(row.path))
                seen[row.path] = str(file.absolute())
            shifted.append(replace(row, path=seen[row.path]))
        Manifest(shifted).save(out / f"source-{split}-sensor.parquet")
        for size in SIZES:
            kept = set(target[:size])
            pairs = [row for row in rows if row.split == "test" or row.identity in kept]
            Manifest(pairs).save(out / f"pairs-{split}-{size}.parquet")
        Manifest(rows).save(out / f"full-{split}.parquet")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the shoes")
    parser.add_argument("--out", type=Path, required=True, help="where the tables and the sensor's images go")
    options = parser.parse_args()
    build(options.root, options.out.absolute())


if __name__ == "__main__":
    main()
