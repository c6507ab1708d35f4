"""Random changes of generated images against one image at a time, pixel by pixel, and torchvision's colours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isthmus.methods.jitter import Jitter, jittered
from isthmus.runtime import prepare_torchvision


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_view(image: Tensor, down: int, right: int, flip: bool, bright: float, contrast: float) -> Tensor:
    """One image, pixel by pixel, then the library's changes of colour."""
    prepare_torchvision()
    from torchvision.transforms.v2 import functional as F

    _, height, width = image.shape
    view = torch.empty_like(image)
    for i in range(height):
        for j in range(width):
            at = width - 1 - j if flip else j
            view[:, i, j] = image[:, min(max(i + down, 0), height - 1), min(max(at + right, 0), width - 1)]
    changed: Tensor = F.adjust_contrast(F.adjust_brightness(view, bright), contrast)
    return changed


@pytest.mark.parametrize("settings", [Jitter(2, True, 0.4, 0.5), Jitter(3), Jitter(flip=True), Jitter(contrast=0.9)])
def test_jitter_is_what_the_library_does_with_each_image(settings: Jitter) -> None:
    images = torch.rand(12, 3, 6, 9, generator=dice(4))
    views = jittered(images, settings, dice(5))
    draws = torch.rand(5, 12, generator=dice(5), dtype=torch.float64)
    kinds = set()
    for i in range(12):
        down, right = (math.floor(float(draws[k, i]) * (2 * settings.pad + 1)) - settings.pad for k in range(2))
        flip = settings.flip and float(draws[2, i]) < 0.5
        kinds.add((down, right, flip))
        bright = 1 + settings.brightness * (2 * float(draws[3, i]) - 1)
        contrast = 1 + settings.contrast * (2 * float(draws[4, i]) - 1)
        wanted = slow_view(images[i], down, right, flip, bright, contrast)
        torch.testing.assert_close(views[i], wanted, rtol=0, atol=1e-5)
    assert len(kinds) > 1 or settings.contrast
    assert views.is_contiguous(memory_format=torch.channels_last)


def test_jitter_of_bytes_and_of_nothing() -> None:
    pixels = (torch.rand(5, 3, 7, 7, generator=dice(1)) * 255).round().to(torch.uint8)
    assert torch.equal(jittered(pixels, Jitter(), dice()), pixels.float() / 255)
    settings = Jitter(2, True, 0.3, 0.3)
    torch.testing.assert_close(jittered(pixels, settings, dice(2)), jittered(pixels.float() / 255, settings, dice(2)))
    plain, moved = jittered(pixels, Jitter(2), dice(2)), jittered(pixels, Jitter(2, brightness=1e-9), dice(2))
    torch.testing.assert_close(plain, moved)  # one change more leaves the shifts as they are
