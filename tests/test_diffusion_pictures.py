"""What the diffusion translators make: diffusers' own pictures, the paper's settings, an image's own noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_zoo import (
    pictures,
    save_instruct,
    save_ip_adapter,
    save_sd,
    save_sdxl,
    save_sdxl_instruct,
    unet,
)
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.translate.base import NoPicture, Samples, TranslatorChoice, choose
from isthmus.translate.diffusion.arguments import settle_arguments, takes_batches
from isthmus.translate.diffusion.img2img import Img2ImgSettings, Img2ImgTranslator
from isthmus.translate.diffusion.instruct import InstructSettings
from isthmus.translate.diffusion.pipeline import pipeline_class
from isthmus.translate.diffusion.translator import BLACK, NOT_NUMBERS

SEEDS = [2**62 + 3, 11, 12, 13, 14]
SKETCH = Samples(target_domain="sketch")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd": str(save_sd(folder / "sd")),
        "instruct": str(save_instruct(folder / "instruct")),
        "sdxl": str(save_sdxl(folder / "sdxl")),
        "sdxl-instruct": str(save_sdxl_instruct(folder / "sdxl-instruct")),
        "adapter": str(save_ip_adapter(folder / "adapter", unet())),
    }


def chosen(models: dict[str, str], name: str, model: str, **settings: Any) -> TranslatorChoice:
    if name == "ip-adapter":
        settings["adapter"] = models["adapter"]
    few = {"size": 64, "steps": 6, "batch_size": 3, **settings}
    return choose(name, {"model": models[model], **few}, SKETCH)


def made(choice: TranslatorChoice, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Image.Image]:
    found = choice.build().translate(images, seeds, [None] * len(images))
    assert all(isinstance(picture, Image.Image) for picture in found)
    return list(found)  # type: ignore[arg-type]


def grey_levels(one: Image.Image, other: Image.Image) -> Any:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


def plain(image: Image.Image) -> Image.Image:
    return image.resize((64, 64), Image.Resampling.BICUBIC if min(image.size) <= 64 else Image.Resampling.LANCZOS)


def test_img2img_is_diffusers_own_picture_with_the_papers_settings(models: dict[str, str]) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    choice = chosen(models, "img2img", "sd", steps=50)
    assert {key: choice.settings[key] for key in ("strength", "guidance", "steps", "prompt", "scheduler")} == {
        "strength": 0.3, "guidance": 10.0, "steps": 50, "prompt": "A pencil/charcoal sketch of an object.",
        "scheduler": "PNDMScheduler",
    }  # fmt: skip
    assert Img2ImgSettings().size == 512 and Img2ImgSettings(size=500).size == 504
    bare = StableDiffusionImg2ImgPipeline.from_pretrained(models["sd"])
    images = pictures(2)
    for image, seed in zip(images, SEEDS, strict=False):
        wanted = bare(
            "A pencil/charcoal sketch of an object.", plain(image), strength=0.3, guidance_scale=10.0,
            num_inference_steps=50, generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip
        assert made(choice, [image], [seed])[0].tobytes() == wanted.tobytes()


def test_instruct_is_diffusers_own_picture_with_the_papers_settings(models: dict[str, str]) -> None:
    from diffusers import StableDiffusionInstructPix2PixPipeline

    choice = chosen(models, "instruct-pix2pix", "instruct", negative_prompt="blurry")
    assert InstructSettings().steps == 50 and InstructSettings().size == 512
    assert (choice.settings["guidance"], choice.settings["image_guidance"]) == (10.0, 1.2)
    bare = StableDiffusionInstructPix2PixPipeline.from_pretrained(models["instruct"])
    image = pictures(1)[0]
    wanted = bare(
        "Convert to a pencil/charcoal sketch.", plain(image), guidance_scale=10.0, image_guidance_scale=1.2,
        num_inference_steps=6, negative_prompt="blurry", generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    assert made(choice, [image], [5])[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("strength", [None, 0.5])
def test_ip_adapter_is_diffusers_own_picture_and_batches_keep_images_apart(
    models: dict[str, str], strength: float | None
) -> None:
    """diffusers itself takes one image prompt a call: the pictures of a batch have to be those of such calls."""
    import diffusers

    choice = chosen(models, "ip-adapter", "sd", scale=0.8, strength=strength, guidance=6, scheduler="ddim")
    kind = diffusers.StableDiffusionPipeline if strength is None else diffusers.StableDiffusionImg2ImgPipeline
    bare = kind.from_pretrained(models["sd"])
    bare.scheduler = diffusers.DDIMScheduler.from_config(bare.scheduler.config)
    bare.load_ip_adapter(models["adapter"], subfolder="models", weight_name="ip-adapter_sd15.safetensors")
    bare.set_ip_adapter_scale(0.8)
    images = pictures(3)
    batch = made(choice, images, SEEDS[:3])
    for image, seed, picture in zip(images, SEEDS, batch, strict=False):
        more: dict[str, Any] = (
            {"height": 64, "width": 64} if strength is None else {"image": plain(image), "strength": strength}
        )
        wanted = bare(
            "A pencil/charcoal sketch of an object.", ip_adapter_image=plain(image), guidance_scale=6.0,
            num_inference_steps=6, generator=torch.Generator().manual_seed(seed), **more,
        ).images[0]  # fmt: skip
        assert np.quantile(grey_levels(picture, wanted), 0.999) <= 2
    assert grey_levels(batch[0], made(choice, [images[1]], SEEDS[:1])[0]).max() > 10  # the image prompt counts


@pytest.mark.parametrize(
    ("name", "model", "more"),
    [
        ("img2img", "sd", {"strength": 1.0}),
        ("img2img", "sd", {"scheduler": "euler-ancestral", "strength": 1.0}),
        ("img2img", "sd", {"scheduler": "ddpm", "strength": 0.7}),
        ("img2img", "sdxl", {"scheduler": "lcm", "strength": 0.7}),
        ("instruct-pix2pix", "instruct", {"scheduler": "euler-ancestral"}),
        ("instruct-pix2pix", "sdxl-instruct", {}),
        ("ip-adapter", "sd", {"scheduler": "euler-ancestral"}),
    ],
)
def test_noise_is_the_images_own_in_any_batch(
    models: dict[str, str], name: str, model: str, more: dict[str, Any]
) -> None:
    choice = chosen(models, name, model, **more)
    images = pictures(5)
    five = made(choice, images, SEEDS)
    assert [picture.tobytes() for picture in made(choice, images, SEEDS)] == [picture.tobytes() for picture in five]
    turned = made(choice, images[::-1], SEEDS[::-1])[::-1]
    for number in range(5):
        alone = made(choice, [images[number]], [SEEDS[number]])[0]
        for picture in (five[number], turned[number]):
            assert np.mean(grey_levels(picture, alone) <= 2) >= 0.999
    other = made(choice, images[:1], [1])[0]
    assert grey_levels(other, five[0]).max() > 10  # another seed, another picture


def test_labels_prompts_and_their_negative_change_the_picture(models: dict[str, str]) -> None:
    images = pictures(1) * 3
    translator = chosen(models, "img2img", "sd", prompt="a {label}", strength=0.9).build()
    cat, dog, none = translator.translate(images, [1, 1, 1], ["cat", "dog", None])
    told = chosen(models, "img2img", "sd", prompt="an object", strength=0.9).build()
    assert isinstance(cat, Image.Image) and isinstance(dog, Image.Image) and isinstance(none, Image.Image)
    assert grey_levels(cat, dog).max() > 0
    assert told.translate(images, [1, 1, 1], [None] * 3)[2].tobytes() == none.tobytes()  # type: ignore[union-attr]


def test_a_turbo_model_runs_without_guidance_in_one_step(models: dict[str, str]) -> None:
    choice = chosen(models, "img2img", "sd", guidance=0, steps=2, strength=0.5, scheduler="euler")
    assert made(choice, pictures(1), [1])[0].size == (64, 64)
    with pytest.raises(IsthmusError, match=r"strength 0.4 of 2 steps leaves no step.*steps=3, say"):
        chosen(models, "img2img", "sd", guidance=0, steps=2, strength=0.4)


def test_savers_of_memory_and_sizes(models: dict[str, str]) -> None:
    usual = made(chosen(models, "img2img", "sd", strength=0.5), pictures(3), SEEDS[:3])
    saving = chosen(models, "img2img", "sd", strength=0.5, attention_slicing=True, vae_slicing=True)
    for one, other in zip(usual, made(saving, pictures(3), SEEDS[:3]), strict=True):
        assert np.mean(grey_levels(one, other) <= 2) >= 0.999
    assert made(chosen(models, "img2img", "sd", fit="pad", output_size=40), pictures(1), [1])[0].size == (40, 32)
    low = chosen(models, "img2img", "sd", dtype="bfloat16")
    assert made(low, pictures(1), [1])[0].size == (64, 64) and low.settings["dtype"] == "bfloat16"


def test_newer_pipelines_are_called_with_what_they_take() -> None:
    kontext = pipeline_class("FluxKontextPipeline")
    assert not takes_batches(kontext) and takes_batches(pipeline_class("FluxImg2ImgPipeline"))
    settled = settle_arguments(InstructSettings(), kontext, set())
    assert (settled.guidance, settled.image_guidance, settled.steps) == (3.5, None, 28)
    settled = settle_arguments(InstructSettings(guidance=2, steps=9), kontext, {"guidance", "steps"})
    assert (settled.guidance, settled.steps) == (2, 9)
    assert settle_arguments(Img2ImgSettings(), kontext, set()).strength is None
    with pytest.raises(IsthmusError, match=r"FluxKontextPipeline takes no image_guidance \(image_guidance_scale\)"):
        settle_arguments(InstructSettings(), kontext, {"image_guidance"})
    with pytest.raises(IsthmusError, match=r"arguments: FluxKontextPipeline takes no shift; it takes .*true_cfg_scale"):
        settle_arguments(InstructSettings(arguments={"shift": 1}), kontext, set())
    with pytest.raises(IsthmusError, match="arguments: guidance_scale is set by guidance"):
        settle_arguments(InstructSettings(arguments={"guidance_scale": 1}), kontext, set())
    assert settle_arguments(settled, kontext, set(InstructSettings.model_fields)) == settled


class Editor:
    """A pipeline as newer ones are: several images would make one picture."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, image: Any = None, prompt: Any = None, generator: Any = None, true_cfg_scale: float = 4.0,
        output_type: str = "pil",
    ) -> Any:  # fmt: skip
        from types import SimpleNamespace

        self.calls.append({"image": image, "prompt": prompt, "scale": true_cfg_scale})
        level = torch.rand(1, generator=generator[0]).item() * self.value
        return SimpleNamespace(images=np.full((1, 64, 64, 3), level, np.float32))


def with_editor(editor: Editor, **settings: Any) -> Img2ImgTranslator:
    wanted = Img2ImgSettings(model="x/y", size=64, prompt="a {label}", arguments={"true_cfg_scale": 3}, **settings)
    translator = Img2ImgTranslator(settle_arguments(wanted, editor, set()))
    translator._held = editor
    return translator


def test_editing_pipelines_get_one_image_at_a_time() -> None:
    editor = Editor()
    found = with_editor(editor).translate(pictures(3), [1, 2, 3], ["cat", None, "owl"])
    assert [call["prompt"] for call in editor.calls] == [["a cat"], ["an object"], ["an owl"]]
    assert all(isinstance(call["image"], Image.Image) and call["scale"] == 3 for call in editor.calls)
    assert len({picture.getpixel((0, 0)) for picture in found if isinstance(picture, Image.Image)}) == 3


@pytest.mark.parametrize(("value", "reason"), [(0.0, BLACK), (float("nan"), NOT_NUMBERS)])
def test_blank_pictures_are_no_pictures(value: float, reason: str) -> None:
    assert with_editor(Editor(value)).translate(pictures(1), [1], [None]) == [NoPicture(reason)]
