"""The generators' part of a data-free step: what makes an image worth looking at.

For one z, with photo teacher P and sketch teacher S, and for each domain alike (weights of the settings):

    L_G = CE(teacher, class) + sum p log p - mean |features| + statistics + diversity + CE(modality, domain)
          + KL(P, S) over the matched classes - JS(student, teacher)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isthmus.losses import (
    NormStatistics,
    activation_loss,
    adversarial_loss,
    alignment_loss,
    class_coding,
    information_entropy,
    modality_loss,
    mode_seeking,
    self_labelling,
    statistics_loss,
)
from isthmus.methods.data_free_images import Pictures
from isthmus.models.classifier import Answers
from isthmus.models.data_free import GENERATORS
from isthmus.models.teachers import SIDES

if TYPE_CHECKING:
    from isthmus.methods.data_free import DataFree


class GeneratorStep:
    """One update of both generators.

    Args:
        method: the run's.
        z: (n, noise).
        classes: what is asked for, (n,) each in the common label space; None where the generators aren't told.
    """

    def __init__(self, method: DataFree, z: Tensor, classes: tuple[Tensor, Tensor] | None) -> None:
        self.method, self.settings, self.teachers = method, method.config.data_free, method.teachers
        self.z, self.classes = z, classes
        self.images: list[Tensor] = []
        self.answers: list[Answers] = []

    def losses(self) -> dict[str, Tensor]:
        """The weighted terms; those of weight 0 are not computed."""
        terms: dict[str, Tensor] = {}
        for side in SIDES:
            terms |= {f"{name}/{self.teachers.names[side]}": loss for name, loss in self._side(side).items()}
        if self.settings.alignment_weight and self.settings.crossing:
            loss = self._alignment()
            if loss is not None:
                terms["alignment"] = self.settings.alignment_weight * loss
        return terms

    def _side(self, side: int) -> dict[str, Tensor]:
        settings, teacher, terms = self.settings, self.teachers.sides[side], dict[str, Tensor]()
        columns = None if self.classes is None else self.teachers.columns[side][self.classes[side]]
        images = self.method.networks[GENERATORS[side]](self.z, columns)
        norms = teacher.norms() if settings.statistics_weight else []
        with NormStatistics(norms) if norms else contextlib.nullcontext() as statistics:
            answers = teacher.answer(images)
        self.images.append(images)
        self.answers.append(answers)
        if settings.semantic_weight:
            loss = self_labelling(answers.logits) if columns is None else class_coding(answers.logits, columns)
            terms["semantic"] = settings.semantic_weight * loss
        if settings.entropy_weight:
            terms["balance"] = settings.entropy_weight * information_entropy(answers.logits)
        if settings.activation_weight and answers.features.shape[1]:
            terms["activation"] = settings.activation_weight * activation_loss(answers.features)
        if statistics is not None:
            terms["statistics"] = settings.statistics_weight * statistics_loss(statistics.captured, settings.statistics)
        if settings.diversity_weight:
            loss = mode_seeking(images, self.z, columns)
            terms["modes"] = settings.diversity_weight * loss
        modality = self.teachers.modality
        if modality is not None and settings.modality_weight:
            place = modality.classes.index(self.teachers.names[side])
            loss = modality_loss(modality.answer(images).logits, place)
            terms["modality"] = settings.modality_weight * loss
        if settings.adversarial_weight and self.method.students_begun:
            terms["adversarial"] = settings.adversarial_weight * self._adversarial(side, images, answers)
        return terms

    def _adversarial(self, side: int, images: Tensor, answers: Answers) -> Tensor:
        student = self.method.model.student(side)
        with frozen(student), self.method.autocast():
            embedded = self.method.model.learned(student, side, images, answers.features)
        known = self.teachers.known(side)
        similarities = self.settings.similarity_scale * (embedded @ self.method.proxies[side][known].T)
        form = "jensen-shannon" if self.settings.adversarial == "bounded" else "cross-entropy"
        return adversarial_loss(similarities, answers.logits[:, self.teachers.columns[side][known]], form)  # type: ignore[arg-type]

    def _alignment(self) -> Tensor | None:
        """Over the pairs of one class; in a batch without any there is nothing to align."""
        matched = self.teachers.columns[:, : self.teachers.matched]
        query, gallery = (answers.logits for answers in self.answers)
        if self.classes is not None:
            pairs = self.classes[0] == self.classes[1]
            if not bool(pairs.any()):
                return None
            query, gallery = query[pairs], gallery[pairs]
        return alignment_loss(gallery, query, matched[1], matched[0])

    @torch.no_grad()
    def pictures(self) -> Pictures:
        """What was made, with the classes that were asked for or that the teachers see."""
        codes = self.classes
        if codes is None:
            seen = [self.teachers.common(side, self.answers[side].logits.argmax(dim=1)) for side in SIDES]
            codes = (seen[0], seen[1])
        return Pictures((self.images[0].detach(), self.images[1].detach()), codes, pairs=True)


@contextlib.contextmanager
def frozen(network: nn.Module):  # type: ignore[no-untyped-def]
    """Within the block the network's weights get no gradients, nor do its batch norms learn."""
    before = {part: part.training for part in network.modules()}
    wanted = [weight for weight in network.parameters() if weight.requires_grad]
    network.eval()
    for weight in wanted:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
        for part, training in before.items():
            part.training = training
