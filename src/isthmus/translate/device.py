"""Where a translator's model runs."""

from __future__ import annotations

from isthmus.errors import IsthmusError


def pick_device(device: str) -> str:
    """`device` as torch names it, "auto" settled; one that is not there is an `IsthmusError`.

    Example:
        >>> pick_device("cpu")
        'cpu'
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, present in there.items() if present)
    if not there.get(device, False):
        raise IsthmusError(
            f"Setting 'device': {device} can't be used here, this machine has none; choose device=auto, or go on where "
            "it was begun."
        )
    return device
