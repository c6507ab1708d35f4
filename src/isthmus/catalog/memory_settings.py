"""How a catalog is to be kept in memory, and how it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from isthmus.errors import IsthmusError


@dataclass(frozen=True)
class MemorySettings:
    """How the catalog is kept in memory.

    Attributes:
        kind: flat compares with every item; hnsw asks a graph (extra `fast`); auto takes the graph for many items.
        recall: wanted recall@10 of the graph against exact search; measured when it is built.
        max_mb: memory that vectors and graph may take, also while a new graph is built beside the old.
        background: bring the cache up to date in threads of its own; searches go to the table meanwhile.
        flat_below: up to so many items flat is as quick.
        threads: of FAISS; 0: as many as torch uses, in the background half of them.
    """

    kind: Literal["auto", "flat", "hnsw"] = "auto"
    recall: float = 0.98
    max_mb: int = 4096
    background: bool = False
    flat_below: int = 20_000
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1 or self.max_mb < 1 or self.threads < 0:
            raise IsthmusError(
                f"The memory index wants recall in (0, 1], max_mb from 1 and threads from 0 on, not {self.recall}, "
                f"{self.max_mb}, {self.threads}."
            )


@dataclass(frozen=True)
class State:
    """What is in memory now: `kind` is off, flat or hnsw; `note` says why it is not what was asked for."""

    kind: str
    version: int | None
    items: int
    late: int
    megabytes: float
    effort: int | None
    recall: float | None
    seconds: float | None
    building: bool
    note: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)
