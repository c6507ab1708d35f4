"""Counterparts that can't be used, found by looking at all of them: blank, unchanged, or repeated for many sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isthmus.data.images import ImageError, load_image
from isthmus.data.loading import prefetch
from isthmus.data.manifest import Row
from isthmus.ops import block_rows, blocks
from isthmus.progress import track
from isthmus.translate.gate import shows_nothing

# Cosine of two 32 x 32 thumbnails less their means. Measured: different drawings and photos stay below .976, pictures
# that differ by JPEG, noise, brightness or size lie above .99.
ALIKE = 0.98
UNCHANGED = 2.0  # grey levels between 64 x 64 thumbnails of a source and its counterpart
MOST = 20_000  # pairs looked at
PART = 16  # pairs a thread reads at a time
THREADS = 2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Faults:
    """Faults of counterparts, by id.

    Attributes:
        images: pairs looked at.
        blank: counterparts that show nothing although their sources do.
        unchanged: counterparts that look like their own source.
        repeated: counterpart -> the first one (by id) that looks the same although its source does not.
        largest: how many counterparts the most frequent picture has; 1 where none repeats.
        unreadable: counterparts or sources that can't be read.
        blank_sources: sources that show nothing themselves; nothing is asked of their counterparts.
        ink: median share of dark pixels in a counterpart.
        shortest_side, longest_side: over all counterparts, in pixels.
    """

    images: int
    blank: tuple[str, ...]
    unchanged: tuple[str, ...]
    repeated: dict[str, str]
    largest: int
    unreadable: tuple[str, ...]
    blank_sources: int
    ink: float
    shortest_side: int
    longest_side: int

    @property
    def found(self) -> dict[str, str]:
        """Counterpart -> what is wrong with it."""
        return {
            **{id: f"the same picture as {first}" for id, first in self.repeated.items()},
            **dict.fromkeys(self.unchanged, "looks like its own source"),
            **dict.fromkeys(self.blank, "blank"),
        }


@dataclass(frozen=True)
class _Look:
    """What is kept of a pair: thumbnails as unit vectors, and plain facts."""

    source: Floats
    made: Floats
    blank: bool
    blank_source: bool
    unchanged: bool
    ink: float
    sides: tuple[int, int]


def find_faults(pairs: Sequence[tuple[Row, Row]], *, progress: bool = True) -> Faults:
    """Look at (source, counterpart) rows; at least one pair has to be readable for figures other than counts.

    Repeats are found by comparing each counterpart with all before it, in blocks of bounded memory: 20,000 take
    seconds.

    Example:
        >>> find_faults([(photo, sketch)]).blank                                        # doctest: +SKIP
        ()
    """
    looks: list[_Look] = []
    rows: list[Row] = []
    unreadable: list[str] = []
    read = prefetch(list(_parts(pairs)), _look_at, THREADS)
    steps = track(read, len(pairs), "looking at pairs", "pairs", PART) if progress else read
    for part, found in zip(_parts(pairs), steps, strict=True):
        for (_, made), look in zip(part, found, strict=True):
            if look is None:
                unreadable.append(made.id)
            else:
                looks.append(look)
                rows.append(made)
    first = repeats(np.stack([x.made for x in looks]), np.stack([x.source for x in looks])) if looks else {}
    counts = Counter(first.values())
    sides = [side for look in looks for side in look.sides]
    return Faults(
        images=len(pairs),
        blank=tuple(row.id for row, look in zip(rows, looks, strict=True) if look.blank and not look.blank_source),
        unchanged=tuple(row.id for row, look in zip(rows, looks, strict=True) if look.unchanged),
        repeated={rows[place].id: rows[earlier].id for place, earlier in first.items()},
        largest=1 + max(counts.values(), default=0),
        unreadable=tuple(unreadable),
        blank_sources=sum(look.blank_source for look in looks),
        ink=float(np.median([look.ink for look in looks])) if looks else float("nan"),
        shortest_side=min(sides, default=0),
        longest_side=max(sides, default=0),
    )


def repeats(made: Floats, source: Floats) -> dict[int, int]:
    """Which pictures look like an earlier one although their sources differ: place -> the first such place.

    Args:
        made: (n, d) unit vectors of pictures; zeros are like nothing.
        source: (n, d) unit vectors of their sources.

    Example:
        >>> eye = np.eye(3, dtype=np.float32)
        >>> repeats(eye[[0, 1, 0]], eye)
        {2: 0}
    """
    found: dict[int, int] = {}
    for part in blocks(len(made), block_rows(len(made), bytes_per_value=12)):
        alike = made[part] @ made[: part.stop].T > ALIKE
        # An image is compared with those before it only.
        alike &= np.arange(part.stop)[None] < np.arange(part.start, part.stop)[:, None]
        rows = np.flatnonzero(alike.any(1))
        if len(rows):
            alike = alike[rows] & (source[part][rows] @ source[: part.stop].T <= ALIKE)
            for row, earlier in zip(rows[alike.any(1)], alike[alike.any(1)].argmax(1), strict=True):
                found[int(row) + part.start] = found.get(int(earlier), int(earlier))
    return found


def _parts(pairs: Sequence[tuple[Row, Row]]) -> Iterator[Sequence[tuple[Row, Row]]]:
    return (pairs[part] for part in blocks(len(pairs), PART))


def _look_at(part: Sequence[tuple[Row, Row]]) -> list[_Look | None]:
    return [_look(*pair) for pair in part]


def _look(source: Row, made: Row) -> _Look | None:
    try:
        one, other = load_image(source.path, min_side=128), load_image(made.path)
    except ImageError:
        return None
    vectors = _vector(one), _vector(other)
    blank = shows_nothing(other)
    gap = float(np.abs(_small(one) - _small(other)).mean())
    same = float(vectors[0] @ vectors[1]) > ALIKE and gap < UNCHANGED
    dark = other.convert("L").histogram()[:128]
    ink = sum(dark) / (other.width * other.height)
    return _Look(*vectors, blank, shows_nothing(one), same and not blank, ink, other.size)


def _vector(image: Image.Image) -> Floats:
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32).ravel()
    grey = grey - grey.mean()
    length = float(np.linalg.norm(grey))
    return grey / length if length > 1 else np.zeros_like(grey)


def _small(image: Image.Image) -> Floats:
    return np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
