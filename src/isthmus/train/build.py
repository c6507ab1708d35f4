"""What a run is built from: its model, its processes and devices, its optimiser and the rate of each step."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from isthmus.config import RunConfig, TrainConfig
from isthmus.errors import IsthmusError
from isthmus.methods.base import Trainee
from isthmus.train.precision import choose_precision


def processes_wanted(settings: TrainConfig) -> tuple[int, int]:
    """Devices a machine and machines: as torchrun says where it started this process, else as the settings say."""
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    return settings.devices, settings.nodes


def build_fabric(config: RunConfig, model: Trainee, *, trains: bool) -> Fabric:
    """Decide the precision, write it into the settings, and start all processes.

    Raises:
        IsthmusError: the batch can't be divided among them.
    """
    settings = config.train
    devices, nodes = processes_wanted(settings)
    many = devices * nodes > 1
    if settings.precision == "auto":
        # Each of several CPU processes would measure for itself, and they might not agree.
        alone = not many or (settings.accelerator != "cpu" and torch.cuda.is_available())
        settings.precision = choose_precision(model, config) if trains and alone else "32-true"  # type: ignore[assignment]
    precision: Any = settings.precision
    if precision == "16-mixed" and (settings.accelerator == "cpu" or not torch.cuda.is_available()):
        precision = "bf16-mixed"  # processors have no arithmetic for the other; the trainer says so
    # Its remarks on precision and ranks are for its developers; warnings still come through.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision,
            strategy="ddp" if many else "auto",
        )
    except (RuntimeError, MisconfigurationException) as error:
        raise IsthmusError(
            f"train.accelerator = {settings.accelerator} with train.devices = {devices} can't be had here "
            f"({(str(error).splitlines() or [''])[0]}); choose others, or train.accelerator=auto."
        ) from error
    fabric.launch()
    if settings.batch_size % fabric.world_size:
        raise IsthmusError(
            f"train.batch_size = {settings.batch_size} can't be divided among {fabric.world_size} processes; make it a "
            "multiple of them."
        )
    return fabric


def place(model: Trainee, settings: TrainConfig, fabric: Fabric) -> None:
    """Bring the networks to their device, in the memory layout and with the batch norm that training wants."""
    for part in model.modules().values():
        if settings.channels_last:
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            _share_batch_norm(part)
        part.to(fabric.device)


def _share_batch_norm(module: torch.nn.Module) -> None:
    """Replace batch norms inside `module`, itself kept, by ones whose statistics are of all processes."""
    convert: Any = torch.nn.SyncBatchNorm.convert_sync_batchnorm
    for name, child in module.named_children():
        setattr(module, name, convert(child))


def build_optimizer(settings: TrainConfig, module: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over all weights of a part."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, settings.lr, settings.betas, weight_decay=settings.weight_decay)
    # Decay is for matrices: on biases and norms it only pulls the features towards each other.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.lr, settings.betas)


def learning_rate(settings: TrainConfig, step: int, total: int, *, epochs: int = 1, lr: float | None = None) -> float:
    """The rate of a step: warm-up, then constant, half a cosine down to zero, or constant and then falling.

    Args:
        settings: the curve.
        step: from 0 on, in its stage.
        total: steps of the stage.
        epochs: of the stage.
        lr: the stage's own rate, instead of `settings.lr`.

    Example:
        >>> learning_rate(TrainConfig(lr=1.0, schedule="cosine"), 5, 10)
        0.5
    """
    top = settings.lr if lr is None else lr
    warm = settings.warmup_steps or round(settings.warmup_epochs * total / epochs)
    if step < warm:
        return top * (step + 1) / warm
    if settings.schedule == "constant":
        return top
    if settings.schedule == "exponential":
        # As in the public code of IHDA: from its epoch on the rate counts all epochs, those before it too.
        epoch = step * epochs / max(1, total)
        return top * settings.decay_rate ** (epoch / 10) if step >= settings.decay_from * total else top
    done = (step - warm) / max(1, total - warm)
    if settings.schedule == "linear":
        falling = (done - settings.decay_from) / max(1e-9, 1 - settings.decay_from)
        return top * min(1.0, max(0.0, 1 - falling))
    return top * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
