"""Where an epoch lies among a run's stages, and the learning rate of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.methods.base import Method, Stage, place_of
from isthmus.train.build import learning_rate


@dataclass(frozen=True)
class Place:
    """An epoch's stage: its number, what it is, and its first epoch in the run."""

    stage: int
    what: Stage
    first: int


class Schedule:
    """The stages of a method, one after the other.

    Args:
        method: says its stages; the settings are its own.

    Attributes:
        epochs: of all stages.
        firsts: the first epoch of each stage.
        counts: the steps of each stage.
        steps: of all stages.
    """

    def __init__(self, method: Method) -> None:
        self.settings = method.config.train
        self.stages = method.stages()
        self.epochs = sum(stage.epochs for stage in self.stages)
        self.firsts = [sum(stage.epochs for stage in self.stages[:n]) for n in range(len(self.stages))]
        # Epochs of a stage are equally long, so one tells for all.
        counts = [len(method.epoch(first)) if method.trains else 0 for first in self.firsts]
        self.counts = [count * stage.epochs for count, stage in zip(counts, self.stages, strict=True)]
        self.steps = sum(self.counts)

    def place(self, epoch: int) -> Place:
        """Of an epoch from 0 on; one past the end lies in the last stage."""
        number, first = place_of(epoch, [stage.epochs for stage in self.stages])
        return Place(number, self.stages[number], first)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step of an epoch that has `steps` of them."""
        place = self.place(epoch)
        done = (epoch - place.first) * steps + step
        epochs = place.what.epochs
        return learning_rate(self.settings, done, epochs * steps, epochs=epochs, lr=place.what.lr)

    def chosen(self, finished: int) -> bool:
        """Whether the model after `finished` epochs may become the run's."""
        return finished > 0 and self.place(finished - 1).what.chosen

    def name(self, finished: int) -> str:
        """The stage of the epoch that has just been finished."""
        return self.place(finished - 1).what.name if finished else ""
