"""Alpha query expansion (Radenovic, Tolias and Chum, TPAMI 2019): a query asks again, joined with its first hits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError


@torch.no_grad()
def expand_queries(
    query: Tensor,
    gallery: Tensor,
    n: int = 50,
    alpha: float = 3.0,
    *,
    tie_keys: Tensor | None = None,
    limit: int = 64 << 20,
) -> Tensor:
    """The queries to ask again: q' = (q + sum over the first n hits g of max(0, q.g)^alpha g), made unit.

    With alpha = 0 it is the average query expansion of Chum et al. (ICCV 2007), over the hits that are not opposed to
    the query. Each query is expanded by the gallery alone, so it depends on no other query.

    Args:
        query: (q, d), unit length.
        gallery: (m, d), unit length, on the same device.
        n: hits that take part, at least 1; a smaller gallery takes part as a whole.
        alpha: 0 or more; the larger, the less far hits count.
        tie_keys: (m,) of `ops.tie_keys`, which order equal hits.
        limit: about how many bytes a block of scores may take; q x m is never held.

    Returns:
        (q, d) float32 of unit length.

    Raises:
        IsthmusError: n or alpha out of range, or a vector holds NaN or an infinity.

    Example:
        >>> q, g = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
        >>> [round(x, 3) for x in expand_queries(q, g, n=1, alpha=1.0)[0].tolist()]  # (1, 0) + 0.6 (0.6, 0.8)
        [0.943, 0.333]
    """
    if n < 1 or not 0 <= alpha < math.inf:
        raise IsthmusError(f"Query expansion with n={n} and alpha={alpha} is none; give n from 1 and alpha from 0 on.")
    scores, found = ops.top_k(query, gallery, n, tie_keys=tie_keys, limit=limit)
    # A zero raised to 0 is 1, but an opposed hit must not count for alpha = 0 either.
    weights = torch.where(scores > 0, scores.clamp(min=0.0) ** alpha, 0.0)
    total = query.float().clone()
    for place in range(found.shape[1]):  # not all at once: q x n x d may be far more than the vectors
        total += weights[:, place, None] * gallery[found[:, place]].float()
    return ops.normalise(total)
