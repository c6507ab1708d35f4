"""ELITE as a translator: the whole way from noise to picture, batches, resumed runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusion_zoo
import elite_reference as plain
import numpy as np
import pytest
import torch
from elite_zoo import World, cross_attention_widths, make_world, mapper_state
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.translate.base import NoPicture, Samples, choose
from isthmus.translate.diffusion.elite import EliteSettings, EliteTranslator
from isthmus.translate.diffusion.elite_features import to_pixels
from isthmus.translate.outputs import image_path
from isthmus.translate.record import Request
from isthmus.translate.run import translate_source


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("elite"))


def ready(settings: dict[str, Any]) -> EliteTranslator:
    """As a run builds it."""
    built = choose("elite", settings, Samples(target_domain="painting")).build()
    assert isinstance(built, EliteTranslator)
    return built


@pytest.fixture(scope="module")
def painter(world: World) -> EliteTranslator:
    return ready(world.settings())


@pytest.fixture(scope="module")
def labelled(world: World) -> EliteTranslator:
    return ready(world.settings(prompt="A {label}, that S", token_index="full", output_size=48))


def grey(picture: Any) -> np.ndarray[Any, Any]:
    assert isinstance(picture, Image.Image)
    return np.asarray(picture).astype(int)


def test_defaults_are_those_of_the_paper() -> None:
    settings = EliteSettings()
    assert (settings.steps, settings.guidance, settings.scheduler, settings.size) == (100, 5.0, "lms", 512)
    assert settings.model == "CompVis/stable-diffusion-v1-4" and settings.clip == "openai/clip-vit-large-patch14"
    assert settings.token_index == 0 and settings.placeholder == "S" and settings.fit == "stretch"


def reference(world: World, images: Sequence[Image.Image], seeds: Sequence[int], token: int | str) -> tuple[Any, ...]:
    """Text conditioning, latents and pictures (b, h, w, 3) in [0, 255] from the files, by the published formulae."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPVisionConfig

    mapper = torch.load(world.mapper, weights_only=True)
    clip = load_file(world.clip / "model.safetensors")
    vision = CLIPVisionConfig.from_pretrained(world.clip)
    words = plain.mapped_words(mapper, plain.image_tokens(clip, "vision_model.", vision, to_pixels(images, 32)))
    words = words if token == "full" else words[:, int(token) : int(token) + 1]
    weights = load_file(world.model / "text_encoder" / "model.safetensors")
    prefix = "text_model." if any(name.startswith("text_model.") for name in weights) else ""
    config = CLIPTextConfig.from_pretrained(world.model / "text_encoder")
    letters = diffusion_zoo.tokenizer(world.model / "tokenizer")
    # A letter is a token: start, A, painting, of, a are the tokens 0 to 12.
    whole, nothing = (
        letters([text] * len(images), padding="max_length", max_length=77, return_tensors="pt").input_ids
        for text in ("A painting of a S", "")
    )
    text = plain.text_states(weights, prefix, config, whole, words, index=13)
    empty = plain.text_states(weights, prefix, config, nothing)

    unet = UNet2DConditionModel.from_pretrained(world.model / "unet").double().eval()
    own = {name: weight.clone() for name, weight in unet.state_dict().items()}
    processors = dict(unet.attn_processors)
    for name in processors:
        if name.endswith("attn2.processor"):
            processors[name] = plain.PlainCrossAttention(own, mapper, name.removesuffix(".processor"))
    unet.set_attn_processor(processors)
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def predict(x: Tensor, time: float, context: Tensor) -> Tensor:
        return torch.as_tensor(unet(x, time, encoder_hidden_states=context).sample)

    vae = AutoencoderKL.from_pretrained(world.model / "vae").double().eval()
    with torch.no_grad():
        latents = plain.denoise(predict, noise, text, empty, steps=3, guidance=5.0)
        decoded = vae.decode(latents / 0.18215).sample
    return text, latents, (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255


@pytest.mark.parametrize("token", [0, "full"])
def test_the_whole_way_is_the_published_one(
    world: World, painter: EliteTranslator, monkeypatch: pytest.MonkeyPatch, token: int | str
) -> None:
    translator = painter if token == 0 else ready(world.settings(token_index=token))
    images, seeds = diffusion_zoo.pictures(2, seed=1), [11, 12]
    text, latents, pictures = reference(world, images, seeds, token)
    pipeline = translator.pipeline()
    made_text = translator.conditioning(pipeline, images, [None, None])
    torch.testing.assert_close(made_text.double(), text, rtol=1e-5, atol=1e-5)
    seen: list[Tensor] = []
    decode = pipeline.vae.decode
    monkeypatch.setattr(pipeline.vae, "decode", lambda z, **more: seen.append(z * 0.18215) or decode(z, **more))
    made = translator.translate(images, seeds, [None, None])
    scale = float(latents.abs().max())
    torch.testing.assert_close(seen[0].double() / scale, latents / scale, rtol=0, atol=1e-5)
    for picture, wanted in zip(made, pictures, strict=True):
        assert np.abs(grey(picture) - wanted).max() < 0.51
    # The reference is no constant: image, seed and words all matter.
    assert float((latents[0] - latents[1]).abs().max()) > 0.1


def test_what_decides_the_picture(labelled: EliteTranslator) -> None:
    first, second = diffusion_zoo.pictures(2, seed=2)
    same = grey(labelled.translate([first], [5], ["cat"])[0])
    assert np.array_equal(same, grey(labelled.translate([first.copy()], [5], ["cat"])[0]))
    for images, seeds, labels in (([second], [5], ["cat"]), ([first], [6], ["cat"]), ([first], [5], ["S"])):
        assert not np.array_equal(same, grey(labelled.translate(images, seeds, labels)[0]))


def test_batches_do_not_decide_the_picture(labelled: EliteTranslator) -> None:
    images, seeds, labels = diffusion_zoo.pictures(5, seed=3), [1, 2, 3, 4, 5], ["cat", "dog", None, "elephant", "S"]
    together = labelled.translate(images, seeds, labels)
    assert [one.size for one in together if isinstance(one, Image.Image)] == [(48, 48)] * 5
    again = labelled.translate(images, seeds, labels)
    assert all(np.array_equal(grey(a), grey(b)) for a, b in zip(together, again, strict=True))
    alone = [labelled.translate(images[i : i + 1], seeds[i : i + 1], labels[i : i + 1])[0] for i in range(5)]
    apart = np.abs(np.stack([grey(a) - grey(b) for a, b in zip(together, alone, strict=True)]))
    assert (apart <= 2).mean() >= 0.999
    assert np.stack([grey(one) for one in together]).std() > 5


def test_slicing_keeps_the_mapper(world: World, painter: EliteTranslator) -> None:
    """An own attention processor would be dropped here without a word."""
    images = diffusion_zoo.pictures(2, seed=4)
    as_it_is = painter.translate(images, [1, 2], [None, None])
    sliced = ready(world.settings(attention_slicing=True, vae_slicing=True)).translate(images, [1, 2], [None, None])
    for a, b in zip(as_it_is, sliced, strict=True):
        assert np.abs(grey(a) - grey(b)).max() <= 2


def test_half_precision_reaches_every_part(world: World, painter: EliteTranslator) -> None:
    images = diffusion_zoo.pictures(2, seed=4)
    half = ready(world.settings(dtype="bfloat16"))
    pipeline = half.pipeline()
    parts = (pipeline.unet, pipeline.text_encoder, pipeline.image_encoder, pipeline.concept_mapper)
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}
    whole = painter.translate(images, [1, 2], [None, None])
    for a, b in zip(whole, half.translate(images, [1, 2], [None, None]), strict=True):
        assert 0 < np.abs(grey(a) - grey(b)).mean() < 8


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_fit_is_how_clip_sees_the_image(painter: EliteTranslator, fit: str) -> None:
    wide = Image.new("RGB", (96, 32), "white")
    wide.paste((200, 30, 30), (40, 4, 56, 28))
    square = Image.new("RGB", (96, 96), "white")
    square.paste(wide, (0, 32))
    seen = square if fit == "pad" else wide.crop((32, 0, 64, 32))
    pipeline = painter.pipeline()
    made, wanted, other = (
        EliteTranslator(painter.settings.model_copy(update={"fit": how})).conditioning(pipeline, [image], [None])
        for how, image in ((fit, wide), ("stretch", seen), ("stretch", wide))
    )
    assert float((made - wanted).abs().mean()) < 0.3 * float((made - other).abs().mean())


def test_flagged_and_broken_pictures_say_why(painter: EliteTranslator, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = painter.pipeline()
    check = lambda image, device, dtype: (image, [i == 1 for i in range(len(image))])  # noqa: E731
    monkeypatch.setattr(pipeline, "run_safety_checker", check)
    good, flagged = painter.translate(diffusion_zoo.pictures(2), [1, 2], [None, None])
    assert isinstance(good, Image.Image) and isinstance(flagged, NoPicture) and "safety checker" in flagged.reason
    decode = pipeline.vae.decode
    monkeypatch.setattr(pipeline.vae, "decode", lambda *a, **k: (decode(*a, **k)[0] * torch.nan,))
    broken = painter.translate(diffusion_zoo.pictures(1), [1], [None])[0]
    assert isinstance(broken, NoPicture) and "no numbers" in broken.reason


def test_settings_are_resolved_once_and_name_the_mapper(world: World, tmp_path: Path) -> None:
    mapper, samples = tmp_path / "global_mapper.pt", Samples(target_domain="sketch")
    mapper.write_bytes(world.mapper.read_bytes())
    settings = world.settings(prompt=None, placeholder="*", mapper=str(mapper))
    choice = choose("elite", settings, samples)
    assert choice.settings["prompt"] == "A pencil/charcoal sketch of *"
    assert choice.settings["scheduler"] == "LMSDiscreteScheduler"
    again = choose("elite", choice.settings, samples)
    assert dict(again.settings) == dict(choice.settings) and again.fingerprint == choice.fingerprint
    found = choose("elite", {**settings, "batch_size": "auto"}, samples)
    assert isinstance(found.settings["batch_size"], int) and any("found by trying" in note for note in found.notes)
    torch.save(mapper_state(cross_attention_widths(), seed=1), mapper)
    assert choose("elite", settings, samples).fingerprint != choice.fingerprint


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number, image in enumerate(diffusion_zoo.pictures(5, seed=6)):
        image.save(tmp_path / "photos" / "cat" / f"{number}.png")
    return read_source(tmp_path / "photos", "photo")


def test_a_run_is_resumed_to_the_same_bytes_and_not_with_another_mapper(
    world: World, photos: Manifest, tmp_path: Path
) -> None:
    mine = tmp_path / "mapper.safetensors"
    save_file(torch.load(world.mapper, weights_only=True), mine)
    request = Request("elite", world.settings(mapper=str(mine), steps=2), "painting", 3)
    outcome = translate_source(photos, request, tmp_path / "out")
    assert outcome.complete and outcome.written == 5 and not outcome.failed
    before = [Path(row.path).read_bytes() for row in outcome.manifest]
    for number in (1, 4):
        image_path(tmp_path / "out", photos[number].id).unlink()
    outcome = translate_source(photos, request, tmp_path / "out")
    assert (outcome.written, outcome.kept) == (2, 3)
    assert [Path(row.path).read_bytes() for row in outcome.manifest] == before
    image_path(tmp_path / "out", photos[0].id).unlink()
    save_file(mapper_state(cross_attention_widths(), seed=1), mine)
    with pytest.raises(IsthmusError, match=r"mapper.safetensors is not the file that this translation was begun with"):
        translate_source(photos, request, tmp_path / "out")


def test_command_line(world: World, photos: Manifest, tmp_path: Path) -> None:
    from isthmus.cli.main import build

    settings = {**world.settings(steps=1), "prompt": "A pencil/charcoal sketch of S", "token_index": "full"}
    arguments = ["translate", "--source", f"photo={tmp_path / 'photos'}", "--target", "sketch", "--translator", "elite"]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    result = CliRunner().invoke(build(), [*arguments, "--out", str(tmp_path / "made"), "--limit", "2"])
    assert result.exit_code == 0, result.output
    assert len(read_source(tmp_path / "made", "sketch")) == 2
