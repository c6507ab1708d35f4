"""The translator that needs no weights: photo -> line drawing, line drawing -> picture, outline <-> silhouette."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from isthmus.errors import IsthmusError
from isthmus.translate.base import Samples, TranslatorSettings
from isthmus.translate.fill import fill_silhouette, shade
from isthmus.translate.ink import Placement, outline
from isthmus.translate.lines import Look as Lines
from isthmus.translate.lines import draw
from isthmus.translate.look import Look, dark_pixels, shrink, survey

Direction = Literal["auto", "lines", "outline", "fill", "shade"]
MORE_INK = 2.0  # a person's strokes say more a length than edges do; by eye and a small trial, not tuned by training
DOES = {
    "lines": "pictures become line drawings",
    "outline": "silhouettes become outlines",
    "fill": "line drawings become filled silhouettes",
    "shade": "line drawings become shaded pictures",
}


class EdgeSettings(TranslatorSettings):
    """Settings of `edges`. Lengths are fractions of the longer side; None is chosen from samples of the two domains.

    Attributes:
        direction: `lines` (picture -> line drawing), `outline` (silhouette -> outline), `fill` (line drawing -> black
            silhouette), `shade` (line drawing -> lit, coloured picture), `auto`.
        size: longer side of the pictures made, in pixels; smaller images keep theirs.
        stroke: width of the strokes drawn.
        ink: total length of the strokes of a drawing, at most.
        fit: share of the sheet that a drawing's longer side takes; 0 leaves it where the photo has it.
        detail: strength that a stroke needs, 0 to 1.
        background: how much of the background is drawn, 0 to 1.
        shortest: shortest stroke that is drawn.
        wobble: how far strokes stray, as a hand's do.
        vary: how much the seed changes ink, detail and width from image to image, 0 to 1.
        texture: surface noise of shaded pictures, 0 to 2.
    """

    direction: Direction = "auto"
    size: int = Field(256, ge=32, le=2048)
    stroke: float | None = Field(None, gt=0, le=0.2)
    ink: float | None = Field(None, gt=0, le=100)
    fit: float | None = Field(None, ge=0, le=1)
    detail: float = Field(0.12, ge=0, le=1)
    background: float = Field(0.08, ge=0, le=1)
    shortest: float = Field(0.04, ge=0, le=1)
    wobble: float = Field(0.006, ge=0, le=0.1)
    vary: float = Field(1.0, ge=0, le=1)
    texture: float = Field(1.0, ge=0, le=2)


class EdgeTranslator:
    """Line drawings from photos and pictures from line drawings, without weights; see `lines` and `fill`.

    Example:
        >>> translator = EdgeTranslator(EdgeSettings(direction="lines"))
        >>> translator.translate([Image.new("RGB", (64, 48), "white")], [0], [None])[0].size
        (64, 48)
    """

    name: ClassVar[str] = "edges"
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = True
    settings_type: ClassVar[type[TranslatorSettings]] = EdgeSettings

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.batch_size = 16

    @classmethod
    def resolve(cls, settings: EdgeSettings, samples: Samples) -> tuple[EdgeSettings, list[str]]:
        """Choose direction, stroke width, ink and placement from samples of the two domains."""
        notes: list[str] = []
        target = survey(samples.target) if samples.target else None
        direction = settings.direction
        if direction == "auto":
            direction = _direction(samples, target)
            notes.append(f"Direction {direction!r}: {DOES[direction]}.")
        chosen: dict[str, float | str] = {"direction": direction}
        drawn = target is not None and target.kind == "lines"
        if settings.stroke is None:
            chosen["stroke"] = target.stroke if target and drawn else 2 / 24 if direction == "outline" else 0.011
        if settings.ink is None:
            chosen["ink"] = min(max(MORE_INK * target.ink, 2.0), 20.0) if target and drawn else 7.0
        if settings.fit is None:
            # Drawings that all take the same share of their sheet were put there; others lie where they were drawn.
            placed = target is not None and drawn and target.extent_spread < 0.06
            chosen["fit"] = target.extent if target and placed and direction == "lines" else 0.0
        if target and drawn and direction in ("lines", "outline"):
            notes.append(
                f"Measured on {target.images} images of {samples.target_domain or 'the target'}: strokes "
                f"{100 * target.stroke:.1f} % of the side wide, {target.ink:.1f} sides long in all, "
                f"taking {100 * target.extent:.0f} % of the sheet."
            )
        return settings.model_copy(update=chosen), notes

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | None]:
        """Each image on its own: neither batch nor label matters."""
        return [self._one(image, seed) for image, seed in zip(images, seeds, strict=True)]

    def _one(self, image: Image.Image, seed: int) -> Image.Image:
        settings = self.settings
        rng = np.random.default_rng(seed)
        picture = shrink(image, settings.size)
        side = max(picture.size)
        if settings.direction == "fill":
            return Image.fromarray(fill_silhouette(dark_pixels(picture)))
        if settings.direction == "outline":
            return Image.fromarray(outline(dark_pixels(picture), (settings.stroke or 2 / 24) * side))
        if settings.direction == "shade":
            return Image.fromarray(shade(dark_pixels(picture), rng, texture=settings.texture))
        ink, detail, width, background = np.exp(settings.vary * rng.normal(0, (0.25, 0.25, 0.15, 0.4)))
        look = Lines(
            stroke=(settings.stroke or 0.011) * width,
            ink=(settings.ink or 7.0) * ink,
            shortest=settings.shortest,
            detail=min(1.0, settings.detail * detail),
            background=min(1.0, settings.background * background),
        )
        place = Placement(fit=settings.fit or None, wobble=settings.wobble, seed=seed)
        return Image.fromarray(draw(np.asarray(picture.convert("RGB")), look, place))


def _direction(samples: Samples, target: Look | None) -> Direction:
    if not samples.source:
        raise IsthmusError("direction=auto needs images to look at: set direction to lines, outline, fill or shade.")
    source = survey(samples.source)
    if source.kind == "pictures":
        if target is not None and target.kind == "pictures":
            raise IsthmusError(
                "Translator 'edges' turns pictures into line drawings and back, and neither domain is line drawings: "
                "take another translator, or set direction to say what is wanted."
            )
        return "lines"
    if target is None:
        return "shade" if source.kind == "lines" else "outline"
    if target.kind == "pictures":
        return "shade"
    # Two black-on-white domains: the one with the thicker ink is the filled one.
    return "outline" if source.thick > target.thick else "fill"
