"""ELITE's global mapper: what an image shows, as words for a text encoder, and the keys and values that read them.

Paper: "ELITE: Encoding Visual Concepts into Textual Embeddings for Customized Text-to-Image Generation",
arXiv 2302.13848, section 3.1. The published file `global_mapper.pt` is read by its own names:

- `mapping_<i>.*` and `mapping_patch_<i>.*`, i = 0 to 4: an MLP each for the CLS token and for the patches of one layer
  of the image encoder;
- `<module>_to_k.weight` and `<module>_to_v.weight`: for each cross attention of the UNet, named with `_` for `.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isthmus.errors import IsthmusError

# Layers of the image encoder, in the order of the words: -1 is the last, n > 0 the output of the n-th.
LAYERS = (-1, 4, 8, 12, 16)
HIDDEN = 1024  # width of the published MLPs
Shapes = dict[str, tuple[int, ...]]


class ConceptMapper(nn.Module):
    """Image features to word embeddings.

    With c_i the CLS token and p_ij the j-th of m patch tokens of layer `LAYERS[i]`:

        w_i = M_i(c_i) + 1/m sum_j P_i(p_ij)

    M_i and P_i: three linear layers, with LayerNorm and LeakyReLU after the first two. w_0 is the word of the concept,
    the others take up what does not belong to it.

    Args:
        features: width of the image encoder's tokens; 1024 for CLIP ViT-L/14.
        words: width of the text encoder's word embeddings; 768 for Stable Diffusion 1.
        hidden: width of the MLPs.

    Example:
        >>> mapper = ConceptMapper(8, 4, 6)
        >>> mapper([torch.zeros(2, 5, 8)] * 5).shape
        torch.Size([2, 5, 4])
    """

    def __init__(self, features: int = 1024, words: int = 768, hidden: int = HIDDEN) -> None:
        super().__init__()
        for i in range(len(LAYERS)):
            self.add_module(f"mapping_{i}", _mlp(features, hidden, words))
            self.add_module(f"mapping_patch_{i}", _mlp(features, hidden, words))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Word embeddings (b, 5, words) from the tokens (b, 1 + patches, features) of each layer of `LAYERS`."""
        words = []
        for i, tokens in enumerate(features):
            whole = self.get_submodule(f"mapping_{i}")(tokens[:, :1])  # (b, 1, words)
            patches = self.get_submodule(f"mapping_patch_{i}")(tokens[:, 1:])  # (b, patches, words)
            words.append(whole + patches.mean(dim=1, keepdim=True))
        return torch.cat(words, dim=1)


def _mlp(features: int, hidden: int, words: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(),
        nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(),
        nn.Linear(hidden, words),
    )  # fmt: skip


@dataclass(frozen=True)
class GlobalMapper:
    """A mapper file, read and found to fit.

    Attributes:
        concept: image features to words, in evaluation mode, float32 on the CPU.
        keys, values: name of a UNet's cross attention -> weight (inner width, words).
    """

    concept: ConceptMapper
    keys: Mapping[str, torch.Tensor]
    values: Mapping[str, torch.Tensor]


def mapper_shapes(attention: Mapping[str, Any], features: int = 1024, words: int = 768, hidden: int = HIDDEN) -> Shapes:
    """Names and shapes of all tensors in a mapper file.

    Args:
        attention: the cross attentions of a UNet by name, as of `elite_attention.cross_attentions`; may be on `meta`.
        features, words, hidden: as of `ConceptMapper`.

    Example:
        >>> mapper_shapes({}, 8, 4, 6)["mapping_patch_4.6.weight"]
        (4, 6)
    """
    with torch.device("meta"):
        state = ConceptMapper(features, words, hidden).state_dict()
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, module in attention.items():
        shapes[f"{file_name(name)}_to_k.weight"] = tuple(module.to_k.weight.shape)
        shapes[f"{file_name(name)}_to_v.weight"] = tuple(module.to_v.weight.shape)
    return shapes


def file_name(module: str) -> str:
    """The name that a module of the UNet has in the mapper file.

    Example:
        >>> file_name("mid_block.attentions.0.transformer_blocks.0.attn2")
        'mid_block_attentions_0_transformer_blocks_0_attn2'
    """
    return module.replace(".", "_")


def read_mapper(path: str | Path, attention: Mapping[str, Any], features: int, words: int) -> GlobalMapper:
    """Read `global_mapper.pt` (or the same as `.safetensors`); code in the file is never run.

    Args:
        path: the file.
        attention: the cross attentions of the UNet by name.
        features: width of the image encoder's tokens.
        words: width of the text encoder's word embeddings.

    Raises:
        IsthmusError: there is no such file, it can't be read, or it does not fit these models.
    """
    from isthmus.models.backbones import read_weights

    state = read_weights(mapper_path(path))
    first = state.get("mapping_0.0.weight")
    # Another hidden width is fine; whether all tensors agree with it is checked below.
    hidden = int(first.shape[0]) if first is not None and first.ndim == 2 else HIDDEN
    _check(state, mapper_shapes(attention, features, words, hidden), path)
    with torch.device("meta"):  # 29 million random numbers less
        concept = ConceptMapper(features, words, hidden)
    concept.load_state_dict({name: state[name].float() for name in concept.state_dict()}, assign=True)
    return GlobalMapper(
        concept.eval().requires_grad_(False),
        {name: state[f"{file_name(name)}_to_k.weight"] for name in attention},
        {name: state[f"{file_name(name)}_to_v.weight"] for name in attention},
    )


def mapper_path(path: str | Path) -> Path:
    """`path`, if there is a file."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise IsthmusError(
            f"Setting 'mapper': there is no file {path}; set it to ELITE's global_mapper.pt, which its authors publish."
        )
    return file


def _check(state: Mapping[str, torch.Tensor], expected: Shapes, path: str | Path) -> None:
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    shaped = [name for name in expected if name in state and tuple(state[name].shape) != expected[name]]
    faults = [
        f"{len(names)} tensor{'s' if len(names) > 1 else ''} {what}, such as {names[0]}{detail}"
        for what, names, detail in (
            ("missing", missing, ""),
            ("unknown", unknown, ""),
            (
                "of another shape", shaped,
                f" with {tuple(state[shaped[0]].shape)} for {expected[shaped[0]]}" if shaped else "",
            ),
        )
        if names
    ]  # fmt: skip
    if faults:
        raise IsthmusError(
            f"Setting 'mapper': {path} is no global mapper of ELITE for these models ({'; '.join(faults)}); it needs "
            "the file global_mapper.pt together with the Stable Diffusion 1.4 and the CLIP ViT-L/14 it was made for."
        )
    broken = next((name for name in expected if not bool(torch.isfinite(state[name]).all())), None)
    if broken is not None:
        raise IsthmusError(f"Setting 'mapper': {path} holds numbers that are not finite in {broken}; fetch it again.")
