"""A tiny world for ELITE: Stable Diffusion, CLIP and a mapper file with the published names; random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusion_zoo
import torch
from torch import Tensor

HIDDEN = 24  # width of the mapper's MLPs


@dataclass(frozen=True)
class World:
    """Files as a person has them."""

    model: Path
    clip: Path
    mapper: Path

    def settings(self, **more: Any) -> dict[str, Any]:
        """Settings for a run of moments on the CPU."""
        return {
            "model": str(self.model), "clip": str(self.clip), "mapper": str(self.mapper), "steps": 3, "size": 64,
            "batch_size": 3, "device": "cpu", "dtype": "float32", "prompt": "A painting of a S", **more,
        }  # fmt: skip


def make_world(folder: Path) -> World:
    """Write all of it to `folder`."""
    model = diffusion_zoo.save_sd(folder / "sd")
    diffusion_zoo.image_encoder(seed=7, layers=17).save_pretrained(folder / "clip")
    torch.save(mapper_state(cross_attention_widths()), folder / "global_mapper.pt")
    return World(model, folder / "clip", folder / "global_mapper.pt")


def cross_attention_widths() -> dict[str, int]:
    """Cross attentions of the zoo's UNet in the mapper's spelling, written by hand, with their inner width."""
    return {
        "down_blocks_1_attentions_0_transformer_blocks_0_attn2": 8,
        "up_blocks_0_attentions_0_transformer_blocks_0_attn2": 8,
        "up_blocks_0_attentions_1_transformer_blocks_0_attn2": 8,
        "mid_block_attentions_0_transformer_blocks_0_attn2": 8,
    }


def mapper_state(
    widths: dict[str, int], features: int = diffusion_zoo.TEXT, words: int = diffusion_zoo.TEXT, seed: int = 0
) -> dict[str, Tensor]:
    """Random tensors under the names of `global_mapper.pt`, large enough for every layer to be seen in the picture."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    state: dict[str, Tensor] = {}
    for i in range(5):
        for name in (f"mapping_{i}", f"mapping_patch_{i}"):
            for place, wide, narrow in ((0, HIDDEN, features), (3, HIDDEN, HIDDEN), (6, words, HIDDEN)):
                state[f"{name}.{place}.weight"] = draw(wide, narrow) / narrow**0.5
                state[f"{name}.{place}.bias"] = draw(wide) / 4
            for place in (1, 4):
                state[f"{name}.{place}.weight"] = 1 + draw(HIDDEN) / 4
                state[f"{name}.{place}.bias"] = draw(HIDDEN) / 4
    for name, width in widths.items():
        for part in "kv":
            state[f"{name}_to_{part}.weight"] = draw(width, words) / words**0.5
    return state
