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
from isthmus.progress import rate_text
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.outputs import png_bytes

PROBE = 24  # images
LONG = 20.0  # seconds: a model that takes minutes for an image is not asked for 24
START_SECONDS = 0.8  # of a worker process: interpreter and numpy


def plan_translation(rows: Sequence[Row], choice: TranslatorChoice, *, workers: int, out: Path) -> Plan:
    """Time, memory and disk for `rows` with `workers` processes; writes nothing.

    Measured on up to 24 of them, on fewer where a batch takes long: in some 20 s, or on one image.

    Args:
        rows: what this process (this shard) is to translate.
        choice: the translator.
        workers: processes; 0 is the main process alone.
        out: named in the plan.
    """
    if not rows:
        return Plan(f"translate to {out}", 0, "images", 0.0, peak_memory(), 0, "nothing, as there is nothing to do")
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
    began = time.perf_counter()
    pictures = list(translator.translate(images[:1], [0], labels[:1]))
    count, seconds = 1, time.perf_counter() - began
    if seconds < LONG:
        # The first call paid for caches and compilation, the others don't. Without time for all, the first batches do.
        pictures, count, began = [], 0, time.perf_counter()
        while count < len(images) and time.perf_counter() - began < LONG:
            part = slice(count, count + translator.batch_size)
            pictures += translator.translate(images[part], list(range(len(images[part]))), labels[part])
            count += len(images[part])
        seconds = time.perf_counter() - began
    began = time.perf_counter()
    real = [picture for picture in pictures if isinstance(picture, Image.Image)]
    size = sum(len(png_bytes(picture, {"source": "x" * 200})) for picture in real)
    each = (seconds + time.perf_counter() - began) / count + reading / len(images)
    processes = max(1, workers)
    seconds = len(rows) * each / processes + (START_SECONDS if workers else 0.0)
    return Plan(
        what=f"translate to {out}",
        units=len(rows),
        unit="images",
        seconds=seconds,
        memory=peak_memory() * (1 + workers),
        disk=round(len(rows) * size / count),
        probe=f"{rate_text(1 / each)} images/s in one process on {count} images, {processes} at work",
    )
