"""Contrast between two domains whose images have no labels, only what a classifier believes of each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def posterior_contrast(
    query: Tensor, gallery: Tensor, query_posteriors: Tensor, gallery_posteriors: Tensor, temperature: float = 0.07
) -> Tensor:
    """Images of both domains draw near as far as they probably show one class.

    With `m_ij = q_i . g_j`, the probability that image i of the one domain and image j of the other show the same class
    (each classifier by itself), `- 1/2 mean_i sum_j m_ij / sum_k m_ik log softmax_j(s_ij / T) - 1/2` the same of the
    columns, with cosines s. With posteriors that are sure it is the supervised contrastive loss (Khosla et al., arXiv
    2004.11362, eq. 2) across domains; an image that shares no class with the batch's others weighs nothing.

    Args:
        query: (n, d) unit vectors.
        gallery: (m, d) unit vectors.
        query_posteriors: (n, c) in [0, 1], probabilities of the classes that both domains know; constants.
        gallery_posteriors: (m, c), in the same order of classes.
        temperature: T > 0.

    Returns:
        A scalar >= 0.

    Example:
        >>> sure = torch.eye(2)
        >>> round(float(posterior_contrast(torch.eye(2), torch.eye(2), sure, sure, 1.0)), 4)
        0.3133
    """
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ gallery.float().T / temperature
        alike = (query_posteriors.float() @ gallery_posteriors.float().T).detach()
    return 0.5 * (_one_way(scores, alike) + _one_way(scores.T, alike.T))


def _one_way(scores: Tensor, alike: Tensor) -> Tensor:
    total = alike.sum(dim=1, keepdim=True)
    share = alike / total.clamp(min=1e-6)
    each = -(share * F.log_softmax(scores, dim=1)).sum(dim=1)
    return each.mean()
