"""From a decoded image to what the network sees, with random changes that depend on nothing but a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from isthmus.config import AugmentConfig
from isthmus.runtime import prepare_torchvision

prepare_torchvision()

from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms.v2 import functional as F  # noqa: E402


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input at test time: squash to `resize`, centre crop to `size`, normalise.

    The same numbers are stored with the model, so training, indexing and the page agree.

    Attributes:
        size: side of the network's input in pixels.
        resize: side after the first resize; both sides are set to it, as in the public code of SynCDR.
        mean, std: per channel, for values in [0, 1].
        interpolation: `"bilinear"` or `"bicubic"`.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"

    def pixels(self, image: Image.Image) -> Tensor:
        """uint8 (3, resize, resize): what the cache of training images holds."""
        method = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        resized = image.resize((self.resize, self.resize), method, reducing_gap=2.0)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()

    def crop(self, pixels: Tensor) -> Tensor:
        """The centre `size` x `size` of uint8 (3, resize, resize)."""
        start = (self.resize - self.size) // 2
        return pixels[:, start : start + self.size, start : start + self.size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) -> float32, normalised."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float().div_(255) - mean) / std

    def __call__(self, image: Image.Image) -> Tensor:
        """uint8 (3, size, size) of a decoded RGB image."""
        return self.crop(self.pixels(image))


def augment(pixels: Tensor, size: int, settings: AugmentConfig, interpolation: str, seed: int) -> Tensor:
    """A random view of uint8 (3, h, w) as uint8 (3, size, size).

    The draw depends on `seed` alone: not on workers, order, batch or a restart.

    Example:
        >>> view = augment(torch.zeros(3, 72, 72, dtype=torch.uint8), 64, AugmentConfig(), "bilinear", seed=1)
        >>> tuple(view.shape)
        (3, 64, 64)
    """
    draw = random.Random(seed)
    height, width = pixels.shape[-2:]
    if settings.rotate:
        angle = draw.uniform(-settings.rotate, settings.rotate)
        # The corners that turn in take the colour of the border, white paper for a drawing.
        fill = [float(value) for value in pixels[:, 0, 0]]
        pixels = F.rotate(pixels, angle, InterpolationMode.BILINEAR, fill=fill)
    if settings.crop < 1:
        mode = InterpolationMode.BICUBIC if interpolation == "bicubic" else InterpolationMode.BILINEAR
        top, left, tall, wide = _crop_box(draw, height, width, settings.crop)
        pixels = F.resized_crop(pixels, top, left, tall, wide, [size, size], mode, antialias=True)
    else:
        top, left = draw.randint(0, height - size), draw.randint(0, width - size)
        pixels = pixels[:, top : top + size, left : left + size]
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
    return pixels


def _crop_box(draw: random.Random, height: int, width: int, smallest: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop with an area share in [smallest, 1] and a mild change of aspect."""
    share = draw.uniform(smallest, 1.0)
    stretch = draw.uniform(0.8, 1.25) ** 0.5
    tall = min(height, round(height * share**0.5 * stretch))
    wide = min(width, round(width * share**0.5 / stretch))
    return draw.randint(0, height - tall), draw.randint(0, width - wide), tall, wide
