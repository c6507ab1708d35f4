"""The networks of CUT (arXiv 2007.15651): generator, head on its patches, discriminator.

The layers are numbered as in the paper's settings: 0 is the padded image, 4 and 8 the convolutions before each
downsampling, 12 and 16 the first and the fifth residual block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_BLOCK = 12  # number of the layer that is the first residual block
INIT_GAIN = 0.02
NORM_EPSILON = 1e-7


def _binomial(taps: Sequence[float], channels: int) -> Tensor:
    """(channels, 1, t, t): a separable low-pass filter of sum 1, the same for each channel."""
    row = torch.tensor(taps, dtype=torch.float32)
    square = row[:, None] * row[None, :]
    return (square / square.sum()).repeat(channels, 1, 1, 1)


class Downsample(nn.Module):
    """Halve both sides, low-pass filtered (1 2 1) against aliasing (Zhang, arXiv 1904.11486)."""

    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("taps", _binomial((1, 2, 1), channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2))."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.taps, stride=2, groups=x.shape[1])


class Upsample(nn.Module):
    """Double both sides by the transposed filter (1 3 3 1)."""

    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("taps", 4 * _binomial((1, 3, 3, 1), channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, 2 h, 2 w)."""
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        larger = F.conv_transpose2d(padded, self.taps, stride=2, padding=2, groups=x.shape[1])
        return larger[:, :, 1:-1, 1:-1]


class ResidualBlock(nn.Module):
    """x + two 3 x 3 convolutions with instance norm, padded by reflection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The shape of `x`."""
        out: Tensor = x + self.body(x)
        return out


class Generator(nn.Module):
    """ResNet generator: RGB in [-1, 1] to RGB in [-1, 1] of the same size.

    Args:
        width: channels of the first convolution; four times as many in the residual blocks.
        blocks: number of residual blocks.

    Example:
        >>> Generator(width=8, blocks=1)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, width, 7),
            nn.InstanceNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        for channels in (width, 2 * width):
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, padding=1),
                nn.InstanceNorm2d(2 * channels),
                nn.ReLU(inplace=True),
                Downsample(2 * channels),
            ]
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for channels in (4 * width, 2 * width):
            layers += [
                Upsample(channels),
                nn.Conv2d(channels, channels // 2, 3, padding=1),
                nn.InstanceNorm2d(channels // 2),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.width, self.blocks = width, blocks
        self.layers = nn.ModuleList(layers)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w), both sides multiples of 4 -> the same shape."""
        for layer in self.layers:
            images = layer(images)
        return images

    def with_patches(
        self, images: Tensor, wanted: Sequence[int], places: Sequence[Tensor], *, decode: bool = True
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The translation, and features of some layers at some places on the way.

        Args:
            images: (b, 3, h, w).
            wanted: ascending layer numbers below 12 + blocks.
            places: for each of them (p,) positions in its flattened feature map, the same for all images.
            decode: go on to the end; else stop at the last wanted layer and give no translation.

        Returns:
            (b, 3, h, w) or None, and for each layer (b, p, channels).
        """
        at = dict(zip(wanted, places, strict=True))
        patches: list[Tensor] = []
        x = images
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in at:
                patches.append(x.flatten(2)[:, :, at[number]].transpose(1, 2))
                if not decode and number == wanted[-1]:
                    return None, patches
        return x, patches

    def map_sides(self, number: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of an encoder layer's feature map for images of that size."""
        if number == 0:
            return height + 6, width + 6
        for last, factor in ((6, 1), (10, 2)):
            if number <= last:
                return height // factor, width // factor
        return height // 4, width // 4

    def channels(self, number: int) -> int:
        """Channels of an encoder layer."""
        if number == 0:
            return 3
        return self.width * (1 if number <= 3 else 2 if number <= 7 else 4)


class PatchHead(nn.Module):
    """A two-layer perceptron for each layer's patches, to unit length (a little less for very short vectors)."""

    def __init__(self, channels: Sequence[int], dim: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(size, dim), nn.ReLU(), nn.Linear(dim, dim)) for size in channels
        )
        initialise(self)

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """For each layer (b, p, channels) -> (b, p, dim), unit length, float32."""
        found = [head(part).float() for head, part in zip(self.heads, patches, strict=True)]
        # Fresh weights give vectors so short that this addend, the public code's, softens the first steps.
        return [part / (part.norm(dim=-1, keepdim=True) + NORM_EPSILON) for part in found]


class Discriminator(nn.Module):
    """PatchGAN with a receptive field of about 70 pixels: (b, 3, h, w) -> (b, 1, h / 8 - 2, w / 8 - 2) scores."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 4, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            Downsample(width),
        ]
        for channels in (width, 2 * width):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, padding=1),
                nn.InstanceNorm2d(2 * channels),
                nn.LeakyReLU(0.2, inplace=True),
                Downsample(2 * channels),
            ]
        layers += [
            nn.Conv2d(4 * width, 8 * width, 4, padding=1),
            nn.InstanceNorm2d(8 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8 * width, 1, 4, padding=1),
        ]
        self.body = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """A score for each patch."""
        scores: Tensor = self.body(images)
        return scores


def initialise(module: nn.Module) -> None:
    """Xavier's normal distribution with gain 0.02, biases 0, as in the public code."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_normal_(part.weight, INIT_GAIN)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def draw_places(
    generator: Generator, wanted: Sequence[int], size: tuple[int, int], count: int, draw: torch.Generator
) -> list[Tensor]:
    """For each layer up to `count` different positions in its flattened feature map of images of `size`."""
    sides = [generator.map_sides(number, *size) for number in wanted]
    return [torch.randperm(math.prod(side), generator=draw)[:count] for side in sides]


def mirror_places(
    generator: Generator, wanted: Sequence[int], size: tuple[int, int], places: list[Tensor]
) -> list[Tensor]:
    """Where the places lie once the image has been mirrored left to right."""
    mirrored = []
    for number, part in zip(wanted, places, strict=True):
        width = generator.map_sides(number, *size)[1]
        mirrored.append(part - part % width + (width - 1 - part % width))
    return mirrored
