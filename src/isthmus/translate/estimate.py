"""How long a translation will take: a short probe on a few of its images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from isthmus.data.files import ImageError, content_hash
from isthmus.data.images import load_image
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash
from isthmus.plan import Plan, peak_memory
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.outputs import png_bytes

PROBE = 24  # images
START_SECONDS = 0.8  # of a worker process: interpreter and numpy


def plan_translation(rows: Sequence[Row], choice: TranslatorChoice, *, workers: int, out: Path) -> Plan:
    """Time, memory and disk for `rows` with `workers` processes, measured on up to 24 of them; writes nothing.

    Args:
        rows: what this process (this shard) is to translate.
        choice: the translator.
        workers: processes; 0 is the main process alone.
        out: named in the plan.
    """
    translator = choice.build()
    chosen = sorted(rows, key=lambda row: stable_hash("probe", row.id))[: max(PROBE, translator.batch_size)]
    images = []
    labels = []
    began = time.perf_counter()
    for row in chosen:
        try:
            content_hash(row.path)
            images.append(load_image(row.path))
            labels.append(row.label)
        except (ImageError, OSError):
            continue
    reading = time.perf_counter() - began
    if not images:
        raise IsthmusError(f"None of the first {len(chosen)} images can be read, such as {chosen[0].path}.")
    # The first call pays for caches and compilation, not the others.
    translator.translate(images[:1], [0], labels[:1])
    began = time.perf_counter()
    pictures: list[object] = []
    size = 0
    for start in range(0, len(images), translator.batch_size):
        part = slice(start, start + translator.batch_size)
        made = translator.translate(images[part], list(range(len(images[part]))), labels[part])
        pictures.extend(made)
        real = [picture for picture in made if isinstance(picture, Image.Image)]
        size += sum(len(png_bytes(picture, {"source": "x" * 200})) for picture in real)
    each = (time.perf_counter() - began + reading) / len(images)
    processes = max(1, workers)
    seconds = len(rows) * each / processes + (START_SECONDS if workers else 0.0)
    return Plan(
        what=f"translate to {out}",
        units=len(rows),
        unit="images",
        seconds=seconds,
        memory=peak_memory() * (1 + workers),
        disk=round(len(rows) * size / len(images)),
        probe=f"{1 / each:.0f} images/s in one process on {len(images)} images, {processes} at work",
    )
