"""IHDA once more, slow and obvious: each loss in loops, and the terms of a step from the networks' own features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.config import IhdaConfig
from isthmus.methods.ihda import IHDA
from isthmus.methods.ihda_batches import Batch, Labelled
from isthmus.models.modules import Encoder


def identity(logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
    """As the public code writes it: y = (1 - e) y + e / n, over the rows that are known."""
    losses = []
    for scores, own in zip(logits, ids.tolist(), strict=True):
        if own < 0:
            continue
        total = torch.zeros((), dtype=logits.dtype)
        for n, score in enumerate(scores):
            wanted = (1 - smoothing) * float(n == own) + smoothing / len(scores)
            total = total - wanted * (score - torch.logsumexp(scores, 0))
        losses.append(total)
    return sum(losses, torch.zeros((), dtype=logits.dtype)) / len(losses)


def triplet(
    a: Tensor, ids: Tensor, o: Tensor, other_ids: Tensor, margin: float, form: str, selves: Tensor | None
) -> Tensor:
    """Anchor by anchor; those without a positive or a negative do not count."""
    losses = []
    for i, own in enumerate(ids.tolist()):
        far, near = [], []
        for j, his in enumerate(other_ids.tolist()):
            if his < 0 or (selves is not None and j == int(selves[i])):
                continue
            d = (a[i] - o[j]).square().sum()
            (far if his == own else near).append(d if form == "squared" else d.clamp(min=1e-12).sqrt())
        if own >= 0 and far and near:
            losses.append(torch.relu(torch.stack(far).max() - torch.stack(near).min() + margin))
    return torch.stack(losses).mean()


def attributes(logits: Tensor, values: Tensor) -> Tensor:
    """BCE, cell by cell."""
    losses = []
    for x, y in zip(logits.flatten(), values.flatten().tolist(), strict=True):
        if not math.isnan(y):
            p = x.sigmoid()
            losses.append(-(y * p.log() + (1 - y) * (1 - p).log()))
    return torch.stack(losses).mean()


def entropy(logits: Tensor, form: str) -> Tensor:
    """Complete, or the public code's half."""
    total = torch.zeros((), dtype=logits.dtype)
    for p in logits.sigmoid().flatten():
        total = total - p * p.log2() if form == "half" else total - p * p.log() - (1 - p) * (1 - p).log()
    images, count = logits.shape
    return total / (images * math.log2(max(2, count))) if form == "half" else total / logits.numel()


def consistency(x: Tensor, y: Tensor, form: str) -> Tensor:
    """Pair by pair."""
    each = []
    for a, b in zip(x.sigmoid(), y.sigmoid(), strict=True):
        squares = torch.stack([(p - q) ** 2 for p, q in zip(a, b, strict=True)])
        each.append(squares.mean() if form == "mse" else squares.sum() ** 0.5)
    return torch.stack(each).mean()


def cross_entropy(logits: Tensor, labels: list[int]) -> Tensor:
    """Row by row."""
    each = [torch.logsumexp(x, 0) - x[n] for x, n in zip(logits, labels, strict=True)]
    return torch.stack(each).mean()


def cells(maps: Tensor, grid: int) -> Tensor:
    """Means of the cells of feature maps (n, c, h, w), cell after cell within a channel."""
    rows = [part.mean(2) for part in maps.tensor_split(grid, dim=2)]
    return torch.stack([part.mean(2) for row in rows for part in row.tensor_split(grid, dim=2)], 2).flatten(1)


class Seen:
    """What an encoder makes of images: before the neck, behind it, and in the middle."""

    def __init__(self, method: IHDA, encoder: Encoder, part: Labelled) -> None:
        look = method.model.preprocessing
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (look.mean, look.std))
        images = (part.views / 255 - mean) / std
        backbone: Any = encoder.backbone
        grid = method.config.model.grid
        pooled = backbone(images) if grid == 1 else cells(backbone.forward_features(images), grid)
        self.pooled = encoder.head(pooled)
        self.necked = encoder.neck(self.pooled)
        self.inner = backbone.forward_intermediates(images, intermediates_only=True)[-2].mean((2, 3))
        self.ids, self.values = part.identities, part.attributes


def towers(method: IHDA) -> tuple[Encoder, Encoder]:
    """The encoders of sketches and of photos."""
    parts: Any = method.model.modules()
    return (parts["encoder"],) * 2 if "encoder" in parts else (parts["query"], parts["gallery"])


def levels(seen: Seen, settings: IhdaConfig) -> list[Tensor]:
    """Features that triplets are made of."""
    chosen = [seen.inner, seen.pooled] if settings.inner_triplets else [seen.pooled]
    return [x / x.norm(dim=1, keepdim=True) for x in chosen] if settings.unit_triplets else chosen


def triplets_among(parts: list[Seen], settings: IhdaConfig) -> Tensor:
    """Each image against all others."""
    ids = torch.cat([part.ids for part in parts])
    total = torch.zeros(())
    for features in zip(*(levels(part, settings) for part in parts), strict=True):
        x = torch.cat(features)
        total = total + triplet(x, ids, x, ids, settings.margin, settings.distance, torch.arange(len(x)))
    return total


def step_1(method: IHDA, batch: Batch) -> dict[str, Tensor]:
    """L_id + L_tri + w BCE_att, of the source."""
    settings, heads = method.config.ihda, method.model.heads
    assert batch.source is not None
    source = Seen(method, towers(method)[1], batch.source)
    return {
        "source_identity": settings.identity_weight
        * identity(heads["source_identity"](source.necked), source.ids, settings.label_smoothing),
        "source_triplet": settings.triplet_weight * triplets_among([source], settings),
        "attributes": settings.source_attribute_weight * attributes(heads["attributes"](source.pooled), source.values),
    }


def step_2(method: IHDA, batch: Batch) -> dict[str, Tensor]:
    """L_id + L_tri + 0.1 (L_att^s + L_att^t + L_con) + 0.1 L_d, without the reversal of L_d's gradient."""
    settings, heads = method.config.ihda, method.model.heads
    assert batch.query is not None and batch.gallery is not None and batch.source is not None
    for_sketches, for_photos = towers(method)
    sketch, photo = Seen(method, for_sketches, batch.query), Seen(method, for_photos, batch.gallery)
    source = Seen(method, for_photos, batch.source)
    ids = torch.cat([sketch.ids, photo.ids])
    logits = heads["identity"](torch.cat([sketch.necked, photo.necked]))
    if settings.anchors == "all":
        tri = triplets_among([sketch, photo], settings)
    else:
        tri = torch.zeros(())
        for a, b in zip(levels(sketch, settings), levels(photo, settings), strict=True):
            tri = tri + triplet(a, sketch.ids, b, photo.ids, settings.margin, settings.distance, None)
    on_photos, on_sketches = heads["attributes"](torch.cat([photo.pooled, sketch.pooled])).chunk(2)
    domains = [0] * len(source.ids) + [1] * len(photo.ids) + [2] * len(sketch.ids)
    shown = torch.cat([source.pooled, photo.pooled, sketch.pooled])
    if settings.unit_domain:
        shown = shown / shown.square().mean(1, keepdim=True).sqrt()
    told = heads["domain"](shown)
    terms = {
        "identity": settings.identity_weight * identity(logits, ids, settings.label_smoothing),
        "triplet": settings.triplet_weight * tri,
        "attributes": settings.attribute_weight * attributes(heads["attributes"](source.pooled), source.values),
        "entropy": settings.entropy_weight
        * (entropy(on_photos, settings.entropy) + entropy(on_sketches, settings.entropy)),
        "consistency": settings.consistency_weight * consistency(on_photos, on_sketches, settings.consistency),
        "domain": settings.domain_weight * cross_entropy(told, domains),
    }
    if settings.source_identity_weight:
        weight, known = settings.source_identity_weight, heads["source_identity"](source.necked)
        terms["source_identity"] = (
            weight * settings.identity_weight * identity(known, source.ids, settings.label_smoothing)
        )
        terms["source_triplet"] = weight * settings.triplet_weight * triplets_among([source], settings)
    return terms


def gradients(method: IHDA, terms: dict[str, Tensor], coefficient: float) -> dict[str, Tensor]:
    """What each weight is moved by: the discriminator lowers L_d, all that lies before it raises it."""
    others = torch.stack([value for name, value in terms.items() if name != "domain"]).sum()
    domain = terms.get("domain", torch.zeros(()))
    found: dict[str, Tensor] = {}
    for part, module in method.model.modules().items():
        loss = domain if part == "domain" else others - coefficient * domain if is_encoder(module) else others
        named = {f"{part}.{name}": weight for name, weight in module.named_parameters() if weight.requires_grad}
        if loss.grad_fn is None:
            continue
        values = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        found |= {name: value for name, value in zip(named, values, strict=True) if value is not None}
    return found


def is_encoder(module: nn.Module) -> bool:
    """Not a head."""
    return isinstance(module, Encoder)
