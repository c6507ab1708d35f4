"""Which precision trains fastest on this machine: measured once, written into the run's settings, never asked again."""

from __future__ import annotations

import copy

import torch

from isthmus.config import RunConfig
from isthmus.config.sizes import sides
from isthmus.methods.base import Trainee
from isthmus.plan import measure


def choose_precision(model: Trainee, config: RunConfig) -> str:
    """`"bf16-mixed"` or `"32-true"`, whichever makes a training step of the main network faster.

    A GPU that computes in bfloat16 uses it without a measurement. A copy of the network is measured, so that neither
    weights, statistics nor the random state change.
    """
    if config.train.accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    seconds: dict[str, float] = {}
    count = max(2, min(16, config.train.batch_size))
    images = torch.full((count, 3, *sides(config.model.image_size)), 0.1)
    if config.train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    state = torch.get_rng_state()
    for name in ("32-true", "bf16-mixed"):
        network = copy.deepcopy(model.main).train()
        if config.train.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def step(network: torch.nn.Module = network, half: bool = name == "bf16-mixed") -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = network(images).square().sum()
            loss.backward()

        seconds[name] = measure(step, warmup=1, repeats=3, limit=4.0)
    torch.set_rng_state(state)
    return min(seconds, key=lambda name: seconds[name])
