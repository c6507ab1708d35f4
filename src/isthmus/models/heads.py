"""Small networks on an encoder's features: identities, attributes, domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1  # of the leaky units in the public code of IHDA
Style = Literal["plain", "norm"]


def mlp(width: int, out: int, *, hidden: int = 512, style: Style = "plain", dropout: float = 0.0) -> nn.Sequential:
    """Two hidden layers and an output: `hidden-hidden-out`.

    Args:
        width: of the features.
        out: how many outputs.
        hidden: width of both hidden layers.
        style: `"plain"`, ReLU as in the paper of IHDA, or `"norm"`, batch norm and leaky ReLU as in its code.
        dropout: share of hidden units left out in training.

    Example:
        >>> sum(isinstance(layer, nn.Linear) for layer in mlp(8, 3))
        3
    """
    layers: list[nn.Module] = []
    for size in (width, hidden):
        layers.append(nn.Linear(size, hidden))
        layers += [nn.BatchNorm1d(hidden), nn.LeakyReLU(SLOPE)] if style == "norm" else [nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(hidden, out))
    return nn.Sequential(*layers)


def classifier(width: int, out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """One linear layer with small weights, as person re-identification puts it behind a BN-neck."""
    linear = nn.Linear(width, out)
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Dropout(dropout), linear)


class JoinedHead(nn.Module):
    """Features to one vector that holds an embedding and, beside it, a network's stages and a classifier's beliefs.

    With e_0, the map of the last features, and the stages' features e_1 .. e_n, each of unit length, the embedding is
    `e = (sqrt(1 - s) e_0, sqrt(s / n) e_1, .., sqrt(s / n) e_n)`: its cosine is the mean of its parts' with these
    weights. With class probabilities p the vector is `(sqrt(w) p, sqrt(w) sqrt(1 - p p), 0, sqrt(1 - w) e)`, with the
    second and third place exchanged on the other side: both sides' vectors have unit length, and their cosine is
    `w p p' + (1 - w) e e'`, the probability that both show one class and the embeddings' cosine.

    Args:
        width: of the last features.
        dim: of e_0.
        classes: of the classifier; 0: no probabilities, and the vector is e.
        share: w in [0, 1].
        stages: widths of the stages' features; empty: e is e_0.
        stages_share: s in [0, 1].

    Attributes:
        out: width of the vector.
        side: 0 or 1, which of the two domains.

    Example:
        >>> head = JoinedHead(8, 6, classes=3, share=0.5, stages=(4, 4), stages_share=0.5)
        >>> head(torch.randn(2, 8), stages=[torch.randn(2, 4), torch.randn(2, 4)]).shape
        torch.Size([2, 19])
    """

    side: Tensor

    def __init__(
        self, width: int, dim: int, classes: int = 0, share: float = 0.0, stages: Sequence[int] = (),
        stages_share: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Linear(width, dim)
        nn.init.orthogonal_(self.embedding.weight)
        nn.init.zeros_(self.embedding.bias)
        self.classifier = nn.Linear(width, classes) if classes else None
        self.dim, self.share, self.stages_share = dim, share, stages_share
        self.out = dim + sum(stages) + (classes + 2 if classes else 0)
        self.register_buffer("side", torch.zeros((), dtype=torch.int64))

    def embed(self, features: Tensor) -> Tensor:
        """(n, width) -> (n, dim): e_0 alone, float32, unit length."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.embedding(features.float()), dim=1)

    def forward(self, features: Tensor, stages: Sequence[Tensor] = ()) -> Tensor:
        """(n, width) and each stage's (n, c) -> (n, out), float32, unit length."""
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.embed(features)
            if stages:
                last, each = math.sqrt(1 - self.stages_share), math.sqrt(self.stages_share / len(stages))
                embedding = torch.cat(
                    [last * embedding, *(each * F.normalize(part.float(), dim=1) for part in stages)], dim=1
                )
            if self.classifier is None:
                return embedding
            beliefs = self.classifier(features.float()).softmax(dim=1)
            # Not down to 0, where a root has no slope: a generator would get NaN from a teacher that is quite sure.
            rest = (1 - beliefs.square().sum(dim=1, keepdim=True)).clamp(min=1e-12).sqrt()
            slots = rest * (torch.arange(2, device=rest.device) == self.side).to(rest.dtype)
            both = [math.sqrt(self.share) * beliefs, math.sqrt(self.share) * slots]
            return torch.cat([*both, math.sqrt(1 - self.share) * embedding], dim=1)
