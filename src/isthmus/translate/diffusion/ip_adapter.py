"""IP-Adapter: the source image as a prompt, beside the words that name the target's look."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import Field

from isthmus.errors import IsthmusError
from isthmus.io import fingerprint
from isthmus.translate.base import TranslatorSettings
from isthmus.translate.diffusion.adapter import Adapter, check_adapter, locate_adapter, read_adapter
from isthmus.translate.diffusion.explain import explain_loading
from isthmus.translate.diffusion.img2img import SD15, unet_channels
from isthmus.translate.diffusion.pipeline import call_arguments, load_pipeline, quiet
from isthmus.translate.diffusion.settings import DiffusionSettings
from isthmus.translate.diffusion.translator import DiffusionTranslator
from isthmus.translate.diffusion.weights import model_identity


class IPAdapterSettings(DiffusionSettings):
    """Settings of `ip-adapter`. See `DiffusionSettings` for the others.

    For SDXL: adapter_subfolder=sdxl_models adapter_weights=ip-adapter_sdxl.safetensors.

    Attributes:
        adapter: a file, a folder or a hub id.
        adapter_subfolder, adapter_weights: the file in a folder or hub repository.
        image_encoder: folder of the CLIP image encoder: a path, or beside the file, or within the repository.
        adapter_revision: of a hub id.
        scale: weight of the image prompt, 0 (words only) to 1 (mostly the image).
        strength: None starts from noise; a number from the image, noised to that share, which keeps its layout.
    """

    model: str = SD15
    adapter: str = "h94/IP-Adapter"
    adapter_subfolder: str = "models"
    adapter_weights: str = "ip-adapter_sd15.safetensors"
    image_encoder: str = "image_encoder"
    adapter_revision: str | None = None
    scale: float = Field(0.6, ge=0, le=2)
    strength: float | None = Field(None, gt=0, le=1)


class IPAdapterTranslator(DiffusionTranslator):
    r"""IP-Adapter (Ye et al. 2023): each cross-attention layer also attends to the image's CLIP tokens,

    \(Z = \mathrm{Attn}(Q, K_{text}, V_{text}) + scale \cdot \mathrm{Attn}(Q, K_{image}, V_{image})\).

    It keeps what ELITE is for (an image's content as something words can be put around), and diffusers maintains it.

    Example:
        >>> settings = IPAdapterSettings(model="sd15/", adapter="adapter/")                     # doctest: +SKIP
        >>> resolved, _ = IPAdapterTranslator.resolve(settings, Samples(target_domain="sketch"))  # doctest: +SKIP
        >>> IPAdapterTranslator(resolved).translate([photo], [7], [None])[0].size               # doctest: +SKIP
        (512, 512)
    """

    name: ClassVar[str] = "ip-adapter"
    settings_type: ClassVar[type[TranslatorSettings]] = IPAdapterSettings
    places: ClassVar[tuple[str, ...]] = ("model", "adapter")

    @classmethod
    def check(cls, settings: Any) -> None:
        """Attention slicing would take the adapter's layers out again."""
        super().check(settings)
        if settings.attention_slicing:
            raise IsthmusError(
                "attention_slicing=true replaces the IP-Adapter's layers: save memory with vae_slicing or cpu_offload."
            )

    @classmethod
    def identity(cls, settings: Any, folder: Path) -> str:
        """Of model, adapter and image encoder."""
        return fingerprint([model_identity(folder, settings.variant), _adapter(settings).identity])

    @classmethod
    def load(cls, settings: Any, folder: Path) -> Any:
        """A text-to-image pipeline (image-to-image with `strength`) with the adapter in its UNet.

        Raises:
            IsthmusError: the adapter is none, or for another model.
        """
        takes, latent = unet_channels(folder)
        if takes != latent:
            raise IsthmusError(
                f"{settings.model} has no plain UNet: IP-Adapter needs SD 1.5, SDXL or a model made of them."
            )
        kind = "AutoPipelineForText2Image" if settings.strength is None else "AutoPipelineForImage2Image"
        pipeline = load_pipeline(settings, settings.pipeline or kind, folder)
        if "ip_adapter_image_embeds" not in call_arguments(pipeline):
            raise IsthmusError(f"{type(pipeline).__name__} takes no IP-Adapter: choose another model or pipeline.")
        adapter = _adapter(settings)
        state = read_adapter(adapter.file)
        with explain_loading(f"the image encoder in {adapter.encoder}"), quiet():
            pipeline.register_modules(image_encoder=_image_encoder(adapter.encoder, pipeline.dtype))
        check_adapter(state, pipeline.unet, pipeline.image_encoder, adapter.file)
        with explain_loading(f"the IP-Adapter {adapter.file}"), quiet():
            pipeline.load_ip_adapter(state, subfolder="", weight_name="")
        pipeline.set_ip_adapter_scale(settings.scale)
        # diffusers repeats the embeddings for each prompt of a batch: every picture would be made of all the images.
        pipeline.prepare_ip_adapter_image_embeds = _as_given
        return pipeline

    def image_arguments(self, pipeline: Any, squares: list[Image.Image]) -> dict[str, Any]:
        """The images as embeddings, one each: a list of pictures would be several prompts for one picture.

        `ip_adapter_image_embeds` is (2b, 1, d) with guidance, the images' after the unconditional ones, or (b, 1, d).
        """
        import torch
        from diffusers.models import ImageProjection

        projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        hidden = not isinstance(projection, ImageProjection)
        images, nothing = pipeline.encode_image(squares, pipeline._execution_device, 1, hidden)
        guided = (self.settings.guidance or 0) > 1 and pipeline.unet.config.time_cond_proj_dim is None
        embeds = torch.cat([nothing, images]) if guided else images
        starts = {"image": squares} if self.settings.strength is not None else {}
        return {**starts, "ip_adapter_image_embeds": [embeds[:, None]]}


def _as_given(image: Any, embeds: list[Any], device: Any, *others: Any) -> list[Any]:
    """In the place of a pipeline's preparation of image embeddings, which are ready already."""
    return [each.to(device) for each in embeds]


def _adapter(settings: Any) -> Adapter:
    return locate_adapter(
        settings.adapter,
        settings.adapter_subfolder,
        settings.adapter_weights,
        settings.image_encoder,
        revision=settings.adapter_revision,
        local=settings.local_files_only,
    )


def _image_encoder(folder: Path, dtype: Any) -> Any:
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection.from_pretrained(folder, torch_dtype=dtype, local_files_only=True).eval()
