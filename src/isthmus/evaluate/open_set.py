"""Open sets: identification where the query may have no mate in the gallery; FNIR@FPIR.

With s+ the best score of a query's own identity and s- that of all others, at the threshold t

    FPIR(t) = queries without a mate with s- >= t / queries without a mate
    FNIR(t) = queries with a mate with s+ < t / queries with a mate      rank 1: with s+ < t or s+ <= s-

after ISO/IEC 19795-1 and NIST's FRVT 1:N (NISTIR 8271, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.evaluate.intervals import resamples
from isthmus.io import stable_hash

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of verification.

    Attributes:
        value: in [0, 1]; None where the data can't measure it, and `note` says why.
        interval: 95 %, by the bootstrap over queries; None for none.
        threshold: the score from which on a pair is accepted.
        chance: what random scores have on average.
        note: why there is no value.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    chance: float | None = None
    note: str = ""


def enrolled_half(names: set[str], seed: int) -> set[str]:
    """The identities that stay in the gallery: half of them, one more of an odd number, drawn by a hash.

    Example:
        >>> len(enrolled_half({"a", "b", "c"}, 0)), enrolled_half({"a", "b"}, 1) == enrolled_half({"b", "a"}, 1)
        (2, True)
    """
    drawn = sorted(names, key=lambda name: (stable_hash("enrolled", seed, name), name))
    return set(drawn[: (len(drawn) + 1) // 2])


def open_set_figures(
    mate: Floats, other: Floats, mates: NDArray[np.int64], size: int, fpirs: Sequence[float], draws: int, seed: int
) -> dict[str, Figure]:
    """FNIR at given FPIR, of any rank and of rank 1; a tie with another identity is no first rank.

    Args:
        mate: (q,) best score of the query's identity in the gallery, -inf for none.
        other: (q,) best score of any other identity.
        mates: (q,) how many mates each query has.
        size: items of the gallery.
        fpirs: in (0, 1).
        draws: resamples for the intervals, of both kinds of queries; 0 for none.
        seed: of the resamples.

    Example:
        >>> found = open_set_figures(np.array([0.9, 0.3, -np.inf, -np.inf]), np.array([0.5, 0.6, 0.4, 0.2]),
        ...                          np.array([1, 1, 0, 0]), 2, [0.5], 0, 0)
        >>> found["FNIR@FPIR=0.5"].value, found["FNIR@FPIR=0.5, rank 1"].value
        (0.0, 0.5)
    """
    has = mates > 0
    found, beaten = mate[has], mate[has] <= other[has]
    strangers = np.sort(other[~has])[::-1]
    m = len(strangers)
    drawn = _draws(found, beaten, strangers, fpirs, draws, seed) if draws and len(found) > 1 and m > 1 else {}
    result: dict[str, Figure] = {}
    for rate in fpirs:
        names = f"FNIR@FPIR={rate:g}", f"FNIR@FPIR={rate:g}, rank 1"
        share = mates[has] / max(1, size)
        chance = (1 - rate) ** share, 1 - rate * share
        if not len(found) or rate * m < 1 - 1e-9:
            note = (
                f"{m:,} queries without a mate can't measure a rate of {rate:g}, which takes {1 / rate:,.0f}"
                if len(found)
                else "no query has a mate in the gallery of the open set"
            )
            result |= {name: Figure(None, note=note) for name in names}
            continue
        # At most so many strangers pass: the next one's score is the highest that may not.
        barrier = float(strangers[int(np.floor(rate * m + 1e-9))])
        missed = found <= barrier
        threshold = float(np.nextafter(barrier, np.inf))
        for name, misses, random in zip(names, (missed, missed | beaten), chance, strict=True):
            result[name] = Figure(float(misses.mean()), drawn.get(name), threshold, float(random.mean()))
    return result


def _draws(
    found: Floats, beaten: NDArray[np.bool_], strangers: Floats, fpirs: Sequence[float], draws: int, seed: int
) -> dict[str, tuple[float, float]]:
    rng = np.random.default_rng(seed)
    m, n = len(strangers), len(found)
    barriers: list[NDArray[np.float64]] = []
    for counts in resamples(m, draws, rng):
        passed = counts.cumsum(axis=1)
        # The first stranger with whom more than the rate have passed.
        places = [(passed <= np.floor(rate * m + 1e-9)).sum(axis=1) for rate in fpirs]
        barriers.append(strangers[np.minimum(np.stack(places, axis=1), m - 1)])
    barrier = np.concatenate(barriers)  # (draws, rates)
    order = np.argsort(found)
    ranked = found[order]
    values: dict[str, list[NDArray[np.float64]]] = {}
    start = 0
    for counts in resamples(n, draws, rng):
        counts = counts[:, order]
        zero = np.zeros((len(counts), 1))
        low = np.hstack([zero, counts.cumsum(axis=1)])
        bad = np.hstack([zero, (counts * beaten[order]).cumsum(axis=1)])
        rows = np.arange(len(counts))
        for column, rate in enumerate(fpirs):
            place = np.searchsorted(ranked, barrier[start : start + len(counts), column], side="right")
            missed = low[rows, place]
            values.setdefault(f"FNIR@FPIR={rate:g}", []).append(missed / n)
            also = missed + bad[:, -1] - bad[rows, place]
            values.setdefault(f"FNIR@FPIR={rate:g}, rank 1", []).append(also / n)
        start += len(counts)
    bounds = {name: np.quantile(np.concatenate(parts), [0.025, 0.975]) for name, parts in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
