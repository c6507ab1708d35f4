"""The network: a backbone, an optional projection, unit-length features; batch norm or a tower a domain if asked."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from isthmus.config.sizes import Sides
from isthmus.errors import IsthmusError
from isthmus.models.backbones import create_backbone
from isthmus.models.heads import JoinedHead


class Features(NamedTuple):
    """What losses on labelled pairs look at.

    Attributes:
        pooled: (n, dim) before the neck.
        necked: (n, dim) behind it; the same as `pooled` where there is none. Normalised, it is the embedding.
        inner: (n, c) pooled from the backbone's last stage but one (layer 3 of a ResNet), where asked for.
    """

    pooled: Tensor
    necked: Tensor
    inner: Tensor | None


class Encoder(nn.Module):
    """Images to unit vectors.

    Args:
        backbone: a timm model without classifier.
        dim: width of the linear projection behind it; 0 for the backbone's own features.
        neck: batch norm without a shift behind that (BN-neck, Luo et al., CVPRW 2019).
        drop_stages: how many of the backbone's last stages are left out: earlier ones know less of categories and see
            finer, which tells single things apart.
        grid: the last stage is averaged in grid x grid cells, whose features are joined; 1: over the whole image. For
            things that all images show in the same place and pose.

    Example:
        >>> encoder = Encoder(create_backbone("resnet10t", "random"), dim=16)
        >>> tuple(encoder(torch.zeros(2, 3, 64, 64)).shape)
        (2, 16)
    """

    def __init__(
        self, backbone: nn.Module, dim: int = 0, neck: bool = False, drop_stages: int = 0, grid: int = 1
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.grid = grid
        #: whether features are the backbone's own, or pooled here from the map of its last stage
        self.maps = bool(drop_stages or grid > 1)
        #: how many of the last stages a `JoinedHead` joins to the embedding, and a network of their own for these
        self.stages = 0
        self.stager: nn.Module | None = None
        if self.maps:
            width = last_stage(backbone, drop_stages) * grid * grid
        else:
            width = int(backbone.num_features)  # type: ignore[arg-type]
            width = int(getattr(backbone, "head_hidden_size", width) or width)
        self.head: nn.Module = nn.Linear(width, dim) if dim else nn.Identity()
        if dim:
            # Orthogonal rows keep the angles of the pretrained features as well as a map to fewer dimensions can.
            nn.init.orthogonal_(self.head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.dim = dim or width
        self.neck: nn.Module = nn.BatchNorm1d(self.dim) if neck else nn.Identity()
        if neck:
            self.neck.bias.requires_grad_(False)

    def forward(
        self, images: Tensor, taps: bool = False, inner: bool = False, pooled: bool = False, learned: bool = False
    ) -> Tensor | Features:
        """(n, 3, h, w) -> (n, dim), float32, unit length; with `taps` the `Features` before that, in the same type.

        With `learned` nothing but what training shapes: the map of the last features. With `pooled` these (n, w) come
        in instead of images.
        """
        if taps:
            return self._taps(images, inner)
        if isinstance(self.head, JoinedHead):
            if learned:
                return self.head.embed(images if pooled else self._pooled(images))
            joined: Tensor = self.head(*self._staged(images))
            return joined
        features = self.neck(self.head(images if pooled else self._pooled(images)))
        # Under autocast the norm of half-precision features would cost three digits.
        with torch.autocast(images.device.type, enabled=False):
            return F.normalize(features.float(), dim=1)

    def _pooled(self, images: Tensor) -> Tensor:
        backbone: Any = self.backbone
        pooled: Tensor = self._cells(backbone.forward_features(images)) if self.maps else backbone(images)
        return pooled

    def _staged(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last features, and each stage's: of the backbone, or of the network that is there for them."""
        if not self.stages:
            return self._pooled(images), []
        backbone: Any = self.backbone
        if self.stager is None:
            final, maps = backbone.forward_intermediates(images, indices=self.stages)
            pooled = backbone.forward_head(final, pre_logits=True)
        else:
            pooled, stager = self._pooled(images), cast(Any, self.stager)
            maps = stager.forward_intermediates(images, indices=self.stages, intermediates_only=True)
        return pooled, [part.mean(dim=(2, 3)) for part in maps]

    def _cells(self, stage: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(stage, self.grid).flatten(1)

    def _taps(self, images: Tensor, inner: bool) -> Features:
        middle: Tensor | None = None
        if inner:
            backbone: Any = self.backbone
            final, stages = backbone.forward_intermediates(images, indices=2)
            pooled = self._cells(final) if self.maps else backbone.forward_head(final, pre_logits=True)
            middle = stages[0].float().mean(dim=(2, 3))
        else:
            pooled = self._pooled(images)
        features = self.head(pooled)
        return Features(features.float(), self.neck(features).float(), middle)


def stage_widths(backbone: Any, stages: int) -> tuple[int, ...]:
    """Channels of a timm backbone's last stages, the earlier first: as many as it has, at most `stages`."""
    if not stages or not hasattr(backbone, "forward_intermediates"):
        return ()
    return tuple(int(info["num_chs"]) for info in getattr(backbone, "feature_info", []))[-stages:]


def last_stage(backbone: Any, drop: int) -> int:
    """Cut the last `drop` stages off a timm backbone, and everything behind them.

    Returns:
        How many channels its last stage has then.

    Raises:
        IsthmusError: it has no stages of feature maps, or too few.
    """
    stages = getattr(backbone, "feature_info", [])
    if not hasattr(backbone, "prune_intermediate_layers") or len({info["reduction"] for info in stages}) < 2:
        raise IsthmusError(
            "model.drop_stages and model.grid need a backbone with stages of feature maps, such as a ResNet or a "
            f"MobileNet, which {type(backbone).__name__} isn't; set them to 0 and 1."
        )
    if drop >= len(stages):
        raise IsthmusError(
            f"model.drop_stages = {drop} leaves nothing of a backbone of {len(stages)} stages; lower it."
        )
    channels = int(stages[len(stages) - 1 - drop]["num_chs"])
    backbone.prune_intermediate_layers([len(stages) - 1 - drop], prune_norm=True, prune_head=True)
    return channels


class Towers(nn.Module):
    """An encoder for each domain, of one architecture; images go through the active domain's.

    Args:
        first: the query domain's; the gallery domain's starts as a copy of it.
    """

    def __init__(self, first: Encoder) -> None:
        super().__init__()
        self.towers = nn.ModuleList([first, copy.deepcopy(first)])
        self.dim = first.dim
        self.active = 0

    @property
    def backbone(self) -> nn.Module:
        """The query tower's."""
        return self.tower(0).backbone

    def tower(self, domain: int) -> Encoder:
        """The encoder of a domain."""
        encoder = self.towers[domain]
        assert isinstance(encoder, Encoder)
        return encoder

    def forward(self, images: Tensor, taps: bool = False, inner: bool = False) -> Tensor | Features:
        """As the active domain's encoder."""
        return self.tower(self.active)(images, taps, inner)  # type: ignore[no-any-return]


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
    """Within the block each `DomainNorm` beneath `module` uses the statistics of `domain`, and `Towers` its encoder."""
    norms = [child for child in module.modules() if isinstance(child, DomainNorm | Towers)]
    before = [norm.active for norm in norms]
    for norm in norms:
        norm.active = domain
    try:
        yield
    finally:
        for norm, old in zip(norms, before, strict=True):
            norm.active = old


def copy_statistics(module: nn.Module, of: int, to: int) -> None:
    """Give each `DomainNorm` beneath `module` one domain's running statistics for another domain too."""
    for child in module.modules():
        if isinstance(child, DomainNorm):
            for values in child.buffers(recurse=False):
                values[to] = values[of]


def freeze_norms(module: nn.Module) -> None:
    """Put each batch norm beneath `module` in evaluation mode: stored statistics, also while training."""
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def build_encoder(
    backbone: str,
    weights: str,
    dim: int,
    image_size: Sides,
    *,
    domain_norm: bool = False,
    neck: bool = False,
    towers: bool = False,
    drop_stages: int = 0,
    grid: int = 1,
    softmax: bool = False,
    beliefs: int = 0,
    belief_share: float = 0.0,
    stages: int = 0,
    stages_share: float = 0.0,
    stager: bool = False,
) -> Encoder | Towers:
    """An encoder by names; see `create_backbone` for `weights` and the errors, `Architecture` for the rest."""
    encoder = Encoder(create_backbone(backbone, weights, image_size), dim, neck, drop_stages, grid)
    if softmax:
        encoder.head = nn.Sequential(encoder.head, nn.Softmax(dim=1))
    if beliefs or stages:
        linear = encoder.head
        assert isinstance(linear, nn.Linear)
        widths = stage_widths(encoder.backbone, stages)
        encoder.head = JoinedHead(linear.in_features, dim, beliefs, belief_share, widths, stages_share)
        encoder.dim, encoder.stages = encoder.head.out, len(widths)
        if stager:
            encoder.stager = create_backbone(backbone, "random", image_size)
    if domain_norm:
        split_norms(encoder.backbone, 2)
    if not towers:
        return encoder
    both = Towers(encoder)
    for side in (0, 1):
        head = both.tower(side).head
        if isinstance(head, JoinedHead):
            head.side.fill_(side)
    return both
