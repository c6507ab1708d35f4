"""Verification: are two images of one identity? TAR@FAR, EER and the DET curve over all pairs, FNIR@FPIR in open sets.

A pair is accepted where its cosine is at least a threshold t:

    FAR(t) = accepted impostor pairs / impostor pairs      TAR(t) = 1 - FRR(t) = accepted genuine pairs / genuine pairs

after ISO/IEC 19795-1 (there FMR and FNMR). What too few pairs can't measure is None and says why. See docs/verify.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import resamples
from isthmus.evaluate.open_set import Figure, enrolled_half, open_set_figures
from isthmus.evaluate.pair_scores import (
    BINS,
    Floats,
    Ints,
    PairScores,
    accepted_from,
    count_pairs,
    edge,
    first_within,
    rate_curves,
)
from isthmus.evaluate.sides import Vectors, finite_rows

FARS = (1e-2, 1e-3)
FPIRS = (1e-1, 1e-2)
CURVE = 96  # points of the DET curve


@dataclass(frozen=True)
class Verified:
    """What one direction under one setting verifies.

    Attributes:
        direction: such as `sketch->photo`.
        setting: `centred` or `plain`.
        figures: `TAR@FAR=0.01`, `EER`, `FNIR@FPIR=0.1` and so on.
        genuine, impostor: how many pairs there are.
        mated, unmated: how many queries of the open set have a mate in its gallery, and how many have none.
        det: (false accept rate, false reject rate) at falling thresholds.
        protocol: how it was measured, in words.
    """

    direction: str
    setting: str
    figures: dict[str, Figure]
    genuine: int
    impostor: int
    mated: int
    unmated: int
    det: list[tuple[float, float]]
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def require_pairs(query_keys: Sequence[str | None], gallery_keys: Sequence[str | None], direction: str) -> None:
    """Check that there are pairs of one identity and pairs of two; it needs no image.

    Raises:
        IsthmusError: there are none of either.

    Example:
        >>> require_pairs(["a"], ["a", "b"], "sketch->photo")
    """
    asks, answers = (Counter(key for key in keys if key is not None) for keys in (query_keys, gallery_keys))
    genuine = sum(count * answers[key] for key, count in asks.items())
    if not 0 < genuine < asks.total() * answers.total():
        kind = "of two identities" if genuine else "of one identity"
        raise IsthmusError(
            f"{direction}: among {asks.total()} queries and {answers.total()} gallery images there is no pair {kind}, "
            "so nothing can be verified; check labels and identities."
        )


def check_rates(rates: Sequence[float], what: str) -> tuple[float, ...]:
    """The rates, each once and the largest first.

    Raises:
        IsthmusError: one is not between 0 and 1.

    Example:
        >>> check_rates([0.001, 0.01, 0.01], "--far")
        (0.01, 0.001)
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise IsthmusError(f"{what} {rate:g} is no rate; choose one between 0 and 1, such as 1e-3.")
    return tuple(sorted(set(rates), reverse=True))


def equal_error(far: Floats, frr: Floats) -> Floats:
    """Where false accepts meet false rejects, on straight lines between thresholds: (b, K) falling, rising -> (b,)."""
    gap = far - frr
    after = np.clip((gap > 0).sum(axis=1), 1, gap.shape[1] - 1)
    rows = np.arange(len(gap))
    high, low = gap[rows, after - 1], gap[rows, after]
    share = np.divide(high, high - low, out=np.zeros_like(high), where=high > low)
    result: Floats = far[rows, after - 1] + share * (far[rows, after] - far[rows, after - 1])
    return result


def verify(
    query: Vectors,
    gallery: Vectors,
    query_keys: Sequence[str | None],
    gallery_keys: Sequence[str | None],
    *,
    fars: Sequence[float] = FARS,
    fpirs: Sequence[float] = FPIRS,
    bootstrap: int = 1000,
    seed: int = 0,
    direction: str = "query->gallery",
    setting: str = "plain",
) -> Verified:
    """Verification over all pairs of queries and gallery items, and identification in an open set.

    Scores are counted in bins of 2^-19 = 1.9e-6 (`pair_scores`); memory does not grow with the number of pairs.

    Args:
        query: (q, d), finite.
        gallery: (n, d), finite.
        query_keys: q identities or labels; a pair of equal ones is genuine. Images without one are left out.
        gallery_keys: n of them.
        fars: rates of false acceptance, in (0, 1).
        fpirs: rates of queries without a mate that are answered all the same, in (0, 1).
        bootstrap: resamples of the queries for 95 % intervals; 0 for none.
        seed: of the resamples, and of the half of the identities that the open set's gallery lacks.
        direction, setting: names of the result.

    Raises:
        IsthmusError: there is no genuine or no impostor pair, or a rate is out of range.

    Example:
        >>> found = verify(np.eye(4), np.eye(4), list("abcd"), list("abcd"), fars=[0.1], bootstrap=0)
        >>> found.figures["TAR@FAR=0.1"].value, found.figures["EER"].value
        (1.0, 0.0)
        >>> verify(np.eye(2), np.eye(2), list("ab"), list("ab"), bootstrap=0).figures["TAR@FAR=0.01"].value is None
        True
    """
    fars, fpirs = check_rates(fars, "FAR"), check_rates(fpirs, "FPIR")
    known = [np.array([key is not None for key in keys], bool) for keys in (query_keys, gallery_keys)]
    names = [[str(key) for key in keys if key is not None] for keys in (query_keys, gallery_keys)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names[0] + names[1]))}
    codes = [np.array([numbers[name] for name in part], np.int64) for part in names]
    half = enrolled_half(set(names[1]), seed)
    enrolled = np.array([name in half for name in names[1]], bool)
    vectors = [
        part if kept.all() else np.asarray(part)[kept] for part, kept in zip((query, gallery), known, strict=True)
    ]
    require_pairs(query_keys, gallery_keys, direction)
    found = count_pairs(vectors[0], vectors[1], codes[0], codes[1], enrolled=enrolled)
    genuine, impostor = found.pairs
    far, frr = rate_curves(found)
    intervals, passing = _intervals(found, fars, bootstrap, seed), accepted_from(found.impostor)
    figures: dict[str, Figure] = {}
    for rate in fars:
        place, name = first_within(passing, rate), f"TAR@FAR={rate:g}"
        if rate * impostor < 1 - 1e-9:
            note = f"{impostor:,} impostor pairs can't measure a rate of {rate:g}, which takes {1 / rate:,.0f}"
            figures[name] = Figure(None, chance=rate, note=note)
        else:
            figures[name] = Figure(float(1 - frr[place]), intervals.get(name), edge(place), rate)
    meet = int(np.argmax(frr >= far))
    figures["EER"] = Figure(float(equal_error(far[None], frr[None])[0]), intervals.get("EER"), edge(meet), 0.5)
    mates = np.bincount(codes[1][enrolled], minlength=len(numbers))[codes[0]]
    opened = open_set_figures(found.mate, found.other, mates, int(enrolled.sum()), fpirs, bootstrap, seed)
    unmated = int((mates == 0).sum())
    left_out = sum(int((~kept).sum()) for kept in known)
    protocol = (
        f"cosine, {genuine:,} genuine and {impostor:,} impostor pairs of {len(codes[0])} queries and {len(codes[1])} "
        f"gallery images, scores in bins of 1.9e-6; open set: {len(half)} of {len(set(names[1]))} identities enrolled "
        f"(drawn by hash, seed {seed}), {len(codes[0]) - unmated} queries with a mate, {unmated} without"
        + (f"; {left_out} images without label or identity left out" if left_out else "")
        + (f"; 95 % intervals from {bootstrap} bootstrap resamples of the queries, seed {seed}" if bootstrap else "")
    )
    return Verified(
        direction, setting, figures | opened, genuine, impostor, len(codes[0]) - unmated, unmated,
        _curve(passing, far, frr), protocol,
    )  # fmt: skip


def verify_domains(
    embedded: Mapping[str, tuple[Vectors, Vectors]],
    queries: Manifest,
    gallery: Manifest,
    by: str,
    *,
    fars: Sequence[float] = FARS,
    fpirs: Sequence[float] = FPIRS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[Verified]:
    """`verify` of every setting in both directions, the main setting first.

    Both directions have the same pairs. Their TAR, EER and DET are equal; intervals and open sets differ.

    Args:
        embedded: as `embed_domains` gives it; rows of NaN are left out.
        queries, gallery: their rows.
        by: `"label"` or `"identity"`.
        fars, fpirs, bootstrap, seed: see `verify`.
    """
    read = [finite_rows([pair[side] for pair in embedded.values()]).numpy() for side in (0, 1)]
    keys = [
        [getattr(row, by) for row, ok in zip(part, kept.tolist(), strict=True) if ok]
        for part, kept in zip((queries, gallery), read, strict=True)
    ]
    names = queries[0].domain, gallery[0].domain
    result = []
    for setting, pair in embedded.items():
        vectors = [np.asarray(part)[kept] for part, kept in zip(pair, read, strict=True)]
        for asks, answers in ((0, 1), (1, 0)):
            result.append(
                verify(
                    vectors[asks], vectors[answers], keys[asks], keys[answers], fars=fars, fpirs=fpirs,
                    bootstrap=bootstrap, seed=seed, direction=f"{names[asks]}->{names[answers]}", setting=setting,
                )
            )  # fmt: skip
    return result


def _intervals(found: PairScores, fars: Sequence[float], draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals by the bootstrap over queries; each draw chooses its threshold anew."""
    if not draws or len(found.genuine_of) < 2:
        return {}
    genuine, impostor = found.genuine_at.astype(np.float64), found.impostor_at.astype(np.float64)
    drawn: dict[str, list[Floats]] = {}
    for counts in resamples(len(genuine), draws, np.random.default_rng(seed)):
        mates, others = counts @ found.genuine_of, counts @ found.impostor_of
        usable = (mates > 0) & (others > 0)
        counts, mates, others = counts[usable], mates[usable, None], others[usable, None]
        far, frr = counts @ impostor / others, 1 - counts @ genuine / mates
        rows = np.arange(len(counts))
        for rate in fars:
            place = np.clip((far > rate + 1e-12).sum(axis=1), 1, far.shape[1] - 1)
            value = 1 - frr[rows, place]
            if not found.exact:  # between two thresholds on a straight line
                before, here = far[rows, place - 1], far[rows, place]
                share = np.divide(rate - here, before - here, out=np.zeros_like(here), where=before > here)
                value += share * (frr[rows, place] - frr[rows, place - 1])
            drawn.setdefault(f"TAR@FAR={rate:g}", []).append(value)
        drawn.setdefault("EER", []).append(equal_error(far, frr))
    bounds = {name: np.quantile(np.concatenate(parts), [0.025, 0.975]) for name, parts in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}


def _curve(passing: Ints, far: Floats, frr: Floats) -> list[tuple[float, float]]:
    """Points of the DET curve, at false accept rates spread evenly over their logarithm."""
    rates = np.geomspace(1 / max(1, int(passing[0])), 1, CURVE)
    places = np.unique([0 if rate >= 1 else first_within(passing, rate) for rate in rates])[::-1]
    return [(float(far[place]), float(frr[place])) for place in places if place < BINS]
