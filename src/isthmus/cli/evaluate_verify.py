"""What `isthmus evaluate --verify` shows: tables of verification figures beside the plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isthmus.cli.common import console, number, table, visible, with_interval

if TYPE_CHECKING:
    from isthmus.evaluate.verify import Verified


def verify_settings(verify: bool, far: Sequence[float], fpir: Sequence[float]) -> tuple[tuple[float, ...], ...] | None:
    """The rates to measure at, those of every evaluation included; None where nobody asked.

    Raises:
        IsthmusError: rates without --verify, or out of range.
    """
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.verify import FARS, FPIRS, check_rates

    if not verify:
        for option, given in (("--far", far), ("--fpir", fpir)):
            if given:
                raise IsthmusError(f"{option} is a rate of verification; add --verify.")
        return None
    return check_rates([*FARS, *far], "--far"), check_rates([*FPIRS, *fpir], "--fpir")


def show_verified(found: Sequence[Verified]) -> None:
    """A table for each direction, a column a setting, and why a figure is missing."""
    screen = console()
    for direction in dict.fromkeys(one.direction for one in found):
        sides = [one for one in found if one.direction == direction]
        rows = [
            [name, *[with_interval(side.figures[name].value, side.figures[name].interval) for side in sides],
             number(sides[0].figures[name].chance)]
            for name in sides[0].figures
        ]  # fmt: skip
        title = f"{direction.replace('->', ' -> ')}, verification"
        screen.print(table(title, ["figure", *[side.setting for side in sides], "chance"], rows))
        for note in notes_of(sides[0]):
            screen.print(note, soft_wrap=True)
        screen.print(f"protocol: {visible(sides[0].protocol)}\n", soft_wrap=True)


def notes_of(one: Verified) -> list[str]:
    """Why figures are missing, a sentence each."""
    return [f"{name}: not measured, {figure.note}." for name, figure in one.figures.items() if figure.value is None]
