"""Checkpoints that are whole or absent, hold everything, and are read without running code from the file."""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_bytes


@dataclass
class Progress:
    """Where a run is: all that a checkpoint holds beside tensors."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, tensors and plain values only."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise IsthmusError(f"There is no checkpoint {path}; train without --resume.") from None
    except Exception as error:
        raise IsthmusError(f"The checkpoint {path} can't be read; delete it and train again from the start.") from error
    if not isinstance(state, dict):
        raise IsthmusError(f"The checkpoint {path} is not one of Isthmus; delete it and train again from the start.")
    return state


def random_state() -> dict[str, Any]:
    """The state of each generator that training may draw from, as plain values and tensors."""
    version, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (libraries draw from it)
    python = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(version), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [python[0], list(python[1]), python[2]],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators back where `random_state` saw them."""
    torch.set_rng_state(state["torch"])
    version, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((version, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    python = state["python"]
    random.setstate((python[0], tuple(python[1]), python[2]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed every generator on every device, before anything is initialised."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (libraries draw from it)
    torch.manual_seed(seed)
