"""Random changes of batches of images, on any device, from draws that are the same on each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601: what a picture's mean brightness is, for its contrast


@dataclass(frozen=True)
class Jitter:
    """Random changes of generated images, which each photo and each sketch draws for itself.

    Attributes:
        pad: the image is shifted by up to so many pixels in each direction; its border goes on beyond it.
        flip: whether half of the images are mirrored left to right.
        brightness: the image is multiplied by a factor in [1 - brightness, 1 + brightness].
        contrast: its difference from its mean grey is multiplied by a factor in [1 - contrast, 1 + contrast].
    """

    pad: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0


def jittered(images: Tensor, settings: Jitter, dice: torch.Generator) -> Tensor:
    """Random views, each image's own.

    The draws are made on the CPU, and how many doesn't depend on the settings: one seed gives the same views on every
    device, and switching one change off leaves the others as they are.

    Args:
        images: (n, 3, h, w) float in [0, 1] or uint8, on any device.
        settings: what may change.
        dice: a generator of the CPU.

    Returns:
        float32 (n, 3, h, w) in [0, 1], channels last in memory.

    Example:
        >>> jittered(torch.rand(4, 3, 32, 32), Jitter(pad=4, flip=True), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """
    n, _, height, width = images.shape
    draws = torch.rand(5, n, generator=dice, dtype=torch.float64)
    down, right = ((draws[:2] * (2 * settings.pad + 1)).long() - settings.pad).unbind()
    rows = (torch.arange(height)[None] + down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width)[None] + right[:, None]).clamp(0, width - 1)
    if settings.flip:
        columns = torch.where((draws[2] < 0.5)[:, None], columns.flip(1), columns)
    device = images.device
    which = torch.arange(n, device=device)[:, None, None]
    views = images.permute(0, 2, 3, 1)[which, rows.to(device)[:, :, None], columns.to(device)[:, None]]
    views = views.permute(0, 3, 1, 2)
    x = views.float() / 255 if views.dtype == torch.uint8 else views.float()
    bright, contrast = (
        (1 + amount * (2 * draw - 1)).float().to(device)[:, None, None, None]
        for amount, draw in ((settings.brightness, draws[3]), (settings.contrast, draws[4]))
    )
    if settings.brightness:
        x = (x * bright).clamp(0, 1)
    if settings.contrast:
        grey = (x * x.new_tensor(LUMA)[None, :, None, None]).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        x = (grey + (x - grey) * contrast).clamp(0, 1)
    return x
