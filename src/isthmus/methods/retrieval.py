"""What methods that train an encoder have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.training import TrainingData
from isthmus.methods.base import Method, Processes, Verdict
from isthmus.methods.judge import Judge
from isthmus.models.encoder import Architecture, Model

M = TypeVar("M", bound=Model)


class RetrievalMethod(Method):
    """Trains one encoder for two domains; one optimiser, one update a step."""

    model: Model

    def __init__(
        self, config: RunConfig, model: Model, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)

    @classmethod
    def build(cls, config: RunConfig, data: TrainingData) -> Model:
        """The untrained model that the settings describe."""
        return build_model(Model, config, data.names)

    @property
    def network(self) -> nn.Module:
        """What forward passes with gradients go through."""
        return self.networks["encoder"]

    @abstractmethod
    def step(self, batch: Any) -> dict[str, Tensor]:
        """Named, weighted losses of a batch; their sum is minimised."""

    def updates(self, batch: Any) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """The encoder, once."""
        yield "encoder", self.step(batch)

    def judge(self, out: Path, *, autocast: bool) -> Judge:
        """Label-free criteria, and retrieval scores where the validation images have labels."""
        return Judge(self.model, self.data, self.source, self.config.data.workers, autocast)

    def keep(self, verdict: Verdict) -> None:
        """Each domain's mean belongs to the model."""
        assert verdict.means is not None
        self.model.means = verdict.means

    def summary(self, figures: dict[str, float]) -> dict[str, Any]:
        """The validation scores."""
        return {
            "scores": {key: value for key, value in figures.items() if key.startswith("val/")},
            "scores_on": "validation images, centred" if self.config.model.centring else "validation images",
        }


def build_model(kind: type[M], config: RunConfig, domains: tuple[str, str], *, towers: bool = False) -> M:
    """The untrained model of a kind that the settings describe, with one encoder or a tower for each domain."""
    settings = config.model
    made = kind.create(
        Architecture(
            settings.backbone,
            settings.dim,
            settings.image_size,
            domain_norm=settings.domain_norm,
            neck=settings.neck,
            towers=towers,
            drop_stages=settings.drop_stages,
            grid=settings.grid,
        ),
        domains,
        weights=settings.weights,
        resize=config.augment.resize,
        centring=settings.centring,
        filters=(settings.query_filter, settings.gallery_filter),
    )
    assert isinstance(made, kind)
    return made
