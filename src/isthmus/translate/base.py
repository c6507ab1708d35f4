"""What a translator is, and the table of them.

A new translator is one file with a class like `EdgeTranslator` and one line in `TRANSLATORS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from isthmus.errors import IsthmusError
from isthmus.io import fingerprint
from isthmus.process import keep_memory

# name -> "module:class"; imported when asked for, as some need optional packages.
TRANSLATORS: dict[str, str] = {
    "edges": "isthmus.translate.edges:EdgeTranslator",
    "cut": "isthmus.translate.cut:CutTranslator",
    "img2img": "isthmus.translate.diffusion.img2img:Img2ImgTranslator",
    "instruct-pix2pix": "isthmus.translate.diffusion.instruct:InstructTranslator",
    "elite": "isthmus.translate.diffusion.elite:EliteTranslator",
    "ip-adapter": "isthmus.translate.diffusion.ip_adapter:IPAdapterTranslator",
}


class TranslatorSettings(BaseModel):
    """Base of every translator's settings: unknown names are refused, values can't change under a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class NoPicture:
    """In a picture's place, where a translator can say why there is none."""

    reason: str


@dataclass(frozen=True)
class Samples:
    """A seeded sample of both domains, from which a translator may choose what its settings leave open.

    Attributes:
        source: RGB images of the domain to translate.
        target: RGB images of the domain to look like; empty where none were given.
        target_domain: the target's name, such as `"sketch"`.
    """

    source: Sequence[Image.Image] = ()
    target: Sequence[Image.Image] = ()
    target_domain: str = ""


class Translator(Protocol):
    """Turns images of one domain into the look of another, keeping what they show.

    Class attributes:
        name: as in `TRANSLATORS`.
        version: raised when the same settings give other pictures; outputs of another version are made anew.
        batch_size: how many images `translate` gets at most (an instance may overwrite it).
        independent: plain CPU code whose picture of an image depends on nothing but that image and its seed, so that
            worker processes may share the work and single images may be made anew.
        settings_type: the pydantic model of its settings.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    independent: ClassVar[bool]
    settings_type: ClassVar[type[TranslatorSettings]]
    batch_size: int
    settings: TranslatorSettings

    @classmethod
    def resolve(cls, settings: Any, samples: Samples) -> tuple[Any, list[str]]:
        """Settings without open choices, and a sentence on each choice made. The result resolves to itself."""
        ...

    def __init__(self, settings: Any) -> None:
        """From resolved settings."""
        ...

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> Sequence[Image.Image | NoPicture | None]:
        """One picture for each image; None or a reason where it failed (tried again with other seeds, then left out).

        Args:
            images: RGB.
            seeds: the image's own seed, 63 bits; all randomness comes from it.
            labels: the category where known.
        """
        ...


@dataclass(frozen=True)
class TranslatorChoice:
    """A translator by name with resolved settings: small and picklable, so that a worker process can build it.

    Attributes:
        name: key of `TRANSLATORS`.
        settings: resolved settings as plain values.
        notes: what was chosen from the samples, a sentence each.
    """

    name: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def names_label(self) -> bool:
        """Whether a setting, such as a prompt, holds `{label}`, so that pictures depend on their images' labels."""
        return any(isinstance(value, str) and "{label}" in value for value in self.settings.values())

    @property
    def fingerprint(self) -> str:
        """Of everything that decides the pixels: name, version, settings."""
        return fingerprint([self.name, translator_class(self.name).version, dict(self.settings)])

    def build(self) -> Translator:
        """The translator, ready to work."""
        keep_memory()
        kind = translator_class(self.name)
        return kind(_validated(kind, self.settings))


def translator_class(name: str) -> type[Translator]:
    """The class of a translator; an unknown name is an `IsthmusError` that lists the known ones."""
    if name not in TRANSLATORS:
        raise IsthmusError(f"There is no translator {name!r}; known are: {', '.join(sorted(TRANSLATORS))}.")
    module, _, attribute = TRANSLATORS[name].partition(":")
    kind: type[Translator] = getattr(importlib.import_module(module), attribute)
    return kind


def choose(name: str, settings: Mapping[str, Any], samples: Samples) -> TranslatorChoice:
    """Check the settings of a translator and settle what they leave open from samples of the domains.

    Example:
        >>> choose("edges", {"direction": "lines"}, Samples()).settings["direction"]
        'lines'
    """
    kind = translator_class(name)
    resolved, notes = kind.resolve(_validated(kind, settings), samples)
    return TranslatorChoice(name, resolved.model_dump(mode="json"), tuple(notes))


def _validated(kind: type[Translator], settings: Mapping[str, Any]) -> TranslatorSettings:
    try:
        return kind.settings_type.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.settings_type.model_fields)
        if first["type"] == "string_type":
            # A prompt such as "A sketch: of {label}" is a mapping to YAML.
            first["msg"] += f", not {first['input']!r}: quote it, as in  --set '{where}=\"...\"'"
        raise IsthmusError(
            f"Setting {where!r} of translator {kind.name!r}: {first['msg']} (settings: {known})."
        ) from None
