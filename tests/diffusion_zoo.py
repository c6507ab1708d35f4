"""Tiny diffusion pipelines with random weights, saved to a folder as `from_pretrained` reads them.

Everything is made from small configs and a seed; nothing is downloaded. A forward pass takes milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isthmus.runtime import prepare_torchvision

prepare_torchvision()

TEXT = 32  # width of the tiny text encoders
TOKENS = 77


def tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer that knows every byte and no merges: a letter is a token; ids 512 and 513 are start and end."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    vocab = {letter: i for i, letter in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    vocab["<|startoftext|>"] = len(vocab)
    vocab["<|endoftext|>"] = len(vocab)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)


def _byte_letters() -> list[str]:
    """The printable stand-in of each byte, as byte-level BPE writes them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in plain]
    return letters + [chr(256 + i) for i in range(256 - len(plain))]


def text_encoder(seed: int = 0, width: int = TEXT, projection: bool = False) -> Any:
    """A two-layer CLIP text model, output (b, 77, width)."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=width + 5, num_attention_heads=4, num_hidden_layers=2,
        max_position_embeddings=TOKENS, bos_token_id=512, eos_token_id=513, pad_token_id=1, projection_dim=width,
        hidden_act="gelu",
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def image_encoder(seed: int = 0, width: int = TEXT, layers: int = 4) -> Any:
    """A CLIP vision model with projection for 32-pixel pictures: 4 patches and CLS, `layers` layers of `width`."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=width, projection_dim=width, intermediate_size=width + 5, num_attention_heads=4,
        num_hidden_layers=layers, image_size=32, patch_size=16,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def image_processor() -> Any:
    """CLIP's picture preparation for 32 pixels."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def unet(seed: int = 0, channels: int = 4, context: int = TEXT, **more: Any) -> Any:
    """A UNet of two levels, one with cross attention: (b, channels, h, w) -> (b, 4, h, w)."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "block_out_channels": (4, 8), "layers_per_block": 1, "sample_size": 16, "in_channels": channels,
        "out_channels": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": context,
        "attention_head_dim": 2, "norm_num_groups": 2,
    }  # fmt: skip
    return UNet2DConditionModel(**{**settings, **more}).eval()


def vae(seed: int = 0) -> Any:
    """A VAE that shrinks by 8, as the real ones do: (b, 3, h, w) <-> (b, 4, h/8, w/8)."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2,
    ).eval()  # fmt: skip


def scheduler() -> Any:
    """PNDM as Stable Diffusion 1 has it."""
    from diffusers import PNDMScheduler

    return PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )


def sd_parts(folder: Path, seed: int = 0, channels: int = 4) -> dict[str, Any]:
    """The parts of a tiny Stable Diffusion 1; `folder` keeps the tokenizer's files."""
    return {
        "unet": unet(seed, channels), "vae": vae(seed + 1), "text_encoder": text_encoder(seed + 2),
        "tokenizer": tokenizer(folder), "scheduler": scheduler(), "safety_checker": None, "feature_extractor": None,
    }  # fmt: skip


def save_sd(folder: Path, seed: int = 0) -> Path:
    """A tiny Stable Diffusion 1 (text to image, image to image) in `folder`."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(**sd_parts(folder / "tokenizer", seed), requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    return folder


def save_instruct(folder: Path, seed: int = 0) -> Path:
    """A tiny InstructPix2Pix in `folder`: its UNet takes 8 channels."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    parts = sd_parts(folder / "tokenizer", seed, channels=8)
    StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def sdxl_parts(folder: Path, seed: int = 0, channels: int = 4) -> dict[str, Any]:
    """The parts of a tiny Stable Diffusion XL."""
    from diffusers import EulerDiscreteScheduler

    return {
        "unet": unet(
            seed, channels, context=2 * TEXT, transformer_layers_per_block=(1, 2), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            # Six sizes (base) or five with an aesthetic score (refiner) of 8 numbers each, and the pooled text.
            projection_class_embeddings_input_dim=6 * 8 + TEXT,
        ),
        "vae": vae(seed + 1), "scheduler": EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        "text_encoder": text_encoder(seed + 2), "tokenizer": tokenizer(folder / "tokenizer"),
        "text_encoder_2": text_encoder(seed + 3, projection=True), "tokenizer_2": tokenizer(folder / "tokenizer_2"),
    }  # fmt: skip


def save_sdxl(folder: Path, seed: int = 0) -> Path:
    """A tiny Stable Diffusion XL in `folder`."""
    from diffusers import StableDiffusionXLPipeline

    StableDiffusionXLPipeline(**sdxl_parts(folder, seed), add_watermarker=False).save_pretrained(folder)
    return folder


def save_sdxl_instruct(folder: Path, seed: int = 0) -> Path:
    """A tiny InstructPix2Pix on SDXL in `folder`."""
    from diffusers import StableDiffusionXLInstructPix2PixPipeline

    parts = sdxl_parts(folder, seed, channels=8)
    StableDiffusionXLInstructPix2PixPipeline(**parts, add_watermarker=False).save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path, model: Any, seed: int = 0) -> Path:
    """An IP-Adapter for `model` (a tiny UNet) in `folder/models`, with its image encoder beside it, as published.

    Keys: `image_proj.proj`, `image_proj.norm`, `ip_adapter.<odd number>.to_k_ip|to_v_ip.weight`, a number for each
    cross-attention layer in the order of the UNet's attention processors.
    """
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    width, tokens = model.config.cross_attention_dim, 4
    state = {
        "image_proj.proj.weight": torch.randn(tokens * width, TEXT) / 4,
        "image_proj.proj.bias": torch.zeros(tokens * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    number = 1
    weights = model.state_dict()
    for name in model.attn_processors:
        if name.endswith("attn2.processor"):
            inner = weights[name.replace(".processor", ".to_k.weight")].shape[0]
            state[f"ip_adapter.{number}.to_k_ip.weight"] = torch.randn(inner, width) / 2
            state[f"ip_adapter.{number}.to_v_ip.weight"] = torch.randn(inner, width) / 2
            number += 2
    (folder / "models").mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "models" / "ip-adapter_sd15.safetensors")
    image_encoder(seed + 1).save_pretrained(folder / "models" / "image_encoder")
    return folder


def pictures(count: int, seed: int = 0, width: int = 80, height: int = 64) -> list[Image.Image]:
    """Coloured ellipses on coloured ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    made = []
    for _ in range(count):
        shape = ((y - height / 2) / rng.uniform(8, 28)) ** 2 + ((x - width / 2) / rng.uniform(8, 35)) ** 2 < 1
        pixels = np.where(shape[..., None], rng.integers(0, 120, 3), rng.integers(140, 255, 3))
        made.append(Image.fromarray((pixels + rng.integers(-9, 9, pixels.shape)).clip(0, 255).astype(np.uint8)))
    return made


def save_checked_sd(folder: Path, seed: int = 0) -> Path:
    """A tiny Stable Diffusion 1 in `folder` whose safety checker flags every picture."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    parts = sd_parts(folder / "tokenizer", seed)
    torch.manual_seed(seed)
    vision = image_encoder().config
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision.to_dict(), projection_dim=TEXT))
    checker.concept_embeds_weights.data.fill_(-2.0)  # thresholds below every cosine
    parts |= {"safety_checker": checker.eval(), "feature_extractor": image_processor()}
    StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder
