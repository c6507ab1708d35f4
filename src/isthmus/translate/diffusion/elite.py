"""ELITE: what an image shows becomes a word, and a prompt with that word a new picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image
from pydantic import Field

from isthmus.data.files import content_hash
from isthmus.errors import IsthmusError
from isthmus.io import fingerprint
from isthmus.translate.base import NoPicture, Samples, TranslatorSettings
from isthmus.translate.diffusion.arguments import call_with
from isthmus.translate.diffusion.elite_attention import cross_attentions, exchange_projections
from isthmus.translate.diffusion.elite_features import (
    clip_files,
    image_features,
    load_image_encoder,
    locate_clip,
    to_pixels,
)
from isthmus.translate.diffusion.elite_mapper import LAYERS, mapper_path, read_mapper
from isthmus.translate.diffusion.elite_words import encode_with_words, place_words, split_prompt
from isthmus.translate.diffusion.explain import explain_running
from isthmus.translate.diffusion.noise import generators
from isthmus.translate.diffusion.pipeline import load_pipeline, quiet
from isthmus.translate.diffusion.prompts import prompt_for, with_label
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.shape import Square
from isthmus.translate.diffusion.translator import DiffusionTranslator, checked_picture
from isthmus.translate.diffusion.weights import files_identity, model_identity, part_config, parts_of

SD14 = "CompVis/stable-diffusion-v1-4"
CLIP = "openai/clip-vit-large-patch14"
PIPELINE = "StableDiffusionPipeline"
PAPERS_PLACEHOLDER = "S"
# The published code builds its scheduler from these and takes nothing from the model's own, which may say otherwise.
LMS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


class EliteSettings(DiffusionSettings):
    """Settings of `elite`; the defaults are those of SynCDR. See `DiffusionSettings` for the others.

    Attributes:
        mapper: the file `global_mapper.pt` that ELITE's authors publish, or the same as `.safetensors`.
        clip: CLIP ViT-L/14, a folder or a hub id.
        placeholder: the word of the prompt that the image's concept takes the place of.
        token_index: which of the mapper's words: 0 to 4, or "full" for all five. 0 is the concept itself.
        scheduler: "lms" is the published one; others take the noise levels of the model's own.
        fit: how CLIP sees an image: the whole `stretch`ed to a square as published, `pad`ded with white, or its centre
            (`crop`). Pictures are square.
        mapper_sha256: of the file, found by `resolve`: another file is refused when a run is resumed.
    """

    model: str = SD14
    mapper: str | None = None
    clip: str = CLIP
    placeholder: str = Field(PAPERS_PLACEHOLDER, pattern=r"^[^\s{}]+$")
    token_index: int | Literal["full"] = 0
    steps: int | None = Field(100, ge=1, le=1000)
    guidance: float | None = Field(5.0, ge=0, le=100)
    scheduler: str | None = "lms"
    mapper_sha256: str | None = None


class EliteTranslator(DiffusionTranslator):
    r"""ELITE's global mapping (Wei et al. 2023, arXiv 2302.13848) in Stable Diffusion, as SynCDR uses it.

    CLIP's image tokens become the word embedding \(w = M(\mathrm{CLIP}(x))\) that stands at S in "A painting of a S";
    the picture is made from noise, with the mapper's keys and values in every cross attention and guidance s:
    \(e(z_t) + s\,(e(z_t, \mathrm{text}(w)) - e(z_t))\). Layout and pose are not kept, only what is shown.

    Example:
        >>> settings = EliteSettings(mapper="global_mapper.pt")                                  # doctest: +SKIP
        >>> resolved, _ = EliteTranslator.resolve(settings, Samples(target_domain="sketch"))     # doctest: +SKIP
        >>> resolved.prompt                                                                      # doctest: +SKIP
        'A pencil/charcoal sketch of S'
        >>> EliteTranslator(resolved).translate([photo], [7], [None])[0].size                    # doctest: +SKIP
        (512, 512)
    """

    name: ClassVar[str] = "elite"
    settings_type: ClassVar[type[TranslatorSettings]] = EliteSettings
    places: ClassVar[tuple[str, ...]] = ("model", "mapper", "clip")

    def __init__(self, settings: EliteSettings) -> None:
        super().__init__(settings)
        if settings.mapper_sha256 not in (None, _mapper_hash(settings)):
            raise IsthmusError(
                f"Setting 'mapper': {settings.mapper} is not the file that this translation was begun with: "
                "put that one back, or choose another folder with --out."
            )

    @classmethod
    def resolve(cls, settings: EliteSettings, samples: Samples) -> tuple[EliteSettings, list[str]]:
        """As of `DiffusionTranslator`, and the mapper file's hash.

        Raises:
            IsthmusError: no mapper file or a wrong one, no such CLIP, or a prompt without the placeholder.
        """
        if settings.prompt is None:
            paper = prompt_for(cls.name, samples.target_domain, settings.prompts)
            prompt = settings.placeholder.join(split_prompt(paper, PAPERS_PLACEHOLDER))
        else:
            prompt = settings.prompt
        split_prompt(prompt, settings.placeholder)
        if settings.pipeline not in (None, PIPELINE):
            raise IsthmusError(f"ELITE works in a {PIPELINE}: leave the setting pipeline out.")
        if settings.token_index != "full" and not 0 <= settings.token_index < len(LAYERS):
            raise IsthmusError(f"token_index={settings.token_index}: it is 0 to {len(LAYERS) - 1}, or full.")
        found = _mapper_hash(settings)
        if settings.mapper_sha256 not in (None, found):
            raise IsthmusError(f"mapper_sha256={settings.mapper_sha256}: {settings.mapper} has {found}.")
        return super().resolve(settings.model_copy(update={"prompt": prompt, "mapper_sha256": found}), samples)

    @classmethod
    def identity(cls, settings: EliteSettings, folder: Path) -> str:
        """A hash of the weights of Stable Diffusion and CLIP."""
        clip = locate_clip(settings.clip, settings.local_files_only)
        return fingerprint([model_identity(folder, settings.variant), files_identity(clip_files(clip), clip)])

    @classmethod
    def load(cls, settings: EliteSettings, folder: Path) -> Any:
        """Stable Diffusion with the mapper's keys and values, CLIP as its `image_encoder`, and the `concept_mapper`."""
        import torch
        from diffusers import LMSDiscreteScheduler

        _check_model(settings.model, folder)
        pipeline = load_pipeline(settings, PIPELINE, folder)
        if isinstance(pipeline.scheduler, LMSDiscreteScheduler):
            pipeline.scheduler = LMSDiscreteScheduler(**LMS)
        # A prompt that will not do is found here, not with the first image.
        _place(pipeline, settings, None)
        dtype = getattr(torch, settings.dtype)
        clip = load_image_encoder(locate_clip(settings.clip, settings.local_files_only), "cpu", dtype)
        attention = cross_attentions(pipeline.unet)
        widths = clip.config.hidden_size, pipeline.text_encoder.config.hidden_size
        mapper = read_mapper(str(settings.mapper), attention, *widths)
        exchange_projections(attention, mapper.keys, mapper.values)
        # As a part of the pipeline it is placed and offloaded with the others.
        pipeline.register_modules(image_encoder=clip)
        pipeline.concept_mapper = mapper.concept.to(settings.device, dtype)
        return pipeline

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | NoPicture | None]:
        """A square picture of each image's concept, or the reason why there is none.

        Args:
            images: RGB, of any size.
            seeds: of the images: of the noise that each picture is made from.
            labels: for `{label}` in the prompts.

        Raises:
            IsthmusError: memory ran out, or the models can't be loaded.
        """
        if not images:
            return []
        import torch

        pipeline, settings = self.pipeline(), self.settings
        arguments = call_with(settings, pipeline)
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = [with_label(arguments["negative_prompt"], label) for label in labels]
        with explain_running(len(images)), quiet(), torch.inference_mode(not settings.torch_compile):
            text = self.conditioning(pipeline, images, labels)
            found = pipeline(**arguments, prompt_embeds=text, generator=generators(seeds))
        flagged = found.nsfw_content_detected or [False] * len(images)
        square = Square(settings.size, "stretch", settings.output_size or settings.size)
        made = (checked_picture(pixels, bad) for pixels, bad in zip(found.images, flagged, strict=True))
        return [square.back(one, one.size) if isinstance(one, Image.Image) else one for one in made]

    def conditioning(self, pipeline: Any, images: Sequence[Image.Image], labels: Sequence[str | None]) -> Any:
        """What the cross attention reads for each image: (b, 77, width), the prompt with the image's words in it."""
        import torch

        settings = self.settings
        side = int(pipeline.image_encoder.config.image_size)
        if settings.fit != "stretch":
            images = Square(side, settings.fit, side).images(images)
        prompts = [_place(pipeline, settings, label) for label in labels]
        with torch.no_grad():
            words = pipeline.concept_mapper(image_features(pipeline.image_encoder, to_pixels(images, side)))
            if settings.token_index != "full":
                words = words[:, settings.token_index : settings.token_index + 1]
            return encode_with_words(pipeline.text_encoder, prompts, words)


def _place(pipeline: Any, settings: EliteSettings, label: str | None) -> Any:
    before, after = split_prompt(settings.prompt or "", settings.placeholder)
    words = len(LAYERS) if settings.token_index == "full" else 1
    return place_words(
        pipeline.tokenizer, with_label(before, label), settings.placeholder, with_label(after, label), words
    )


def _mapper_hash(settings: EliteSettings) -> str:
    if settings.mapper is None:
        raise IsthmusError(
            "ELITE needs its trained mapper: say where the file is with  --set mapper=global_mapper.pt  (its authors "
            "publish it at github.com/csyxwei/ELITE)."
        )
    return content_hash(mapper_path(settings.mapper))


def _check_model(model: str, folder: Path) -> None:
    """Refuse what a text-to-image Stable Diffusion 1 is not, before anything is loaded."""
    parts, unet = parts_of(folder), part_config(folder, "unet")
    latent = part_config(folder, "vae").get("latent_channels", 4)
    if not {"unet", "vae", "text_encoder", "tokenizer"} <= set(parts) or "text_encoder_2" in parts:
        raise IsthmusError(
            f"{model} is no Stable Diffusion with one text encoder: set model to {SD14}, or a folder of it."
        )
    if unet.get("in_channels", latent) != latent:
        raise IsthmusError(
            f"{model} makes no pictures from text alone (its UNet takes {unet['in_channels']} channels instead of "
            f"{latent}): set model to {SD14}, or a folder of it."
        )
