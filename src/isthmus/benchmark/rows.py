"""The rows of the IHDA ablation: what each one leaves out, and what the paper found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from isthmus.errors import IsthmusError

NO_ATTRIBUTES: dict[str, Any] = {
    "ihda.source_attribute_weight": 0.0,
    "ihda.attribute_weight": 0.0,
    "ihda.entropy_weight": 0.0,
    "ihda.consistency_weight": 0.0,
}
NO_SOURCE_TERMS: dict[str, Any] = {
    "ihda.domain_weight": 0.0,
    "ihda.entropy_weight": 0.0,
    "ihda.consistency_weight": 0.0,
}


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: as on the command line and in file names.
        title: as in the table.
        settings: over the benchmark's.
        kind: `both` steps of IHDA; the `target` step alone from the backbone; the `source` step alone; `frozen`.
        source: whether it sees the source.
        share: of the training identities.
        harmful: whether it learns the harmful attributes too.
        published: the paper's R@1 in percent, sketch -> photo on PKU-Sketch with Market-1501; None where it has none.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["both", "target", "source", "frozen"] = "both"
    source: bool = True
    share: float = 1.0
    harmful: bool = False
    published: float | None = None


FULL = "ihda"
VARIANTS: tuple[Variant, ...] = (
    Variant(FULL, "IHDA", published=85.6),
    Variant("no-domain", "without L_d", {"ihda.domain_weight": 0.0}, published=72.4),
    Variant("no-consistency", "without L_con", {"ihda.consistency_weight": 0.0}, published=82.8),
    Variant("no-entropy", "without L_att^t", {"ihda.entropy_weight": 0.0}, published=73.2),
    Variant(
        "no-entropy-consistency",
        "without L_att^t and L_con",
        {"ihda.entropy_weight": 0.0, "ihda.consistency_weight": 0.0},
        published=70.6,
    ),
    Variant("no-attributes", "without all attributes", NO_ATTRIBUTES, published=70.4),
    Variant(
        "no-attributes-domain",
        "without all attributes and L_d",
        {**NO_ATTRIBUTES, "ihda.domain_weight": 0.0},
        published=58.8,
    ),
    Variant("harmful", "with the harmful attributes", harmful=True, published=54.4),
    Variant("pairs-80", "80 % of the pairs", share=0.8, published=82.2),
    Variant("pairs-50", "50 % of the pairs", share=0.5, published=75.4),
    Variant("target-only", "pairs alone (fine-tuning)", NO_SOURCE_TERMS, kind="target", source=False, published=32.0),
    Variant(
        "joint",
        "plain joint training",
        {**NO_SOURCE_TERMS, "ihda.source_identity_weight": 1.0, "ihda.attribute_weight": 0.1},
        kind="target",
    ),
    Variant("source-only", "source alone", kind="source", published=8.0),
    Variant("backbone-only", "the backbone as it is", kind="frozen", source=False, published=2.0),
    Variant("inverted-domain", "L_d with the sign of the public code", {"ihda.ablation": ["inverted-domain"]}),
)


def named(names: Iterable[str] | None, known: Sequence[str]) -> list[str]:
    """The rows asked for; all of them for None.

    Raises:
        IsthmusError: one is unknown, or there is none.
    """
    wanted = list(known) if names is None else list(names)
    for name in wanted:
        if name not in known:
            raise IsthmusError(f"There is no row '{name}'; choose --rows from: {', '.join(known)}.")
    if not wanted:
        raise IsthmusError(f"--rows names no row; choose from: {', '.join(known)}.")
    return wanted


def choose(names: Iterable[str] | None, harmful: Iterable[str]) -> tuple[list[Variant], list[str]]:
    """The rows to run, in the table's order, and sentences about what is left out.

    Args:
        names: rows asked for; None for all.
        harmful: names of harmful attributes.

    Raises:
        IsthmusError: an unknown row, or the row `harmful` without harmful attributes.

    Example:
        >>> [row.name for row in choose(["no-domain", "ihda"], [])[0]]
        ['ihda', 'no-domain']
    """
    wanted = named(names, [row.name for row in VARIANTS])
    notes: list[str] = []
    if not list(harmful) and "harmful" in wanted:
        if names is not None:
            raise IsthmusError("The row 'harmful' needs attributes to call harmful: name them with --harmful A,B.")
        wanted.remove("harmful")
        notes.append("The row 'harmful' is left out, as no attributes are named with --harmful.")
    return [row for row in VARIANTS if row.name in wanted], notes
