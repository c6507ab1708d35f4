"""The UNet's cross attention with ELITE's keys and values.

With x the picture's tokens (b, n, inner), t the text's (b, 77, words) and d the width of a head:

    attention(x, t) = softmax(W_q x (W_k' t)^T / sqrt(d)) W_v' t

where W_k' and W_v' come from the mapper file. They take the place of the UNet's own for both branches of the guidance,
so the projections of the attention modules are exchanged, and diffusers' attention processors run as they are. An own
processor would compute the same, but slicing, `set_attn_processor` and every other choice of processor would drop it
without a word, and with it the mapper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from isthmus.errors import IsthmusError


def cross_attentions(unet: Any) -> dict[str, Any]:
    """The attention modules of `unet` that look at the text, by name, in the order of `named_modules`.

    Args:
        unet: a `UNet2DConditionModel`; may be on `meta`.

    Raises:
        IsthmusError: there is none.
    """
    # A processor's name is that of its attention module with `.processor` behind it; `attn1` looks at the picture.
    names = [name.rpartition(".")[0] for name in getattr(unet, "attn_processors", {})]
    found = {name: unet.get_submodule(name) for name in names if "attn1" not in name}
    if not found:
        raise IsthmusError(
            f"ELITE needs a UNet with cross attention, and {type(unet).__name__} has none: "
            "set model to Stable Diffusion 1.4."
        )
    return found


def exchange_projections(
    attention: Mapping[str, Any], keys: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]
) -> None:
    """Give each cross attention the projections of the mapper file, in its own precision and place.

    Args:
        attention: modules by name, as of `cross_attentions`.
        keys, values: weights (inner width, words) by the same names.

    Example:
        >>> exchange_projections(cross_attentions(unet), mapper.keys, mapper.values)  # doctest: +SKIP
    """
    with torch.no_grad():
        for name, module in attention.items():
            module.to_k.weight.copy_(keys[name])
            module.to_v.weight.copy_(values[name])
