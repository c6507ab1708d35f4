"""One process of the test of several: steps of CUT on its share of the batch, through the trainer's own pieces.

Called as: python cut_worker.py FOLDER RESULT.pt STEPS SETTINGS.yaml ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from cut_zoo import enlarge

from isthmus.config import RunConfig
from isthmus.train.trainer import Trainer


def work(config: RunConfig, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Losses and gradients of each step, from the same large weights everywhere."""
    torch.set_num_threads(1)
    trainer = Trainer(config, folder, screening=False)
    torch.manual_seed(7)
    for part in trainer.model.modules().values():
        enlarge(part)
    trainer._mode(training=True)
    seen: list[dict[str, Any]] = []
    for plan in trainer.method.epoch(0)[:steps]:
        batch = trainer.method.load(plan)
        losses = trainer._step(batch, config.train.lr)
        gradients = {
            f"{part}.{name}": p.grad.clone()
            for part, module in trainer.model.modules().items()
            for name, p in module.named_parameters()
            if p.grad is not None
        }
        seen.append({"losses": losses, "gradients": gradients, "images": len(batch.images[0])})
    return seen


if __name__ == "__main__":
    folder, result, steps, *settings = sys.argv[1:]
    torch.save([work(RunConfig.load(path), Path(folder), int(steps)) for path in settings], result)
