"""Small networks on an encoder's features: identities, attributes, domains."""

from __future__ import annotations

from typing import Literal

from torch import nn

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
