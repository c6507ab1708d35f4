"""From a decoded image to what the network sees, with random changes that depend on nothing but a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.config import AugmentConfig
from isthmus.config.sizes import Sides, compact, sides
from isthmus.data.filters import check_filter, draw_edges, resized
from isthmus.runtime import prepare_torchvision

prepare_torchvision()

from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input at test time: squash to `resize`, centre crop to `size`, normalise.

    The same numbers are stored with the model, so training, indexing and the page agree.

    Attributes:
        size: side of the network's input in pixels, or (height, width) where it is not square.
        resize: size after the first resize, in the same form; images are squashed to it, as in the public code of
            SynCDR.
        mean, std: per channel, for values in [0, 1].
        interpolation: `"bilinear"` or `"bicubic"`.
        filters: what images of the query domain and of the gallery domain become; see `isthmus.data.filters`.

    Raises:
        ValueError: a size is none, or an image is smaller than what is cut out of it.
        IsthmusError: there is no such filter.
    """

    size: Sides
    resize: Sides
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    filters: tuple[str, str] = ("none", "none")

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", compact(self.size))
        object.__setattr__(self, "resize", compact(self.resize))
        if sides(self.resize)[0] < sides(self.size)[0] or sides(self.resize)[1] < sides(self.size)[1]:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        if len(self.filters) != 2:
            raise ValueError(f"filters {self.filters} are not one for each of two domains")
        for name in self.filters:
            check_filter(name)

    @property
    def min_side(self) -> int:
        """What a large JPEG's shorter side must keep when it is decoded at a part of its size."""
        return max(sides(self.resize))

    def filters_of(self, domains: Sequence[str]) -> dict[str, str]:
        """The filter of each domain by name: query, gallery, and others whose images are treated as the gallery's.

        Example:
            >>> half = (0.5, 0.5, 0.5)
            >>> Preprocessing(64, 64, half, half, filters=("none", "grey")).filters_of(["sketch", "photo", "shop"])
            {'sketch': 'none', 'photo': 'grey', 'shop': 'grey'}
        """
        query, gallery, *more = domains
        named = {query: self.filters[0], gallery: self.filters[1]}
        return named | {name: self.filters[1] for name in more if name not in named}

    def pixels(self, image: Image.Image, name: str = "none") -> Tensor:
        """uint8 (3, *resize) after the filter `name`: what the cache of training images holds."""
        method = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        height, width = sides(self.resize)
        picture = resized(image, (width, height), method, name)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()

    def crop(self, pixels: Tensor) -> Tensor:
        """The centre `size` of uint8 (3, *resize)."""
        (tall, wide), (height, width) = sides(self.resize), sides(self.size)
        top, left = (tall - height) // 2, (wide - width) // 2
        return pixels[:, top : top + height, left : left + width]

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) -> float32, normalised."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return pixels.float().div_(255).sub_(mean).div_(std)  # in place: a third of the time for a large batch

    def blank(self, count: int) -> Tensor:
        """uint8 (count, 3, *size), zeros."""
        return torch.zeros(count, 3, *sides(self.size), dtype=torch.uint8)

    def description(self) -> dict[str, Any]:
        """As a model's config.json has it: filters only where there are any, so that older fingerprints stay."""
        values = asdict(self)
        if set(self.filters) == {"none"}:
            del values["filters"]
        return values

    def __call__(self, image: Image.Image, domain: int = 0) -> Tensor:
        """uint8 (3, *size) of a decoded RGB image of the query domain (0) or the gallery domain (1)."""
        return self.crop(self.pixels(image, self.filters[domain]))


def augment(
    pixels: Tensor, size: Sides, settings: AugmentConfig, interpolation: str, seed: int, *, drawn: float = 0.0
) -> Tensor:
    """A random view of uint8 (3, h, w) as uint8 (3, size, size), or (3, *size) for a pair.

    The draw depends on `seed` alone: not on workers, order, batch or a restart. A share `drawn` of the views becomes
    the drawing of their edges first.

    Example:
        >>> view = augment(torch.zeros(3, 72, 72, dtype=torch.uint8), 64, AugmentConfig(), "bilinear", seed=1)
        >>> tuple(view.shape)
        (3, 64, 64)
    """
    draw = random.Random(seed)
    tall, wide = sides(size)
    if drawn and draw.random() < drawn:
        lines = draw_edges(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
        pixels = torch.from_numpy(np.array(lines)).permute(2, 0, 1).contiguous()
    if settings.rotate:
        angle = draw.uniform(-settings.rotate, settings.rotate)
        # The corners that turn in take the colour of the border, white paper for a drawing.
        fill = [float(value) for value in pixels[:, 0, 0]]
        pixels = F.rotate(pixels, angle, InterpolationMode.BILINEAR, fill=fill)
    if settings.pad:
        # The border goes on: paper around a drawing, wall around a photo, where black bars would tell a shift.
        pixels = torch.nn.functional.pad(pixels[None], [settings.pad] * 4, mode="replicate")[0]
    height, width = pixels.shape[-2:]
    if settings.crop < 1:
        mode = InterpolationMode.BICUBIC if interpolation == "bicubic" else InterpolationMode.BILINEAR
        box = _crop_box(draw, height, width, settings.crop)
        pixels = F.resized_crop(pixels, *box, [tall, wide], mode, antialias=True)
    else:
        top, left = draw.randint(0, height - tall), draw.randint(0, width - wide)
        pixels = pixels[:, top : top + tall, left : left + wide]
    if settings.flip and draw.random() < 0.5:
        pixels = pixels.flip(-1)
    if settings.grey and draw.random() < settings.grey:
        pixels = F.rgb_to_grayscale(pixels, num_output_channels=3)
    for amount, change in (
        (settings.brightness, F.adjust_brightness),
        (settings.contrast, F.adjust_contrast),
        (settings.saturation, F.adjust_saturation),
    ):
        if amount:
            pixels = change(pixels, 1 + draw.uniform(-amount, amount))
    if settings.erase and draw.random() < settings.erase:
        pixels = _erase(pixels, draw)
    return pixels


def _erase(pixels: Tensor, draw: random.Random) -> Tensor:
    """A rectangle of 2 to 40 % of the area, up to 3.3 times as long as wide, in the view's mean colour.

    Random erasing (Zhong et al., AAAI 2020) as person re-identification has it. The mean colour instead of noise: it
    takes strokes away from a drawing, as an eraser does, and adds none.
    """
    height, width = pixels.shape[-2:]
    for _ in range(100):  # a long rectangle may not fit into the view
        area = draw.uniform(0.02, 0.4) * height * width
        ratio = draw.uniform(0.3, 1 / 0.3)
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < tall <= height and 0 < wide <= width:
            top, left = draw.randint(0, height - tall), draw.randint(0, width - wide)
            pixels = pixels.clone()
            mean = pixels.float().mean(dim=(1, 2), keepdim=True)
            pixels[:, top : top + tall, left : left + wide] = mean.round().to(torch.uint8)
            return pixels
    return pixels


def _crop_box(draw: random.Random, height: int, width: int, smallest: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop with an area share in [smallest, 1] and a mild change of aspect."""
    share = draw.uniform(smallest, 1.0)
    stretch = draw.uniform(0.8, 1.25) ** 0.5
    tall = min(height, round(height * share**0.5 * stretch))
    wide = min(width, round(width * share**0.5 / stretch))
    return draw.randint(0, height - tall), draw.randint(0, width - wide), tall, wide
