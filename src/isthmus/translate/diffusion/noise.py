"""Noise that belongs to an image, not to its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each image, for the `generator` argument of diffusers' pipelines.

    They live on the CPU whatever the device: its stream of numbers is the same on every machine.

    Args:
        seeds: of the images, 63 bits.

    Example:
        >>> first, second = generators([1, 2])
        >>> first.initial_seed()
        1
    """
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_noise(
    seeds: Sequence[int],
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Standard normal noise (b, *shape), row i from seed i alone: drawn in float32 on the CPU, then moved.

    Args:
        seeds: of the images.
        shape: of one image's latents, such as (4, 64, 64).
        dtype: of the result; None is float32.
        device: of the result.

    Example:
        >>> both, alone = initial_noise([1, 2], (4, 8, 8)), initial_noise([2], (4, 8, 8))
        >>> bool((both[1] == alone[0]).all())
        True
    """
    import torch

    rows = [torch.randn(shape, generator=generator) for generator in generators(seeds)]
    return torch.stack(rows).to(device=device, dtype=dtype or torch.float32)
