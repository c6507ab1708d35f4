"""A model's network as it is exported: from uint8 images to unit vectors, for one domain, without switches."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.config.sizes import sides
from isthmus.models.encoder import Model
from isthmus.models.modules import DomainNorm, Encoder, Towers

SHARED = ("network", "network")
APART = ("query", "gallery")


class Network(nn.Module):
    """Images to unit vectors, the normalisation included.

    Args:
        model: what it is taken from; not changed.
        domain: 0 or 1, whose tower and statistics of batch norm it has.
        nhwc: images come as (n, height, width, 3) and not as (n, 3, height, width).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, domain: int, nhwc: bool = False) -> None:
        super().__init__()
        self.encoder = _of_domain(model.encoder, domain)
        self.nhwc = nhwc
        for name in ("mean", "std"):
            values = torch.tensor(getattr(model.preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) or (n, h, w, 3) -> float32 (n, dim)."""
        if self.nhwc:
            images = images.permute(0, 3, 1, 2)
        vectors: Tensor = self.encoder((images.float() / 255 - self.mean) / self.std)
        return vectors


def names_of(model: Model) -> tuple[str, str]:
    """What the files of both domains' networks are called; the same name where it is one network."""
    apart = any(isinstance(part, DomainNorm | Towers) for part in model.encoder.modules())
    return APART if apart else SHARED


def example_of(model: Model, nhwc: bool, count: int = 2) -> Tensor:
    """uint8 images of the network's shape, to trace it with."""
    height, width = sides(model.preprocessing.size)
    shape = (count, height, width, 3) if nhwc else (count, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _of_domain(encoder: Encoder | Towers, domain: int) -> Encoder:
    own = copy.deepcopy(encoder.tower(domain) if isinstance(encoder, Towers) else encoder).cpu()
    _settle_norms(own, domain)
    return own


def _settle_norms(module: nn.Module, domain: int) -> None:
    """Replace each `DomainNorm` beneath `module` by its batch norm with the statistics of one domain."""
    for name, child in list(module.named_children()):
        if not isinstance(child, DomainNorm):
            _settle_norms(child, domain)
            continue
        norm = child.norm
        assert isinstance(norm, _BatchNorm)
        for statistic in ("running_mean", "running_var", "num_batches_tracked"):
            if hasattr(child, f"domain_{statistic}"):
                norm._buffers[statistic] = getattr(child, f"domain_{statistic}")[domain].clone()
        setattr(module, name, norm)
