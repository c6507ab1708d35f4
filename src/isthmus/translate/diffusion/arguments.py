"""Settings as arguments of a pipeline's call: only what it takes, and nothing the user said is lost in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from isthmus.errors import IsthmusError
from isthmus.translate.diffusion.pipeline import call_arguments
from isthmus.translate.diffusion.settings import DiffusionSettings

# Field of the settings -> argument of the call.
CALL: dict[str, str] = {
    "strength": "strength",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
    "steps": "num_inference_steps",
    "negative_prompt": "negative_prompt",
}
OWN = ("prompt", "image", "generator", "height", "width", "output_type", "return_dict", "num_images_per_prompt")
# The paper's figures are for Stable Diffusion; other models keep the defaults of their own pipelines.
PAPER_CLASSES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
)
Settings = TypeVar("Settings", bound=DiffusionSettings)


def settle_arguments(settings: Settings, pipeline: Any, explicit: Collection[str]) -> Settings:
    """`settings` without what the pipeline's call does not take, and with its own defaults for other models.

    Args:
        settings: of a translator.
        pipeline: loaded, or its class.
        explicit: names of the settings that the user has set.

    Raises:
        IsthmusError: the user set something that the pipeline does not take, or a combination that makes no step.
    """
    takes = call_arguments(pipeline)
    name = class_name(pipeline)
    changes: dict[str, Any] = {}
    for field, argument in CALL.items():
        value = getattr(settings, field, None)
        if argument not in takes:
            if value is not None and field in explicit:
                raise IsthmusError(f"{name} takes no {field} ({argument}): leave that setting out.")
            changes[field] = None
        elif field not in explicit and name not in PAPER_CLASSES:
            default = takes[argument].default
            changes[field] = default if isinstance(default, int | float | str) else None
    for key in settings.arguments:
        mine = next((field for field, argument in CALL.items() if argument == key and hasattr(settings, field)), None)
        if mine or key in OWN:
            raise IsthmusError(f"arguments: {key} is set by {mine or 'the translator itself'}, not here.")
        if key not in takes:
            others = ", ".join(sorted(set(takes) - set(OWN) - set(CALL.values())))
            raise IsthmusError(f"arguments: {name} takes no {key}; it takes {others}.")
    known = type(settings).model_fields
    settings = settings.model_copy(update={field: value for field, value in changes.items() if field in known})
    check_steps(settings)
    return settings


def check_steps(settings: DiffusionSettings) -> None:
    """Refuse a strength that leaves no denoising step: strength x steps of them are run."""
    strength = getattr(settings, "strength", None)
    if strength is not None and settings.steps is not None and int(settings.steps * strength) < 1:
        raise IsthmusError(
            f"strength {strength:g} of {settings.steps} steps leaves no step to run: "
            f"raise strength or steps until strength x steps is at least 1 (steps={-int(-1 // strength)}, say)."
        )


def call_with(settings: DiffusionSettings, pipeline: Any) -> dict[str, Any]:
    """The arguments of the call that do not depend on the images (`arguments` last, as the user's word)."""
    takes = call_arguments(pipeline)
    made: dict[str, Any] = {"output_type": "np"}
    for field, argument in CALL.items():
        value = getattr(settings, field, None)
        if value is not None:
            made[argument] = value
    for side in ("height", "width"):
        if side in takes:
            made[side] = settings.size
    return {**made, **settings.arguments}


def takes_batches(pipeline: Any) -> bool:
    """Whether a list of images means one picture for each: editing models take it for several images of one picture."""
    name = class_name(pipeline)
    return name in PAPER_CLASSES or "Img2Img" in name


def class_name(pipeline: Any) -> str:
    """Of a pipeline or a pipeline class."""
    return pipeline.__name__ if isinstance(pipeline, type) else type(pipeline).__name__


def edits_images(pipeline_type: Any) -> bool:
    """Whether a pipeline class takes an image and a prompt.

    Example:
        >>> class Editor:
        ...     def __call__(self, image, prompt): ...
        >>> edits_images(Editor)
        True
    """
    takes: Mapping[str, Any] = call_arguments(pipeline_type)
    return "image" in takes and "prompt" in takes
