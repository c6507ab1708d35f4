"""What the translators on image-to-image pipelines have in common: resolve, load, call, check."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.translate.base import NoPicture, Samples, TranslatorSettings
from isthmus.translate.device import pick_device
from isthmus.translate.diffusion.arguments import call_with, check_steps, class_name, settle_arguments, takes_batches
from isthmus.translate.diffusion.explain import explain_running, need_diffusers
from isthmus.translate.diffusion.fit import find_batch_size
from isthmus.translate.diffusion.noise import generators
from isthmus.translate.diffusion.pipeline import (
    keep,
    loading_key,
    pick_dtype,
    quiet,
    save_memory,
    take,
)
from isthmus.translate.diffusion.prompts import check_prompt, prompt_for, with_label
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.shape import Square, to_picture
from isthmus.translate.diffusion.weights import locate_model, model_identity

TRIAL_STEPS = 3  # denoising steps of a trial of a batch size: memory is the same as in all of them
FLAGGED = "the safety checker flagged the picture (safety_checker=false switches it off)"
NOT_NUMBERS = "the picture holds values that are no numbers (dtype=float32 or bfloat16 may help)"
BLACK = "the picture came out black all over"


class DiffusionTranslator:
    """Base of `img2img`, `instruct-pix2pix` and `ip-adapter`: a subclass says how its pipeline is loaded and called.

    The noise of an image comes from its own seed, in any batch: the VAE's sampling, the starting noise and that of
    stochastic schedulers.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = False
    settings_type: ClassVar[type[TranslatorSettings]]
    #: settings that may name a file or folder
    places: ClassVar[tuple[str, ...]] = ("model",)

    def __init__(self, settings: Any) -> None:
        self.settings: Any = settings
        self.batch_size = settings.batch_size if isinstance(settings.batch_size, int) else 1
        self._held: Any = None
        if settings.weights is not None and Path(settings.model).expanduser().is_dir():
            self._check_weights(Path(settings.model).expanduser())

    @classmethod
    def load(cls, settings: Any, folder: Path) -> Any:
        """The pipeline, not yet on its device."""
        raise NotImplementedError

    @classmethod
    def identity(cls, settings: Any, folder: Path) -> str:
        """A hash of all weights that decide the pictures."""
        return model_identity(folder, settings.variant)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Refuse settings that contradict each other, before anything is loaded."""
        if settings.cpu_offload and settings.device == "cpu":
            raise IsthmusError("cpu_offload=true moves parts off an accelerator; with device=cpu leave it out.")

    @classmethod
    def resolve(cls, settings: Any, samples: Samples) -> tuple[Any, list[str]]:
        """Settle prompt, device, precision, scheduler, the pipeline's own defaults and the batch size.

        The pipeline that is loaded for it serves the run that follows.

        Raises:
            IsthmusError: see the modules `weights`, `pipeline`, `arguments`.
        """
        need_diffusers()
        explicit = set(settings.model_fields_set)
        prompt = settings.prompt
        if prompt is None:
            prompt = prompt_for(cls.name, samples.target_domain, settings.prompts)
        check_prompt(prompt)
        check_prompt(settings.negative_prompt or "", "negative_prompt")
        if "strength" in explicit and "steps" in explicit:
            check_steps(settings)
        device = pick_device(settings.device)
        cls.check(settings.model_copy(update={"device": device}))
        folder = locate_model(settings)
        changes = {"prompt": prompt, "device": device, "dtype": pick_dtype(settings.dtype, device, folder)}
        for name in cls.places:
            # Resumed from another working folder, or read by another machine, a relative path would lead elsewhere.
            place = getattr(settings, name)
            if place is not None and Path(place).expanduser().exists():
                changes[name] = str(Path(place).expanduser().absolute())
        settings = settings.model_copy(update=changes)
        identity = cls.identity(settings, folder)
        if settings.weights not in (None, identity):
            raise IsthmusError(_other_weights(settings.model))
        pipeline = cls.load(settings, folder)
        settings = settle_arguments(settings, pipeline, explicit)
        save_memory(pipeline, settings)
        scheduler = getattr(pipeline, "scheduler", None)
        settings = settings.model_copy(
            update={"weights": identity, "scheduler": None if scheduler is None else class_name(scheduler)}
        )
        notes = [f"{class_name(pipeline)} on {device} in {settings.dtype}, told: {prompt}"]
        if settings.batch_size == "auto":
            size, note = cls._try(settings, pipeline)
            settings = settings.model_copy(update={"batch_size": size})
            notes.append(note)
        # Another version may round otherwise: the record says with which one a run was begun.
        notes.append(f"Begun with {versions()}.")
        keep(loading_key(cls.name, settings), pipeline)
        return settings, notes

    @classmethod
    def _try(cls, settings: Any, pipeline: Any) -> tuple[int, str]:
        """The batch size that is fastest here, and a sentence on it."""
        if not takes_batches(pipeline):
            return 1, f"Batch size 1: {class_name(pipeline)} takes one image at a time."
        steps = settings.steps or TRIAL_STEPS
        strength = getattr(settings, "strength", None) or 1.0
        few = settings.model_copy(
            update={"steps": min(steps, math.ceil(TRIAL_STEPS / strength)), "weights": None, "batch_size": 1}
        )
        translator = cls(few)
        translator._held = pipeline
        pixels = np.random.default_rng(0).integers(0, 256, (settings.size, settings.size, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)

        def run(size: int) -> None:
            translator.translate([image] * size, range(size), [None] * size)

        found = find_batch_size(run, settings.device)
        return found.size, found.sentence()

    def pipeline(self) -> Any:
        """The loaded pipeline: the one that `resolve` or another translator of this process has, or loaded now."""
        if self._held is None:
            key = loading_key(self.name, self.settings)
            found = take(key)
            if found is None:
                pick_device(self.settings.device)
                folder = locate_model(self.settings)
                self._check_weights(folder)
                found = self.load(self.settings, folder)
                save_memory(found, self.settings)
                keep(key, found, hold=False)
            self._held = found
        return self._held

    def _check_weights(self, folder: Path) -> None:
        if self.settings.weights is not None and self.identity(self.settings, folder) != self.settings.weights:
            raise IsthmusError(_other_weights(self.settings.model))

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | NoPicture | None]:
        """A picture, or the reason why there is none, for each image.

        Args:
            images: RGB, of any size.
            seeds: of the images.
            labels: for `{label}` in the prompts.

        Raises:
            IsthmusError: memory ran out, or the pipeline can't be loaded.
        """
        if not images:
            return []
        pipeline, settings = self.pipeline(), self.settings
        square = Square(settings.size, settings.fit, settings.output_size or settings.size)
        squares = square.images(images)
        step = len(images) if takes_batches(pipeline) else 1
        made: list[Image.Image | NoPicture | None] = []
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            made += self._call(pipeline, squares[part], seeds[part], labels[part])
        return [
            square.back(picture, image.size) if isinstance(picture, Image.Image) else picture
            for picture, image in zip(made, images, strict=True)
        ]

    def image_arguments(self, pipeline: Any, squares: list[Image.Image]) -> dict[str, Any]:
        """The arguments of the call that carry the images; the pictures themselves by default."""
        return {"image": squares if takes_batches(pipeline) else squares[0]}

    def _call(
        self, pipeline: Any, squares: list[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | NoPicture | None]:
        """One call of the pipeline for (b) squares."""
        import torch

        settings: DiffusionSettings = self.settings
        arguments = call_with(settings, pipeline)
        arguments["prompt"] = [with_label(settings.prompt or "", label) for label in labels]
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = [with_label(arguments["negative_prompt"], label) for label in labels]
        with explain_running(len(squares), class_name(pipeline)), quiet(), torch.no_grad():
            arguments |= self.image_arguments(pipeline, squares)
            found = pipeline(**arguments, generator=generators(seeds))
        flagged = getattr(found, "nsfw_content_detected", None) or [False] * len(squares)
        if len(found.images) != len(squares):
            raise IsthmusError(
                f"{class_name(pipeline)} made {len(found.images)} pictures of {len(squares)} images: set batch_size=1."
            )
        return [checked_picture(pixels, bad) for pixels, bad in zip(found.images, flagged, strict=True)]


def versions() -> str:
    """The packages that decide a picture's last bit: `diffusers 0.42.1, transformers 5.23.0, torch 2.9.0`."""
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("diffusers", "transformers", "torch"))


def checked_picture(pixels: Any, flagged: bool) -> Image.Image | NoPicture:
    """The picture of a pipeline's values (h, w, 3) in [0, 1], or why it is none."""
    if flagged:
        return NoPicture(FLAGGED)
    picture = to_picture(np.asarray(pixels, dtype=np.float32))
    if picture is None:
        return NoPicture(NOT_NUMBERS)
    return NoPicture(BLACK) if picture.getbbox() is None else picture


def _other_weights(model: str) -> str:
    return (
        f"The weights in {model} are not those that this translation was begun with: "
        "go on with those, or choose another folder with --out."
    )
