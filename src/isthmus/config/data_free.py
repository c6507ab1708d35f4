"""Settings of data-free retrieval (CrossX-DFL, CVPR 2023): teachers, generators, students, terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isthmus.config.sections import Section

Images = Literal["generators", "noise", "inverted", "folders", "bank", "none"]


class DataFreeConfig(Section):
    """Teachers, what the students look at instead of images, and the terms that train both."""

    photo: str | None = Field(None, description="classifier of the gallery domain's images: run, folder or description")
    sketch: str | None = Field(None, description="classifier of the query domain's images")
    unified: str | None = Field(None, description="one classifier of both, instead of the two")
    modality: str | None = Field(None, description="classifier that tells the two domains apart")
    trust: bool = Field(False, description="run TorchScript programs given as teachers")
    names: tuple[str, str] = Field(("sketch", "photo"), description="the model's query and gallery domain")

    students: Literal["teachers", "scratch", "weights"] = Field(
        "teachers",
        description="start from the teachers' weights, from random ones, or from model.weights (not data-free)",
    )
    shared: bool = Field(
        False, description="one encoder for both domains, with batch-norm statistics of each: the teachers' mean"
    )
    images: Images = Field(
        "generators",
        description="what students look at: generated, noise, optimised one by one, data.* folders, those of another "
        "run; none: no training",
    )
    bank: str | None = Field(None, description="images=bank: the run whose generated images students look at")
    labels: Literal["teachers", "given"] = Field(
        "teachers", description="folders: classes as the teachers see them, or the folders' own (not data-free)"
    )
    readout: Literal["embedding", "posteriors", "both"] = Field(
        "both",
        description="what a vector holds: the embedding, the teachers' probabilities of the matched classes (with "
        "images=none), or both side by side",
    )
    stages: int = Field(
        2, ge=0, description="students=teachers: how many of the network's last stages the embedding holds besides"
    )
    stages_share: float = Field(0.5, gt=0, lt=1, description="weight of the stages in the embedding")
    belief_share: float = Field(0.5, gt=0, lt=1, description="readout=both: weight of the probabilities")
    train: Literal["heads", "all"] = Field(
        "heads", description="students=teachers: only the map into the common space, or all weights"
    )
    mixing: float = Field(
        0.3, ge=0, le=0.5, description="stages: share of the other teacher's weights in the network that they are of"
    )
    crossing: bool = Field(True, description="one space for both domains; off: each student learns from its own alone")

    noise: int = Field(256, ge=2, description="width of z")
    image_size: int = Field(64, ge=32, le=224, description="side of generated images, a multiple of 8")
    width: int = Field(64, ge=8, multiple_of=4, description="channels of a generator's maps up to 16 x 16")
    grey: bool = Field(True, description="generated images of the query domain are grey and begin light, as sketches")
    drawn_classes: bool = Field(True, description="a generator is told the class; off: as in the paper, its own guess")
    semantic_weight: float = Field(1.0, ge=0, description="cross-entropy of the teacher with the class")
    entropy_weight: float = Field(1.0, ge=0, description="balance of the classes in a batch")
    activation_weight: float = Field(0.0, ge=0, description="large penultimate activations")
    diversity_weight: float = Field(5.0, ge=0, description="two images of a class differ as much as their z")
    modality_weight: float = Field(1.0, ge=0, description="the modality classifier says photo or sketch")
    alignment_weight: float = Field(1.0, ge=0, description="teachers agree on the two images of one z")
    adversarial_weight: float = Field(0.1, ge=0, description="students and teachers disagree")
    adversarial: Literal["bounded", "cross-entropy"] = Field("bounded", description="Jensen-Shannon, or as published")
    statistics_weight: float = Field(1.0, ge=0, description="the teachers' batch-norm statistics")
    statistics: Literal["relative", "norm"] = Field("relative", description="norm: as in DeepInversion, / layers")
    variation_weight: float = Field(0.001, ge=0, description="inverted: total variation")

    proxy_weight: float = Field(0.0, ge=0, description="proxy anchor on the teachers' class weights")
    queue_weight: float = Field(0.0, ge=0, description="symmetric contrastive loss with a queue")
    distillation_weight: float = Field(0.0, ge=0, description="the teacher's class probabilities")
    contrast_weight: float = Field(
        1.0, ge=0, description="photos and sketches of a batch, alike as far as the teachers think so"
    )
    proxy_scale: float = Field(32.0, gt=0)
    proxy_margin: float = Field(0.1, ge=0)
    temperature: float = Field(0.07, gt=0, description="of the contrastive losses")
    queue: int = Field(1024, ge=1, description="past vectors a domain")
    logit_temperature: float = Field(2.0, gt=0, description="of the teachers' probabilities in distillation")
    similarity_scale: float = Field(16.0, gt=0, description="of cosines in distillation")

    generator_rate: float = Field(1.0, gt=0, description="the generators' learning rate over the students'")
    warmup: int = Field(100, ge=0, description="generator steps before the students begin")
    encoder_steps: int = Field(2, ge=1, description="students' steps to one of the generators")
    bank_mb: int = Field(64, ge=1, description="memory for generated images, and size of a checkpoint")
    inversion_steps: int = Field(100, ge=1, description="inverted: steps an image is optimised")
    inverted: int = Field(512, ge=2, description="inverted: images a domain")
    shift: int = Field(4, ge=0, description="pixels that students see generated images shifted by at random, at most")
    mirror: bool = Field(True, description="students see half of the generated images mirrored")
    light: float = Field(0.2, ge=0, le=1, description="random change of brightness and contrast of what students see")
    samples: int = Field(4, ge=0, description="generated images of each class and domain in the grids")
    max_classes_shown: int = Field(12, ge=1, description="classes in the grids")

    @model_validator(mode="after")
    def _fits(self) -> DataFreeConfig:
        if self.image_size % 8:
            raise ValueError(f"data_free.image_size = {self.image_size} is no multiple of 8; choose 64, 96 or 128")
        if self.images == "bank" and self.bank is None:
            raise ValueError("data_free.images=bank needs data_free.bank, the folder of a run that generated images")
        if self.names[0] == self.names[1]:
            raise ValueError("data_free.names are equal; give the two domains different names")
        if self.unified is not None and (self.photo is not None or self.sketch is not None):
            raise ValueError(
                "data_free.unified (--unified) is a teacher of both domains: leave out data_free.photo and sketch"
            )
        if not (self.proxy_weight or self.queue_weight or self.contrast_weight or self.distillation_weight):
            raise ValueError(
                "data_free.proxy_weight, queue_weight, contrast_weight and distillation_weight are all 0; keep one"
            )
        if self.shared and not self.crossing:
            raise ValueError("data_free.crossing=false trains each student alone; set data_free.shared to false")
        if self.readout == "posteriors" and (self.images != "none" or self.students != "teachers" or self.shared):
            raise ValueError(
                "data_free.readout=posteriors reads the teachers as they are; set data_free.images=none and leave out "
                "data_free.students and shared"
            )
        own = self.students == "teachers" and not self.shared
        if self.readout == "both" and not own:
            raise ValueError(
                "data_free.readout=both keeps the teachers' probabilities, which only data_free.students=teachers with "
                "an encoder a domain has; set data_free.readout=embedding"
            )
        if self.train == "heads" and self.students != "teachers":
            raise ValueError(
                f"data_free.train=heads leaves students={self.students} where they began; set data_free.train=all"
            )
        if self.labels == "given" and self.images != "folders":
            raise ValueError("data_free.labels=given needs images with labels; set data_free.images=folders")
        return self
