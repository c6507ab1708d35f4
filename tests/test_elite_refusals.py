"""ELITE refuses what will not do with one sentence, before a run is begun."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusion_zoo
import pytest
import torch
from elite_zoo import World, cross_attention_widths, make_world, mapper_state
from safetensors.torch import load_file, save_file

from isthmus.errors import IsthmusError, MissingExtraError
from isthmus.translate.base import Samples, choose


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("elite"))


def _no_mapper(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"mapper": None}


def _lost_mapper(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"mapper": str(tmp_path / "lost.pt")}


def _mapper_for_another_clip(world: World, tmp_path: Path) -> dict[str, Any]:
    torch.save(mapper_state(cross_attention_widths(), features=48), tmp_path / "wide.pt")
    return {"mapper": str(tmp_path / "wide.pt")}


def _shallow_clip(world: World, tmp_path: Path) -> dict[str, Any]:
    diffusion_zoo.image_encoder(layers=4).save_pretrained(tmp_path / "shallow")
    return {"clip": str(tmp_path / "shallow")}


def _text_for_clip(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"clip": str(world.model / "text_encoder")}


def _vae_for_clip(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"clip": str(world.model / "vae")}


def _clip_without_weights(world: World, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((world.clip / "config.json").read_bytes())
    return {"clip": str(tmp_path / "bare")}


def _clip_that_lacks_a_layer(world: World, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_bytes((world.clip / "config.json").read_bytes())
    weights = load_file(world.clip / "model.safetensors")
    del weights["vision_model.encoder.layers.9.mlp.fc1.weight"]
    save_file(weights, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    return {"clip": str(tmp_path / "torn")}


def _instruct_model(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"model": str(diffusion_zoo.save_instruct(tmp_path / "instruct"))}


def _sdxl_model(world: World, tmp_path: Path) -> dict[str, Any]:
    return {"model": str(diffusion_zoo.save_sdxl(tmp_path / "sdxl"))}


def _with(**settings: Any) -> Callable[[World, Path], dict[str, Any]]:
    return lambda world, tmp_path: settings


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_no_mapper, "needs its trained mapper"),
        (_lost_mapper, r"there is no file .*lost\.pt"),
        (_mapper_for_another_clip, r"mapping_0\.0\.weight with \(24, 48\) for \(24, 32\)"),
        (_shallow_clip, "has 4 layers, and ELITE reads layer 16"),
        (_text_for_clip, "is a model of type clip_text_model"),
        (_vae_for_clip, "no config.json with weights beside it"),
        (_clip_without_weights, "no config.json with weights beside it"),
        (_clip_that_lacks_a_layer, r"1 tensors are missing, such as .*layers\.9\.mlp\.fc1\.weight"),
        (_instruct_model, "its UNet takes 8 channels instead of 4"),
        (_sdxl_model, "no Stable Diffusion with one text encoder"),
        (_with(clip="./lost"), r"there is no folder \./lost"),
        (_with(prompt="A painting of a dog"), "does not name the placeholder 'S'"),
        (_with(prompt="A painting of 'S'"), "put a space there"),
        (_with(prompt=80 * "a " + "S"), "too long"),
        (_with(token_index=5), "it is 0 to 4, or full"),
        (_with(token_index="last"), "Setting 'token_index"),
        (_with(placeholder="a b"), "Setting 'placeholder'"),
        (_with(pipeline="StableDiffusionImg2ImgPipeline"), "leave the setting pipeline out"),
        (_with(mapper_sha256="00"), "mapper_sha256=00"),
    ],
)
def test_what_will_not_do_is_one_sentence_before_the_run(
    world: World, tmp_path: Path, change: Callable[[World, Path], dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(IsthmusError, match=sentence) as caught:
        choose("elite", world.settings(**change(world, tmp_path)), Samples(target_domain="painting"))
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "diffusers" else real(name, *rest)
    )
    with pytest.raises(MissingExtraError, match=r"isthmus\[diffusion\]"):
        choose("elite", world.settings(), Samples(target_domain="painting"))
