"""ELITE's forward pass written out plainly from its formulae, in float64: what the translator is measured against.

Nothing here uses Isthmus, a scheduler or a model's own forward, but for the frame of the UNet, which diffusers runs
with `PlainCrossAttention` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]
LAYERS = 5


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ weights[f"{name}.weight"].double().T
    return y + weights[f"{name}.bias"].double() if f"{name}.bias" in weights else y


def layer_norm(weights: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + eps)
    return scaled * weights[f"{name}.weight"].double() + weights[f"{name}.bias"].double()


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """(b, n, inner), (b, m, inner), (b, m, inner) -> (b, n, inner), head by head and image by image."""
    out = torch.zeros_like(query)
    size = query.shape[-1] // heads
    for image in range(query.shape[0]):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[image, :, part] @ key[image, :, part].T * size**-0.5
            if causal:
                for row in range(scores.shape[0]):
                    scores[row, row + 1 :] = -torch.inf
            out[image, :, part] = torch.softmax(scores, dim=-1) @ value[image, :, part]
    return out


def clip_layers(
    weights: Weights, prefix: str, x: Tensor, config: Any, act: Callable[[Tensor], Tensor], causal: bool
) -> list[Tensor]:
    """What enters the first layer, and what each layer puts out."""
    states = [x]
    for number in range(config.num_hidden_layers):
        name = f"{prefix}encoder.layers.{number}"
        y = layer_norm(weights, f"{name}.layer_norm1", x, config.layer_norm_eps)
        query, key, value = (linear(weights, f"{name}.self_attn.{part}_proj", y) for part in "qkv")
        x = x + linear(
            weights, f"{name}.self_attn.out_proj", attend(query, key, value, config.num_attention_heads, causal)
        )
        y = layer_norm(weights, f"{name}.layer_norm2", x, config.layer_norm_eps)
        x = x + linear(weights, f"{name}.mlp.fc2", act(linear(weights, f"{name}.mlp.fc1", y)))
        states.append(x)
    return states


def activation(name: str) -> Callable[[Tensor], Tensor]:
    return {"gelu": F.gelu, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}[name]


def image_tokens(weights: Weights, prefix: str, config: Any, pixels: Tensor) -> list[Tensor]:
    """Last hidden state, then hidden states 4, 8, 12, 16 of CLIP's image encoder; each (b, 1 + patches, width)."""
    side = config.patch_size
    kernel = weights[f"{prefix}embeddings.patch_embedding.weight"].double()  # (width, 3, side, side)
    rows = []
    for image in pixels.double():
        tokens = [weights[f"{prefix}embeddings.class_embedding"].double()]
        for top in range(0, image.shape[1], side):
            for left in range(0, image.shape[2], side):
                tokens.append((kernel * image[:, top : top + side, left : left + side]).sum(dim=(1, 2, 3)))
        rows.append(torch.stack(tokens))
    x = torch.stack(rows) + weights[f"{prefix}embeddings.position_embedding.weight"].double()
    x = layer_norm(weights, f"{prefix}pre_layrnorm", x, config.layer_norm_eps)
    states = clip_layers(weights, prefix, x, config, activation(config.hidden_act), causal=False)
    return [states[-1], states[4], states[8], states[12], states[16]]


def mapped_words(mapper: Weights, tokens: Sequence[Tensor]) -> Tensor:
    """(b, 5, words) from the tokens of five layers."""

    def mlp(name: str, x: Tensor) -> Tensor:
        for place in (0, 3):
            x = layer_norm(mapper, f"{name}.{place + 1}", linear(mapper, f"{name}.{place}", x))
            x = torch.where(x > 0, x, 0.01 * x)
        return linear(mapper, f"{name}.6", x)

    words = []
    for i in range(LAYERS):
        whole = mlp(f"mapping_{i}", tokens[i][:, 0])
        patches = [mlp(f"mapping_patch_{i}", tokens[i][:, j]) for j in range(1, tokens[i].shape[1])]
        words.append(whole + sum(patches) / len(patches))
    return torch.stack(words, dim=1)


def text_states(
    weights: Weights, prefix: str, config: Any, ids: Tensor, words: Tensor | None = None, index: int = 0
) -> Tensor:
    """(b, 77, width) from (b, 77) ids; with `words` (b, n, width) at position `index`, and the rest behind them."""
    embedded = weights[f"{prefix}embeddings.token_embedding.weight"].double()[ids]  # (b, 77, width)
    if words is not None:
        count = words.shape[1]
        moved = embedded.clone()
        for image in range(len(ids)):
            rest = moved[image, index + count :].shape[0]
            moved[image, index + count :] = embedded[image, index + 1 : index + 1 + rest]
            moved[image, index : index + count] = words[image]
        embedded = moved
    x = embedded + weights[f"{prefix}embeddings.position_embedding.weight"].double()
    states = clip_layers(weights, prefix, x, config, activation(config.hidden_act), causal=True)
    return layer_norm(weights, f"{prefix}final_layer_norm", states[-1], config.layer_norm_eps)


def cross_attention(unet: Weights, mapper: Weights, name: str, heads: int, x: Tensor, text: Tensor) -> Tensor:
    """One cross attention with the mapper's keys and values: (b, n, inner), (b, 77, words) -> (b, n, inner)."""
    key = linear(mapper, f"{name.replace('.', '_')}_to_k", text)
    value = linear(mapper, f"{name.replace('.', '_')}_to_v", text)
    return linear(unet, f"{name}.to_out.0", attend(linear(unet, f"{name}.to_q", x), key, value, heads))


class PlainCrossAttention:
    """`cross_attention` in the place of a diffusers attention processor, for a UNet in float64."""

    def __init__(self, unet: Weights, mapper: Weights, name: str) -> None:
        self.unet, self.mapper, self.name = unet, mapper, name

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **more: Any) -> Tensor:
        return cross_attention(self.unet, self.mapper, self.name, attn.heads, hidden_states, encoder_hidden_states)


def lms_schedule(steps: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Time steps (steps) and noise levels (steps + 1) of Stable Diffusion 1 under LMS."""
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - beta)
    times = np.linspace(0, 999, steps)[::-1]
    levels = np.interp(times, np.arange(1000), np.sqrt((1 - kept) / kept))
    return times, np.append(levels, 0.0)


def lms_weight(levels: np.ndarray[Any, Any], step: int, back: int, order: int) -> float:
    """The integral over the step of the Lagrange polynomial that is 1 at the level `back` steps ago."""
    polynomial = np.poly1d([1.0])
    for other in range(order):
        if other != back:
            root = levels[step - other]
            polynomial = polynomial * np.poly1d([1.0, -root]) / (levels[step - back] - root)
    integral = polynomial.integ()
    return float(integral(levels[step + 1]) - integral(levels[step]))


def denoise(
    unet: Callable[[Tensor, float, Tensor], Tensor],
    noise: Tensor, text: Tensor, empty: Tensor, steps: int, guidance: float,
) -> Tensor:  # fmt: skip
    """Linear multistep of order 4 with classifier-free guidance: standard normal noise -> latents."""
    times, levels = lms_schedule(steps)
    x = noise.double() * levels.max()
    slopes: list[Tensor] = []
    for step in range(steps):
        scaled = x / np.sqrt(levels[step] ** 2 + 1)
        with_image, without = (unet(scaled, float(times[step]), context) for context in (text, empty))
        slopes.append(without + guidance * (with_image - without))
        order = min(step + 1, 4)
        x = x + sum(lms_weight(levels, step, back, order) * slopes[-1 - back] for back in range(order))
    return x
