"""A prompt in which word embeddings stand at the placeholder: `A painting of a S` with an image's words for `S`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isthmus.errors import IsthmusError


@dataclass(frozen=True)
class Slotted:
    """A prompt's token ids with room for words.

    Attributes:
        ids: token ids, padded to the text encoder's length. Those at the slot mean nothing.
        slot: position of the first word.
    """

    ids: tuple[int, ...]
    slot: int


def split_prompt(prompt: str, placeholder: str) -> tuple[str, str]:
    """What stands before and after the placeholder, which has to be in the prompt once, as a word of its own.

    It is looked for before labels are filled in, so that a label may be called like the placeholder.

    Raises:
        IsthmusError: the placeholder is missing, or there more than once.

    Example:
        >>> split_prompt("A pencil/charcoal sketch of S", "S")
        ('A pencil/charcoal sketch of ', '')
    """
    parts = re.split(rf"(?<!\w){re.escape(placeholder)}(?!\w)", prompt)
    if len(parts) == 2:
        return parts[0], parts[1]
    if len(parts) == 1:
        raise IsthmusError(
            f"The prompt {prompt!r} does not name the placeholder {placeholder!r}, where the image's concept goes: "
            f"write for example 'A painting of a {placeholder}'."
        )
    raise IsthmusError(
        f"The prompt {prompt!r} names the placeholder {placeholder!r} {len(parts) - 1} times: name it once."
    )


def place_words(tokenizer: Any, before: str, placeholder: str, after: str, words: int) -> Slotted:
    """Token ids of a prompt with `words` positions in the place of the placeholder.

    The placeholder is found among the token ids: words before it may take any number of tokens, and so may the
    placeholder. What follows it moves up or down, and ends, as in any prompt, where the text encoder's length ends.

    Args:
        tokenizer: a `CLIPTokenizer`.
        before, placeholder, after: the prompt in three parts.
        words: how many word embeddings are to take the placeholder's place.

    Raises:
        IsthmusError: the tokenizer joins the placeholder with a neighbour, or the prompt is too long for the words.
    """
    whole, head, own = (_ids(tokenizer, text) for text in (before + placeholder + after, before, placeholder))
    tail = whole[len(head) + len(own) :]
    if not own or whole != head + own + tail or tail != _ids(tokenizer, after):
        raise IsthmusError(
            f"The tokenizer reads the placeholder {placeholder!r} in {before + placeholder + after!r} together with "
            "what stands beside it: put a space there, or set placeholder to another word."
        )
    length = int(tokenizer.model_max_length)
    slot = 1 + len(head)
    room = length - 1 - slot - words  # for the tail; the end token stays
    if room < 0:
        raise IsthmusError(
            f"The prompt {before + placeholder + after!r} is too long: the image's concept would take the tokens "
            f"{slot} to {slot + words - 1} of {length}; put the placeholder {placeholder!r} further to the front."
        )
    ids = [tokenizer.bos_token_id, *head, *[own[0]] * words, *tail[:room], tokenizer.eos_token_id]
    return Slotted((*ids, *[tokenizer.pad_token_id] * (length - len(ids))), slot)


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids without start and end, however many."""
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def encode_with_words(text_encoder: Any, prompts: Sequence[Slotted], words: torch.Tensor) -> torch.Tensor:
    """The text conditioning of prompts with word embeddings at their slots.

    Args:
        text_encoder: a `CLIPTextModel`.
        prompts: one for each image.
        words: (b, words, width), on the text encoder's device.

    Returns:
        (b, length, width): the last hidden state after the final LayerNorm, what the UNet's cross attention reads.
    """
    ids = torch.tensor([prompt.ids for prompt in prompts], device=words.device)

    def put_in(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()  # (b, length, width)
        for place, prompt in enumerate(prompts):
            changed[place, prompt.slot : prompt.slot + words.shape[1]] = words[place].to(output)
        return changed

    # The text model takes ids only, so the words enter where ids become embeddings: before positions are added.
    handle = text_encoder.get_input_embeddings().register_forward_hook(put_in)
    try:
        return torch.as_tensor(text_encoder(ids)[0])
    finally:
        handle.remove()
