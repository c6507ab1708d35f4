"""Each metric's formula from the ranks of the relevant items, and what it is under a random order.

The expectations are exact, none is simulated. With n gallery items, of which r are relevant, each order equally likely,
the item at a rank is relevant with probability r / n, and two ranks hold relevant items with probability
r (r - 1) / (n (n - 1)). From that follow the expectations below; H(k) = 1 + 1/2 + ... + 1/k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from isthmus.errors import IsthmusError
from isthmus.evaluate.ranking import Floats, Hits, Ints

RECALLS = np.arange(1, 21) / 20


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """At which ranks to measure; the names of the metrics follow from it.

    Attributes:
        precision: `P@k`, hits in the top k over k. A gallery smaller than k counts as filled up with wrong items.
        micro: `Prec@k` of SynCDR, hits in the top K_q over K_q = min(k, relevant), both summed over queries.
        average: `mAP@k`, the precisions at the hits in the top k over min(k, relevant), and `mAP@k/found`, the same
            over the number of hits found there, as some papers have it; the two differ much.
        recall: `R@k`, at least one hit in the top k; also called CMC rank-k and Acc@k.
        gain: `nDCG@k`, the hits' 1 / log2(1 + rank) over the best possible.
        first: `mAP@khits (data-free-sbir)`, the mean precision at the first k hits, of all hits where there are fewer:
            that project's public code stops there. It is 1 where k hits lead, wherever the others stand, so it
            compares with no other figure; off by default.
    """

    precision: tuple[int, ...] = (1, 10, 100, 200)
    micro: tuple[int, ...] = (1, 5, 15)
    average: tuple[int, ...] = (200,)
    recall: tuple[int, ...] = (1, 5, 10, 20)
    gain: tuple[int, ...] = (10,)
    first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if any(k < 1 for k in (*self.precision, *self.micro, *self.average, *self.recall, *self.gain, *self.first)):
            raise IsthmusError("A metric's cutoff k is below 1; give ranks from 1 on.")


def first_hits(k: int) -> str:
    """The name of the truncated mean average precision.

    Example:
        >>> first_hits(10)
        'mAP@10hits (data-free-sbir)'
    """
    return f"mAP@{k}hits (data-free-sbir)"


def query_values(hits: Hits, relevant: Ints, ks: Cutoffs) -> dict[str, Floats]:
    """The metrics of each query of a block, from the ranks of its relevant items."""
    b = len(relevant)
    ends = np.cumsum(relevant)
    starts = ends - relevant
    rows, ranks = hits.rows, hits.ranks
    found = np.arange(1, len(rows) + 1) - starts[rows]  # how many hits up to and including this one
    precision = found / ranks

    def total(inside: NDArray[np.bool_], values: Floats | None = None) -> Floats:
        picked = np.bincount(rows[inside], None if values is None else values[inside], minlength=b)
        return picked.astype(np.float64)

    result = {"mAP@all": np.bincount(rows, precision, minlength=b) / relevant}
    for k in ks.average:
        inside = ranks <= k
        area = total(inside, precision)
        result[f"mAP@{k}"] = area / np.minimum(k, relevant)
        result[f"mAP@{k}/found"] = area / np.maximum(total(inside), 1)
    result |= {f"P@{k}": total(ranks <= k) / k for k in ks.precision}
    result |= {f"Prec@{k}": total(ranks <= np.minimum(k, relevant)[rows]) for k in ks.micro}
    result |= {f"R@{k}": (ranks[starts] <= k).astype(np.float64) for k in ks.recall}
    result["mINP"] = relevant / ranks[ends - 1]
    result["R-precision"] = total(ranks <= relevant[rows]) / relevant
    for k in ks.gain:
        best = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
        result[f"nDCG@{k}"] = total(ranks <= k, 1.0 / np.log2(1.0 + ranks)) / best[np.minimum(k, relevant) - 1]
    for k in ks.first:
        result[first_hits(k)] = total(found <= k, precision) / np.minimum(k, relevant)
    return result


def curves(hits: Hits, relevant: Ints) -> tuple[Ints, Floats]:
    """Each query's rank of the first relevant item (b,), and its precision at the recalls of `RECALLS` (b, 20)."""
    ends = np.cumsum(relevant)
    starts = ends - relevant
    needed = np.ceil(RECALLS * relevant[:, None] - 1e-9).astype(np.int64)
    return hits.ranks[starts], needed / hits.ranks[starts[:, None] + needed - 1]


def chance_scores(n: int, relevant: Ints, ks: Cutoffs) -> dict[str, float]:
    """The expectation of each score under a random order, averaged over the queries."""
    r, times = np.unique(relevant, return_counts=True)
    each: dict[str, Floats] = {"mAP@all": average_precision(n, r)}
    for k in ks.average:
        each[f"mAP@{k}"] = average_precision(n, r, k)
        each[f"mAP@{k}/found"] = average_precision_found(n, r, k)
    each |= {f"P@{k}": precision(n, r, k) for k in ks.precision}
    each |= {f"Prec@{k}": r / n for k in ks.micro}
    each |= {f"R@{k}": recall(n, r, k) for k in ks.recall}
    each["mINP"] = inverse_penalty(n, r)
    each["R-precision"] = r / n
    each |= {f"nDCG@{k}": discounted_gain(n, r, k) for k in ks.gain}
    each |= {first_hits(k): first_precisions(n, r, k) for k in ks.first}
    weights = {f"Prec@{k}": np.minimum(k, r) * times for k in ks.micro}
    return {name: float(np.average(value, weights=weights.get(name, times))) for name, value in each.items()}


def harmonic(k: int) -> float:
    """H(k), the k-th harmonic number."""
    return float((1.0 / np.arange(1, k + 1)).sum())


def log_choose(n: Floats | Ints | int, k: Floats | Ints | int) -> Floats:
    """Logarithm of the binomial coefficient."""
    result: Floats = gammaln(np.add(n, 1.0)) - gammaln(np.add(k, 1.0)) - gammaln(np.subtract(n, k) + 1.0)
    return result


def precision(n: int, r: Ints, k: int) -> Floats:
    """E[P@k] = min(k, n) r / (n k)."""
    return min(k, n) * r / (n * k)


def average_precision(n: int, r: Ints, k: int | None = None) -> Floats:
    """E[AP within the top k, over min(k, r)], all ranks without k (Bestgen, 2015, gives the case of all ranks).

    (r / n) / min(k, r) * (H(k) + (r - 1) / (n - 1) * (k - H(k)))
    """
    k = n if k is None else min(k, n)
    h = harmonic(k)
    result: Floats = r / n / np.minimum(k, r) * (h + (r - 1) / max(n - 1, 1) * (k - h))
    return result


def average_precision_found(n: int, r: Ints, k: int) -> Floats:
    """E[AP within the top k, over the hits found there], 0 where none is found.

    Given f hits in the top k their order is random there, so the expectation is linear in f:
    (H(k) P(f > 0) + (k - H(k)) / (k - 1) * (E f - P(f > 0))) / k.
    """
    k = min(k, n)
    h, any_hit = harmonic(k), recall(n, r, k)
    result: Floats = (h * any_hit + (k - h) / max(k - 1, 1) * (k * r / n - any_hit)) / k
    return result


def recall(n: int, r: Ints, k: int) -> Floats:
    """P(at least one hit in the top k) = 1 - C(n - r, k) / C(n, k)."""
    k = min(k, n)
    possible = n - r >= k
    missed = np.exp(log_choose(np.maximum(n - r, k), k) - log_choose(n, k))
    result: Floats = 1.0 - np.where(possible, missed, 0.0)
    return result


def inverse_penalty(n: int, r: Ints) -> Floats:
    """E[r / rank of the last relevant item], the rank being m with probability C(m - 1, r - 1) / C(n, r)."""
    result = np.empty(len(r), dtype=np.float64)
    for i, one in enumerate(r.tolist()):
        m = np.arange(one, n + 1)
        probability = np.exp(log_choose(m - 1, one - 1) - log_choose(n, one))
        result[i] = one * (probability / m).sum()
    return result


def discounted_gain(n: int, r: Ints, k: int) -> Floats:
    """E[nDCG@k] = r / n * (sum of all discounts to rank k) / (sum of the first min(k, r) discounts)."""
    discounts = np.cumsum(1.0 / np.log2(np.arange(2, min(k, n) + 2)))
    result: Floats = r / n * discounts[-1] / discounts[np.minimum(len(discounts), r) - 1]
    return result


def first_precisions(n: int, r: Ints, k: int) -> Floats:
    """E[mean of j / rank of hit j over j up to min(k, r)].

    Hit j has rank m with probability C(m - 1, j - 1) C(n - m, r - j) / C(n, r).
    """
    result = np.empty(len(r), dtype=np.float64)
    for i, one in enumerate(r.tolist()):
        total = 0.0
        for j in range(1, min(k, one) + 1):
            m = np.arange(j, n - one + j + 1)
            probability = np.exp(log_choose(m - 1, j - 1) + log_choose(n - m, one - j) - log_choose(n, one))
            total += j * float((probability / m).sum())
        result[i] = total / min(k, one)
    return result
