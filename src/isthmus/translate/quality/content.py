"""Whether a counterpart still shows what its source shows: it finds its own source, and its category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate.probe import LEVEL, Share
from isthmus.ops import blocks, normalise

ROWS = 512  # counterparts compared with all sources at a time


@dataclass(frozen=True)
class Content:
    """How well counterparts find what they were made from.

    Attributes:
        rank1: share of counterparts whose nearest source image is their own.
        chance: of that: one in `gallery`.
        nearer: how often the own source is nearer than another one drawn at random; 0.5 is chance. Unlike `rank1` it
            does not sink with the number of images.
        gallery: source images to choose from.
        category: share whose nearest source image, their own left out, is of their category; None without labels.
        category_chance: the same for a source image drawn at random.
        category_ceiling: the same for the source images themselves.
        category_target: the same for real target images, where they are of the sources' categories: what this network
            makes of the other domain when the content is certainly there.
    """

    rank1: Share
    chance: float
    nearer: Share
    gallery: int
    category: Share | None
    category_chance: float | None
    category_ceiling: Share | None
    category_target: Share | None = None


def content_kept(
    source: Tensor,
    made: Tensor,
    *,
    own: Tensor | None = None,
    source_labels: Sequence[str | None] | None = None,
    target: Tensor | None = None,
    target_labels: Sequence[str | None] | None = None,
) -> Content:
    """Find the nearest source images of counterparts, by the cosine of features centred within each domain.

    Equal similarities are shared out: of three equally near source images each counts for a third.

    Args:
        source: (n, d), features of real source images; at least two.
        made: (m, d), features of counterparts.
        own: (m,) int64, the place in `source` of each counterpart's source; None: the same order.
        source_labels: categories of the sources, where known; a counterpart has that of its source.
        target: (k, d), features of real target images; they are asked too where their categories are known.
        target_labels: their categories, where known.

    Raises:
        IsthmusError: fewer than two source images, or `own` or the labels don't fit.

    Example:
        >>> found = content_kept(torch.eye(4), torch.eye(4) + 1, source_labels=["a", "a", "b", "b"])
        >>> found.rank1.value, found.chance, round(found.category_chance, 2)
        (1.0, 0.25, 0.33)
    """
    own = torch.arange(len(made)) if own is None else own
    if len(source) < 2 or len(made) < 1 or len(own) != len(made) or int(own.max()) >= len(source):
        raise IsthmusError(
            f"Whether content is kept is asked of {len(made)} counterparts with {len(own)} sources among "
            f"{len(source)} images: give each its source, and two images at least."
        )
    gallery, asking = _centred(source), _centred(made)
    hits = 0.0
    beaten: list[Tensor] = []
    for part in blocks(len(asking), ROWS):
        scores = asking[part] @ gallery.T
        scores.sub_(scores.gather(1, own[part, None]))
        ahead, level = (scores > 0).sum(1), (scores == 0).sum(1)
        hits += float(((ahead == 0) / level).sum())
        beaten.append((len(source) - ahead - (level + 1) / 2) / (len(source) - 1))
    nearer = _mean(torch.cat(beaten))
    rank1 = Share.of(hits, len(made))
    found = Content(rank1, 1 / len(source), nearer, len(source), None, None, None)
    names = {name: code for code, name in enumerate(sorted({label for label in source_labels or () if label}))}
    if len(names) < 2:
        return found
    codes = _codes(source_labels or (), names, source)
    asked, known = codes[own] >= 0, codes >= 0
    counts = torch.bincount(codes[known])
    chance = float(((counts[codes[own[asked]]] - 1) / (int(known.sum()) - 1)).mean())
    kept = _category(asking[asked], codes[own[asked]], gallery, codes, own[asked])
    ceiling = _category(gallery[known], codes[known], gallery, codes, known.nonzero()[:, 0])
    real: Share | None = None
    if target is not None and target_labels is not None:
        shared = _codes(target_labels, names, target)
        if bool((shared >= 0).any()):
            real = _category(_centred(target)[shared >= 0], shared[shared >= 0], gallery, codes, None)
    return replace(found, category=kept, category_chance=chance, category_ceiling=ceiling, category_target=real)


def _centred(features: Tensor) -> Tensor:
    return normalise(features.double() - features.double().mean(0))


def _mean(values: Tensor) -> Share:
    """The mean of values in [0, 1] with its 95 % interval by the normal approximation."""
    n, value = len(values), float(values.mean())
    reach = LEVEL * float(values.std()) / math.sqrt(n) if n > 1 else 0.5
    return Share(value, max(0.0, value - reach), min(1.0, value + reach), n)


def _codes(labels: Sequence[str | None], names: Mapping[str, int], features: Tensor) -> Tensor:
    if len(labels) != len(features):
        raise IsthmusError(f"{len(labels)} labels for {len(features)} images: give one for each, or none.")
    return torch.tensor([names.get(label, -1) if label else -1 for label in labels])


def _category(asking: Tensor, wanted: Tensor, gallery: Tensor, codes: Tensor, own: Tensor | None) -> Share:
    """The share of `asking` whose nearest labelled image of `gallery`, `own` left out, has the wanted code."""
    hits = 0.0
    for part in blocks(len(asking), ROWS):
        scores = asking[part] @ gallery.T
        scores[:, codes < 0] = -torch.inf
        if own is not None:
            scores.scatter_(1, own[part, None], -torch.inf)
        nearest = scores == scores.max(1, keepdim=True).values
        right = nearest & (codes[None] == wanted[part, None])
        hits += float((right.sum(1) / nearest.sum(1)).sum())
    return Share.of(hits, len(asking))
