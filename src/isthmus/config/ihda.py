"""Settings of IHDA (Instance-level Heterogeneous Domain Adaptation, IEEE TMM 2020)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from isthmus.config.sections import Section

Ablation = Literal["inverted-domain", "bounded-domain", "short-epoch", "source-rate"]


class IhdaConfig(Section):
    """Stages, heads and terms of IHDA; step 2's epochs, batch and rate are those of `train`."""

    stages: Literal["both", "source", "target"] = Field(
        "both", description="both steps; step 1 alone; or step 2 alone, from the backbone's weights"
    )
    start: str | None = Field(
        None, description="run whose encoder and attribute head step 2 starts from (stages=target)"
    )
    source_epochs: int = Field(20, ge=1, description="of step 1")
    source_lr: float | None = Field(None, gt=0, description="of step 1; default: train.lr")
    source_step_batch: int = Field(64, ge=2, description="photos a step of step 1")
    source_images: int = Field(2, ge=1, description="K of step 1: photos, or views of one, of an identity in a batch")
    source_batch: int = Field(32, ge=1, description="source photos a step of step 2")
    images_per_identity: int = Field(1, ge=1, description="K of step 2: images of an identity a domain in a batch")
    drawn: float = Field(0.0, ge=0, le=1, description="share of the photos' training views drawn as their edges")
    attributes: list[str] = Field(
        default_factory=list, description="which of the source's; empty: all; -NAME leaves one out"
    )
    unpaired: Literal["raise", "skip"] = Field("raise", description="what to do with an identity in one domain only")
    shared: bool = Field(False, description="one encoder for both domains")

    identity_weight: float = Field(1.0, ge=0, description="L_id; 0 switches it off")
    triplet_weight: float = Field(1.0, ge=0, description="L_tri")
    source_attribute_weight: float = Field(1.0, ge=0, description="BCE of the attributes in step 1")
    attribute_weight: float = Field(0.1, ge=0, description="L_att^s, the same in step 2")
    entropy_weight: float = Field(0.1, ge=0, description="L_att^t")
    consistency_weight: float = Field(0.1, ge=0, description="L_con")
    domain_weight: float = Field(0.1, ge=0, description="L_d")
    source_identity_weight: float = Field(
        0.0, ge=0, description="L_id + L_tri of the source in step 2 (joint training)"
    )

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    margin: float = Field(0.3, ge=0)
    anchors: Literal["query", "all"] = Field("query", description="sketches against photos, or every image of both")
    distance: Literal["squared", "euclidean"] = "squared"
    unit_triplets: bool = Field(True, description="triplets of unit vectors")
    inner_triplets: bool = Field(False, description="triplets on the last stage but one (layer 3) too")
    triplet_from: int = Field(0, ge=0, description="epoch of step 2 from which there are triplets")
    source_triplet_from: int = Field(0, ge=0, description="the same of step 1")
    entropy: Literal["complete", "half"] = Field("complete", description="half: -p log p alone, as in the paper")
    consistency: Literal["mse", "norm"] = "mse"

    identity_head: Literal["linear", "mlp"] = "linear"
    identity_dropout: float = Field(0.0, ge=0, lt=1)
    head_width: int = Field(512, ge=1, description="hidden units of the attribute, domain and mlp identity heads")
    head_style: Literal["plain", "norm"] = Field("plain", description="norm: batch norm and leaky ReLU")
    attribute_dropout: float = Field(0.0, ge=0, lt=1)

    unit_domain: bool = Field(True, description="the discriminator sees the features' directions, not their lengths")
    discriminator: Literal["network", "centroids"] = Field(
        "network", description="centroids: by the domains' means in the batch, what a linear probe goes by; weigh it 20"
    )
    reversal: float = Field(1.0, ge=0, description="largest coefficient of the gradient reversal")
    reversal_gamma: float = Field(10.0, ge=0, description="coefficient 2/(1 + exp(-gamma p)) - 1; 0: constant")
    reversal_steps: int | None = Field(None, ge=1, description="steps until p = 1; default: all of step 2")
    encoder_rate: float = Field(1.0, gt=0, description="the encoders' learning rate over the heads'")
    ablation: list[Ablation] = Field(default_factory=list, description="faults of the public code, each alone")

    @field_validator("ablation", "attributes", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [] if value in ("", "none", None) else [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some_loss(self) -> IhdaConfig:
        if not (self.identity_weight or self.triplet_weight or self.attribute_weight):
            raise ValueError("ihda.identity_weight, triplet_weight and attribute_weight are all 0; keep one")
        if self.start is not None and self.stages != "target":
            raise ValueError("ihda.start takes the place of step 1; set ihda.stages=target, or leave it out")
        return self
