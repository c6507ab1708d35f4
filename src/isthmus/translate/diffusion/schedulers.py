"""Schedulers of diffusers by class or short name, built from a model's own scheduler settings."""

from __future__ import annotations

import re
from typing import Any

from isthmus.errors import IsthmusError

_SHORT = {"dpm": "dpmsolver", "dpm++": "dpmsolver", "dpmsolver++": "dpmsolver", "euler a": "eulerancestral"}
_BESIDE = ("LCMScheduler", "TCDScheduler")  # fit the same models, though diffusers' list of compatibles lacks them


def make_scheduler(own: Any, name: str | None) -> Any:
    """The scheduler `name` with the settings of a model's own one.

    Args:
        own: the model's scheduler.
        name: class or short name: ddim, lms, euler, euler-ancestral, dpm++, unipc, ...; None: `own`.

    Raises:
        IsthmusError: unknown, or not for this kind of model; it lists what is.

    Example:
        >>> type(make_scheduler(pipeline.scheduler, "lms")).__name__            # doctest: +SKIP
        'LMSDiscreteScheduler'
    """
    if name is None or name == type(own).__name__:
        return own
    import diffusers

    known = known_schedulers(own)
    for candidate in known:
        if _key(candidate) == _key(name):
            return getattr(diffusers, candidate).from_config(own.config)
    raise IsthmusError(
        f"There is no scheduler {name!r} for this model; known are: {', '.join(short_name(item) for item in known)}."
    )


def known_schedulers(own: Any) -> list[str]:
    """Class names of the schedulers that fit a model with the scheduler `own`.

    Those that need torchsde are left out: they draw their noise for a whole batch, not for each image.
    """
    import diffusers

    if type(own).__name__.startswith("FlowMatch"):
        names = [name for name in dir(diffusers) if re.fullmatch(r"FlowMatch\w+Scheduler", name)]
    else:
        names = [*getattr(own, "_compatibles", ()), *_BESIDE]
    names.append(type(own).__name__)
    return sorted({name for name in names if not hasattr(getattr(diffusers, name, None), "_backends")})


def short_name(name: str) -> str:
    """`EulerAncestralDiscreteScheduler` -> `euler-ancestral`.

    Example:
        >>> short_name("LMSDiscreteScheduler"), short_name("UniPCMultistepScheduler")
        ('lms', 'unipc')
    """
    name = re.sub(r"(Scheduler|Discrete|Multistep)", "", name).replace("UniPC", "Unipc")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _key(name: str) -> str:
    plain = re.sub(r"[\s_-]+", " ", name.lower()).strip()
    plain = _SHORT.get(plain, plain)
    return re.sub(r"scheduler|discrete|multistep| ", "", plain)
