"""Decisions that all processes of a run take alike, so that none is left waiting for one that has gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from isthmus.errors import IsthmusError

T = TypeVar("T")


class Together:
    """What the processes of a run say to each other; with one process nothing is sent."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    def means(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Each loss term's mean over the processes: what is not finite in one of them is so in all."""
        values = torch.stack([value.detach() for value in terms.values()])
        return dict(zip(terms, self.fabric.all_reduce(values, reduce_op="mean").tolist(), strict=True))

    def signal(self, number: int | None) -> int:
        """The largest signal that any process was sent, 0 for none: all stop after the same step."""
        return int(self.fabric.all_reduce(torch.tensor(float(number or 0)), reduce_op="max"))

    def from_first(self, measure: Callable[[], T]) -> T:
        """What `measure` gives, or raises, in the first process.

        Batch norm's statistics may differ between processes; what is chosen from them may not.
        """
        outcome: tuple[T] | IsthmusError | None = None
        if self.fabric.is_global_zero:
            try:
                outcome = (measure(),)
            except IsthmusError as error:
                outcome = error
        outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, tuple):
            return outcome[0]
        return self.end(outcome or IsthmusError("The first process measured nothing."))

    def end(self, error: Exception) -> NoReturn:
        """Leave for a reason that all know. Only the first says it: a launcher kills it if others fail."""
        self.fabric.barrier()
        raise error if self.fabric.is_global_zero else SystemExit(0)
