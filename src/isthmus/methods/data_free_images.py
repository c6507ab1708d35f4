"""What the students of data-free training look at: batches of images in [0, 1] of both domains, with class codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.config import DataFreeConfig
from isthmus.losses import NormStatistics, class_coding, modality_loss, statistics_loss, total_variation
from isthmus.models.classifier import Classifier
from isthmus.models.generator import PAPER
from isthmus.models.teachers import SIDES, Teachers

SPREAD = 0.25  # standard deviation of Gaussian noise around a middle grey
SHIFT = 0.0625  # of the side: how far an inverted image is moved at random, so that no pixel stands alone
INVERSION_RATE = 0.1


class Pictures(NamedTuple):
    """Images of both domains; row i of both was made from one z where they are pairs.

    Attributes:
        images: query and gallery, float32 (n, 3, s, s) in [0, 1].
        codes: their classes in the common label space, int64 (n,), -1 where unknown.
        pairs: whether row i of both belongs together.
    """

    images: tuple[Tensor, Tensor]
    codes: tuple[Tensor, Tensor]
    pairs: bool


def draw_classes(teachers: Teachers, count: int, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes to ask for, (count,) each in the common label space: balanced, and one class for both where both know it.

    A class of one teacher alone meets one of the other's own, or a matched one where the other has none of its own.
    """
    known = [teachers.known(side).cpu() for side in SIDES]
    both = torch.arange(teachers.matched)
    own = [part[part >= teachers.matched] for part in known]
    slots = len(both) + max(len(part) for part in own)
    order = torch.cat([torch.randperm(slots, generator=dice) for _ in range(-(-count // slots))])[:count]
    found = []
    for part in own:
        stand_in = both[torch.randint(len(both), (count,), generator=dice)]
        mine = part[(order - len(both)).clamp(min=0) % len(part)] if len(part) else stand_in
        found.append(torch.where(order < len(both), order, mine))
    return found[0], found[1]


def gaussian(count: int, side: int, dice: torch.Generator) -> Tensor:
    """Gaussian noise around a middle grey, (count, 3, side, side) in [0, 1]."""
    return (0.5 + SPREAD * torch.randn(count, 3, side, side, generator=dice)).clamp(0, 1)


def invert(
    teacher: Classifier,
    targets: Tensor,
    settings: DataFreeConfig,
    dice: torch.Generator,
    modality: tuple[Classifier, int] | None = None,
    *,
    grey: bool = False,
) -> Tensor:
    """Images that a teacher takes for the wanted classes, each optimised by itself (DeepInversion, arXiv 1912.08795).

    `semantic CE + statistics + total variation (+ modality)`, Adam on the pixels, under random shifts and flips.

    Args:
        teacher: the classifier.
        targets: (n,) int64, its columns.
        settings: weights, steps and side.
        dice: of the first images and the shifts.
        modality: the modality classifier and the column of this domain.
        grey: whether the three colours are one, and images begin light: as sketches.

    Returns:
        float32 (n, 3, side, side) in [0, 1], on the teacher's device.
    """
    side, device = settings.image_size, targets.device
    pixels = torch.randn(len(targets), 1 if grey else 3, side, side, generator=dice).to(device)
    pixels = (pixels + PAPER if grey else pixels).requires_grad_(True)
    optimizer = torch.optim.Adam([pixels], INVERSION_RATE)
    norms, reach = teacher.norms() if settings.statistics_weight else [], round(SHIFT * side)
    for step in range(settings.inversion_steps):
        for group in optimizer.param_groups:
            group["lr"] = INVERSION_RATE * (1 - step / settings.inversion_steps)
        images = pixels.sigmoid().expand(-1, 3, -1, -1)
        shift = torch.randint(-reach, reach + 1, (2,), generator=dice).tolist()
        seen = images.roll(shifts=(shift[0], shift[1]), dims=(2, 3))
        if torch.rand((), generator=dice) < 0.5:
            seen = seen.flip(3)
        if norms:
            with NormStatistics(norms) as statistics:
                answers = teacher.answer(seen)
            loss = settings.statistics_weight * statistics_loss(statistics.captured, settings.statistics)
        else:
            answers = teacher.answer(seen)
            loss = pixels.new_zeros(())
        loss = loss + settings.semantic_weight * class_coding(answers.logits, targets)
        loss = loss + settings.variation_weight * total_variation(images)
        if modality is not None and settings.modality_weight:
            loss = loss + settings.modality_weight * modality_loss(modality[0].answer(seen).logits, modality[1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return pixels.detach().sigmoid().expand(-1, 3, -1, -1)


def resized(images: Tensor, side: int) -> Tensor:
    """Images (n, 3, h, w) at a square size."""
    if tuple(images.shape[2:]) == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
