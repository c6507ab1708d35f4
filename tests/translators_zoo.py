"""A translator whose pictures depend on the whole batch, and `isthmus` with it: `python translators_zoo.py VERB`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.translate import base
from isthmus.translate.base import NoPicture, Samples, TranslatorSettings

NAME = "slow-tint"
SIDE = 160  # of a picture: large enough that writing takes a moment


class SlowTintSettings(TranslatorSettings):
    """`seconds` a batch takes; `pids`: folder where each process leaves its number; `refuse`: raise in `translate`."""

    seconds: float = 0.0
    pids: str = ""
    refuse: str = ""


class SlowTint:
    """Noise of an image's seed on the mean colour of its batch; every other seed fails: one image in eight thrice."""

    name: ClassVar[str] = NAME
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = False
    settings_type: ClassVar[type[TranslatorSettings]] = SlowTintSettings
    built: ClassVar[int] = 0

    def __init__(self, settings: SlowTintSettings) -> None:
        self.settings = settings
        self.batch_size = 4
        SlowTint.built += 1

    @classmethod
    def resolve(cls, settings: SlowTintSettings, samples: Samples) -> tuple[SlowTintSettings, list[str]]:
        return settings, []

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | NoPicture | None]:
        if self.settings.refuse:
            raise IsthmusError(self.settings.refuse)
        if self.settings.pids:
            (Path(self.settings.pids) / f"{os.getpid()}-{SlowTint.built}").touch()
        time.sleep(self.settings.seconds)
        mean = float(np.mean([np.asarray(image).mean() for image in images]))
        return [NoPicture("unlucky") if seed % 2 == 0 else self._one(mean, seed) for seed in seeds]

    def _one(self, mean: float, seed: int) -> Image.Image:
        noise = np.random.default_rng(seed).normal(mean, 40, (SIDE, SIDE, 3))
        return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def register() -> None:
    """Make it known by name, as a user's own translator would be."""
    base.TRANSLATORS[NAME] = "translators_zoo:SlowTint"


def pictures(folder: Path, count: int) -> Path:
    """A folder of `count` noisy discs, large enough that a run takes a while."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:160, 0:160]
    for number in range(count):
        disc = ((y - 80) / rng.uniform(20, 70)) ** 2 + ((x - 80) / rng.uniform(20, 70)) ** 2 < 1
        pixels = np.where(disc[..., None], rng.integers(0, 100, 3), 200) + rng.integers(-20, 20, (160, 160, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a finished run, hidden ones too."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    # Imported by its own name, so that other processes find the class.
    import translators_zoo

    from isthmus.cli.main import main

    translators_zoo.register()
    sys.exit(main())
