"""What the tests of CUT share: tiny settings, a method without the trainer, and weights that tell errors apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from training_zoo import settings

from isthmus.config import ModelConfig, RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.training import read_training_data
from isthmus.methods import find_method
from isthmus.methods.base import Processes
from isthmus.methods.cut import Cut

LAYERS = (0, 4, 8, 12, 16)


def cut_settings(folder: Path, **changes: Any) -> RunConfig:
    """Settings that train a tiny CUT on `world(folder)` in a second; double underscores stand for dots."""
    base: dict[str, Any] = {
        "method": "cut",
        "data__synthetic": [],
        "data__holdout": 0.0,
        "model__backbone": ModelConfig().backbone,
        "model__weights": "pretrained",
        "model__dim": 0,
        "augment__resize": 36,
        "cut__width": 4,
        "cut__discriminator_width": 4,
        "cut__blocks": 5,
        "cut__patches": 16,
        "cut__patch_dim": 8,
        "cut__samples": 0,
        "train__batch_size": 2,
        "train__optimizer": "adam",
        "train__weight_decay": 0.0,
    }
    return settings(folder, **(base | changes))


def cut_method(config: RunConfig, *, fresh: bool = False) -> Cut:
    """The method without the trainer, on networks whose weights are large enough to matter, or as initialised."""
    torch.manual_seed(config.seed)
    kind = find_method(config.method)
    assert issubclass(kind, Cut)
    data = read_training_data(config.data, synthetic=False, seed=config.seed)
    model = kind.build(config, data)
    for part in () if fresh else model.modules().values():
        enlarge(part)
    return kind(config, model, data, ImageSource(model.preprocessing, 100), Processes())


def enlarge(module: nn.Module) -> nn.Module:
    """Redraw all weights so that outputs are of the size of inputs: as initialised, they hide an error in rounding."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            assert part.bias is not None
            nn.init.normal_(part.weight, std=1.5 * part.weight[0].numel() ** -0.5)
            nn.init.normal_(part.bias, std=0.3)
    return module


def weights(module: nn.Module) -> list[Tensor]:
    """Weight and bias of each layer in order, float64, as leaves of a graph of their own."""
    return [p.detach().double().clone().requires_grad_() for p in module.parameters()]
