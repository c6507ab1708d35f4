"""The mapper file: names and shapes of the full-size one, and one sentence for each file that will not do."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import diffusion_zoo
import elite_zoo
import pytest
import torch
from safetensors.torch import save_file

from isthmus.errors import IsthmusError
from isthmus.translate.diffusion.elite_attention import cross_attentions
from isthmus.translate.diffusion.elite_mapper import mapper_shapes, read_mapper

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def attention() -> dict[str, Any]:
    return cross_attentions(diffusion_zoo.unet())


@pytest.fixture
def state() -> State:
    return elite_zoo.mapper_state(elite_zoo.cross_attention_widths())


def published_shapes() -> dict[str, tuple[int, ...]]:
    """What `global_mapper.pt` for Stable Diffusion 1.4 and CLIP ViT-L/14 holds, from the public training code."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(5):
        for name in (f"mapping_{i}", f"mapping_patch_{i}"):
            for place in (0, 1, 3, 4):
                shapes[f"{name}.{place}.weight"] = (1024,) if place in (1, 4) else (1024, 1024)
                shapes[f"{name}.{place}.bias"] = (1024,)
            shapes[f"{name}.6.weight"], shapes[f"{name}.6.bias"] = (768, 1024), (768,)
    widths = {
        **{f"down_blocks_{block}_attentions_{i}": 320 * 2**block for block in (0, 1, 2) for i in (0, 1)},
        **{f"up_blocks_{block}_attentions_{i}": 320 * 2 ** (3 - block) for block in (1, 2, 3) for i in (0, 1, 2)},
        "mid_block_attentions_0": 1280,
    }
    for name, width in widths.items():
        for part in ("to_k", "to_v"):
            shapes[f"{name}_transformer_blocks_0_attn2_{part}.weight"] = (width, 768)
    return shapes


def test_names_and_shapes_for_stable_diffusion_1_4_are_the_published_ones() -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):  # the config of Stable Diffusion 1.4's UNet
        unet = UNet2DConditionModel(
            sample_size=64, in_channels=4, out_channels=4, cross_attention_dim=768, attention_head_dim=8,
            block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, norm_num_groups=32,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        )  # fmt: skip
    shapes = mapper_shapes(cross_attentions(unet))
    assert shapes == published_shapes()
    assert len(shapes) == 100 + 32
    assert shapes["mid_block_attentions_0_transformer_blocks_0_attn2_to_v.weight"] == (1280, 768)


@pytest.mark.parametrize("name", ["global_mapper.pt", "global_mapper.safetensors"])
def test_both_kinds_of_file_are_read_by_name(
    attention: dict[str, Any], state: State, tmp_path: Path, name: str
) -> None:
    half = {key: tensor.half() for key, tensor in reversed(state.items())}
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(half, path)
    else:
        save_file(half, path)
    read = read_mapper(path, attention, 32, 32)
    weights = read.concept.state_dict()
    assert torch.equal(weights["mapping_patch_3.4.bias"], half["mapping_patch_3.4.bias"].float())
    assert len(weights) + len(read.keys) + len(read.values) == len(state)
    key = "up_blocks_0_attentions_1_transformer_blocks_0_attn2_to_v.weight"
    assert torch.equal(read.values["up_blocks.0.attentions.1.transformer_blocks.0.attn2"], half[key])
    assert not read.concept.training and not any(weight.requires_grad for weight in read.concept.parameters())


def _without_a_layer(state: State) -> None:
    for part in "kv":
        del state[f"mid_block_attentions_0_transformer_blocks_0_attn2_to_{part}.weight"]


def _of_another_width(state: State) -> None:
    state["mapping_0.6.weight"] = torch.zeros(48, elite_zoo.HIDDEN)


def _with_more(state: State) -> None:
    state["mapping_5.0.weight"] = torch.zeros(1)


def _not_finite(state: State) -> None:
    state["mapping_2.3.bias"][4] = torch.nan


def _something_else(state: State) -> None:
    state.clear()
    state["conv1.weight"] = torch.zeros(2, 3)


def _flat(state: State) -> None:
    state["mapping_0.0.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _without_a_layer,
            r"2 tensors missing, such as mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
        ),
        (_of_another_width, r"1 tensor of another shape, such as mapping_0.6.weight with \(48, 24\) for \(32, 24\)"),
        (_with_more, r"1 tensor unknown, such as mapping_5.0.weight"),
        (_not_finite, r"not finite in mapping_2.3.bias; fetch it again"),
        (_something_else, r"108 tensors missing, such as mapping_0.0.weight; 1 tensor unknown, such as conv1.weight"),
        (_flat, r"of another shape, such as mapping_0.0.weight"),
    ],
)
def test_another_mapper_file_is_one_sentence(
    attention: dict[str, Any], state: State, tmp_path: Path, change: Any, sentence: str
) -> None:
    change(state)
    torch.save(state, tmp_path / "mapper.pt")
    with pytest.raises(IsthmusError, match=sentence) as caught:
        read_mapper(tmp_path / "mapper.pt", attention, 32, 32)
    assert str(tmp_path / "mapper.pt") in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_with_code_is_never_run(attention: dict[str, Any], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"mapping_0.0.weight": Trap()}, tmp_path / "trap.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": Trap()}))
    (tmp_path / "words.pt").write_text("no weights at all")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("trap.pt", "pickle.pt", "words.pt", "empty.safetensors", "absent.pt", "."):
        with pytest.raises(IsthmusError) as caught:
            read_mapper(tmp_path / name, attention, 32, 32)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_unet_without_text_is_refused() -> None:
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(sample_size=16, block_out_channels=(4, 8), norm_num_groups=2, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip # noqa: E501
    with pytest.raises(IsthmusError, match="UNet2DModel has none: set model to"):
        cross_attentions(unet)
