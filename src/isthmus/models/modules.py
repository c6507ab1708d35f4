"""The network: a backbone, an optional projection, unit-length features, and batch norm a domain if asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.models.backbones import create_backbone


class Encoder(nn.Module):
    """Images to unit vectors.

    Args:
        backbone: a timm model without classifier.
        dim: width of the linear projection behind it; 0 for the backbone's own features.

    Example:
        >>> encoder = Encoder(create_backbone("resnet10t", "random"), dim=16)
        >>> tuple(encoder(torch.zeros(2, 3, 64, 64)).shape)
        (2, 16)
    """

    def __init__(self, backbone: nn.Module, dim: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        width = int(backbone.num_features)  # type: ignore[arg-type]
        width = int(getattr(backbone, "head_hidden_size", width) or width)
        self.head: nn.Module = nn.Linear(width, dim) if dim else nn.Identity()
        if dim:
            # Orthogonal rows keep the angles of the pretrained features as well as a map to fewer dimensions can.
            nn.init.orthogonal_(self.head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.dim = dim or width

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, dim), float32, unit length."""
        features = self.head(self.backbone(images))
        # Under autocast the norm of half-precision features would cost three digits.
        with torch.autocast(images.device.type, enabled=False):
            return F.normalize(features.float(), dim=1)


class DomainNorm(nn.Module):
    """Batch norm with one weight and bias for all domains, and running statistics for each of them.

    Args:
        norm: the batch norm to stand in for; its statistics are every domain's start.
        domains: how many.
    """

    def __init__(self, norm: _BatchNorm, domains: int) -> None:
        super().__init__()
        self.norm = norm
        self.active = 0
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            value = getattr(norm, name)
            if value is not None:
                self.register_buffer(f"domain_{name}", torch.stack([value.clone() for _ in range(domains)]))
                # The norm's own are views of the active domain's: saved, they would change the fingerprint with it.
                norm._non_persistent_buffers_set.add(name)
        norm.register_load_state_dict_pre_hook(_without_statistics)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """As the batch norm, with the statistics of the active domain."""
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            # A view: what the norm writes in training lands in this domain's row.
            self.norm._buffers[name] = getattr(self, f"domain_{name}")[self.active]
        out: Tensor = self.norm(x)
        return out


def _without_statistics(norm: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Batch norm asks for its counter even where it is not among what is saved.
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        state.pop(prefix + name, None)


def split_norms(module: nn.Module, domains: int) -> None:
    """Replace each batch norm beneath `module` by a `DomainNorm`."""
    for name, child in list(module.named_children()):
        if isinstance(child, _BatchNorm):
            setattr(module, name, DomainNorm(child, domains))
        else:
            split_norms(child, domains)


@contextlib.contextmanager
def active_domain(module: nn.Module, domain: int) -> Iterator[None]:
    """Within the block each `DomainNorm` beneath `module` uses the statistics of `domain`."""
    norms = [child for child in module.modules() if isinstance(child, DomainNorm)]
    before = [norm.active for norm in norms]
    for norm in norms:
        norm.active = domain
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            norm.active = old


def freeze_norms(module: nn.Module) -> None:
    """Put each batch norm beneath `module` in evaluation mode: stored statistics, also while training."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def build_encoder(backbone: str, weights: str, dim: int, image_size: int, *, domain_norm: bool = False) -> Encoder:
    """An encoder by names; see `create_backbone` for `weights` and the errors."""
    encoder = Encoder(create_backbone(backbone, weights, image_size), dim)
    if domain_norm:
        split_norms(encoder.backbone, 2)
    return encoder
