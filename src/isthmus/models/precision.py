"""In which precision a model embeds: float32, or bfloat16 where that is quicker."""

from __future__ import annotations

from typing import Literal, get_args

from isthmus.errors import IsthmusError

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def check_precision(precision: str) -> None:
    """Raise where there is no such precision."""
    if precision not in PRECISIONS:
        raise IsthmusError(f"A model computes in {' or '.join(PRECISIONS)}, not in {precision!r}; choose one of them.")


def set_precision(model: object, precision: str) -> None:
    """Let a model compute in this precision; one that knows of none (another program's) computes as it does.

    Raises:
        IsthmusError: no such precision, or an export that was made for another.
    """
    check_precision(precision)
    if hasattr(model, "refuse_precision"):
        model.refuse_precision(precision)
    if hasattr(model, "precision"):
        model.precision = precision
