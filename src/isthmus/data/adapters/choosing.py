"""Which identities a split tests on, as a function of the seed alone, and which identities two domains share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isthmus.data.manifest import some_of
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash

_DIGITS = re.compile(r"(\d+)")


def order(items: Iterable[str], *key: str | int) -> list[str]:
    """`items` in a random order that follows from `key` and the items alone, not from their order or the machine.

    Example:
        >>> order(["a", "b", "c"], "demo", 0) == order(["c", "a", "b"], "demo", 0)
        True
    """
    return sorted(items, key=lambda item: (stable_hash(*key, item), item))


def by_number(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which `2.jpg` comes before `10.jpg`.

    Example:
        >>> sorted(["10.jpg", "9.jpg"], key=by_number)
        ['9.jpg', '10.jpg']
    """
    return tuple((0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in _DIGITS.split(name) if p)


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `total` and are as near to proportional to `weights` as that allows.

    Example:
        >>> largest_remainder(150, [46, 20, 79, 33, 22])
        [35, 15, 59, 25, 16]
    """
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(value) for value in exact]
    rest = sorted(range(len(weights)), key=lambda k: (parts[k] - exact[k], k))
    for k in rest[: total - sum(parts)]:
        parts[k] += 1
    return parts


def held_out(count: int, share: float) -> int:
    """How many of `count` identities are tested on; both sides keep at least one.

    Raises:
        IsthmusError: a share outside (0, 1), or fewer than two identities.
    """
    if not 0 < share < 1:
        raise IsthmusError(f"--test-share is {share}: name a share of the identities between 0 and 1, such as 0.25.")
    if count < 2:
        raise IsthmusError(f"There are {count} identities, and a split needs at least 2: one to train, one to test on.")
    return min(max(round(count * share), 1), count - 1)


def pair_up(query: Mapping[str, Any], gallery: Mapping[str, Any], unmatched: str, what: str) -> tuple[list[str], str]:
    """The identities that both domains have, and a note about the others.

    Args:
        query, gallery: the images of each domain by identity.
        unmatched: "refuse" or "skip" what only one of them has.
        what: the name of the two domains in messages.

    Raises:
        IsthmusError: another word for `unmatched`, no common identity, or with "refuse" any that only one domain has.
    """
    if unmatched not in ("refuse", "skip"):
        raise IsthmusError(f"--unmatched is '{unmatched}'; write refuse or skip.")
    both = sorted(query.keys() & gallery.keys(), key=by_number)
    alone = [sorted(a.keys() - b.keys(), key=by_number) for a, b in ((query, gallery), (gallery, query))]
    if not both:
        raise IsthmusError(
            f"No {what} match by name: {some_of(sorted(query, key=by_number))} on one side, "
            f"{some_of(sorted(gallery, key=by_number))} on the other; pairs need the same file name without its suffix."
        )
    if not any(alone):
        return both, ""
    sides = [f"{len(a)} only as {name} ({some_of(a)})" for a, name in zip(alone, ("sketch", "photo"), strict=True) if a]
    found = f"of the {what} {' and '.join(sides)}"
    if unmatched == "refuse":
        raise IsthmusError(f"Some identities are in one domain only: {found}; add the others, or --unmatched skip.")
    return both, f"left out for want of a partner: {found}"
