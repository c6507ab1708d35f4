"""The generator of data-free retrieval: noise, and a class where asked, to images."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.errors import IsthmusError

SIZES = range(32, 225, 8)
FINEST_FULL = 16  # side of the largest map with all channels: beyond it they would cost most and show least
CONTRAST = 1.6
PAPER = 1.5  # before the sigmoid: what sketches begin with
CODE = 64  # width of a class's vector beside the noise


class ClassNorm(nn.Module):
    """Batch norm whose gain and shift are learned for each class (de Vries et al., arXiv 1707.00683).

    Args:
        channels: of the map.
        classes: how many; 0: one gain and one shift for all.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=not classes)
        self.affine = nn.Embedding(classes, 2 * channels) if classes else None
        if self.affine is not None:
            nn.init.normal_(self.affine.weight, std=0.1)
            with torch.no_grad():
                self.affine.weight[:, :channels] += 1.0

    def forward(self, x: Tensor, codes: Tensor | None) -> Tensor:
        """(n, channels, h, w) and (n,) codes -> the shape of `x`."""
        x = self.norm(x)
        if self.affine is None:
            return x
        gain, shift = self.affine(codes)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return torch.addcmul(shift, x, gain)


class Generator(nn.Module):
    """Noise to images, by doubling a small map (as DCGAN, arXiv 1511.06434, with upsampling and convolutions).

    A linear map to `width` channels of 3 x 3 or 4 x 4; until the size is reached each stage doubles the sides (an odd
    side of the chain 224, 112, 56, 28, 14, 7 becomes its exact value), convolves, normalises and rectifies; the last
    convolution and a sigmoid make the three colours. Channels halve with each doubling beyond 16 x 16, down to a
    quarter. In training mode batch norm couples the images of a batch; those of one z differ between batches.

    Parameters in millions at 64 px, hardly more at 224 (125 classes add 0.13 to 0.27):

    | noise | width 64 | width 96 | width 128 |
    |---|---|---|---|
    | 256 | 0.36 | 0.61 | 0.92 |
    | 1,000 | 1.12 | 1.76 | 2.44 |

    Two generators of one z, for photos and for sketches, are two instances.

    Args:
        noise: width of z.
        size: side of the images, a multiple of 8 from 32 to 224.
        width: channels of the maps up to 16 x 16, a multiple of 4; 64 to 128 is sensible.
        classes: how many classes can be asked for; 0: none, the noise alone decides.
        grey: whether the three colours are one, and images begin light: as sketches.

    Raises:
        IsthmusError: the size or the width is none of these.

    Example:
        >>> images = Generator(noise=64, size=64, width=64)(torch.randn(2, 64))
        >>> tuple(images.shape), bool((images >= 0).all() and (images <= 1).all())
        ((2, 3, 64, 64), True)
    """

    def __init__(self, noise: int, size: int, width: int, classes: int = 0, *, grey: bool = False) -> None:
        super().__init__()
        if size not in SIZES:
            raise IsthmusError(
                f"Images of {size} pixels can't be generated; set data_free.image_size to a multiple of 8 from "
                f"{SIZES[0]} to {SIZES[-1]}."
            )
        if noise < 1 or width < 4 or width % 4 or classes < 0:
            raise IsthmusError(
                f"No generator has noise {noise}, width {width} and {classes} classes; set data_free.noise to 1 or "
                "more and data_free.width to a multiple of 4."
            )
        self.noise, self.size, self.width, self.classes = noise, size, width, classes
        self.sides = [size]
        while self.sides[0] > 4:
            self.sides.insert(0, (self.sides[0] + 1) // 2)
        channels = [self._channels(side) for side in self.sides]
        self.codes = nn.Embedding(classes, CODE) if classes else None
        self.start = nn.Linear(noise + (CODE if classes else 0), self.sides[0] ** 2 * width)
        self.start_norm = ClassNorm(width, classes)
        # A bias before a batch norm would do nothing.
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(ClassNorm(count, classes) for count in channels[1:])
        self.colours = nn.Conv2d(channels[-1], 1 if grey else 3, 3, padding=1)
        # Values of about unit variance before the sigmoid: images begin with the contrast of photos and not as grey.
        nn.init.normal_(self.colours.weight, std=CONTRAST / math.sqrt(9 * channels[-1]))
        if grey and self.colours.bias is not None:
            nn.init.constant_(self.colours.bias, PAPER)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _channels(self, side: int) -> int:
        count = self.width
        for _ in range(2):
            if side > FINEST_FULL:
                side, count = (side + 1) // 2, count // 2
        return count

    def forward(self, z: Tensor, codes: Tensor | None = None) -> Tensor:
        """Images of noise.

        Args:
            z: (n, noise), standard normal.
            codes: (n,) int64 in [0, classes), where the generator has classes.

        Returns:
            float32 (n, 3, size, size) in [0, 1].

        Raises:
            ValueError: codes for a generator without classes, or none for one with them.
        """
        if (codes is None) != (self.codes is None):
            raise ValueError(f"this generator has {self.classes} classes: codes must be given if that is not 0")
        if self.codes is not None:
            z = torch.cat([z, self.codes(codes).to(z.dtype)], dim=1)
        side = self.sides[0]
        # Channels last in memory from the first map on: on a CPU that is the fast layout for convolutions.
        x = self.start(z).view(len(z), side, side, self.width).permute(0, 3, 1, 2)
        x = F.leaky_relu(self.start_norm(x, codes), 0.2)
        for side, conv, norm in zip(self.sides[1:], self.convs, self.norms, strict=True):
            x = F.interpolate(x, size=(side, side), mode="nearest")
            x = F.leaky_relu(norm(conv(x), codes), 0.2)
        images: Tensor = self.colours(x)
        return images.float().sigmoid().expand(-1, 3, -1, -1)
