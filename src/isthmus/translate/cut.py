"""The translator that a team trains on its own two domains: CUT (arXiv 2007.15651), `isthmus train --method cut`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from PIL import Image
from pydantic import Field

from isthmus.errors import IsthmusError
from isthmus.models.cut import CutModel
from isthmus.translate.base import Samples, TranslatorSettings
from isthmus.translate.device import pick_device

MULTIPLE = 4  # the generator halves its maps twice


class CutTranslatorSettings(TranslatorSettings):
    """Settings of `cut`.

    Attributes:
        run: folder of a run of `isthmus train --method cut` (or fastcut), or its `model` folder.
        target: domain to look like; the translation's own by default.
        size: side of the pictures made, a multiple of 4; the training's size by default.
        batch_size: images a forward pass.
        device: where it runs.
        weights: fingerprint of the networks; found when the translation begins, so that a run that has been trained
            on in the meantime can't be mixed in.
    """

    run: str = ""
    target: str = ""
    size: int | None = Field(None, ge=32, le=1024, multiple_of=MULTIPLE)
    batch_size: int = Field(16, ge=1, le=1024)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    weights: str = ""


class CutTranslator:
    """Pictures by the generator of a trained CUT.

    Example:
        >>> choose("cut", {"run": "runs/cut"}, Samples(target_domain="sketch")).build()      # doctest: +SKIP
    """

    name: ClassVar[str] = "cut"
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = False
    settings_type: ClassVar[type[TranslatorSettings]] = CutTranslatorSettings

    @classmethod
    def resolve(cls, settings: CutTranslatorSettings, samples: Samples) -> tuple[CutTranslatorSettings, list[str]]:
        """The target from the translation, size and fingerprint from the run."""
        pick_device(settings.device)
        model = _load(settings.run)
        target = settings.target or samples.target_domain
        model.side_to(target)
        size = settings.size or model.side
        found = model.fingerprint
        if settings.weights and settings.weights != found:
            raise IsthmusError(_changed(settings.run))
        run = str(Path(settings.run).absolute())
        notes = [] if settings.size else [f"Pictures of {size} x {size} pixels, the size of the training."]
        changes = {"run": run, "target": target, "size": size, "weights": found}
        return settings.model_copy(update=changes), notes

    def __init__(self, settings: CutTranslatorSettings) -> None:
        self.settings = settings
        self.batch_size = settings.batch_size
        self.model = _load(settings.run)
        if settings.weights != self.model.fingerprint:
            raise IsthmusError(_changed(settings.run))
        self.side = self.model.side_to(settings.target)
        self.model.translations.to(pick_device(settings.device))

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image]:
        """One picture for each image; nothing in it is random, and labels don't matter."""
        return self.model.translate(images, self.side, self.settings.size)


def _load(run: str) -> CutModel:
    if not run:
        raise IsthmusError("The translator cut needs a trained run: give --set run=RUN (isthmus train --method cut).")
    return CutModel.load(run)


def _changed(run: str) -> str:
    return f"The CUT in {run} has changed since this translation began; translate into another folder with --out."
