"""The backbone as it is: the baseline that every table must show, with and without centring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.methods.retrieval import RetrievalMethod


class Pretrained(RetrievalMethod):
    """No training: the run holds the backbone's own features and each domain's training mean."""

    name = "pretrained"
    trains = False

    def epoch(self, number: int) -> Sequence[Any]:
        """No steps."""
        return ()

    def load(self, plan: Any) -> Any:
        """Nothing is planned, so nothing is read."""
        return plan

    def step(self, batch: Any) -> dict[str, Tensor]:
        """Never called by the trainer."""
        raise IsthmusError("The method 'pretrained' has nothing to train.")
