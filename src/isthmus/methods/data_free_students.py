"""The students' part of a data-free step: one space for both domains, around the teachers' class weights.

With proxies w of the classes, photo and sketch embeddings f, and each domain's teacher T:

    L_E = ProxyAnchor(f, w) + KL(T(x) || softmax(a f w)) + Contrast(f_photo, f_sketch; T(x))
          + InfoNCE(f_photo, f_sketch)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isthmus.losses import SymmetricQueue, distillation_loss, posterior_contrast, proxy_anchor
from isthmus.methods.data_free_images import Pictures
from isthmus.models.classifier import Answers
from isthmus.models.teachers import SIDES

if TYPE_CHECKING:
    from isthmus.methods.data_free import DataFree


class Students:
    """Losses of both encoders, and the vectors that their contrastive loss remembers.

    Args:
        method: the run's.
    """

    def __init__(self, method: DataFree) -> None:
        self.method, self.settings, self.teachers = method, method.config.data_free, method.teachers
        width = max(1, method.model.proxies.shape[2])  # none where only the teachers speak
        self.queue = SymmetricQueue(width, self.settings.queue, self.settings.temperature)
        self._latest: tuple[Tensor, Tensor, Pictures] | None = None

    def losses(self, batch: Pictures) -> dict[str, Tensor]:
        """The weighted terms of a batch on the run's device; those of weight 0 are not computed."""
        settings, names = self.settings, self.teachers.names
        guessed = settings.contrast_weight and settings.labels == "teachers"
        told = settings.distillation_weight or guessed or self.method.model.kept_backbones
        answers = self._answers(batch) if told else []
        vectors = [self._vectors(side, batch.images[side], answers) for side in SIDES]
        logits = [part.logits.float() for part in answers]
        terms: dict[str, Tensor] = {}
        for side in SIDES:
            if settings.proxy_weight:
                loss = proxy_anchor(
                    vectors[side], batch.codes[side], self.method.proxies[side],
                    margin=settings.proxy_margin, scale=settings.proxy_scale, valid=self._taught(side),
                )  # fmt: skip
                terms[f"proxy/{names[side]}"] = settings.proxy_weight * loss
            if settings.distillation_weight:
                loss = self._distillation(side, vectors[side], logits[side])
                terms[f"distillation/{names[side]}"] = settings.distillation_weight * loss
        if settings.contrast_weight and settings.crossing:
            beliefs = self._beliefs(batch, logits)
            loss = posterior_contrast(vectors[0], vectors[1], beliefs[0], beliefs[1], settings.temperature)
            terms["contrast"] = settings.contrast_weight * loss
        if settings.queue_weight and settings.crossing and batch.pairs:
            loss = self.queue.loss(vectors[1], vectors[0], batch.codes[1], batch.codes[0])
            terms["queue"] = settings.queue_weight * loss
            self._latest = (vectors[1].detach(), vectors[0].detach(), batch)
        return terms

    def _beliefs(self, batch: Pictures, logits: list[Tensor]) -> list[Tensor]:
        """(n, matched) of each domain: probabilities of the matched classes, as the teachers or the labels say."""
        matched = self.teachers.matched
        if self.settings.labels == "given":
            classes = torch.arange(matched, device=batch.codes[0].device)
            return [(codes[:, None] == classes).float() for codes in batch.codes]
        places = self.teachers.columns[:, :matched]
        return [part.softmax(dim=1)[:, columns] for part, columns in zip(logits, places, strict=True)]

    def _vectors(self, side: int, images: Tensor, answers: list[Answers]) -> Tensor:
        model = self.method.model
        features = answers[side].features if answers else images.new_empty(0)
        network = self.method.networks[model.encoder_name(side)]
        return model.learned(network, side, images, features)

    def after_step(self) -> None:
        """Remember the latest batch's vectors."""
        if self._latest is not None:
            photos, sketches, batch = self._latest
            self.queue.push(photos, sketches, batch.codes[1], batch.codes[0])
            self._latest = None

    def _taught(self, side: int) -> Tensor:
        """(classes,) bool: those that this domain's images are compared with.

        With one space a sketch must not lie near a class that only the photo teacher knows either: which images are
        of such a class nobody can say, but none was asked for as one.
        """
        if self.settings.crossing:
            return torch.ones(len(self.teachers.classes), dtype=torch.bool, device=self.method.proxies.device)
        return self.teachers.columns[side] >= 0

    def _answers(self, batch: Pictures) -> list[Answers]:
        with torch.no_grad(), self.method.autocast():
            return [self.teachers.answer(side, batch.images[side]) for side in SIDES]

    def _distillation(self, side: int, vectors: Tensor, logits: Tensor) -> Tensor:
        known = self.teachers.known(side)
        return distillation_loss(
            vectors @ self.method.proxies[side][known].T,
            logits[:, self.teachers.columns[side][known]],
            scale=self.settings.similarity_scale,
            temperature=self.settings.logit_temperature,
        )
