"""IHDA: retrieval from few labelled pairs and many attribute-labelled images (IEEE TMM 2020).

Step 1, on the source alone:

    L = L_id + L_tri + w BCE_att

Step 2, from there, on pairs and source, an encoder a domain:

    L = L_id + L_tri + 0.1 (L_att^s + L_att^t + L_con) + 0.1 L_d

L_id and L_tri are of the pairs; L_att^s is the BCE of the source's attributes, L_att^t the entropy of the attributes
predicted on the pairs, L_con how far those of a photo and its sketch are apart; L_d is the cross-entropy of a
discriminator between source photo, target photo and target sketch behind a gradient reversal, which the discriminator
minimises and the encoders maximise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.paired import PairedData, identity_of, read_paired_data
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.losses import (
    attribute_consistency,
    attribute_entropy,
    attribute_loss,
    identity_loss,
    reverse_gradient,
)
from isthmus.methods.base import Processes, Stage, Verdict
from isthmus.methods.ihda_batches import SOURCE, TARGET, Batch, Batches, Labelled, Plan
from isthmus.methods.ihda_parts import Triplets, attribute_shape, build_heads, centroid_logits
from isthmus.methods.judge import Judge
from isthmus.methods.retrieval import RetrievalMethod, build_model
from isthmus.models.ihda import IhdaModel
from isthmus.models.modules import Features, Towers, active_domain, copy_statistics


class IHDA(RetrievalMethod):
    """Two steps over two towers, with heads for identities, attributes and domains."""

    name = "ihda"
    # The held-out identities are few: mAP moves where R@1 stands still.
    auto = ("val/mAP@all",)
    model: IhdaModel
    data: PairedData

    def __init__(
        self, config: RunConfig, model: IhdaModel, data: PairedData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)
        self.batches = Batches(config, data, source, processes, [(stage.name, stage.epochs) for stage in self.stages()])
        self.triplets = Triplets(config.ihda, processes)
        self._images = 2 * config.train.batch_size + (config.ihda.source_batch if data.source else 0)

    @classmethod
    def read(cls, config: RunConfig) -> PairedData:
        """Pairs and source."""
        settings = config.ihda
        return read_paired_data(
            config.data,
            seed=config.seed,
            attributes=settings.attributes,
            source="optional" if settings.stages == "target" else "needed",
            unpaired=settings.unpaired,
        )

    @classmethod
    def build(cls, config: RunConfig, data: TrainingData) -> IhdaModel:
        """Encoders from the backbone's weights, and fresh heads."""
        assert isinstance(data, PairedData)
        settings = config.ihda
        made = build_model(IhdaModel, config, data.names, towers=not settings.shared)
        made.attributes = data.attributes
        made.shape = attribute_shape(settings)
        made.heads = build_heads(settings, made.dim, data)
        if settings.start is not None:
            made.start_from(settings.start)
        return made

    def stages(self) -> tuple[Stage, ...]:
        """Step 1, step 2, or one of them."""
        settings = self.config.ihda
        rate = settings.source_lr or self.config.train.lr
        if "source-rate" in settings.ablation:
            rate *= 11  # the public code's warm-up, `epoch + 1 % 11`, at its end
        both = settings.stages == "both"
        first = Stage(SOURCE, settings.source_epochs, rate, chosen=not both)
        second = Stage(TARGET, self.config.train.epochs)
        return (first, second) if both else (first,) if settings.stages == "source" else (second,)

    def rate_of(self, part: str) -> float:
        """The encoders may learn more slowly than the heads."""
        return self.config.ihda.encoder_rate if part in self.model.encoders() else 1.0

    def enter(self, stage: int) -> None:
        """Step 2 begins with step 1's encoder in both towers."""
        if stage:
            self.copy_tower()

    def copy_tower(self) -> None:
        """Give the query tower the gallery tower's weights, which step 1 trains, and the query the gallery's norms."""
        if isinstance(self.model.encoder, Towers):
            self.model.encoder.tower(0).load_state_dict(self.model.encoder.tower(1).state_dict())
        copy_statistics(self.model.encoder, 1, 0)

    def epoch(self, number: int) -> Sequence[Plan]:
        """The longer of both loaders sets the epoch."""
        return self.batches.epoch(number)

    def load(self, plan: Plan) -> Batch:
        """This process's share of a step."""
        return self.batches.load(plan)

    def updates(self, batch: Batch) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """All parts that the step uses, at once."""
        if batch.plan.stage == SOURCE:
            terms, heads = self._source_step(batch), {"source_identity", "attributes"}
            encoders = {self.model.encoder_name(1)}
        else:
            terms, heads = self.step(batch), set(self.model.heads)
            encoders = set(self.model.encoders())
        if not terms:
            raise IsthmusError(
                "All losses of this step are switched off; set one of ihda.*_weight above 0, or lower the epoch from "
                "which there are triplets (ihda.triplet_from, ihda.source_triplet_from)."
            )
        used = [name for name in self.networks if name in encoders | heads and self._learns(name, terms)]
        yield tuple(used), terms

    def _learns(self, part: str, terms: dict[str, Tensor]) -> bool:
        """A head whose terms are off has no gradient, and momentum or decay would still move it."""
        wants = {
            "source_identity": {"source_identity"},
            "identity": {"identity"},
            "attributes": {"attributes", "entropy", "consistency"},
            "domain": {"domain"} if self.config.ihda.discriminator == "network" else set(),
        }
        return part not in wants or bool(wants[part] & terms.keys())

    def _features(self, part: Labelled, domain: int) -> Features:
        images = self.model.preprocessing.normalise(part.views.to(self.device))
        if self.config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with active_domain(self.model.encoder, domain):
            features = self.networks[self.model.encoder_name(domain)](images, True, self.config.ihda.inner_triplets)
        assert isinstance(features, Features)
        return features

    def _source_step(self, batch: Batch) -> dict[str, Tensor]:
        """`source_identity`, `source_triplet` and `attributes` of step 1."""
        settings, source = self.config.ihda, batch.source
        assert source is not None
        self._images = len(source.views) * self.processes.world
        features = self._features(source, 1)
        terms = self._source_identities(features, source, 1.0, settings.source_triplet_from)
        if settings.source_attribute_weight:
            terms["attributes"] = settings.source_attribute_weight * self._known_attributes(features, source)
        return terms

    def _known_attributes(self, features: Features, source: Labelled) -> Tensor:
        return attribute_loss(self.networks["attributes"](features.pooled), source.attributes.to(self.device))

    def _source_identities(
        self, features: Features, source: Labelled, weight: float, triplet_from: int
    ) -> dict[str, Tensor]:
        settings, terms = self.config.ihda, {}
        codes = source.identities.to(self.device)
        if "source_identity" in self.networks and settings.identity_weight:
            logits = self.networks["source_identity"](features.necked)
            terms["source_identity"] = (
                weight * settings.identity_weight * identity_loss(logits, codes, settings.label_smoothing)
            )
        # Where all are alone of their identity there are no positives.
        if settings.triplet_weight and self.batches.per_group > 1 and self.begun > triplet_from:
            terms["source_triplet"] = weight * settings.triplet_weight * self.triplets.among(features, codes)
        return terms

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of step 2; those of weight 0 are not computed."""
        settings = self.config.ihda
        assert batch.query is not None and batch.gallery is not None
        query, gallery = self._features(batch.query, 0), self._features(batch.gallery, 1)
        source = self._features(batch.source, 1) if batch.source is not None and self._uses_source() else None
        count = len(batch.query.views) * 2 + (0 if source is None else len(source.pooled))
        self._images = count * self.processes.world
        codes = batch.query.identities.to(self.device)
        terms: dict[str, Tensor] = {}
        if settings.identity_weight:
            logits = self.networks["identity"](torch.cat([query.necked, gallery.necked]))
            loss = identity_loss(logits, torch.cat([codes, codes]), settings.label_smoothing)
            terms["identity"] = settings.identity_weight * loss
        first = self.stages()[0].epochs if settings.stages == "both" else 0
        if settings.triplet_weight and self.begun - first > settings.triplet_from:
            terms["triplet"] = settings.triplet_weight * self.triplets.across(query, gallery, codes)
        terms |= self._attribute_terms(query, gallery, source, batch.source)
        if settings.domain_weight:
            parts = [(0, source), (1, gallery), (2, query)]
            features = [part.pooled for _, part in parts if part is not None]
            labels = [torch.full((len(part.pooled),), n) for n, part in parts if part is not None]
            loss = self._domain_loss(torch.cat(features), torch.cat(labels).to(self.device), self.reversal(batch.plan))
            terms["domain"] = settings.domain_weight * loss
        if settings.source_identity_weight and source is not None and batch.source is not None:
            terms |= self._source_identities(source, batch.source, settings.source_identity_weight, 0)
        return terms

    def _uses_source(self) -> bool:
        settings = self.config.ihda
        return bool(settings.attribute_weight or settings.domain_weight or settings.source_identity_weight)

    def _attribute_terms(
        self, query: Features, gallery: Features, source: Features | None, labelled: Labelled | None
    ) -> dict[str, Tensor]:
        settings, terms = self.config.ihda, {}
        if not self.model.attributes:
            return {}
        if settings.attribute_weight and source is not None and labelled is not None:
            terms["attributes"] = settings.attribute_weight * self._known_attributes(source, labelled)
        if settings.entropy_weight or settings.consistency_weight:
            logits = self.networks["attributes"](torch.cat([gallery.pooled, query.pooled]))
            photo, sketch = logits.split(len(gallery.pooled))
            if settings.entropy_weight:
                each = attribute_entropy(photo, settings.entropy) + attribute_entropy(sketch, settings.entropy)
                terms["entropy"] = settings.entropy_weight * each
            if settings.consistency_weight:
                apart = attribute_consistency(photo, sketch, settings.consistency)
                terms["consistency"] = settings.consistency_weight * apart
        return terms

    def reversal(self, plan: Plan) -> float:
        """The coefficient of a step: `top (2 / (1 + exp(-gamma p)) - 1)`, p from 0 to 1 (Ganin et al., JMLR 2016)."""
        settings = self.config.ihda
        if not settings.reversal_gamma:
            return settings.reversal
        p = min(1.0, plan.step / (settings.reversal_steps or plan.steps))
        return settings.reversal * (2 / (1 + math.exp(-settings.reversal_gamma * p)) - 1)

    def _domain_loss(self, features: Tensor, labels: Tensor, coefficient: float) -> Tensor:
        if self.config.ihda.unit_domain:
            # Lengths are free to grow, and with them a loss that the encoders raise: training runs away. A root mean
            # square of 1 is what the head's first layer is made for.
            features = F.normalize(features, dim=1) * features.shape[1] ** 0.5
        features = reverse_gradient(features, coefficient)
        if self.config.ihda.discriminator == "centroids":
            logits = centroid_logits(features, labels)
        else:
            logits = self.networks["domain"](features).float()
        if "bounded-domain" in self.config.ihda.ablation:
            logits = logits.softmax(dim=1)
        loss = F.cross_entropy(logits, labels)
        return -loss if "inverted-domain" in self.config.ihda.ablation else loss

    def judge(self, out: Path, *, autocast: bool) -> Judge:
        """Retrieval of the held-out identities."""
        return _Judge(self, self.config.data.workers, autocast)

    def images_per_step(self) -> int:
        """Images of the latest step, over all processes."""
        return self._images


class _Judge(Judge):
    def __init__(self, method: IHDA, threads: int, autocast: bool) -> None:
        super().__init__(method.model, method.data, method.source, threads, autocast, relevant=identity_of)
        self.method = method

    def verdict(self) -> Verdict:
        stages = self.method.stages()
        if stages[0].name == SOURCE and self.method.begun <= stages[0].epochs:
            # Step 1 trains one tower; what is judged and kept is its encoder in both.
            self.method.copy_tower()
        return super().verdict()
