"""Small networks on an encoder's features: identities, attributes, domains."""

from __future__ import annotations

import math
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


class BeliefHead(nn.Module):
    """Features to one vector that holds an embedding and what a classifier believes.

    With embedding e (unit length) and class probabilities p, the vector is
    `(sqrt(w) p, sqrt(w) sqrt(1 - p p), 0, sqrt(1 - w) e)`, with the second and third place exchanged on the other side:
    both sides' vectors have unit length, and their cosine is `w p p' + (1 - w) e e'`, the probability that both show
    one class and the embeddings' cosine.

    Args:
        width: of the features.
        dim: of the embedding.
        classes: of the classifier.
        share: w in [0, 1].

    Attributes:
        side: 0 or 1, which of the two domains.
    """

    side: Tensor

    def __init__(self, width: int, dim: int, classes: int, share: float) -> None:
        super().__init__()
        self.embedding, self.classifier = nn.Linear(width, dim), nn.Linear(width, classes)
        nn.init.orthogonal_(self.embedding.weight)
        nn.init.zeros_(self.embedding.bias)
        self.dim, self.share = dim, share
        self.register_buffer("side", torch.zeros((), dtype=torch.int64))

    def embed(self, features: Tensor) -> Tensor:
        """(n, width) -> (n, dim), the embedding alone, float32, unit length."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.embedding(features.float()), dim=1)

    def forward(self, features: Tensor, others: Tensor | None = None) -> Tensor:
        """(n, width) -> (n, classes + 2 + dim), float32, unit length; the classifier reads `others` where given."""
        with torch.autocast(features.device.type, enabled=False):
            beliefs = self.classifier((features if others is None else others).float()).softmax(dim=1)
            # Not down to 0, where a root has no slope: a generator would get NaN from a teacher that is quite sure.
            rest = (1 - beliefs.square().sum(dim=1, keepdim=True)).clamp(min=1e-12).sqrt()
            slots = rest * F.one_hot(self.side, 2)
            embedded = self.embed(features)
            both = [math.sqrt(self.share) * beliefs, math.sqrt(self.share) * slots]
            return torch.cat([*both, math.sqrt(1 - self.share) * embedded], dim=1)
