"""Classifiers of one domain or both: the teachers that data-free retrieval (CrossX-DFL, CVPR 2023) starts from.

For images x of domain d with class y, cross-entropy with label smoothing, each domain weighing the same:

    L = mean_d mean_(x, y in d) CE(W f(x) + b, y)

With `classifier.target = domain` y is the domain itself: a modality classifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource, test_batches
from isthmus.data.manifest import Row
from isthmus.data.samplers import epoch_batches, local_part
from isthmus.data.training import TrainingData, read_labelled_data
from isthmus.errors import IsthmusError
from isthmus.methods.base import Method, Processes, Verdict
from isthmus.models.classifier import Answers, Classifier


class Plan(NamedTuple):
    """One step: positions in each domain's list, over all processes, and what its random draws depend on."""

    positions: tuple[list[int], list[int]]
    draw: tuple[int, int, int]


class Batch(NamedTuple):
    """One process's share of a step: uint8 views (b, 3, h, w), classes (b,) and domains (b,)."""

    views: Tensor
    targets: Tensor
    sides: Tensor


class ClassifierMethod(Method):
    """Trains a timm backbone with a linear head on labels, or on which domain an image is of."""

    name = "classifier"
    auto = ("accuracy",)
    model: Classifier

    def __init__(
        self, config: RunConfig, model: Classifier, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)
        self.number = {name: number for number, name in enumerate(model.classes)}
        for side in data.sides:
            if len(data.train[side]) < max(2, processes.world):
                raise IsthmusError(
                    f"Too few images to train on in '{data.names[side]}': {len(data.train[side])}; add images."
                )

    @classmethod
    def read(cls, config: RunConfig) -> TrainingData:
        """The images that the settings name; those of classes that training doesn't know judge nothing."""
        by_domain = config.classifier.target == "domain"
        if by_domain and (config.data.query is None or config.data.gallery is None):
            raise IsthmusError(
                "classifier.target = domain tells two domains apart: give --query-domain and --gallery-domain."
            )
        data = read_labelled_data(config.data, seed=config.seed, by_label=not by_domain)
        known = set(classes_of(config, data))
        if not by_domain:
            strange = [row for side in data.val for row in side if row.label not in known]
            data.val = _known(data.val[0], known), _known(data.val[1], known)
            if strange:
                data.notes.append(
                    f"{len(strange)} validation images are left out: no training image is of their class "
                    f"(the first: {strange[0].label})."
                )
        return data

    @classmethod
    def build(cls, config: RunConfig, data: TrainingData) -> Classifier:
        """The backbone with a fresh head for the classes of the training images."""
        by_domain = config.classifier.target == "domain"
        classes = classes_of(config, data)
        if len(classes) < 2:
            raise IsthmusError(
                f"All training images are of the class '{classes[0]}'; a classifier needs two classes at least."
            )
        return Classifier.create(
            config.model.backbone,
            classes,
            config.model.image_size,
            weights=config.model.weights,
            resize=config.augment.resize,
            kind="modality" if by_domain else "label",
            domains=tuple(data.names[side] for side in data.sides),
        )

    def target(self, row: Row) -> int:
        """The row's class by its place among the logits."""
        return self.number[str(row.domain if self.model.kind == "modality" else row.label)]

    def epoch(self, number: int) -> Sequence[Plan]:
        """One pass over the larger domain, or `train.steps_per_epoch` steps."""
        size, seed = self.config.train.batch_size, self.config.seed
        counts = [len(rows) for rows in self.data.train]
        steps = self.config.train.steps_per_epoch or max(1, max(counts) // size)
        parts: list[list[list[int]]] = [[[]] * steps, [[]] * steps]
        for side in self.data.sides:
            name = self.data.names[side]
            parts[side] = epoch_batches(counts[side], size, steps, seed=seed, epoch=number, name=name)
        return [Plan((parts[0][step], parts[1][step]), (seed, number, step)) for step in range(steps)]

    def load(self, plan: Plan) -> Batch:
        """This process's share of the images, changed at random."""
        own = [local_part(positions, self.processes.rank, self.processes.world) for positions in plan.positions]
        rows = [self.data.train[side][position] for side in (0, 1) for position in own[side]]
        views = [self.source.train_view(row, self.config.augment, "classifier", *plan.draw) for row in rows]
        sides = [side for side in (0, 1) for _ in own[side]]
        return Batch(torch.stack(views), torch.tensor([self.target(row) for row in rows]), torch.tensor(sides))

    def updates(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """Cross-entropy of each domain, in one forward pass over both."""
        images = self.model.preprocessing.normalise(batch.views.to(self.device))
        if self.config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        answers: Answers = self.networks["classifier"](images)
        targets, sides = batch.targets.to(self.device), batch.sides.to(self.device)
        smoothing = self.config.classifier.label_smoothing
        each = F.cross_entropy(answers.logits.float(), targets, reduction="none", label_smoothing=smoothing)
        weight = 1 / len(self.data.sides)
        yield (
            "classifier",
            {f"cross_entropy/{self.data.names[side]}": weight * each[sides == side].mean() for side in self.data.sides},
        )

    def images_per_step(self) -> int:
        """Images of all domains a step, over all processes."""
        return sum(min(self.config.train.batch_size, len(self.data.train[side])) for side in self.data.sides)

    def judge(self, out: Path, *, autocast: bool) -> ClassifierJudge:
        """Accuracy on the validation images."""
        return ClassifierJudge(self, autocast)

    def summary(self, figures: dict[str, float]) -> dict[str, Any]:
        """The validation figures, and on how many images."""
        return {**figures, "validation_images": sum(len(rows) for rows in self.data.val)}


class ClassifierJudge:
    """Asks the classifier for the classes of the validation images, each domain's and all together."""

    def __init__(self, method: ClassifierMethod, autocast: bool) -> None:
        self.method, self.model, self.data, self.autocast = method, method.model, method.data, autocast

    @torch.inference_mode()
    def logits(self, rows: list[Row]) -> Tensor:
        """(n, c) float32 of rows, on the CPU."""
        network, looks = self.model.network.eval(), self.model.preprocessing
        parts = []
        for views, _, _ in test_batches(self.method.source, rows, 64, self.method.config.data.workers):
            images = looks.normalise(views.to(self.model.device)).contiguous(memory_format=torch.channels_last)
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
                parts.append(network(images).logits.float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, len(self.model.classes))

    def verdict(self) -> Verdict:
        """`accuracy`, `balanced_accuracy`, `confidence`; with two domains the accuracy of each too."""
        judged = [side for side in self.data.sides if self.data.val[side]]
        logits = {side: self.logits(self.data.val[side]) for side in judged}
        targets = {side: torch.tensor([self.method.target(row) for row in self.data.val[side]]) for side in judged}
        if not judged:
            return Verdict({})
        figures = scores(torch.cat(list(logits.values())), torch.cat(list(targets.values())))
        if len(self.data.sides) > 1:
            for side in judged:
                figures[f"accuracy/{self.data.names[side]}"] = scores(logits[side], targets[side])["accuracy"]
        return Verdict(figures)

    def probe(self, rows: list[Row]) -> None:
        """Ask about some images."""
        self.logits(rows)

    def images(self) -> int:
        """Images asked about after each epoch."""
        return sum(len(rows) for rows in self.data.val)


def scores(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Share of right answers, its mean over the classes that occur, and the mean probability of the answers given.

    Args:
        logits: (n, c).
        targets: (n,) in [0, c).

    Example:
        >>> scores(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 0]))["accuracy"]
        0.6666666865348816
    """
    right = (logits.argmax(dim=1) == targets).float()
    recalls = torch.stack([right[targets == number].mean() for number in sorted(set(targets.tolist()))])
    confidence = logits.softmax(dim=1).amax(dim=1)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(recalls.mean()),
        "confidence": float(confidence.mean()),
    }


def classes_of(config: RunConfig, data: TrainingData) -> tuple[str, ...]:
    """The names of the classes, sorted: neither the order of files nor of domains decides."""
    if config.classifier.target == "domain":
        return tuple(sorted(name for name in data.names if name))
    return tuple(sorted({str(row.label) for rows in data.train for row in rows}))


def _known(rows: list[Row], classes: set[str]) -> list[Row]:
    return [row for row in rows if row.label in classes]
