"""What a method is: what it trains, its batches, and the named losses of a step.

The trainer owns everything else: devices, precision, optimiser steps, checkpoints, evaluation and logs. A new method is
one file with one subclass, and one line in `methods/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.data.training import TrainingData, read_training_data
from isthmus.data.transforms import Preprocessing

# Held-out images found from their counterparts. Where there are no counterparts `auto` takes the last epoch, which
# loses less than any other label-free criterion does there: benchmarks/syncdr compares them.
AUTO = ("counterpart_r1",)


@dataclass(frozen=True)
class Processes:
    """This process among all: its rank, how many there are, and how to gather.

    With one process every gather is the identity, so a method reads the same for one and for many.
    """

    rank: int = 0
    world: int = 1

    def gather(self, values: Tensor) -> Tensor:
        """(b, ...) of each process -> (world b, ...), in the order of ranks; gradients flow back to their process."""
        if self.world == 1:
            return values
        gathered: Tensor = _Gather.apply(values, self.rank, self.world)  # type: ignore[no-untyped-call]
        return gathered

    def gather_constant(self, values: Tensor) -> Tensor:
        """As `gather`, without gradients."""
        if self.world == 1:
            return values.detach()
        parts = [torch.empty_like(values) for _ in range(self.world)]
        torch.distributed.all_gather(parts, values.detach().contiguous())
        return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """All processes' values; a value's gradient is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rank: int, world: int) -> Tensor:
        ctx.own = slice(rank * len(values), (rank + 1) * len(values))
        parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(world)]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        return total[ctx.own], None, None


class Trainee(Protocol):
    """What a run makes: networks that can be trained, kept and loaded again."""

    preprocessing: Preprocessing
    provenance: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def main(self) -> nn.Module:
        """The network whose speed is the run's; it takes images alone."""
        ...

    def modules(self) -> dict[str, nn.Module]:
        """The parts, each with an optimiser of its own, by name."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write a folder, whole or not at all."""
        ...


@dataclass(frozen=True)
class Stage:
    """A part of a run with a learning-rate curve of its own.

    Attributes:
        name: for the log; empty where there is one stage.
        epochs: how many.
        lr: its learning rate; None: `train.lr`.
        chosen: whether one of its epochs may become the run's model.
    """

    name: str
    epochs: int
    lr: float | None = None
    chosen: bool = True


def place_of(epoch: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Where an epoch, counted through all stages, lies.

    Args:
        epoch: from 0 on; one past the end lies in the last stage.
        lengths: epochs of each stage.

    Returns:
        The stage's number, and its first epoch.

    Example:
        >>> place_of(3, [2, 5])
        (1, 2)
    """
    first = 0
    for number, length in enumerate(lengths[:-1]):
        if epoch < first + length:
            return number, first
        first += length
    return len(lengths) - 1, first


@dataclass(frozen=True)
class Verdict:
    """How good an epoch is.

    Attributes:
        figures: by name; `train.select` chooses among them.
        means: (2, dim), each domain's mean unit vector of training images, where there are such vectors.
        notes: what the user should hear of it.
        varied: whether the images differ, so that vectors which don't mean that the network has collapsed.
    """

    figures: dict[str, float]
    means: Tensor | None = None
    notes: tuple[str, ...] = ()
    varied: bool = True

    @property
    def mean_cosine(self) -> float | None:
        """Mean cosine between training images of a domain, the larger of both: 1 when the network has collapsed.

        The squared length of a mean of unit vectors is their mean cosine. It is taken before centring, which would
        spread a collapsed network's rounding errors over the whole sphere.
        """
        return None if self.means is None or not self.varied else float(self.means.square().sum(dim=1).max())


class Judging(Protocol):
    """Measures what is trained, after each epoch."""

    def verdict(self) -> Verdict:
        """How good it is as it is now."""
        ...

    def probe(self, rows: list[Row]) -> None:
        """What `verdict` does with an image, done with these: for an estimate of its time."""
        ...

    def images(self) -> int:
        """How many images `verdict` looks at."""
        ...


class Method(ABC):
    """A way to train.

    Args:
        config: the run's settings.
        model: what is trained, as `build` made it.
        data: the images.
        source: reads and augments them.
        processes: this process among all.
    """

    name: ClassVar[str]
    uses_synthetic: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    #: figures that `train.select = auto` goes by, the first that was measured
    auto: ClassVar[tuple[str, ...]] = AUTO

    def __init__(
        self, config: RunConfig, model: Any, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        self.config = config
        self.model = model
        self.data = data
        self.source = source
        self.processes = processes
        #: what forward passes with gradients go through; the trainer puts its distributed wrappers here
        self.networks: dict[str, nn.Module] = dict(model.modules())
        #: epochs that have begun, counted by the trainer
        self.begun = 0
        #: the run's precision, for forward passes that do not go through `networks`
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def read(cls, config: RunConfig) -> TrainingData:
        """The images that the settings name."""
        return read_training_data(config.data, synthetic=cls.uses_synthetic, seed=config.seed)

    @classmethod
    @abstractmethod
    def build(cls, config: RunConfig, data: TrainingData) -> Trainee:
        """What the settings describe, untrained."""

    @property
    def device(self) -> torch.device:
        """Where the batches go."""
        device: torch.device = self.model.device
        return device

    def stages(self) -> tuple[Stage, ...]:
        """The run's stages, one after the other."""
        return (Stage("", self.config.train.epochs),)

    def rate_of(self, part: str) -> float:
        """The part's learning rate over the run's."""
        return 1.0

    def enter(self, stage: int) -> None:  # noqa: B027
        """Work before the first step of a stage; every optimiser starts afresh after it."""

    def start(self) -> None:  # noqa: B027  (most methods have nothing to do)
        """Work before the first step of a fresh run, such as filling memory banks."""

    @abstractmethod
    def epoch(self, number: int) -> Sequence[Any]:
        """The step plans of an epoch, counted through all stages: a function of the seed and `number` alone."""

    @abstractmethod
    def load(self, plan: Any) -> Any:
        """Read the images of one plan; called in threads ahead of time, on the CPU."""

    @abstractmethod
    def updates(self, batch: Any) -> Iterator[tuple[str | tuple[str, ...], dict[str, Tensor]]]:
        """One step: for each update the part's name, or those of several parts, and the named, weighted losses.

        Their sum is minimised; the parts are updated before the next losses are asked for.
        """

    def after_step(self) -> None:  # noqa: B027
        """Work after the step's last update, such as renewing memory slots."""

    @abstractmethod
    def judge(self, out: Path, *, autocast: bool) -> Judging:
        """What measures an epoch; pictures for people go to `out`."""

    def keep(self, verdict: Verdict) -> None:  # noqa: B027
        """Put what a kept model has to know beside its weights into it."""

    def summary(self, figures: dict[str, float]) -> dict[str, Any]:
        """What a kept model says of its figures."""
        return {}

    def images_per_step(self) -> int:
        """Forward-and-backward passes of single images in a step, over all processes."""
        return 2 * self.config.train.batch_size

    def finish(self, out: Path) -> None:  # noqa: B027
        """Leave what else others may start from beside the model; called once training is over, in one process."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the parts and their optimisers."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what `state` gave."""
