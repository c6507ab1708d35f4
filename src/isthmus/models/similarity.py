"""Cosines of vectors, as `Model.similarity` gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.ops import normalise

Vectors = np.ndarray[Any, np.dtype[np.float32]] | Tensor


def similarity(first: Vectors, second: Vectors) -> Tensor:
    """Cosine of each of the one with each of the other; the whole table at once, so for some thousands.

    Args:
        first: (n, d) or (d,), arrays or tensors; of any length.
        second: (m, d) or (d,).

    Returns:
        float32 (n, m) in [-1, 1]; one vector alone counts as one row.

    Raises:
        IsthmusError: the vectors are not of one width.

    Example:
        >>> similarity(torch.tensor([2.0, 0.0]), torch.eye(2))
        tensor([[1., 0.]])
    """
    a, b = (torch.as_tensor(side).detach().cpu().float() for side in (first, second))
    a, b = (side[None] if side.ndim == 1 else side for side in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise IsthmusError(
            f"Vectors of the shapes {tuple(a.shape)} and {tuple(b.shape)} can't be compared; give (n, d) and (m, d)."
        )
    return (normalise(a) @ normalise(b).T).clamp(-1, 1)
