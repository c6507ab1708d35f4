"""How embeddings fill their space: what tells a collapse and a gap between domains. Higher is better for each."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(features: Tensor) -> float:
    """1 minus the squared length of the mean of unit vectors: their spherical variance, in [0, 1]; 0 when collapsed.

    Args:
        features: (n, d), unit length.

    Example:
        >>> spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        1.0
    """
    return 1.0 - float(features.double().mean(dim=0).square().sum())


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007), in [1, min(n, d)].

    The embeddings are not centred, as in RankMe (Garrido et al., ICML 2023).

    Args:
        features: (n, d).

    Example:
        >>> round(effective_rank(torch.eye(4)), 6)
        4.0
    """
    x = features.double()
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()
    p = singular / singular.sum().clamp(min=1e-300)
    return float(torch.special.entr(p).sum().exp())


def uniformity(inside: Tensor, t: float = 2.0) -> float:
    """Minus the uniformity loss log E exp(-t |x - y|^2) over pairs of one domain (Wang and Isola, ICML 2020).

    Args:
        inside: (n, n) cosine similarities of one domain, n at least 2.
        t: of the Gaussian kernel.

    Returns:
        In [0, 4 t]; 0 when collapsed.
    """
    return -float(_pairs(inside, t).log())


def domain_overlap(query_inside: Tensor, gallery_inside: Tensor, cross: Tensor, t: float = 2.0) -> float:
    """Minus the squared maximum mean discrepancy of the domains, kernel exp(-t |x - y|^2) (Gretton et al., JMLR 2012).

    The unbiased estimate, so it may be a little above 0 where the domains lie alike. It is 0 as well when collapsed.

    Args:
        query_inside: (n, n) cosine similarities.
        gallery_inside: (m, m).
        cross: (n, m).
        t: of the Gaussian kernel.
    """
    between = _kernel(cross, t).double().mean()
    return -float(_pairs(query_inside, t) + _pairs(gallery_inside, t) - 2 * between)


def _kernel(table: Tensor, t: float) -> Tensor:
    return (t * (2 * table - 2)).exp()


def _pairs(inside: Tensor, t: float) -> Tensor:
    """Mean of the kernel over pairs of different items."""
    n = len(inside)
    kernel = _kernel(inside, t)
    return (kernel.sum(dtype=torch.float64) - kernel.diagonal().sum(dtype=torch.float64)) / (n * (n - 1))
