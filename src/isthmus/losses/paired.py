"""The losses of labelled pairs and attributes: IHDA (IEEE TMM 2020)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12


def identity_loss(logits: Tensor, identities: Tensor, smoothing: float = 0.0) -> Tensor:
    """L_id: cross-entropy over identities; images of unknown identity are left out.

    With smoothing e and n identities the target is (1 - e) for the own one, and e / n more for each.

    Args:
        logits: (b, n).
        identities: (b,) int64 in [0, n), or -1 where unknown.
        smoothing: e in [0, 1).

    Returns:
        A scalar >= 0; 0 where no identity is known.

    Example:
        >>> round(float(identity_loss(torch.zeros(1, 2), torch.tensor([0]))), 4)
        0.6931
    """
    known = identities >= 0
    if not known.any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits[known].float(), identities[known], label_smoothing=smoothing)


def hardest_triplet(
    anchors: Tensor,
    anchor_ids: Tensor,
    others: Tensor,
    other_ids: Tensor,
    *,
    margin: float = 0.3,
    distance: Literal["squared", "euclidean"] = "squared",
    selves: Tensor | None = None,
) -> Tensor:
    """L_tri: each anchor nearer to its farthest positive than to its nearest negative, by a margin.

    `mean_a max(0, max_p d(a, p) - min_n d(a, n) + margin)` (Hermans et al., arXiv 1703.07737, eq. 5). In IHDA the
    anchors are sketches and the others photos.

    Args:
        anchors: (b, d).
        anchor_ids: (b,) int64; an anchor of unknown identity (-1) is left out.
        others: (m, d).
        other_ids: (m,) int64; images of unknown identity (-1) are neither positives nor negatives.
        margin: >= 0, in the distance's unit.
        distance: `"squared"` or plain Euclidean.
        selves: (b,) int64, the row of `others` that is the anchor itself and no positive; None where anchors are not
            among the others.

    Returns:
        A scalar >= 0; 0 where no anchor has both a positive and a negative.

    Example:
        >>> ids = torch.tensor([0, 1])
        >>> round(float(hardest_triplet(torch.eye(2), ids, torch.eye(2), ids, margin=3.0)), 4)
        1.0
    """
    a, o = anchors.float(), others.float()
    table = (a.square().sum(1)[:, None] + o.square().sum(1)[None] - 2 * a @ o.T).clamp(min=0.0)
    if distance == "euclidean":
        # The root's slope has no bound at 0, which equal images reach.
        table = table.clamp(min=TINY).sqrt()
    same = anchor_ids[:, None] == other_ids[None]
    known = (other_ids >= 0)[None]
    positive, negative = same & known, ~same & known
    if selves is not None:
        positive[torch.arange(len(a), device=a.device), selves] = False
    usable = positive.any(1) & negative.any(1) & (anchor_ids >= 0)
    if not usable.any():
        return table.sum() * 0.0
    farthest = table.masked_fill(~positive, -torch.inf).amax(1)[usable]
    nearest = table.masked_fill(~negative, torch.inf).amin(1)[usable]
    return F.relu(farthest - nearest + margin).mean()


def attribute_loss(logits: Tensor, values: Tensor) -> Tensor:
    """L_att^s: binary cross-entropy over the known attributes.

    Args:
        logits: (b, a).
        values: (b, a) in [0, 1], NaN where unknown.

    Returns:
        The mean over known cells, a scalar >= 0; 0 where none is known.

    Example:
        >>> round(float(attribute_loss(torch.zeros(1, 2), torch.tensor([[1.0, float("nan")]]))), 4)
        0.6931
    """
    known = ~values.isnan()
    if not known.any():
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(logits[known].float(), values[known].float())


def attribute_entropy(logits: Tensor, form: Literal["complete", "half"] = "complete") -> Tensor:
    """L_att^t: how undecided the attribute predictions are.

    Complete: `mean over images and attributes of - p ln p - (1 - p) ln(1 - p)`, which is lowest at 0 and at 1. Half,
    of the paper and its code: `- sum p log2 p / (b log2 a)`, which is also lowest at 0 and at 1 but has its top at
    1 / e, so that it draws predictions of one half towards 1.

    Args:
        logits: (b, a).
        form: which.

    Returns:
        A scalar; complete in [0, ln 2].

    Example:
        >>> round(float(attribute_entropy(torch.zeros(1, 2))), 4)
        0.6931
    """
    x = logits.float()
    if form == "complete":
        # -p ln p - (1 - p) ln(1 - p) = softplus(x) - p x, without a logarithm of 0.
        return (F.softplus(x) - x.sigmoid() * x).mean()
    attributes = max(2, x.shape[1])  # log2(1) = 0 would divide by nothing
    information = -(x.sigmoid() * F.logsigmoid(x)).sum() / torch.log(torch.tensor(2.0))
    return information / (len(x) * torch.log2(torch.tensor(float(attributes))))


def attribute_consistency(first: Tensor, second: Tensor, form: Literal["mse", "norm"] = "mse") -> Tensor:
    """L_con: how far the attribute predictions of a photo and its sketch are apart.

    Args:
        first: (b, a) logits of the photos.
        second: (b, a) logits of the sketches of the same things.
        form: `"mse"` of the probabilities (public code), or the mean of the L2 `"norm"` of their difference (paper).

    Returns:
        A scalar >= 0.

    Example:
        >>> float(attribute_consistency(torch.zeros(2, 3), torch.zeros(2, 3)))
        0.0
    """
    apart = first.float().sigmoid() - second.float().sigmoid()
    squares = apart.square()
    if form == "mse":
        return squares.mean()
    return squares.sum(1).clamp(min=TINY).sqrt().mean()


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * gradients[0], None


def reverse_gradient(features: Tensor, coefficient: float = 1.0) -> Tensor:
    """The features themselves; their gradient is turned round and scaled (Ganin et al., JMLR 2016, eq. 13).

    What minimises a loss behind it makes what lies before it maximise that loss: a discriminator learns to tell the
    domains apart, the encoder to make that impossible.

    Args:
        features: any shape.
        coefficient: >= 0; a negative one would teach the encoder to help the discriminator.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> reverse_gradient(x, 0.5).sum().backward()
        >>> x.grad.tolist()
        [-0.5, -0.5]
    """
    reversed_: Tensor = _Reversal.apply(features, coefficient)  # type: ignore[no-untyped-call]
    return reversed_
