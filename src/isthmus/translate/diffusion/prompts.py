"""What the diffusion translators are told to make: the paper's prompts by target domain, and `{label}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from isthmus.errors import IsthmusError

PromptTable = Literal["paper", "office-home", "cub"]
NO_LABEL = "object"  # the paper's word for what it does not know

ALIASES: dict[str, tuple[str, ...]] = {
    "clipart": ("clip art", "cliparts"),
    "painting": ("paintings", "art", "art painting", "artpainting", "artwork", "artistic"),
    "photo": ("photos", "real", "real world", "realworld", "real photo", "photograph", "photographs", "realistic"),
    "product": ("products", "product photo", "product photos"),
    "sketch": ("sketches", "drawing", "drawings", "pencil sketch"),
}

_IMG2IMG: dict[PromptTable, dict[str, str]] = {
    "paper": {
        "clipart": "A clipart image of an object.",
        "painting": "A painting of an object.",
        "photo": "A colorful realistic photo of an object.",
        "product": "A photo of an object without a background.",
        "sketch": "A pencil/charcoal sketch of an object.",
    },
    "office-home": {"photo": "A realistic photo of an object."},
    "cub": {"photo": "A realistic photo of a bird.", "painting": "A painting of a bird."},
}
_INSTRUCT: dict[PromptTable, dict[str, str]] = {
    "paper": {
        "clipart": "Convert to a colored clipart image.",
        "painting": "Convert to a colored painting.",
        "photo": "Convert to a colorful realistic photo.",
        "product": "Convert to a photo without a background.",
        "sketch": "Convert to a pencil/charcoal sketch.",
    },
    "office-home": {
        "clipart": "Convert to a clipart image.",
        "painting": "Convert to a painting.",
        "photo": "Convert to a realistic photo.",
    },
    "cub": {"photo": "Convert to a realistic photo.", "painting": "Convert to a painting."},
}
_ELITE: dict[PromptTable, dict[str, str]] = {
    "paper": {
        "clipart": "A clipart image of S",
        "painting": "A painting of a S",
        "photo": "A realistic photo of a S",
        "product": "A product image of S on a white background",
        "sketch": "A pencil/charcoal sketch of S",
    },
    "office-home": {"painting": "A painting/artistic photo of a S"},
    "cub": {"photo": "A colored realistic photo of S", "painting": "A painting of S"},
}
PROMPTS: Mapping[str, Mapping[PromptTable, Mapping[str, str]]] = {
    "img2img": _IMG2IMG,
    "instruct-pix2pix": _INSTRUCT,
    "elite": _ELITE,
    "ip-adapter": _IMG2IMG,
}


def kind_of_domain(name: str) -> str | None:
    """Which of the paper's domains `name` means: clipart, painting, photo, product, sketch, or none of them.

    Example:
        >>> kind_of_domain("Real World"), kind_of_domain("art_painting"), kind_of_domain("infrared")
        ('photo', 'painting', None)
    """
    plain = re.sub(r"[\s_\-]+", " ", name).strip().lower()
    for kind, aliases in ALIASES.items():
        if plain == kind or plain in aliases:
            return kind
    return None


def prompt_for(translator: str, target_domain: str, variant: PromptTable = "paper") -> str:
    """The paper's prompt of a translator for a target domain; what a variant lacks is taken from `paper`.

    Args:
        translator: img2img, instruct-pix2pix, elite or ip-adapter (which takes img2img's).
        target_domain: name of the domain to look like.
        variant: the paper words some prompts otherwise for Office-Home and CUB.

    Raises:
        IsthmusError: the paper has no prompt for such a domain.

    Example:
        >>> prompt_for("img2img", "Real World", "office-home")
        'A realistic photo of an object.'
    """
    kind = kind_of_domain(target_domain)
    if kind is None:
        known = ", ".join(sorted(ALIASES))
        raise IsthmusError(
            f"The paper has no prompt for a target domain named {target_domain!r} (only for {known}): "
            "say what to make with  --set prompt='A ... of an object.'"
        )
    tables = PROMPTS[translator]
    return tables[variant].get(kind) or tables["paper"][kind]


def check_prompt(text: str, setting: str = "prompt") -> str:
    """Returns `text`; a placeholder other than `{label}` is an `IsthmusError`."""
    for name in re.findall(r"\{([^{}]*)\}", text):
        if name != "label":
            raise IsthmusError(f"{setting} has the placeholder {{{name}}}; the only one is {{label}}, the category.")
    return text


def with_label(text: str, label: str | None) -> str:
    """`text` with the image's category for `{label}`; "object" where there is none, and the article that fits.

    A bare number is no category that a text encoder could understand, so it counts as none.

    Example:
        >>> with_label("A painting of a {label}.", "alarm_clock"), with_label("A painting of a {label}.", None)
        ('A painting of an alarm clock.', 'A painting of an object.')
    """
    if "{label}" not in text:
        return text
    words = _words(label) or NO_LABEL
    article = "n" if words[0].lower() in "aeiou" else ""
    text = re.sub(r"\b([Aa])n? \{label\}", lambda found: f"{found[1]}{article} {words}", text)
    return text.replace("{label}", words)


def _words(label: str | None) -> str:
    """`001.Black_footed_Albatross` -> `Black footed Albatross`; a number alone -> nothing."""
    words = re.sub(r"^\d+[.\s_-]+(?=\D)", "", label or "")
    words = re.sub(r"[\s_]+", " ", words).strip()
    return "" if not re.search(r"[^\W\d]", words) else words
