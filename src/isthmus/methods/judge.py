"""How good an epoch is: label-free criteria always, scores with labels where the validation images have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from isthmus.data.loading import ImageSource, test_batches
from isthmus.data.manifest import Row
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.evaluate.criteria import criteria
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.methods.base import AUTO, Verdict
from isthmus.models.encoder import Model

MEAN_IMAGES = 2000  # a mean over more images moves by less than the means of two epochs differ


class Judge:
    """Embeds the validation images after each epoch and measures.

    Args:
        model: judged as it is when `verdict` is called.
        data: validation rows, and counterparts of them where there are any.
        source: reads the images.
        threads: decoding threads.
        autocast: embed in bfloat16; for choosing only, scores are computed in float32 later.
        relevant: what an image has in common with those that it should find.
    """

    def __init__(
        self,
        model: Model,
        data: TrainingData,
        source: ImageSource,
        threads: int,
        autocast: bool,
        *,
        relevant: Callable[[Row], str | None] = lambda row: row.label or row.identity,
    ) -> None:
        self.model, self.data, self.source, self.threads, self.autocast = model, data, source, threads, autocast
        self.relevant = relevant
        self.pairs = tuple(
            [(row, data.counterparts[row.id][0]) for row in side if data.counterparts.get(row.id)] for side in data.val
        )

    def embed(self, rows: list[Row], domain: int) -> Tensor:
        """Unit vectors (n, dim) of rows, not centred, on the CPU."""
        parts = [
            self.model.embed(views, domain, autocast=self.autocast).cpu()
            for views, _, _ in test_batches(self.source, rows, 64, self.threads)
        ]
        return torch.cat(parts) if parts else torch.empty(0, self.model.dim)

    def probe(self, rows: list[Row]) -> None:
        """Embed some images."""
        self.embed(rows, 0)

    def images(self) -> int:
        """Images embedded after each epoch."""
        count = sum(min(len(side), MEAN_IMAGES) for side in self.data.train) + sum(len(side) for side in self.data.val)
        return count + sum(len(pairs) for pairs in self.pairs)

    def training_means(self) -> Tensor:
        """(2, dim): mean unit vector of each domain's real training images, evenly thinned to `MEAN_IMAGES`."""
        means = []
        for domain, rows in enumerate(self.data.train):
            step = max(1, -(-len(rows) // MEAN_IMAGES))
            means.append(self.embed(rows[::step], domain).mean(dim=0))
        return torch.stack(means)

    def verdict(self) -> Verdict:
        """Figures of the network as it is now."""
        means = self.training_means()
        figures: dict[str, float] = {}
        raw = [self.embed(rows, domain) for domain, rows in enumerate(self.data.val)]
        if min(len(part) for part in raw) < 2:
            return Verdict(figures, means)
        before, self.model.means = self.model.means, means
        if self.model.centring:
            raw = [self.model.centre(part, domain) for domain, part in enumerate(raw)]
        judged: list[Tensor] = []
        counterparts: list[Tensor | None] = []
        for side, pairs in enumerate(self.pairs):
            vectors = self.embed([made for _, made in pairs], 1 - side) if len(pairs) > 1 else None
            if vectors is not None and self.model.centring:
                vectors = self.model.centre(vectors, 1 - side)
            # The criteria want a counterpart for each row: where some are missing, the others are judged.
            wanted = {row.id for row, _ in pairs} if vectors is not None else None
            at = [n for n, row in enumerate(self.data.val[side]) if wanted is None or row.id in wanted]
            judged.append(raw[side][at])
            counterparts.append(vectors)
        self.model.means = before
        figures.update(criteria(judged[0], judged[1], counterparts[0], counterparts[1]))
        figures.update(self._labelled(raw))
        return Verdict(figures, means)

    def _labelled(self, vectors: list[Tensor]) -> dict[str, float]:
        labels = [[self.relevant(row) for row in rows] for rows in self.data.val]
        if any(label is None for side in labels for label in side):
            return {}
        if not set(labels[0]) & set(labels[1]):
            return {}
        figures: dict[str, float] = {}
        names = self.data.names
        for asks, answers in ((0, 1), (1, 0)):
            result = retrieval_metrics(
                vectors[asks],
                vectors[answers],
                [str(x) for x in labels[asks]],
                [str(x) for x in labels[answers]],
                gallery_ids=[row.id for row in self.data.val[answers]],
                bootstrap=0,
            )
            for name in ("Prec@1", "mAP@all"):
                figures[f"val/{names[asks]}->{names[answers]}/{name}"] = result.scores[name]
        for name in ("Prec@1", "mAP@all"):
            figures[f"val/{name}"] = sum(v for k, v in figures.items() if k.endswith(f"/{name}")) / 2
        return figures


def score_for(select: str, figures: dict[str, float], epoch: int, auto: Sequence[str] = AUTO) -> float:
    """The number that the best epoch has most of.

    Args:
        select: `train.select`.
        figures: what was measured.
        epoch: the last one finished.
        auto: the figures that `auto` goes by, the first that was measured; the last epoch where none was.

    Raises:
        IsthmusError: the setting names a criterion that is not measured here, or labels that are not there.
    """
    if select == "last":
        return float(epoch)
    if select == "labels":
        if "val/Prec@1" not in figures:
            raise IsthmusError(
                "train.select = labels needs labelled validation images in both domains with a label in common; name "
                "them, or choose train.select=auto."
            )
        return figures["val/Prec@1"]
    if select == "auto":
        return next((figures[name] for name in auto if name in figures), float(epoch))
    if select not in figures:
        known = ["auto", "labels", "last", *sorted(key for key in figures if not key.startswith("val/"))]
        raise IsthmusError(f"train.select = {select} is not measured in this run; choose one of: {', '.join(known)}.")
    return figures[select]
