"""What a method is: its modules, its batches, and one `step` that returns named losses.

The trainer owns everything else: devices, precision, optimiser steps, checkpoints, evaluation and logs. A new method is
one file with one subclass, and one line in `methods/__init__.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.training import TrainingData
from isthmus.models.encoder import Model


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


class Method(ABC):
    """A way to train the encoder of a model.

    Args:
        config: the run's settings.
        model: what is trained.
        data: the images.
        source: reads and augments them.
        processes: this process among all.
    """

    name: ClassVar[str]
    uses_synthetic: ClassVar[bool] = False
    trains: ClassVar[bool] = True

    def __init__(
        self, config: RunConfig, model: Model, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        self.config = config
        self.model = model
        self.data = data
        self.source = source
        self.processes = processes
        #: what forward passes go through; the trainer puts its distributed wrapper here
        self.network: nn.Module = model.encoder

    @property
    def device(self) -> torch.device:
        """Where the batches go."""
        return self.model.device

    def start(self) -> None:  # noqa: B027  (most methods have nothing to do)
        """Work before the first step of a fresh run, such as filling memory banks."""

    @abstractmethod
    def epoch(self, number: int) -> Sequence[Any]:
        """The step plans of an epoch, a function of the seed and `number` alone."""

    @abstractmethod
    def load(self, plan: Any) -> Any:
        """Read the images of one plan; called in threads ahead of time, on the CPU."""

    @abstractmethod
    def step(self, batch: Any) -> dict[str, Tensor]:
        """Named, weighted losses of a batch; their sum is minimised."""

    def after_step(self) -> None:  # noqa: B027
        """Work after the optimiser's step, such as renewing memory slots."""

    def images_per_step(self) -> int:
        """Forward-and-backward passes of single images in a step, over all processes."""
        return 2 * self.config.train.batch_size

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model and the optimiser."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take back what `state` gave."""
