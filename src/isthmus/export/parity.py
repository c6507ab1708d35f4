"""How far an export's vectors are from the model's, and what that costs in retrieval on validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.run import evaluate_model
from isthmus.models.encoder import Model

Rows = tuple[Manifest, Manifest]
Embedded = Mapping[str, tuple[Tensor, Tensor]]
SINGLY = 3  # images of each domain that are embedded one by one besides: a batch of another size must change nothing


@dataclass(frozen=True)
class Parity:
    """Two models on the same images of both domains.

    Attributes:
        images: how many of each domain.
        largest: largest absolute difference of a component, over vectors with and without centring and over batches
            of another size.
        cosine: mean cosine of the two vectors of an image, without centring.
        least_cosine: the smallest.
        centred_cosine: mean cosine with centring; None where the model has no means.
    """

    images: tuple[int, int]
    largest: float
    cosine: float
    least_cosine: float
    centred_cosine: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "images": list(self.images)}


def compare(source: Model, other: Model, images: tuple[Sequence[str], Sequence[str]], *, workers: int = 2) -> Parity:
    """Embed the same images with both models.

    Args:
        source: the model.
        other: what was made of it.
        images: paths of both domains, one or more of each.
        workers: threads that decode.

    Raises:
        IsthmusError: a domain without images, an unreadable image, or vectors that are no numbers.
    """
    largest, cosines, centred = 0.0, [], []
    for domain, (name, paths) in enumerate(zip(source.domains, images, strict=True)):
        if not paths:
            raise IsthmusError(f"There are no images of '{name}' to compare on; name some.")
        settings: dict[str, Any] = {"domain": name, "workers": workers, "centring": False, "convert_to_tensor": True}
        theirs: Tensor = source.encode(paths, **settings)
        ours: Tensor = other.encode(paths, **settings)
        singly: Tensor = other.encode(paths[:SINGLY], **settings, batch_size=1)
        if not bool(torch.isfinite(ours).all()):
            raise IsthmusError(f"The exported network gives no numbers for images of '{name}'; choose another format.")
        pairs = [(theirs, ours), (theirs[:SINGLY], singly)]
        cosines.append(torch.cosine_similarity(theirs.double(), ours.double()))
        if bool(source.means.any()):
            pairs += [(source.centre(a, domain), other.centre(b, domain)) for a, b in pairs]
            centred.append(torch.cosine_similarity(pairs[2][0].double(), pairs[2][1].double()))
        largest = max(largest, *(float((a.double() - b.double()).abs().max()) for a, b in pairs))
    together = torch.cat(cosines)
    return Parity(
        (len(images[0]), len(images[1])), largest, float(together.mean()), float(together.min()),
        float(torch.cat(centred).mean()) if centred else None,
    )  # fmt: skip


def change_in_map(source: Model, other: Model, rows: Rows, *, workers: int = 2) -> dict[str, Any]:
    """mAP@all of both models on the same validation images, in both directions.

    Args:
        source, other: as in `compare`.
        rows: validation images of both domains with labels or identities.
        workers: threads that decode.

    Returns:
        `model` and `export`: the mean of both directions; `change`: their difference; `protocol`, in words.

    Raises:
        IsthmusError: nothing is relevant to anything, or an image is unreadable.
    """
    found = [evaluate_model(model, *rows, bootstrap=0, workers=workers) for model in (source, other)]
    before, after = (evaluation.scores["mean/mAP@all"] for evaluation in found)
    sizes = " and ".join(f"{len(part)} {name}" for part, name in zip(rows, source.domains, strict=True))
    protocol = f"mean mAP@all of both directions, {sizes} validation images, {found[0].protocol}"
    return {"model": before, "export": after, "change": after - before, "protocol": protocol}
