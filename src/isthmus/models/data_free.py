"""What data-free training makes: an encoder a domain in the space of the teachers' class weights; two generators."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from isthmus.config import DataFreeConfig, RunConfig
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.models.backbones import preprocessing_of
from isthmus.models.classifier import Classifier
from isthmus.models.encoder import Architecture, Model
from isthmus.models.generator import Generator
from isthmus.models.heads import JoinedHead
from isthmus.models.modules import DomainNorm, Encoder, Towers, active_domain, build_encoder, split_norms, stage_widths
from isthmus.models.teachers import SIDES, Teachers

ENCODERS = ("query", "gallery")
SHARED = "encoder"
GENERATORS = ("query_generator", "gallery_generator")
ALIKE = 0.5  # cosine of two networks' weights from which on they began alike; of strangers it is near 0


@dataclass
class DataFreeModel(Model):
    """A `Model` of two towers, with what trains it beside it; a saved one is an ordinary `Model`.

    Attributes:
        teachers: the classifiers.
        generators: by the names in `GENERATORS`; none where the students look at other images.
        proxies: (2, classes, dim): unit vectors that stand for the classes on each side; a class that a side's student
            isn't taught has none of its own there.
        kept_backbones: whether the students' backbones are the teachers' and stay so.
    """

    teachers: Teachers | None = None
    generators: dict[str, nn.Module] = field(default_factory=dict)
    proxies: Tensor = field(default_factory=lambda: torch.empty(2, 0, 0))
    kept_backbones: bool = False

    def encoders(self) -> dict[str, Encoder]:
        """The students: `query` and `gallery`, or one `encoder` for both."""
        if isinstance(self.encoder, Towers):
            return {name: self.encoder.tower(side) for side, name in enumerate(ENCODERS)}
        return {SHARED: self.encoder}

    def encoder_name(self, side: int) -> str:
        """The part that a domain's images go through, within `active_domain`."""
        return ENCODERS[side] if isinstance(self.encoder, Towers) else SHARED

    def modules(self) -> dict[str, nn.Module]:
        """Encoders and generators, each with an optimiser of its own."""
        return {**self.encoders(), **self.generators}

    def student(self, side: int) -> Encoder:
        """The encoder of a domain, for use within `active_domain`."""
        return self.encoders()[self.encoder_name(side)]

    def learned_of(self, vectors: Tensor) -> Tensor:
        """The part of a tower's vectors (n, d) that is trained, of unit length: neither probabilities nor stages."""
        begin = self.architecture.begin
        return nn.functional.normalize(vectors[:, begin : begin + self.architecture.dim], dim=1)

    def learned(self, network: nn.Module, side: int, images: Tensor, features: Tensor) -> Tensor:
        """What is trained of the vectors of a domain's images in [0, 1]: unit embeddings (n, d).

        Args:
            network: the student, or what wraps it.
            side: the domain.
            images: (n, 3, h, w).
            features: the teacher's (n, w) of the same images: where the student's backbone is the teacher's and stays
                so, its own are the same, and are not computed again.
        """
        with active_domain(self.encoder, side):
            if self.kept_backbones:
                vectors: Tensor = network(features.float(), pooled=True, learned=True)
            else:
                vectors = network(self.input_of(images), learned=True)
        return vectors

    def input_of(self, images: Tensor) -> Tensor:
        """Images in [0, 1] (n, 3, h, w) as the towers want them."""
        return normalised(images, self.preprocessing)


def normalised(images: Tensor, look: Preprocessing) -> Tensor:
    """Images in [0, 1] (n, 3, h, w), resized where they have another size, and normalised; differentiable."""
    size = (look.size, look.size) if isinstance(look.size, int) else look.size
    if tuple(images.shape[2:]) != tuple(size):
        images = nn.functional.interpolate(images, size=tuple(size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value, device=images.device).view(1, 3, 1, 1) for value in (look.mean, look.std))
    return (images - mean) / std


def build_data_free(config: RunConfig, teachers: Teachers) -> DataFreeModel:
    """The students as the settings want them to start, the classes' proxies, and fresh generators.

    Raises:
        IsthmusError: the students can't start so.
    """
    start = {"teachers": _from_teachers, "scratch": _from_scratch, "weights": _from_weights}
    if config.data_free.readout == "posteriors":
        return _posteriors(config, teachers)
    architecture, encoder, looks = start[config.data_free.students](config, teachers)
    gallery_width = teachers.weights(1).shape[1]
    # The mean of two networks has features of both: turned, they would be of neither.
    alike = config.data_free.shared and config.data_free.students == "teachers"
    rotation = torch.eye(gallery_width) if alike else teachers.rotation()
    if not config.data_free.crossing:
        # Each student keeps to its own teacher's space: what it finds in the other's is what that happens to share.
        turns = [torch.eye(teachers.weights(side).shape[1]) for side in SIDES]
        rows = [_own_proxies(teachers, side) for side in SIDES]
        if rows[0].shape != rows[1].shape:
            raise IsthmusError(
                f"data_free.crossing=false compares the teachers' own features, and those are {rows[0].shape[1]} and "
                f"{rows[1].shape[1]} wide; use teachers of one architecture."
            )
        proxies = torch.stack(rows)
    else:
        turns = [rotation, torch.eye(gallery_width)]
        proxies = teachers.proxies(rotation).expand(2, -1, -1).clone()
    if config.data_free.students == "teachers":
        parts = (encoder,) if isinstance(encoder, Encoder) else _towers(encoder)
        for side, part in zip(SIDES[2 - len(parts) :], parts, strict=True):
            linear = part.head
            if isinstance(linear, JoinedHead):
                _believe(linear, teachers, side)
                linear = linear.embedding
            assert isinstance(linear, nn.Linear)
            linear.weight.data.copy_(turns[side].T)
            linear.bias.data.zero_()
            if config.data_free.train == "heads":
                part.backbone.requires_grad_(False)
            if part.stager is not None:
                part.stager.requires_grad_(False)
    made = DataFreeModel(
        architecture, encoder, looks, teachers.names, torch.zeros(2, encoder.dim), config.model.centring,
        teachers=teachers, proxies=proxies,
    )  # fmt: skip
    settings = config.data_free
    kept = settings.train == "heads" and config.model.freeze_norm
    made.kept_backbones = kept and isinstance(encoder, Towers)
    if settings.images == "generators":
        for side, name in enumerate(GENERATORS):
            classes = len(teachers.sides[side].classes) if settings.drawn_classes else 0
            grey = settings.grey and side == 0
            made.generators[name] = Generator(settings.noise, settings.image_size, settings.width, classes, grey=grey)
    return made


def _believe(head: JoinedHead, teachers: Teachers, side: int) -> None:
    """Give a head its teacher's classifier of the matched classes, for good."""
    if head.classifier is None:
        return
    for mine, theirs in zip(head.classifier.parameters(), teachers.sides[side].head(), strict=True):
        mine.data.copy_(theirs[teachers.columns[side, : teachers.matched]])
        mine.requires_grad_(False)


def _own_proxies(teachers: Teachers, side: int) -> Tensor:
    weights = teachers.weights(side)
    made = torch.zeros(len(teachers.classes), weights.shape[1])
    made[teachers.known(side)] = weights
    return made


def _towers(encoder: Encoder | Towers) -> tuple[Encoder, Encoder]:
    assert isinstance(encoder, Towers)
    return encoder.tower(0), encoder.tower(1)


def _posteriors(config: RunConfig, teachers: Teachers) -> DataFreeModel:
    """The teachers' probabilities of the matched classes: no training at all, and hard to beat on these classes."""
    query, gallery = teachers.sides
    _same(query, gallery)
    if gallery.backbone is None:
        raise IsthmusError(f"{gallery.where} is a program, which a model folder can't hold; give a timm classifier.")
    size = gallery.preprocessing.size
    architecture = Architecture(gallery.backbone, teachers.matched, size, towers=True, softmax=True)
    made = build_encoder(gallery.backbone, "random", teachers.matched, size, towers=True, softmax=True)
    for side, (tower, teacher) in enumerate(zip(_towers(made), teachers.sides, strict=True)):
        tower.backbone.load_state_dict(teacher.backbone_state())
        wanted = teachers.columns[side, : teachers.matched]
        linear = tower.head[0]  # type: ignore[index]
        for mine, theirs in zip((linear.weight, linear.bias), teacher.head(), strict=True):
            mine.data.copy_(theirs[wanted])
    return DataFreeModel(
        architecture, made, gallery.preprocessing, teachers.names, torch.zeros(2, teachers.matched),
        config.model.centring, teachers=teachers,
    )  # fmt: skip


Start = tuple[Architecture, Encoder | Towers, Preprocessing]


def _from_teachers(config: RunConfig, teachers: Teachers) -> Start:
    query, gallery = teachers.sides
    _same(query, gallery)
    if gallery.backbone is None:
        raise IsthmusError(
            f"{gallery.where} is a program, whose weights a student can't take over; set data_free.students=scratch, "
            "or data_free.students=weights with --weights."
        )
    size = gallery.preprocessing.size
    width = gallery.head()[0].shape[1]
    settings = config.data_free
    shared, beliefs = settings.shared, teachers.matched if settings.readout == "both" else 0
    network = gallery.network
    stages = len(stage_widths(getattr(network, "backbone", network), settings.stages))
    mixing = mixed_share(settings, teachers) if stages else 0.0
    architecture = Architecture(
        gallery.backbone, width, size, domain_norm=shared, towers=not shared, beliefs=beliefs,
        belief_share=settings.belief_share if beliefs else 0.0, stages=stages,
        stages_share=settings.stages_share if stages else 0.0, stager=mixing > 0,
    )  # fmt: skip
    # Of one encoder for both the norms are split below, once the weights are in.
    made = build_encoder(weights="random", **{**asdict(architecture), "domain_norm": False})
    states = [part.backbone_state() for part in (query, gallery)]
    if isinstance(made, Towers):
        for side, tower in zip(SIDES, _towers(made), strict=True):
            tower.backbone.load_state_dict(states[side])
            if tower.stager is not None:
                tower.stager.load_state_dict(_mixed(states[side], states[1 - side], mixing))
    else:
        _load_mean(made.backbone, states)
    return architecture, made, gallery.preprocessing


def mixed_share(settings: DataFreeConfig, teachers: Teachers) -> float:
    """Share of the other teacher's weights in what the stages are read from; 0 where mixing means nothing.

    A unified teacher has no other, without `crossing` each student keeps to its own, and weights of networks that
    didn't begin alike don't lie in one valley: their mean is no network.
    """
    return settings.mixing if wants_mixing(settings) and not teachers.unified and teachers.likeness >= ALIKE else 0.0


def wants_mixing(settings: DataFreeConfig) -> bool:
    """Whether the settings ask for stages of mixed weights."""
    return (
        bool(settings.mixing and settings.stages)
        and settings.students == "teachers"
        and not settings.shared
        and settings.crossing
    )


def _mixed(own: dict[str, Tensor], other: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights `(1 - share) own + share other`, and the own statistics of batch norms: those of the own images."""
    return {
        name: torch.lerp(value, other[name], share) if value.is_floating_point() and "running_" not in name else value
        for name, value in own.items()
    }


def _load_mean(backbone: nn.Module, states: list[dict[str, Tensor]]) -> None:
    """The mean of both teachers' weights, and batch norms with the statistics of each."""
    backbone.load_state_dict(_mixed(states[1], states[0], 0.5))
    split_norms(backbone, len(states))
    for name, norm in backbone.named_modules():
        if isinstance(norm, DomainNorm):
            for key in ("running_mean", "running_var"):
                getattr(norm, f"domain_{key}").copy_(torch.stack([state[f"{name}.{key}"] for state in states]))


def _same(query: Classifier, gallery: Classifier) -> None:
    looks = (query.preprocessing, gallery.preprocessing)
    for name, one, other in (
        ("architecture", query.backbone, gallery.backbone),
        ("input size", looks[0].size, looks[1].size),
        ("normalisation", (looks[0].mean, looks[0].std), (looks[1].mean, looks[1].std)),
    ):
        if one != other:
            raise IsthmusError(
                f"The teachers have another {name} each ({query.where}: {one}; {gallery.where}: {other}), and students "
                "that start from them need the same; set data_free.students=scratch, or data_free.students=weights "
                "with --weights."
            )


def _from_scratch(config: RunConfig, teachers: Teachers) -> Start:
    return _fresh(config, teachers, "random")


def _from_weights(config: RunConfig, teachers: Teachers) -> Start:
    return _fresh(config, teachers, config.model.weights)


def _fresh(config: RunConfig, teachers: Teachers, weights: str) -> Start:
    # The proxies set the width: where the backbone's is another, a learned map leads there.
    width, shared, settings = teachers.weights(1).shape[1], config.data_free.shared, config.model
    architecture = Architecture(settings.backbone, width, settings.image_size, domain_norm=shared, towers=not shared)
    made = build_encoder(settings.backbone, weights, width, settings.image_size, domain_norm=shared, towers=not shared)
    backbone = (_towers(made)[0] if isinstance(made, Towers) else made).backbone
    return architecture, made, preprocessing_of(backbone, settings.image_size, None, ("none", "none"))
