"""Image to image on a noised start (SDEdit): keeps the layout, changes the look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from isthmus.errors import IsthmusError
from isthmus.translate.base import TranslatorSettings
from isthmus.translate.diffusion.arguments import edits_images
from isthmus.translate.diffusion.pipeline import load_pipeline, pipeline_class
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.translator import DiffusionTranslator
from isthmus.translate.diffusion.weights import model_index, part_config

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
AUTO = "AutoPipelineForImage2Image"


class Img2ImgSettings(DiffusionSettings):
    """Settings of `img2img`; the defaults are the paper's. See `DiffusionSettings` for the others.

    Distilled models need other figures, SD-Turbo for one: guidance=0 steps=2 strength=0.5.

    Attributes:
        strength: share of the way to noise that an image is taken; strength x steps denoising steps are run.
    """

    model: str = SD15
    guidance: float | None = Field(10.0, ge=0, le=100)
    strength: float | None = Field(0.3, gt=0, le=1)


class Img2ImgTranslator(DiffusionTranslator):
    r"""Stable Diffusion on a noised image (SDEdit, Meng et al. 2022), as SynCDR uses it.

    With \(t_0\) = strength: \(z_{t_0} = \sqrt{\bar\alpha_{t_0}}\, E(x) + \sqrt{1 - \bar\alpha_{t_0}}\, \epsilon\), from
    which the model denoises to \(z_0\), guided by the prompt; the picture is \(D(z_0)\).

    Example:
        >>> settings = Img2ImgSettings(model="sd15/", prompt="A sketch of a {label}.")         # doctest: +SKIP
        >>> resolved, notes = Img2ImgTranslator.resolve(settings, Samples())                   # doctest: +SKIP
        >>> Img2ImgTranslator(resolved).translate([photo], [7], ["cat"])[0].size               # doctest: +SKIP
        (512, 512)
    """

    name: ClassVar[str] = "img2img"
    settings_type: ClassVar[type[TranslatorSettings]] = Img2ImgSettings

    @classmethod
    def load(cls, settings: Any, folder: Path) -> Any:
        """Through `AutoPipelineForImage2Image`, or the pipeline that the setting or an editing model names.

        Raises:
            IsthmusError: the model is for something else.
        """
        return load_pipeline(settings, cls._kind(settings, folder), folder)

    @classmethod
    def _kind(cls, settings: DiffusionSettings, folder: Path) -> str:
        declared = str(model_index(folder)["_class_name"])
        takes, latent = unet_channels(folder)
        if settings.pipeline is not None:
            if not edits_images(pipeline_class(settings.pipeline)) and not settings.pipeline.startswith("Auto"):
                raise IsthmusError(f"pipeline={settings.pipeline} takes no image and prompt: choose another one.")
            return settings.pipeline
        if "InstructPix2Pix" in declared or takes == 2 * latent:
            raise IsthmusError(
                f"{settings.model} is an InstructPix2Pix model: use --translator instruct-pix2pix, or another model."
            )
        if takes not in (None, latent):
            raise IsthmusError(
                f"{settings.model} is no image-to-image model: its UNet takes {takes} channels instead of {latent}, "
                "as one for inpainting or upscaling does."
            )
        return AUTO if knows_auto(declared) else edits_or_refuse(settings.model, declared)


def knows_auto(declared: str) -> bool:
    """Whether `AutoPipelineForImage2Image` finds a pipeline for a model declared as such a class."""
    from diffusers.pipelines import auto_pipeline as auto

    tables = (auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING, auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING)
    family = next((key for table in tables for key, kind in table.items() if kind.__name__ == declared), None)
    return family in auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING


def edits_or_refuse(model: str, declared: str) -> str:
    """`declared` where that pipeline takes an image and a prompt; otherwise an `IsthmusError`."""
    if not edits_images(pipeline_class(declared)):
        raise IsthmusError(f"{model} is a {declared}, which takes no image and prompt: choose another model.")
    return declared


def unet_channels(folder: Path) -> tuple[int | None, int]:
    """Channels that the model's UNet takes (None without a UNet), and channels of its latents."""
    takes = part_config(folder, "unet").get("in_channels")
    return (takes if isinstance(takes, int) else None), int(part_config(folder, "vae").get("latent_channels", 4))
