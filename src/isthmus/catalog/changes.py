"""What a run of `add`, `sync` or `reembed` was asked for, and what it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from isthmus.catalog.overlap import Overlap


@dataclass(frozen=True)
class Options:
    """How to write; see `Catalog.add`. `prune` removes what is gone from the folder."""

    on_bad: Literal["raise", "skip"] = "skip"
    workers: int = 2
    thorough: bool = False
    prune: bool = False


@dataclass(frozen=True)
class Bad:
    """An image that was left out, and why."""

    id: str
    path: str
    reason: str


@dataclass
class Changes:
    """What `add` or `sync` did.

    Attributes:
        added: new items.
        updated: items whose image is another than before, embedded anew.
        refreshed: items of the same image whose path, label or metadata changed.
        moved: items whose file was moved or renamed: vector and metadata kept.
        unchanged: items that needed nothing.
        removed: items whose image is gone.
        bad: images that could not be used.
        same: (id, id of another item with the same content).
        embedded: images that went through the model.
        unmatched: rows of the metadata table that belong to no image.
        seconds: wall time.
        index: what was done to the approximate index, if anything.
    """

    added: int = 0
    updated: int = 0
    refreshed: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    bad: list[Bad] = field(default_factory=list)
    same: list[tuple[str, str]] = field(default_factory=list)
    embedded: int = 0
    unmatched: int = 0
    seconds: float = 0.0
    index: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The changes as plain values."""
        return asdict(self)


@dataclass
class Reembedding:
    """What `reembed` did.

    Attributes:
        old: fingerprint of the model before.
        new: of the model now.
        items: in the new table.
        embedded: images that this run embedded; those of an earlier, interrupted run are not among them.
        gone: items without a new vector, because their image is gone or unreadable, with the reason.
        changed: ids of items whose image file is another than when it was indexed; the vector is of the new one.
        overlap: how the first hits changed; None where there was too little to compare, or an earlier run switched.
        switched: whether the catalog is of the new model now.
        carried: items that others changed during the switch, carried over.
        version: the catalog's newest version.
    """

    old: str
    new: str
    items: int = 0
    embedded: int = 0
    gone: list[Bad] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    overlap: Overlap | None = None
    switched: bool = False
    carried: int = 0
    version: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""
        return asdict(self)
