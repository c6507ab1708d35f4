"""Editing by instruction: InstructPix2Pix and its successors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from isthmus.errors import IsthmusError
from isthmus.translate.base import TranslatorSettings
from isthmus.translate.diffusion.img2img import edits_or_refuse, unet_channels
from isthmus.translate.diffusion.pipeline import load_pipeline, pipeline_class
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.translator import DiffusionTranslator
from isthmus.translate.diffusion.weights import model_index, parts_of

INSTRUCT = "StableDiffusionInstructPix2PixPipeline"
INSTRUCT_XL = "StableDiffusionXLInstructPix2PixPipeline"
HUB = "timbrooks/instruct-pix2pix"


class InstructSettings(DiffusionSettings):
    """Settings of `instruct-pix2pix`; the defaults are the paper's. See `DiffusionSettings` for the others.

    Attributes:
        image_guidance: weight of the image; higher keeps more of it.
    """

    model: str = HUB
    guidance: float | None = Field(10.0, ge=0, le=100)
    image_guidance: float | None = Field(1.2, ge=1, le=100)


class InstructTranslator(DiffusionTranslator):
    r"""InstructPix2Pix (Brooks et al. 2023), and any pipeline of diffusers that takes an image and an instruction.

    The denoiser sees the image's latents beside the noise; its two guidances are
    \(e(z) + s_I\,(e(z, c_I) - e(z)) + s_T\,(e(z, c_I, c_T) - e(z, c_I))\), s_I = image_guidance, s_T = guidance.

    Models made for something else than Stable Diffusion (Flux Kontext, Qwen Image Edit) are called with the defaults of
    their own pipelines, and with one image at a time, as they take several for one picture.

    Example:
        >>> settings = InstructSettings(model="ip2p/")                                         # doctest: +SKIP
        >>> resolved, _ = InstructTranslator.resolve(settings, Samples(target_domain="sketch"))  # doctest: +SKIP
        >>> resolved.prompt                                                                    # doctest: +SKIP
        'Convert to a pencil/charcoal sketch.'
    """

    name: ClassVar[str] = "instruct-pix2pix"
    settings_type: ClassVar[type[TranslatorSettings]] = InstructSettings

    @classmethod
    def load(cls, settings: Any, folder: Path) -> Any:
        """The pipeline that the setting or the model names.

        Raises:
            IsthmusError: the model takes no instruction and image.
        """
        return load_pipeline(settings, cls._kind(settings, folder), folder)

    @classmethod
    def _kind(cls, settings: DiffusionSettings, folder: Path) -> str:
        declared = settings.pipeline or str(model_index(folder)["_class_name"])
        takes, latent = unet_channels(folder)
        instruct = declared in (INSTRUCT, INSTRUCT_XL)
        if takes is not None and (instruct or settings.pipeline is None):
            if takes != 2 * latent:
                raise IsthmusError(
                    f"{settings.model} is no InstructPix2Pix model: its UNet takes {takes} channels instead of "
                    f"{2 * latent}; use --translator img2img, or a model such as {HUB}."
                )
            if not instruct:
                return INSTRUCT_XL if "text_encoder_2" in parts_of(folder) else INSTRUCT
        pipeline_class(declared)
        return declared if instruct else edits_or_refuse(settings.model, declared)
