"""What draws made images to the look of those a network was trained on: its batch-norm statistics, and smoothness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.errors import IsthmusError


class Captured(NamedTuple):
    """The statistics of one batch norm's input, beside those that it has stored.

    Attributes:
        mean: (channels,) float32 of the batch, differentiable.
        var: (channels,) float32, the same.
        stored_mean: (channels,) float32, a constant.
        stored_var: (channels,) float32, a constant.
    """

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor


class NormStatistics:
    """Within the block each forward pass notes the batch statistics of every batch norm's input.

    Nothing that the network answers or stores is changed, and its mode doesn't matter: a teacher stays in evaluation
    mode. Several passes within a block are all noted, one after the other; a new block begins afresh.

    Args:
        norms: batch norms with running statistics.

    Attributes:
        captured: one entry a norm and pass, in the order of the passes.

    Raises:
        IsthmusError: there is no batch norm, or one without running statistics.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
        >>> with NormStatistics([network[1]]) as statistics:
        ...     answers = network(torch.rand(4, 3, 16, 16))
        >>> statistics.captured[0].mean.shape
        torch.Size([8])
    """

    def __init__(self, norms: Iterable[_BatchNorm]) -> None:
        self.norms = list(norms)
        if not self.norms or any(norm.running_mean is None or norm.running_var is None for norm in self.norms):
            raise IsthmusError(
                "The teacher has no batch norm with running statistics, with which generated images could be compared; "
                "set data_free.statistics_weight to 0."
            )
        self.captured: list[Captured] = []
        self._handles: list[Any] = []

    def __enter__(self) -> NormStatistics:
        if self._handles:
            raise RuntimeError("this block has begun already")
        self.captured = []
        self._handles = [norm.register_forward_pre_hook(self._note) for norm in self.norms]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        x = inputs[0].float().movedim(1, -1).reshape(-1, inputs[0].shape[1])
        # As products with a row of ones: on a CPU four times as fast as `mean` and `var` over three axes.
        row = x.new_full((1, len(x)), 1 / len(x))
        mean = (row @ x)[0]
        # Running statistics hold unbiased variances; a single value has none.
        var = (row @ (x - mean).square())[0] * (len(x) / max(1, len(x) - 1))
        # Copies: in training mode the norm mixes this very batch into its own, before a loss can compare the two.
        stored = [part.detach().float().clone() for part in (norm.running_mean, norm.running_var)]
        self.captured.append(Captured(mean, var, stored[0], stored[1]))


def statistics_loss(captured: Sequence[Captured], form: Literal["norm", "relative"] = "norm") -> Tensor:
    """How far a batch's features are from those of the images that the network was trained on.

    `1/L sum_l ||mu_l - m_l|| + ||var_l - v_l||` over the L batch norms, with the stored m and v (DeepInversion, Yin et
    al., arXiv 1912.08795, eq. 4, there without 1/L). A single layer with large activations can outweigh all others in
    it. `"relative"` divides by the stored ones' size, `||mu_l - m_l|| / ||sqrt v_l|| + ||var_l - v_l|| / ||v_l||`,
    which changes with neither a layer's scale nor its width.

    Args:
        captured: from `NormStatistics`, one or several passes.
        form: which.

    Returns:
        A scalar >= 0, the mean over layers and passes.

    Raises:
        ValueError: nothing was captured, or there is no such form.
    """
    if form not in ("norm", "relative"):
        raise ValueError(f"no form {form!r}")
    if not captured:
        raise ValueError("no forward pass went through the batch norms within the block")
    terms = []
    for layer in captured:
        mean = torch.linalg.vector_norm(layer.mean - layer.stored_mean)
        var = torch.linalg.vector_norm(layer.var - layer.stored_var)
        if form == "relative":
            mean = mean / layer.stored_var.sum().sqrt().clamp(min=1e-6)
            var = var / torch.linalg.vector_norm(layer.stored_var).clamp(min=1e-12)
        terms.append(mean + var)
    return torch.stack(terms).mean()


def mode_seeking(images: Tensor, z: Tensor, codes: Tensor | None = None) -> Tensor:
    """Keeps a generator from making one image whatever its noise, which confidence and coverage don't show.

    `mean 1 / (1 + r)` over neighbouring pairs of the batch, of one class where there are classes, with
    `r = mean |x_i - x_j| / mean |z_i - z_j|` (mode seeking, Mao et al., CVPR 2019, there 1 / r, which has no bound).

    Args:
        images: (n, 3, h, w).
        z: (n, d), what they were made from.
        codes: (n,) int64 classes; None: any two images are a pair.

    Returns:
        A scalar in (0, 1]; 0 where there is no pair.

    Example:
        >>> round(float(mode_seeking(torch.zeros(2, 3, 8, 8), torch.tensor([[0.0], [1.0]]))), 4)
        1.0
    """
    order = torch.arange(len(z), device=z.device) if codes is None else codes.argsort(stable=True)
    first, second = order[:-1], order[1:]
    if codes is not None:
        alike = codes[first] == codes[second]
        first, second = first[alike], second[alike]
    if not len(first):
        return images.new_zeros(())
    apart = (images[first] - images[second]).float().abs().flatten(1).mean(dim=1)
    ratio = apart / (z[first] - z[second]).float().abs().mean(dim=1).clamp(min=1e-6)
    return (1 / (1 + ratio)).mean()


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, the horizontal ones plus the vertical ones.

    `mean |x[.., i, j+1] - x[.., i, j]| + mean |x[.., i+1, j] - x[.., i, j]|` (Rudin et al., Physica D 1992, in its
    anisotropic form): keeps images that are optimised directly free of pixel noise, and lets them have edges.

    Args:
        images: (n, c, h, w), both sides at least 2.

    Returns:
        A scalar in [0, 2] for images in [0, 1].

    Example:
        >>> float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])))
        1.0
    """
    x = images.float()
    return x.diff(dim=3).abs().mean() + x.diff(dim=2).abs().mean()
