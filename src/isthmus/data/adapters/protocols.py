"""Named protocols: which classes and images of two domains are trained, validated and tested on.

A protocol gives every class a role; the role says what becomes of its training, validation and test images in the
query domain and in the gallery domain. `docs/data.md` defines each in a sentence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from isthmus.data.adapters.choosing import largest_remainder, order
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError

Uses = Mapping[str, str]  # split of an image -> split in the table; what is not named is left out
_AS_IT_IS: Uses = {"train": "train", "val": "val", "test": "test"}
_NEVER: Uses = {}
_JUDGED: Uses = {"val": "val", "test": "test"}
_LEARNT: Uses = {"train": "train", "val": "val", "test": "train"}
_LEARNT_IN_PART: Uses = {"train": "train", "val": "val"}
_TESTED: Uses = {"train": "test", "val": "test", "test": "test"}

PROTOCOLS: Mapping[str, Mapping[str, tuple[Uses, Uses]]] = {
    "class-disjoint": {"half 1": (_AS_IT_IS, _JUDGED), "half 2": (_JUDGED, _AS_IT_IS)},
    "partial": {"shared": (_AS_IT_IS, _AS_IT_IS), "gallery only": (_NEVER, _AS_IT_IS)},
    "open-set": {
        "shared": (_AS_IT_IS, _AS_IT_IS),
        "query only": (_AS_IT_IS, _NEVER),
        "gallery only": (_NEVER, _AS_IT_IS),
    },
    "full": {"shared": (_AS_IT_IS, _AS_IT_IS)},
    "zero-shot": {"seen": (_LEARNT, _LEARNT), "unseen": (_TESTED, _TESTED)},
    "generalised-zero-shot": {"seen": (_LEARNT_IN_PART, _AS_IT_IS), "unseen": (_TESTED, _TESTED)},
}
ZERO_SHOT = ("zero-shot", "generalised-zero-shot")


def draw_roles(protocol: str, classes: Sequence[str], *key: str | int) -> dict[str, str]:
    """Class -> role, for the protocols that halve or third the classes; a function of the key and the classes alone.

    Raises:
        IsthmusError: there are fewer classes than roles.

    Example:
        >>> sorted(draw_roles("open-set", ["a", "b", "c"], "demo", 0).values())
        ['gallery only', 'query only', 'shared']
    """
    names = tuple(PROTOCOLS[protocol])
    if len(classes) < len(names):
        raise IsthmusError(
            f"There are {len(classes)} classes in both domains, and the protocol {protocol} needs at least "
            f"{len(names)}; add classes, or name another --protocol."
        )
    drawn = order(classes, *key, "thirds" if len(names) == 3 else "halves")
    half = len(drawn) // 2
    sizes = largest_remainder(len(drawn), [1] * 3) if len(names) == 3 else [half, len(drawn) - half]
    if len(names) == 1:
        sizes = [len(drawn)]
    roles: dict[str, str] = {}
    for name, size in zip(names, sizes, strict=True):
        roles.update(dict.fromkeys(drawn[len(roles) : len(roles) + size], name))
    return roles


def draw_splits(
    rows: Sequence[Row], share: tuple[float, float], group: Callable[[Row], str], *key: str | int
) -> dict[str, str]:
    """Image id -> train, val or test, class by class in each domain; images of one group stay together.

    Of n images ceil(n x test share) are tested and round(n x val share) validated on, at least one of each where there
    are three, and one is always trained on. (With 0.2 and 0.3 these are the proportions of SynCDR's lists.)

    Args:
        rows: images with label and domain.
        share: of the validation and the test images.
        group: what belongs together; it is called for every row. Its result has to tell domains apart, unless images
            of both domains belong together.
        key: seeds.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        classes[f"{row.label}"].add(group(row))
    found: dict[tuple[str, str], str] = {}
    for label, groups in classes.items():
        sides: dict[str, list[str]] = defaultdict(list)
        for name in groups:
            sides[name.partition("/")[0]].append(name)
        for names in sides.values():
            drawn = order(names, *key, label)
            count = len(drawn)
            test = min(math.ceil(round(share[1] * count, 9)), count - 1)
            val = min(max(round(share[0] * count), count >= 3), count - 1 - test)
            for position, name in enumerate(drawn):
                found[label, name] = "test" if position < test else "val" if position < test + val else "train"
    return {row.id: found[f"{row.label}", group(row)] for row in rows}


def table(
    query: Sequence[Row], gallery: Sequence[Row], splits: Mapping[str, str], protocol: str, roles: Mapping[str, str]
) -> Manifest:
    """The images that the protocol uses, query domain first, each with its split.

    Raises:
        IsthmusError: a side is left without training, or without test images.
    """
    uses = PROTOCOLS[protocol]
    rows: list[Row] = []
    for side, images in enumerate((query, gallery)):
        chosen = []
        for row in images:
            split = uses[roles[str(row.label)]][side].get(splits[row.id])
            if split is not None:
                chosen.append(replace(row, split=split))
        for split in ("train", "test"):
            if not any(row.split == split for row in chosen):
                name = images[0].domain if images else "one domain"
                raise IsthmusError(
                    f"The protocol {protocol} leaves '{name}' without {split} images; the folder is too small for it, "
                    "so complete it or name another --protocol."
                )
        rows += chosen
    return Manifest(rows)
