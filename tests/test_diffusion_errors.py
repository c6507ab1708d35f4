"""Models, adapters and settings that don't fit: one sentence each, before any picture is made."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_zoo import save_instruct, save_ip_adapter, save_sd, unet
from safetensors.torch import load_file, save_file

from isthmus.errors import IsthmusError, MissingExtraError
from isthmus.translate.base import Samples, choose

SKETCH = Samples(target_domain="sketch")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd": save_sd(folder / "sd"),
        "instruct": save_instruct(folder / "instruct"),
        "adapter": save_ip_adapter(folder / "adapter", unet()),
    }


def _broken(models: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Model folders with something wrong."""
    made = {name: folder / name for name in ("no-unet", "no-weights", "no-index", "garbage", "strange")}
    for path in made.values():
        shutil.copytree(models["sd"], path)
    shutil.rmtree(made["no-unet"] / "unet")
    (made["no-weights"] / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (made["no-index"] / "model_index.json").unlink()
    (made["garbage"] / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no tensors at all")
    index = json.loads((made["strange"] / "model_index.json").read_text())
    (made["strange"] / "model_index.json").write_text(json.dumps({**index, "_class_name": "UnheardOfPipeline"}))
    (folder / "file.safetensors").write_bytes(b"x")
    return {**models, **made, "file": folder / "file.safetensors"}


@pytest.mark.parametrize(
    ("name", "model", "settings", "sentence"),
    [
        ("img2img", "no-unet", {}, "is incomplete: it has no folder unet"),
        ("img2img", "no-weights", {}, "is incomplete: vae has no weights"),
        ("img2img", "sd", {"variant": "fp16"}, "no weights of variant fp16"),
        ("img2img", "no-index", {}, "holds no model_index.json"),
        ("img2img", "garbage", {}, "Could not load the model folder"),
        ("img2img", "strange", {}, "no pipeline 'UnheardOfPipeline'"),
        ("img2img", "file", {}, "is a single file"),
        ("img2img", "instruct", {}, "InstructPix2Pix model: use --translator instruct-pix2pix"),
        ("instruct-pix2pix", "sd", {}, "UNet takes 4 channels instead of 8; use --translator img2img"),
        ("ip-adapter", "instruct", {}, "no plain UNet"),
        (
            "img2img",
            "sd",
            {"pipeline": "StableDifusionImg2ImgPipeline"},
            "come close: .*StableDiffusionImg2ImgPipeline",
        ),
        ("img2img", "sd", {"pipeline": "StableDiffusionPipeline"}, "takes no image and prompt"),
        ("img2img", "sd", {"scheduler": "nonsense"}, "no scheduler 'nonsense'.*euler-ancestral"),
        ("img2img", "sd", {"arguments": {"shift": 2}}, "takes no shift"),
        ("img2img", "sd", {"strength": 0.01}, "leaves no step"),
        ("img2img", "sd", {"cpu_offload": True}, "cpu_offload"),
        ("img2img", "sd", {"batch_size": 0}, "batch_size"),
        ("img2img", "sd", {"image_guidance": 2}, "image_guidance"),
        ("ip-adapter", "sd", {"attention_slicing": True}, "attention_slicing"),
    ],
)
def test_bad_settings_and_models_are_one_sentence(
    models: dict[str, Path], tmp_path: Path, name: str, model: str, settings: dict[str, Any], sentence: str
) -> None:
    folders = _broken(models, tmp_path / "broken")
    more = {"adapter": str(models["adapter"])} if name == "ip-adapter" else {}
    wanted = {
        "model": str(folders[model]),
        "size": 32,
        "steps": 4,
        "batch_size": 1,
        "device": "cpu",
        **more,
        **settings,
    }
    with pytest.raises(IsthmusError, match=sentence) as caught:
        choose(name, wanted, SKETCH)
    assert "\n" not in str(caught.value)


def test_models_that_are_nowhere(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IsthmusError, match="There is no model folder"):
        choose("img2img", {"model": str(tmp_path / "nothing")}, SKETCH)
    with pytest.raises(IsthmusError, match="hub can't be reached for model 'nobody/nothing'"):
        choose("img2img", {"model": "nobody/nothing", "local_files_only": True}, SKETCH)
    import diffusers

    def unreachable(*arguments: Any, **more: Any) -> None:
        raise OSError("We couldn't connect") from ConnectionError("no route")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", unreachable)
    with pytest.raises(IsthmusError, match="hub can't be reached"):
        choose("instruct-pix2pix", {}, SKETCH)
    with pytest.raises(IsthmusError, match="no prompt for a target domain named 'infrared'"):
        choose("img2img", {"model": str(models["sd"])}, Samples(target_domain="infrared"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "diffusers" else real(name))
    with pytest.raises(MissingExtraError, match=r"isthmus\[diffusion\]"):
        choose("img2img", {"model": str(models["sd"])}, SKETCH)


def test_wrong_adapters_are_one_sentence(models: dict[str, Path], tmp_path: Path) -> None:
    def refused(sentence: str, **settings: Any) -> None:
        wanted = {
            "model": str(models["sd"]),
            "adapter": str(models["adapter"]),
            "size": 32,
            "batch_size": 1,
            **settings,
        }
        with pytest.raises(IsthmusError, match=sentence) as caught:
            choose("ip-adapter", wanted, SKETCH)
        assert "\n" not in str(caught.value)

    file = models["adapter"] / "models" / "ip-adapter_sd15.safetensors"
    encoder = str(models["adapter"] / "models" / "image_encoder")
    refused("has no file models/x.safetensors.*ip-adapter_sd15.safetensors", adapter_weights="x.safetensors")
    refused("no image encoder in elsewhere", image_encoder="elsewhere")
    refused("There is no IP-Adapter", adapter=str(tmp_path / "none"))
    torch.save({"conv": torch.ones(2)}, tmp_path / "other.bin")
    refused("other.bin is no IP-Adapter", adapter=str(tmp_path / "other.bin"), image_encoder=encoder)
    (tmp_path / "code.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    refused("code.bin can't be read as weights", adapter=str(tmp_path / "code.bin"), image_encoder=encoder)
    state = load_file(file)
    wide = {key: torch.cat([value, value], 1) if "_ip" in key else value for key, value in state.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    refused("for another model", adapter=str(tmp_path / "wide.safetensors"), image_encoder=encoder)
    state["image_proj.proj.weight"] = torch.ones(state["image_proj.proj.weight"].shape[0], 48)
    save_file(state, tmp_path / "vision.safetensors")
    refused("another image encoder", adapter=str(tmp_path / "vision.safetensors"), image_encoder=encoder)
    fine = {"model": str(models["sd"]), "adapter": str(file), "size": 32, "steps": 2, "batch_size": 1}
    assert choose("ip-adapter", fine, SKETCH).settings["prompt"] == "A pencil/charcoal sketch of an object."
