"""One process of the test of several: steps of SynCDR on its share of the batch, through the trainer's own pieces.

Called as: python distributed_worker.py SETTINGS.yaml FOLDER RESULT.pt STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from isthmus.config import RunConfig
from isthmus.methods.syncdr import SynCDR
from isthmus.train.trainer import Trainer


def work(config: RunConfig, folder: Path, steps: int) -> dict[str, Any]:
    """Losses, gradients and banks after each step."""
    torch.set_num_threads(1)
    trainer = Trainer(config, folder, screening=False)
    method, encoder = trainer.method, trainer.model.encoder
    assert isinstance(method, SynCDR)
    encoder.eval()
    method.start()
    encoder.train()
    seen: dict[str, Any] = {"rank": trainer.fabric.global_rank, "world": trainer.fabric.world_size, "steps": []}
    for plan in method.epoch(0)[:steps]:
        batch = method.load(plan)
        losses = trainer._step(batch, config.train.lr)
        seen["steps"].append(
            {
                "losses": losses,
                "gradients": {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None},
                "banks": [bank.memory.clone() for bank in method.banks],
                "images": [len(views) for views in batch.images],
            }
        )
    return seen


if __name__ == "__main__":
    settings, folder, result, steps = sys.argv[1:]
    torch.save(work(RunConfig.load(settings), Path(folder), int(steps)), result)
