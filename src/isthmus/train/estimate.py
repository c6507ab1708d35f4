"""What a training run will take: a few real steps and a few real images are measured, the rest is counted."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.config.sizes import sides
from isthmus.data.images import ImageError
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.plan import Plan, measure, peak_memory
from isthmus.train.run import absolute_paths
from isthmus.train.trainer import Trainer

SAMPLE = 64  # images that are decoded and embedded to learn the rates


def estimate(config: RunConfig) -> Plan:
    """Time, memory and disk of `isthmus train` with these settings, from some seconds of real work."""
    config = absolute_paths(config)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(config, Path(scratch), screening=False)
        data, source = trainer.data, trainer.source
        if config.data.on_bad_image == "skip":
            source.pixels = _or_blank(source)  # type: ignore[method-assign, assignment]
        rows = data.rows()
        sample = rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE]
        start = time.perf_counter()
        for row in sample:
            source.pixels(row)
        decode = (time.perf_counter() - start) / max(1, len(sample)) / max(1, min(2, config.data.workers))
        judged = trainer.judge.images()
        few = sample[: max(1, judged)]  # a translator is slow, and shows few
        looked = len(few) or judged  # a method that reads no images looks at its own
        embed = measure(lambda: trainer.judge.probe(few), warmup=1, repeats=2) / looked if looked else 0.0
        steps = trainer.schedule.steps
        training = 0.0
        if trainer.method.trains:
            trainer._mode(training=True)
            for stage, first, count in zip(
                trainer.schedule.stages, trainer.schedule.firsts, trainer.schedule.counts, strict=True
            ):
                # As in its last epoch, when every term that begins later takes part.
                trainer.method.begun = first + stage.epochs
                batch = trainer.method.load(trainer.method.epoch(first + stage.epochs - 1)[0])
                training += count * measure(partial(trainer._step, batch, 0.0), warmup=1, repeats=3, limit=20.0)
        step_seconds = training / max(1, steps)
        filled = sum(len(items) for items in getattr(trainer.method, "sets", ()))
        pixels = 3 * math.prod(sides(trainer.model.preprocessing.resize))
        cached = min(len(rows) * pixels, config.data.cache_mb * 1_000_000)
        parts = trainer.model.modules().values()
        weights = sum(p.numel() * p.element_size() for part in parts for p in part.state_dict().values())
    rounds = trainer.schedule.epochs + 1 if steps else 1
    # What does not fit the cache is decoded again whenever it is looked at.
    again = max(0.0, 1 - config.data.cache_mb * 1e6 / max(1, len(rows) * pixels))
    seconds = len(rows) * decode + filled * embed + training
    seconds += rounds * judged * (embed + again * decode)
    seconds += again * decode * steps * trainer.method.images_per_step()
    return Plan(
        what=f"train {config.method}",
        units=steps,
        unit="steps",
        seconds=seconds,
        memory=peak_memory() + cached,
        disk=4 * weights,
        probe=f"{1000 * step_seconds:.0f} ms a step, {embed and 1 / embed:.0f} images/s embedded"
        + (f", {1 / max(decode, 1e-9):.0f} decoded" if rows else ""),
    )


def _or_blank(source: ImageSource) -> Callable[[Row], Tensor]:
    """`source.pixels`, and a blank image where training will leave one out: a probe measures time, not content."""
    pixels, size = source.pixels, sides(source.preprocessing.resize)

    def read(row: Row) -> Tensor:
        try:
            return pixels(row)
        except ImageError:
            return torch.zeros(3, *size, dtype=torch.uint8)

    return read
