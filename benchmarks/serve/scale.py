"""What n items of a width take, as formulas; `table.py` puts them into docs/how_large.md beside what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROW = 180  # bytes of the table, an item, beside its vector: id, path, hashes, times and three columns of metadata
LINKS = 200  # bytes of the table's index, an item, beside one byte a dimension
KEPT = 150  # bytes in memory, an item, beside its vector: id, checksum, place, masks
GRAPH = 316  # bytes of the graph in memory, an item
PROCESS = 0.5e9  # of a process with torch, a small model and nothing else
MACHINE = 128e9  # memory of one machine
USABLE = 0.8  # of it
CORES = 16  # of one machine
JPEG = 60e3  # bytes of an image; they lie elsewhere, and search never reads them
SIZES = (1_000_000, 100_000_000, 10_000_000_000)


@dataclass(frozen=True)
class Need:
    """Bytes that n items of a width take.

    Attributes:
        vectors: as float32.
        table: on disk, vectors and metadata.
        index: on disk, beside the table: one byte a dimension, and links.
        flat: in memory, to compare with every vector.
        graph: in memory, vectors and graph.
        quick: in memory, for the table's index alone.
        images: the files.
    """

    vectors: float
    table: float
    index: float
    flat: float
    graph: float
    quick: float
    images: float


def need(items: int, dim: int) -> Need:
    """By the formulas above."""
    vectors = 4.0 * dim * items
    index = (dim + LINKS) * items
    return Need(
        vectors=vectors,
        table=vectors + ROW * items,
        index=index,
        flat=vectors + KEPT * items + PROCESS,
        graph=vectors + (KEPT + GRAPH) * items + PROCESS,
        quick=index + PROCESS,
        images=JPEG * items,
    )


def machines(memory: float) -> int:
    """Of `MACHINE` bytes, so that so much fits."""
    return max(1, math.ceil(memory / (USABLE * MACHINE)))


def grown(value: float, measured_at: int, items: int, *, each: bool) -> float:
    """A graph's cost at another size: a search's grows with log n, building's with n log n."""
    factor = math.log(items) / math.log(measured_at)
    return value * factor * (items / measured_at if each else 1.0)


def core_days(images: int, images_a_second: float, cores: int) -> float:
    """To embed so many images at a measured rate of so many cores."""
    return images / images_a_second * cores / 86_400


def bytes_text(count: float) -> str:
    """`2.2 GB`."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def time_text(seconds: float) -> str:
    """`1.2 ms`, `3 min`, `5 days`."""
    for unit, size in (("years", 31_557_600.0), ("days", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size or (unit == "s" and seconds >= 1):
            return f"{seconds / size:.2g} {unit}" if seconds / size < 100 else f"{seconds / size:,.0f} {unit}"
    return f"{1e3 * seconds:.2g} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"
