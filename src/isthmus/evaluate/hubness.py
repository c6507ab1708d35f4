"""Hubs, and holding them back: gallery items that answer many queries, whatever is asked.

N_k(g) is how many queries have item g among their first k; its skewness tells how much hubs rule (Radovanovic,
Nanopoulos and Ivanovic, JMLR 2010). Two corrections compare an item with a bank of queries that are not being asked:

    CSLS (Conneau et al., ICLR 2018):              2 cos(q, g) - r(q) - r(g),  r(g): mean cosine of g to its k nearest
                                                   queries of the bank, r(q): of q to its k nearest gallery items
    inverted softmax (Smith et al., ICLR 2017):    exp(beta cos(q, g)) / sum over the bank's b of exp(beta cos(b, g)),
                                                   times a factor of q

What depends on q alone changes no order of q's answers. What is left is one number of each gallery item: both order the
gallery as cos(q, g) - term(g), with term = r(g) / 2 and term = log(mean of exp(beta cos(b, g))) / beta. It is computed
once for a gallery and a bank, and costs a search one subtraction (or one more column: [q, 1] . [g, -term]).

The paper of CSLS takes the very queries as the bank. That is transductive; here the bank is the caller's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError
from isthmus.evaluate.ranking import Floats, Ints

Vectors = Tensor | NDArray[Any]
OCCURRENCES = 10  # k of N_k


def csls_term(gallery: Vectors, bank: Vectors, k: int = 10, *, limit: int = 64 << 20) -> Tensor:
    """What CSLS takes off each gallery item: half the mean cosine to its k nearest queries of the bank.

    Args:
        gallery: (n, d), any length; a zero vector has cosine 0.
        bank: (b, d) embeddings of queries, at least one; a bank smaller than k is taken whole.
        k: at least 1.
        limit: about how many bytes a block of cosines may take; n x b is never held.

    Returns:
        (n,) float32 in [-0.5, 0.5], for `correct`.

    Raises:
        IsthmusError: sizes that do not fit, an empty bank, k below 1, or a NaN or infinity.

    Example:
        >>> csls_term(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
        [0.5, 0.0]
    """
    if k < 1:
        raise IsthmusError(f"CSLS's k is {k}; give a whole number from 1 on.")
    return _term(gallery, bank, lambda cosines: cosines.topk(min(k, cosines.shape[1]), 1).values.mean(1) / 2, limit)


def inverted_softmax_term(gallery: Vectors, bank: Vectors, beta: float = 30.0, *, limit: int = 64 << 20) -> Tensor:
    """What the inverted softmax takes off each gallery item: log(mean over the bank of exp(beta cos)) / beta.

    Args:
        gallery, bank, limit: as of `csls_term`.
        beta: above 0; a large one looks at the nearest query of the bank alone, a small one at the mean cosine.

    Returns:
        (n,) float32 in [-1, 1], for `correct`.

    Raises:
        IsthmusError: as `csls_term`, or beta not above 0.

    Example:
        >>> inverted_softmax_term(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])).tolist()
        [1.0, 0.0]
    """
    if not 0 < beta < math.inf:
        raise IsthmusError(f"The inverted softmax's beta is {beta}; give a number above 0.")
    return _term(
        gallery, bank, lambda cosines: (torch.logsumexp(cosines * beta, 1) - math.log(cosines.shape[1])) / beta, limit
    )


def correct(scores: Tensor, term: Tensor) -> Tensor:
    """Scores with hubs held back: scores - term.

    Args:
        scores: (n,) cosines of one query to the gallery, or (q, n).
        term: (n,) of `csls_term` or `inverted_softmax_term`.

    Returns:
        The shape of `scores`. Twice the value of CSLS's is 2 cos - r(g); compare values of one query only.

    Example:
        >>> correct(torch.tensor([0.9, 0.8]), torch.tensor([0.4, 0.1])).argmax().item()
        1
    """
    return scores - term.to(scores)


def occurrences(found: Ints, n: int) -> Ints:
    """N_k: how many queries have each of n gallery items among their first k.

    Args:
        found: (q, k) gallery positions.
        n: gallery items.

    Example:
        >>> occurrences(np.array([[0, 2], [2, 1]]), 4).tolist()
        [1, 1, 2, 0]
    """
    return np.bincount(np.asarray(found).reshape(-1), minlength=n).astype(np.int64)


def skewness(counts: Ints | Floats) -> float:
    """E[(x - mean)^3] / deviation^3 of all values (population moments); 0 where all are equal.

    For N_k: near 0 or below where all items are found about equally often, far above 0 where hubs rule. It also grows
    with the gallery, so compare it on one gallery alone.

    Example:
        >>> round(skewness(np.array([0, 0, 0, 4])), 4)
        1.1547
    """
    centred = np.asarray(counts, dtype=np.float64) - np.mean(counts)
    deviation = float(np.sqrt((centred**2).mean()))
    return float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0


def _term(gallery: Vectors, bank: Vectors, of: Callable[[Tensor], Tensor], limit: int) -> Tensor:
    g, b = (torch.as_tensor(x).detach() for x in (gallery, bank))
    if g.ndim != 2 or b.ndim != 2 or g.shape[1] != b.shape[1]:
        raise IsthmusError(f"Gallery vectors {tuple(g.shape)} and those of the bank {tuple(b.shape)} differ in width.")
    if not len(b):
        raise IsthmusError("The bank that hubs are measured with has no query; give at least one.")
    b = ops.normalise(b.to(g.device).float())
    terms = g.new_empty(len(g), dtype=torch.float32)
    # Sums are float64 and rounded afterwards, so that equal items have equal terms wherever they stand in a block.
    for rows in ops.blocks(len(g), ops.block_rows(len(b), bytes_per_value=28, limit=limit)):
        terms[rows] = of(ops.similarity(ops.normalise(g[rows].float()), b).double()).float()
    if not bool(terms.isfinite().all()):
        raise IsthmusError("A vector of the gallery or of the bank holds NaN or an infinity; leave its image out.")
    return terms
