"""The losses of unlabelled, unpaired domains: CDS, SynCDR and CUT. Features are unit vectors unless said otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def instance_discrimination(features: Tensor, bank: Tensor, slots: Tensor, temperature: float = 0.1) -> Tensor:
    """L_ID of SynCDR for one set: each image against every memory slot of its set.

    `CE(f M^T / T, slot)`, mean over the batch (arXiv 2401.00420; CDS, Kim et al. 2021).

    Args:
        features: (b, d), unit length.
        bank: (n, d), unit length; a constant here.
        slots: (b,) int64, each image's slot in [0, n).
        temperature: > 0.

    Returns:
        A scalar >= 0.

    Example:
        >>> eye = torch.eye(3)
        >>> round(float(instance_discrimination(eye, eye, torch.arange(3), 1.0)), 4)
        0.5514
    """
    return F.cross_entropy(features @ bank.T / temperature, slots)


def cross_domain_matching(features: Tensor, bank: Tensor, temperature: float = 0.1, top: int = 700) -> Tensor:
    """L_CDM of SynCDR for one direction: entropy of an image's matches among the other domain's slots.

    `H(softmax(top_k(f M^T / T)))` with `H(p) = - mean_b sum_j p_bj log(p_bj + 1e-5)`. A low entropy means that the
    image has decided for few neighbours. At most `top` slots take part, all of them where the bank is smaller.

    Args:
        features: (b, d), unit length.
        bank: (n, d), the other set's slots; a constant here.
        temperature: > 0.
        top: how many of the most similar slots take part.

    Returns:
        A scalar in [0, log(min(top, n))].
    """
    logits = features @ bank.T / temperature
    if top < logits.shape[1]:
        logits = logits.topk(top, dim=1).values
    p = logits.softmax(dim=1)
    return -(p * (p + 1e-5).log()).sum(dim=1).mean()


def pseudo_positive_pairs(
    counterparts: Tensor, keys: Tensor, temperature: float = 1.0, targets: Tensor | None = None
) -> Tensor:
    """L_PPP of SynCDR for one set: each counterpart must find the image it was made from among the batch.

    `CE(f_counterpart f_set^T / T_syn, diagonal)`. With T = 1 and unit vectors it can't fall below
    `log(1 + (b - 1) e^-2)`, 1.65 for 32 images: sharpen it for a strong term.

    Args:
        counterparts: (b, d), unit length.
        keys: (m, d), unit length: the features of the batch, of all processes where there are several.
        temperature: T_syn > 0.
        targets: (b,) int64, the row of `keys` that each counterpart was made from; 0 to b - 1 if None.

    Returns:
        A scalar >= 0.
    """
    if targets is None:
        targets = torch.arange(len(counterparts), device=counterparts.device)
    return F.cross_entropy(counterparts @ keys.T / temperature, targets)


def least_squares_gan(prediction: Tensor, *, real: bool) -> Tensor:
    """LSGAN: mean squared distance of a discriminator's output from 1 (real) or 0 (made) (arXiv 1611.04076, eq. 9).

    Args:
        prediction: any shape, a score for each place of each image.
        real: what the discriminator is to say, or for the generator's term, what it should be made to say.

    Example:
        >>> float(least_squares_gan(torch.tensor([0.0, 1.0]), real=True))
        0.5
    """
    return (prediction - float(real)).square().mean()


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """PatchNCE of one layer: each place of the translation against the same and other places of its source.

    `CE(q_s . k / T, s)`, mean over places and images; negatives are the other places of the same image
    (CUT, arXiv 2007.15651, eq. 3).

    Args:
        queries: (b, p, d) of the translation, unit length.
        keys: (b, p, d) of the source at the same places, unit length; a constant here.
        temperature: > 0.

    Returns:
        A scalar >= 0.

    Example:
        >>> eye = torch.eye(3)[None]
        >>> round(float(patch_nce(eye, eye, 1.0)), 4)
        0.5514
    """
    scores = queries @ keys.detach().transpose(1, 2) / temperature
    places = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape[:2])
    return F.cross_entropy(scores.flatten(0, 1), places.flatten())


class MemoryBank(nn.Module):
    """One unit vector a slot, renewed as `m <- normalise(momentum m + (1 - momentum) f)`.

    Args:
        slots: how many.
        dim: width of a feature.
        momentum: share of the old value, in [0, 1).

    Example:
        >>> bank = MemoryBank(4, 2)
        >>> bank.fill(torch.arange(4), torch.eye(2).repeat(2, 1))
        >>> bank.update(torch.tensor([0]), torch.tensor([[0.0, 1.0]]))
        >>> [round(x, 3) for x in bank.memory[0].tolist()]
        [0.707, 0.707]
    """

    memory: Tensor

    def __init__(self, slots: int, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("memory", torch.zeros(slots, dim))

    @torch.no_grad()
    def fill(self, slots: Tensor, features: Tensor) -> None:
        """Set slots to features, as before the first step."""
        self.memory[slots] = features.to(self.memory.dtype)

    @torch.no_grad()
    def update(self, slots: Tensor, features: Tensor) -> None:
        """Mix features (b, d) into their slots (b,). A slot named twice takes its entries one after the other."""
        for part in _rounds(slots):
            old = self.memory[slots[part]]
            new = self.momentum * old + (1 - self.momentum) * features[part].to(old.dtype)
            self.memory[slots[part]] = F.normalize(new, dim=1)


def _rounds(slots: Tensor) -> list[Tensor]:
    """Positions in rounds without a repeated slot: with repeats, an indexed assignment keeps an arbitrary one."""
    seen: dict[int, int] = {}
    turn: list[list[int]] = []
    for position, slot in enumerate(slots.tolist()):
        number = seen.get(slot, 0)
        seen[slot] = number + 1
        if number == len(turn):
            turn.append([])
        turn[number].append(position)
    return [torch.tensor(part, device=slots.device) for part in turn]
