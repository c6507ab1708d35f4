"""Image features for ELITE: the tokens of five layers of CLIP's image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.io import read_json
from isthmus.translate.diffusion.elite_mapper import LAYERS
from isthmus.translate.diffusion.explain import explain_loading, need_diffusers
from isthmus.translate.diffusion.pipeline import quiet
from isthmus.translate.diffusion.weights import looks_like_path

# CLIP's own, also where a folder has no preprocessor_config.json: the published code writes them out.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the first kind that is there is read
MEND = "set it to a folder or hub id of CLIP ViT-L/14, such as openai/clip-vit-large-patch14"


def locate_clip(source: str, local_files_only: bool = False) -> Path:
    """The folder of a CLIP; the files of a hub id are downloaded first, the weights once, as safetensors if there are.

    Raises:
        IsthmusError: no such folder or hub id, or no weights in it.
    """
    need_diffusers()
    folder = Path(source).expanduser()
    if not folder.exists():
        if looks_like_path(source):
            raise IsthmusError(f"Setting 'clip': there is no folder {source}; {MEND}.")
        from huggingface_hub import snapshot_download

        with explain_loading(f"clip {source!r}"), quiet():
            for weights in WEIGHTS:
                patterns = ["config.json", weights, f"{weights}.index.json"]
                found = snapshot_download(source, allow_patterns=patterns, local_files_only=local_files_only)
                folder = Path(found)
                if any(folder.glob(weights)):
                    break
    if not (folder / "config.json").is_file() or not clip_files(folder):
        raise IsthmusError(f"Setting 'clip': {source} holds no config.json with weights beside it; {MEND}.")
    return folder


def clip_files(folder: Path) -> list[Path]:
    """The files that decide what CLIP sees: its description and its weights; empty where there are no weights."""
    for weights in WEIGHTS:
        found = sorted(path for path in folder.glob(weights) if path.is_file())
        if found:
            return [folder / "config.json", *found]
    return []


def load_image_encoder(folder: Path, device: str, dtype: torch.dtype) -> Any:
    """CLIP's image encoder, ready to work.

    Args:
        folder: of a whole CLIP, or of its vision part with or without projection.
        device, dtype: where and how it works.

    Raises:
        IsthmusError: no CLIP, weights missing, or too few layers.
    """
    need_diffusers()
    from transformers import CLIPVisionModel

    said = str((read_json(folder / "config.json") or {}).get("model_type", "nothing"))
    if said not in ("clip", "clip_vision_model"):
        raise IsthmusError(f"Setting 'clip': {folder} is a model of type {said}; {MEND}.")
    # Half of a whole CLIP is not asked for: no table of the tensors that were left in the file.
    with explain_loading(f"the CLIP folder {folder}"), quiet():
        model, report = CLIPVisionModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would go on with random numbers in their place.
        raise IsthmusError(
            f"Setting 'clip': {folder} holds no whole CLIP image encoder, {len(missing)} tensors are missing, such as "
            f"{missing[0]}; {MEND}."
        )
    if model.config.num_hidden_layers < max(LAYERS):
        raise IsthmusError(
            f"Setting 'clip': {folder} has {model.config.num_hidden_layers} layers, and ELITE reads layer "
            f"{max(LAYERS)}; {MEND}."
        )
    return model.to(device, dtype).eval().requires_grad_(False)


def to_pixels(images: Sequence[Image.Image], side: int) -> torch.Tensor:
    """RGB images as CLIP sees them in ELITE: the whole image squeezed to a square (bicubic), not its centre.

    Returns:
        (b, 3, side, side), normalised with CLIP's mean and standard deviation.
    """
    squares = [np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255  # (b, 3, side, side)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def image_features(encoder: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The tokens of each layer of `LAYERS`: (b, 1 + patches, width), CLS first, without the closing LayerNorm.

    Args:
        encoder: a `CLIPVisionModel`.
        pixels: (b, 3, side, side), as of `to_pixels`.
    """
    output = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True)
    # hidden_states[0] is what enters the first layer, so that [n] is what the n-th puts out.
    return [output.last_hidden_state if layer < 0 else output.hidden_states[layer] for layer in LAYERS]
