"""How much of the shift between two domains a translation closes: Fréchet distances.

The domain classifier that goes with them is `isthmus.evaluate.probe`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate.probe import FEWEST

DRAWS = 5  # random splits over which the Fréchet distances are averaged


@dataclass(frozen=True)
class Spread:
    """A mean over random draws and their standard deviation."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; the deviation of a single one is 0. One that is no number makes both none."""
        if not all(math.isfinite(value) for value in values):
            return cls(math.nan, math.nan)  # `statistics` fails on them
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Frechet:
    """Fréchet distances to the target domain, all between samples of `n` images.

    Attributes:
        before: from the source images.
        after: from their counterparts.
        floor: from other target images: what samples of this size show where there is no shift.
        closed: (before - after) / (before - floor): 0 nothing, 1 all of the shift, negative: moved away.
        n: images on either side.
        draws: random splits of the target over which the above are means.
    """

    before: Spread
    after: Spread
    floor: Spread
    closed: Spread
    n: int
    draws: int


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets of features, each taken for a normal distribution (Heusel et al., 2017, FID).

    d^2 = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), S the sample covariance. The last trace is the sum of
    the singular values of A B^T for any A^T A = S_a and B^T B = S_b, which needs neither a matrix root nor a full rank.
    The distance of small samples comes out too large: compare only distances of samples of equal size.

    Args:
        a: (n, d), n >= 2.
        b: (m, d), m >= 2.

    Raises:
        IsthmusError: fewer than two rows, other widths, or values that are not finite.

    Example:
        >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
        9.0
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise IsthmusError(
            f"A Fréchet distance is of two sets (n, d) and (m, d) of at least 2 rows, not of {tuple(a.shape)} and "
            f"{tuple(b.shape)}."
        )
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise IsthmusError("The features hold NaN or an infinity: leave the images out that could not be read.")
    a, b = a.double(), b.double()
    gap = float((a.mean(0) - b.mean(0)).square().sum())
    left, right = _root(a), _root(b)
    cross = float(torch.linalg.svdvals(left @ right.T).sum())
    return max(0.0, gap + float(left.square().sum()) + float(right.square().sum()) - 2 * cross)


def _root(x: Tensor) -> Tensor:
    """Some R with R^T R = the covariance of x (n, d): at most d rows."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def frechet_figure(source: Tensor, made: Tensor, target: Tensor, *, draws: int = DRAWS, seed: int = 0) -> Frechet:
    """Fréchet distances before and after translation, and their floor, on samples of one size.

    In each draw the target is split: one half is the reference, the other one the floor. Source images and their
    counterparts are drawn together.

    Args:
        source: (n, d), features of source images.
        made: (n, d), of their counterparts in the same order.
        target: (m, d), of real images of the target domain.
        draws: random splits.
        seed: of the draws.

    Raises:
        IsthmusError: too few images: 8 source images and 16 target images at least.
    """
    n = min(len(source), len(target) // 2)
    if len(source) != len(made) or n < FEWEST:
        raise IsthmusError(
            f"{len(source)} source images, {len(made)} counterparts and {len(target)} target images are too few for a "
            f"Fréchet distance: it takes {FEWEST} pairs and {2 * FEWEST} target images."
        )
    generator = torch.Generator().manual_seed(seed)
    before, after, floor, closed = [], [], [], []
    for _ in range(draws):
        pairs = torch.randperm(len(source), generator=generator)[:n]
        order = torch.randperm(len(target), generator=generator)
        reference, rest = target[order[:n]], target[order[n : 2 * n]]
        before.append(frechet_distance(source[pairs], reference))
        after.append(frechet_distance(made[pairs], reference))
        floor.append(frechet_distance(rest, reference))
        shift = before[-1] - floor[-1]
        closed.append((before[-1] - after[-1]) / shift if shift > 0 else math.nan)
    return Frechet(Spread.of(before), Spread.of(after), Spread.of(floor), Spread.of(closed), n, draws)
