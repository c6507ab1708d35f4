"""Parts of IHDA that hold no state of a run: its heads and its triplets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.config import IhdaConfig
from isthmus.data.paired import PairedData, identity_of
from isthmus.losses import hardest_triplet
from isthmus.methods.base import Processes
from isthmus.models.heads import classifier, mlp
from isthmus.models.modules import Features

DOMAINS = 3  # source image, target gallery image, target query image
STEADY = 1e-4  # of the mean variance: a unit that hardly varies must not decide alone


def attribute_shape(settings: IhdaConfig) -> dict[str, Any]:
    """Arguments of `mlp` for the attribute head, as a model keeps them."""
    return {"hidden": settings.head_width, "style": settings.head_style, "dropout": settings.attribute_dropout}


def build_heads(settings: IhdaConfig, width: int, data: PairedData) -> dict[str, nn.Module]:
    """Fresh heads by name: those that the data has labels for, and the discriminator.

    Args:
        settings: their shapes.
        width: of the encoder's features.
        data: says how many identities and attributes there are.
    """

    def identities(count: int) -> nn.Module:
        if settings.identity_head == "linear":
            return classifier(width, count, dropout=settings.identity_dropout)
        dropout = settings.identity_dropout
        return mlp(width, count, hidden=settings.head_width, style=settings.head_style, dropout=dropout)

    heads: dict[str, nn.Module] = {}
    known = {identity_of(row) for row in data.source} - {None}
    if known:
        heads["source_identity"] = identities(len(known))
    heads["identity"] = identities(len({identity_of(row) for row in data.train[0]}))
    if data.attributes:
        heads["attributes"] = mlp(width, len(data.attributes), **attribute_shape(settings))
    heads["domain"] = mlp(width, DOMAINS, hidden=settings.head_width, style=settings.head_style)
    return heads


def centroid_logits(features: Tensor, labels: Tensor) -> Tensor:
    """What a discriminator without weights of its own says: how near each image lies to each domain's mean.

    `x m_k / d`, x standardised over the batch, m_k the mean of domain k there, held constant. Where the
    means agree, no linear classifier has a lower cross-entropy than a constant (Belrose et al., arXiv 2306.03819): they
    are what a linear probe lives on. Fitted anew at each step, they neither lag behind the encoders nor outrun them.

    Args:
        features: (b, d).
        labels: (b,) int64 in [0, `DOMAINS`); a domain without images gets no share.

    Returns:
        Logits (b, `DOMAINS`), 0 throughout where the means agree.

    Example:
        >>> centroid_logits(torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 2])).argmax(1).tolist()
        [1, 2]
    """
    centred = features.float() - features.float().mean(0)
    x = centred / (centred.square().mean(0) + STEADY * centred.square().mean()).sqrt().clamp(min=STEADY)
    own = F.one_hot(labels, DOMAINS).to(x)
    counts = own.sum(0)
    means = (own.T @ x).detach() / counts.clamp(min=1)[:, None]
    return (x @ means.T / x.shape[1]).masked_fill(counts == 0, -torch.inf)


class Triplets:
    """L_tri among the images of all processes.

    Args:
        settings: margin, distance, anchors, and whether the features become unit vectors.
        processes: this process among all.
    """

    def __init__(self, settings: IhdaConfig, processes: Processes) -> None:
        self.settings, self.processes = settings, processes

    def across(self, query: Features, gallery: Features, codes: Tensor) -> Tensor:
        """Of pairs: each query image against the gallery's, or each image of both against all.

        Args:
            query: of b images.
            gallery: of b images; image i shows the same identity as the query's.
            codes: (b,) identities.
        """
        if self.settings.anchors == "all":
            inner = None if query.inner is None or gallery.inner is None else torch.cat([query.inner, gallery.inner])
            joint = Features(torch.cat([query.pooled, gallery.pooled]), query.necked, inner)
            return self.among(joint, torch.cat([codes, codes]))
        ids = self.processes.gather_constant(codes)
        levels = zip(self._levels(query), self._levels(gallery), strict=True)
        return torch.stack([self._hardest(a, codes, self.processes.gather(b), ids) for a, b in levels]).sum()

    def among(self, features: Features, codes: Tensor) -> Tensor:
        """Of one set: each image against all others.

        Args:
            features: of b images.
            codes: (b,) identities, -1 where unknown.
        """
        ids = self.processes.gather_constant(codes)
        selves = torch.arange(len(codes), device=codes.device) + self.processes.rank * len(codes)
        levels = self._levels(features)
        return torch.stack([self._hardest(a, codes, self.processes.gather(a), ids, selves) for a in levels]).sum()

    def _levels(self, features: Features) -> list[Tensor]:
        levels = [features.pooled] if features.inner is None else [features.inner, features.pooled]
        return [F.normalize(level, dim=1) for level in levels] if self.settings.unit_triplets else levels

    def _hardest(
        self, anchors: Tensor, codes: Tensor, others: Tensor, ids: Tensor, selves: Tensor | None = None
    ) -> Tensor:
        form = self.settings.distance
        return hardest_triplet(anchors, codes, others, ids, margin=self.settings.margin, distance=form, selves=selves)
