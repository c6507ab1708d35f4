"""Frozen features of a pretrained network, for images of a manifest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.data.images import ImageError
from isthmus.data.loading import ImageSource, prefetch
from isthmus.data.manifest import Row
from isthmus.progress import track

BATCH = 64
THREADS = 2


class Features:
    """A frozen network that turns rows into feature vectors.

    Args:
        backbone: a timm name.
        weights: `"pretrained"`, `"random"` or a checkpoint file.
        image_size: side of the network's input; whole images are squashed to it.

    Raises:
        IsthmusError: the weights can't be had or don't fit.
    """

    def __init__(self, backbone: str, weights: str = "pretrained", image_size: int = 128) -> None:
        from isthmus.models.backbones import create_backbone, preprocessing_of

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = create_backbone(backbone, weights, image_size)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # No crop: a counterpart's border counts as much as its middle.
        self.preprocessing = preprocessing_of(network, image_size, image_size)

    @torch.inference_mode()
    def of(self, rows: Sequence[Row], what: str = "measuring", *, progress: bool = True) -> Tensor:
        """float32 (n, d) in the order of `rows`; NaN for an image that can't be read."""
        source = ImageSource(self.preprocessing)

        def read(start: int) -> list[Tensor | None]:
            views: list[Tensor | None] = []
            for row in rows[start : start + BATCH]:
                try:
                    views.append(source.test_view(row))
                except ImageError:
                    views.append(None)
            return views

        steps = prefetch(range(0, len(rows), BATCH), read, THREADS)
        found: list[Tensor] = []
        for views in track(steps, len(rows), what, "images", BATCH) if progress else steps:
            there = [view for view in views if view is not None]
            if there:
                inputs = self.preprocessing.normalise(torch.stack(there).to(self.device))
                vectors = list(self.network(inputs.contiguous(memory_format=torch.channels_last)).float().cpu())
            made = iter(vectors if there else ())
            found.extend(next(made) if view is not None else torch.full((1,), math.nan) for view in views)
        width = max((len(vector) for vector in found), default=0)
        return torch.stack([vector if len(vector) == width else torch.full((width,), math.nan) for vector in found])
