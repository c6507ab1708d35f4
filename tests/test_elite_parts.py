"""Each step of ELITE against its formula written out: image tokens, words, text conditioning, cross attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusion_zoo
import elite_reference as plain
import elite_zoo
import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.errors import IsthmusError
from isthmus.translate.diffusion.elite_attention import cross_attentions, exchange_projections
from isthmus.translate.diffusion.elite_features import image_features, load_image_encoder, to_pixels
from isthmus.translate.diffusion.elite_mapper import ConceptMapper
from isthmus.translate.diffusion.elite_words import encode_with_words, place_words, split_prompt


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return diffusion_zoo.tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("clip")
    model = diffusion_zoo.image_encoder(seed=3, layers=17)
    with torch.no_grad():  # of the size of trained weights, so that every layer matters
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return load_image_encoder(folder, "cpu", torch.float32)


def test_pixels_are_the_whole_image_squeezed_and_normalised() -> None:
    images = diffusion_zoo.pictures(2)
    pixels = to_pixels([images[0], images[1].convert("L")], 32)
    assert pixels.shape == (2, 3, 32, 32) and pixels.dtype == torch.float32
    squeezed = np.asarray(images[0].resize((32, 32), Image.Resampling.BICUBIC))
    for channel, mean, std in ((0, 0.48145466, 0.26862954), (1, 0.4578275, 0.26130258), (2, 0.40821073, 0.27577711)):
        wanted = (squeezed[:, :, channel].astype(np.float64) / 255 - mean) / std
        np.testing.assert_allclose(pixels[0, channel].numpy(), wanted, atol=1e-6)


def test_image_tokens_are_those_of_the_five_layers(clip: Any) -> None:
    pixels = to_pixels(diffusion_zoo.pictures(2, seed=4), 32)
    tokens = image_features(clip, pixels)
    wanted = plain.image_tokens(clip.state_dict(), _prefix(clip, "vision_model."), clip.config, pixels)
    assert [tuple(layer.shape) for layer in tokens] == [(2, 5, 32)] * 5
    for layer, other in zip(tokens, wanted, strict=True):
        torch.testing.assert_close(layer.double(), other, rtol=1e-5, atol=1e-5)
    for first in range(5):  # a swapped pair would be seen
        assert all(float((wanted[first] - wanted[second]).abs().max()) > 0.01 for second in range(first))


def _prefix(model: Any, prefix: str) -> str:
    """transformers 4 keeps a CLIP tower one level down."""
    return prefix if any(name.startswith(prefix) for name in model.state_dict()) else ""


def test_words_are_the_sum_of_the_whole_and_the_mean_patch() -> None:
    state = elite_zoo.mapper_state({}, features=10, words=6)
    mapper = ConceptMapper(10, 6, elite_zoo.HIDDEN)
    mapper.load_state_dict(state)
    tokens = [torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    wanted = plain.mapped_words(state, [layer.double() for layer in tokens])
    assert wanted.shape == (3, 5, 6)
    torch.testing.assert_close(mapper(tokens).double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("prompt", ["A painting of a S", "A S on a white background", "S"])
def test_text_conditioning_is_the_published_one(tokenizer: Any, count: int, prompt: str) -> None:
    encoder = diffusion_zoo.text_encoder(seed=5)
    words = torch.randn(2, count, 32, generator=torch.Generator().manual_seed(0))
    before, after = split_prompt(prompt, "S")
    slotted = place_words(tokenizer, before, "S", after, count)
    with torch.no_grad():
        made = encode_with_words(encoder, [slotted] * 2, words)
    ids = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids.repeat(2, 1)
    # A letter is a token here, so the place of the placeholder can be counted by hand.
    index = 1 + len(before.replace(" ", ""))
    assert int(ids[0, index]) == tokenizer.convert_tokens_to_ids("s</w>")
    weights, prefix = encoder.state_dict(), _prefix(encoder, "text_model.")
    wanted = plain.text_states(weights, prefix, encoder.config, ids, words.double(), index)
    torch.testing.assert_close(made.double(), wanted, rtol=1e-5, atol=1e-5)
    without = plain.text_states(weights, prefix, encoder.config, ids)
    assert float((wanted - without).abs().max()) > 0.1
    with torch.no_grad():  # nothing stays behind in the text encoder
        torch.testing.assert_close(encoder(ids)[0].double(), without, rtol=1e-5, atol=1e-5)


def test_each_image_of_a_batch_has_its_own_prompt_and_words(tokenizer: Any) -> None:
    encoder = diffusion_zoo.text_encoder(seed=6)
    words = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    prompts = [place_words(tokenizer, "A cat ", "S", "", 5), place_words(tokenizer, "", "S", " of an elephant", 5)]
    with torch.no_grad():
        both = encode_with_words(encoder, prompts, words)
        alone = [encode_with_words(encoder, prompts[i : i + 1], words[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert prompts[0].slot == 5 and prompts[1].slot == 1


def test_the_placeholder_is_found_among_tokens_not_words(tokenizer: Any) -> None:
    before, after = split_prompt("A pencil/charcoal sketch of S", "S")
    slotted = place_words(tokenizer, before, "S", after, 1)
    whole = tokenizer("A pencil/charcoal sketch of S", padding="max_length", max_length=77).input_ids
    assert slotted.ids == tuple(whole)  # one word for one token moves nothing
    assert slotted.slot == 1 + len("Apencil/charcoalsketchof")  # five as the public code counts
    assert whole[slotted.slot] == tokenizer.convert_tokens_to_ids("s</w>")


def test_a_placeholder_of_many_tokens_is_replaced_whole(tokenizer: Any) -> None:
    for placeholder in ("Thing", "S*", "<S>", "S"):
        before, after = split_prompt(f"A Things {placeholder} on snow", placeholder)
        slotted = place_words(tokenizer, before, placeholder, after, 2)
        head, tail = (tokenizer(text, add_special_tokens=False).input_ids for text in ("A Things", "on snow"))
        assert slotted.slot == 1 + len(head)
        assert list(slotted.ids[1 : slotted.slot]) == head
        rest = list(slotted.ids[slotted.slot + 2 :])
        assert rest[: len(tail) + 1] == [*tail, tokenizer.eos_token_id] and len(slotted.ids) == 77


def test_a_long_prompt_is_cut_behind_the_words(tokenizer: Any) -> None:
    slotted = place_words(tokenizer, "a " * 60, "S", " b" * 60, 5)
    assert len(slotted.ids) == 77 and slotted.slot == 61 and slotted.ids[-1] == tokenizer.eos_token_id
    assert slotted.ids[66] == slotted.ids[75] == tokenizer.convert_tokens_to_ids("b</w>")
    last = place_words(tokenizer, "a " * 70, "S", " b", 5)
    assert last.slot == 71 and last.ids[-1] == tokenizer.eos_token_id
    with pytest.raises(IsthmusError, match="too long: the image's concept would take the tokens 72 to 76 of 77"):
        place_words(tokenizer, "a " * 71, "S", "", 5)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("A painting of a dog", "does not name the placeholder 'S'"),
        ("A Sketch of ships", "does not name the placeholder 'S'"),
        ("A painting of s", "does not name the placeholder 'S'"),
        ("A S and a S", "names the placeholder 'S' 2 times"),
        ("A painting of 'S'", "together with what stands beside it: put a space there"),
    ],
)
def test_prompts_that_will_not_do(tokenizer: Any, prompt: str, sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        place_words(tokenizer, *_three(prompt), 1)


def _three(prompt: str) -> tuple[str, str, str]:
    before, after = split_prompt(prompt, "S")
    return before, "S", after


def _sliced(unet: Any) -> None:
    unet.set_attention_slice(1)


def _plain_processor(unet: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    unet.set_attn_processor(AttnProcessor())


def _as_it_is(unet: Any) -> None:
    pass


@pytest.mark.parametrize("processor", [_as_it_is, _plain_processor, _sliced])
def test_cross_attention_of_every_layer_is_the_published_one(processor: Callable[[Any], None]) -> None:
    """Also where another attention processor is set afterwards."""
    unet = diffusion_zoo.unet(seed=8)
    mapper = elite_zoo.mapper_state(elite_zoo.cross_attention_widths())
    original = {name: weight.clone() for name, weight in unet.state_dict().items()}
    found = cross_attentions(unet)
    assert [name.replace(".", "_") for name in found] == list(elite_zoo.cross_attention_widths())
    exchange_projections(
        found,
        {name: mapper[f"{name.replace('.', '_')}_to_k.weight"] for name in found},
        {name: mapper[f"{name.replace('.', '_')}_to_v.weight"] for name in found},
    )
    processor(unet)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, keywords: Any, output: torch.Tensor) -> None:
            seen[name] = (inputs[0], keywords["encoder_hidden_states"], output)

        return hook

    for name, module in found.items():
        module.register_forward_hook(note(name), with_kwargs=True)
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(2, 77, 32, generator=generator)
    with torch.no_grad():
        unet(torch.randn(2, 4, 8, 8, generator=generator), 500, encoder_hidden_states=text)
    assert list(seen) == [name for name in seen if name in found] and len(seen) == len(found) == 4
    for name, (x, context, output) in seen.items():
        assert torch.equal(context, text)
        heads = found[name].heads
        wanted = plain.cross_attention(original, mapper, name, heads, x.double(), text.double())
        torch.testing.assert_close(output.double(), wanted, rtol=1e-5, atol=1e-5)
    changed = {name for name, weight in unet.state_dict().items() if not torch.equal(weight, original[name])}
    assert changed == {f"{name}.to_{part}.weight" for name in found for part in "kv"}
