"""Scores of all pairs of two sets, counted on a fine grid block by block: what verification is computed from.

A score belongs to one of 2^20 + 1 bins of width 2^-19 = 1.9e-6 over [-1, 1], finer than what bfloat16 or another batch
size move a cosine by. So memory does not grow with the number of pairs. For the bootstrap each query's counts are kept
at some hundred thresholds besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError
from isthmus.evaluate.ranking import cosine_scores

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STEPS = 1 << 19  # bins to a unit of cosine; a power of two, so that scaling a score is exact
BINS = 2 * STEPS + 1
SAMPLE = 256  # queries whose scores place the thresholds
MOST = 384  # so many different scores are all thresholds: the bootstrap is then exact
LIMIT = 32 << 20  # bytes of a block of float32 scores; what is made of it takes seven times as much
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class PairScores:
    """How the scores of q x n pairs are spread.

    Attributes:
        genuine, impostor: (BINS,) how many pairs of one identity, and of two, have a score in each bin.
        at: (K,) ascending bins from whose lower edge on a pair is accepted, in [0, BINS]; the last may accept nothing.
        exact: whether these part all scores that there are.
        genuine_at, impostor_at: (q, K) how many pairs of each query are accepted there.
        genuine_of, impostor_of: (q,) how many pairs each query has.
        mate, other: (q,) each query's best score among enrolled items of its identity, and of others; -inf for none.
    """

    genuine: Ints
    impostor: Ints
    at: Ints
    exact: bool
    genuine_at: NDArray[np.int32]
    impostor_at: NDArray[np.int32]
    genuine_of: Ints
    impostor_of: Ints
    mate: Floats
    other: Floats

    @property
    def pairs(self) -> tuple[int, int]:
        """How many genuine and impostor pairs there are."""
        return int(self.genuine.sum()), int(self.impostor.sum())


def edge(place: int) -> float:
    """The lower edge of a bin, as a score; of `BINS` a score that no cosine has.

    Example:
        >>> edge(0), edge(STEPS), edge(BINS) > 1
        (-1.0, 0.0, True)
    """
    return (place - STEPS) / STEPS


def bins_of(scores: Tensor) -> Tensor:
    """The bins of scores in [-1, 1], int32 of the same shape; beyond by a rounding error they count as -1 and 1."""
    return (scores * STEPS).floor_().clamp_(-STEPS, STEPS).to(torch.int32).add_(STEPS)


def rate_curves(found: PairScores) -> tuple[Floats, Floats]:
    """(BINS + 1,) each: false accept and false reject rate where all from the lower edge of a bin on are accepted."""
    far, tar = (x / max(1, int(x[0])) for x in map(accepted_from, (found.impostor, found.genuine)))
    return far, 1 - tar


def accepted_from(counts: Ints) -> Ints:
    """(BINS + 1,): how many scores are accepted where all from the lower edge of a bin on are; none at the last."""
    return np.append(counts[::-1].cumsum()[::-1], 0)


def first_within(accepted: Ints, rate: float) -> int:
    """The lowest bin from which on at most `rate` of the impostor pairs are accepted; see `accepted_from`."""
    # Whole numbers: a rate times a count is easily a hair below the whole number that it is.
    return int(np.searchsorted(-accepted, -int(np.floor(rate * int(accepted[0]) + 1e-9))))


def count_pairs(
    query: Tensor | NDArray[Any],
    gallery: Tensor | NDArray[Any],
    query_codes: Ints,
    gallery_codes: Ints,
    *,
    at: Ints | None = None,
    enrolled: NDArray[np.bool_] | None = None,
    itself: bool = False,
) -> PairScores:
    """Count the cosines of all pairs of a query and a gallery item.

    Memory over the inputs: about 300 MB, and 8 bytes for each query and threshold; independent of the number of pairs.

    Args:
        query: (q, d), of any length.
        gallery: (n, d).
        query_codes: (q,) integers; a pair of equal codes is genuine, any other an impostor's.
        gallery_codes: (n,).
        at: the bins where queries are counted one by one; chosen by the scores of some queries if None.
        enrolled: (n,) which gallery items count for `mate` and `other`; none if left out.
        itself: both sets are the same images in the same order: the pair of an image with itself is left out.

    Raises:
        IsthmusError: a vector holds NaN or an infinity, or the vectors differ in width.

    Example:
        >>> found = count_pairs(torch.eye(2), torch.eye(2), np.array([0, 1]), np.array([0, 1]))
        >>> found.pairs, int(found.genuine[bins_of(torch.tensor(1.0))])
        ((2, 2), 2)
    """
    scores_of, q, g = cosine_scores(query, gallery)
    codes, others = torch.from_numpy(query_codes), torch.from_numpy(gallery_codes)

    def scored(rows: Tensor) -> tuple[Tensor, Tensor, NDArray[np.int32]]:
        """Scores, which of them are genuine, and their bins: genuine ones behind the impostors', own pairs behind."""
        scores = scores_of(rows)
        if not bool(scores.sum().isfinite()):
            raise IsthmusError("A query or gallery vector holds NaN or an infinity; leave its image out.")
        genuine = codes[rows, None] == others
        places = bins_of(scores)
        places[genuine.nonzero(as_tuple=True)] += BINS  # few: a product with the mask takes ten times as long
        if itself:
            places[torch.arange(len(rows)), rows] = 2 * BINS
        return scores, genuine, places.numpy()

    exact = at is not None
    rows_at_once = min(1 << 14, ops.block_rows(len(g), limit=LIMIT))
    if at is None:
        sample = torch.from_numpy(np.unique(np.linspace(0, len(q) - 1, min(SAMPLE, len(q))).round().astype(np.int64)))
        counts = np.zeros(2 * BINS + 1, np.int64)
        for part in ops.blocks(len(sample), rows_at_once):
            counts += np.bincount(scored(sample[part])[2].reshape(-1), minlength=2 * BINS + 1)
        at, exact = _thresholds(counts[BINS:-1], counts[:BINS], complete=len(sample) == len(q))
    k = len(at)
    passed = np.searchsorted(at, np.arange(BINS), side="right").astype(np.int32)
    coarse = np.concatenate([passed, passed + k + 1, np.array([2 * k + 2], np.int32)])
    total = np.zeros(2 * BINS + 1, np.int64)
    accepted = [np.empty((len(q), k), np.int32) for _ in range(2)]
    whole = [np.empty(len(q), np.int64) for _ in range(2)]
    mate, other = np.full(len(q), -np.inf), np.full(len(q), -np.inf)
    enrolled_at = torch.from_numpy(np.flatnonzero(enrolled)) if enrolled is not None else torch.empty(0).long()
    for part in ops.blocks(len(q), rows_at_once):
        scores, genuine, places = scored(torch.arange(part.start, part.stop))
        total += np.bincount(places.reshape(-1), minlength=2 * BINS + 1)
        width = 2 * k + 3
        offsets = (np.arange(len(places)) * width)[:, None]
        table = np.bincount((coarse[places] + offsets).reshape(-1), minlength=len(places) * width).reshape(-1, width)
        for kind in (0, 1):
            tail = table[:, kind * (k + 1) : (kind + 1) * (k + 1)][:, ::-1].cumsum(axis=1)[:, ::-1]
            accepted[kind][part], whole[kind][part] = tail[:, 1:], tail[:, 0]
        if len(enrolled_at):
            some, same = scores[:, enrolled_at], genuine[:, enrolled_at]
            mate[part] = some.masked_fill(~same, -torch.inf).amax(dim=1).double().numpy()
            other[part] = some.masked_fill_(same, -torch.inf).amax(dim=1).double().numpy()
    return PairScores(
        total[BINS:-1], total[:BINS], at, exact, accepted[1], accepted[0], whole[1], whole[0], mate, other
    )  # fmt: skip


def _thresholds(genuine: Ints, impostor: Ints, *, complete: bool) -> tuple[Ints, bool]:
    """Where to count each query: at every score if these are few, else dense where error rates are read.

    That is at rates of false acceptance spread evenly over their logarithm, at even shares of the genuine pairs, and
    above the highest score seen, as the sample may lack the highest of all.
    """
    occupied = np.flatnonzero(genuine + impostor)
    ends = np.array([0, BINS])
    if complete and len(occupied) <= MOST:
        return np.union1d(occupied, ends), True
    above = impostor[::-1].cumsum()[::-1]
    rates = np.geomspace(1, max(1, above[0]), 224)  # how many impostors may pass
    below = genuine.cumsum()
    shares = np.linspace(0, below[-1], 64)
    top = np.linspace(occupied[-1] if len(occupied) else 0, BINS, 33).astype(np.int64)
    # `above` falls with the bin: the first bin where at most so many pass.
    places = [np.searchsorted(-above, -rates), np.searchsorted(below, shares), top, ends]
    return np.unique(np.concatenate(places)), False
