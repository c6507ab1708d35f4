"""A threshold for a wanted false-match rate, and probabilities of a match, from the scores of validation pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import resamples
from isthmus.evaluate.pair_scores import (
    BINS,
    NONE,
    STEPS,
    Floats,
    Ints,
    accepted_from,
    count_pairs,
    edge,
    first_within,
    rate_curves,
)
from isthmus.evaluate.sides import Vectors, finite_rows
from isthmus.models.calibration import Calibration, Part
from isthmus.models.encoder import Model
from isthmus.models.logistic import Line, fit_line

COARSE = 1 << 6  # bins joined for the regression: steps of 1.2e-4
SURE = 30  # false matches that a rate should be measured by (the rule of 30, Doddington et al., 2000)
FEWEST = 10  # genuine pairs within one domain, below which that is left uncalibrated


def fit_probability(genuine: Ints, impostor: Ints) -> Line:
    """Logistic regression of genuine on score: the log-odds where both kinds of pairs are equally frequent.

    Minimises the mean cross-entropy of genuine plus that of impostor pairs (Platt, 1999, with his targets (n + 1) /
    (n + 2)), so that slope times score plus bias estimates the log of the likelihood ratio; the log-odds of any prior
    are added to it.

    Args:
        genuine, impostor: (BINS,) counts of scores, see `PairScores`.

    Returns:
        Of one weight, in units of the score; weight and bias are 0 where genuine pairs don't score higher.

    Example:
        >>> counts = np.zeros((2, BINS), np.int64)
        >>> counts[0, STEPS + STEPS // 2] = counts[1, STEPS] = 50
        >>> line = fit_probability(counts[0], counts[1])
        >>> bool(line(np.array([[0.5]]))[0] > 3), abs(float(line(np.array([[0.25]]))[0])) < 0.1
        (True, True)
    """
    values, targets, counts = [], [], []
    for part, target in ((genuine, 1), (impostor, 0)):
        joined = np.append(part, np.zeros(-BINS % COARSE, np.int64)).reshape(-1, COARSE).sum(axis=1)
        places = np.flatnonzero(joined)
        total = float(joined.sum())
        values.append((places * COARSE + COARSE / 2 - STEPS) / STEPS)
        targets.append(np.full(len(places), (total + 1) / (total + 2) if target else 1 / (total + 2)))
        counts.append(joined[places].astype(np.float64))
    scores, weight = np.concatenate(values), np.concatenate(counts)
    middle = float(np.average(scores, weights=weight))
    width = float(np.sqrt(np.average((scores - middle) ** 2, weights=weight))) or 1.0
    line = fit_line(((scores - middle) / width)[:, None], np.concatenate(targets), 0.0, weight)
    slope = float(line.weights[0]) / width
    # Scores that are lower for genuine pairs tell nothing that a threshold could use.
    return Line(np.array([slope]), line.bias - slope * middle) if slope > 0 else Line(np.zeros(1), 0.0)


def calibrate_part(
    query: Vectors,
    item: Vectors,
    query_keys: Sequence[str],
    item_keys: Sequence[str],
    names: tuple[str, str, str],
    rate: float,
    *,
    prior: float | None = None,
    itself: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Part | None:
    """The calibration of one direction under one setting.

    The threshold is the lowest of a grid of 1.9e-6 at which at most `rate` of the impostor pairs pass. The interval of
    the rate there is bootstrapped over queries with the threshold fixed, and reaches at least 3 / pairs (the rule of
    three: so high may a rate be of which nothing was seen).

    Args:
        query: (q, d), finite.
        item: (n, d), finite.
        query_keys, item_keys: identities or labels.
        names: query domain, item domain, setting.
        rate: wanted share of impostor pairs that pass, in (0, 1).
        prior: share of matches among pairs that probabilities are for; that of these pairs if None.
        itself: query and item are the same images; each pair of two images then counts once.
        bootstrap, seed: resamples, and their seed.

    Returns:
        None where there are no genuine or no impostor pairs.

    Raises:
        IsthmusError: a vector is not finite.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys([*query_keys, *item_keys]))}
    codes = [np.array([numbers[key] for key in keys], np.int64) for keys in (query_keys, item_keys)]
    found = count_pairs(query, item, *codes, at=NONE, itself=itself)
    if not all(found.pairs):
        return None
    far, frr = rate_curves(found)
    place = first_within(accepted_from(found.impostor), rate)
    genuine, impostor = (count // (2 if itself else 1) for count in found.pairs)
    high = max(float(far[place]), 3 / impostor)
    if bootstrap:
        each = count_pairs(query, item, *codes, at=np.array([place]), itself=itself)
        high = max(high, _upper(each.impostor_at[:, 0], each.impostor_of, bootstrap, seed))
    line = fit_probability(found.genuine, found.impostor)
    return Part(
        *names, edge(place), float(far[place]), min(1.0, high), float(frr[place]), float(line.weights[0]), line.bias,
        genuine / (genuine + impostor) if prior is None else prior, genuine, impostor,
    )  # fmt: skip


def calibrate_model(
    model: Model,
    embedded: Mapping[str, tuple[Vectors, Vectors]],
    queries: Manifest,
    gallery: Manifest,
    by: str,
    rate: float,
    *,
    prior: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Calibrate a model on validation images: both directions and, where there are pairs, each domain within itself.

    Args:
        model: its fingerprint and settings are remembered.
        embedded: as `embed_domains` gives it; rows of NaN are left out, as are images without label or identity.
        queries, gallery: their rows.
        by: `"label"` or `"identity"`.
        rate, prior, bootstrap, seed: see `calibrate_part`.

    Raises:
        IsthmusError: no genuine or no impostor pair across the domains.

    Example:
        >>> embedded = embed_domains(model, queries, gallery)                               # doctest: +SKIP
        >>> calibrate_model(model, embedded, queries, gallery, "label", 1e-3).save(folder)  # doctest: +SKIP
    """
    sides = queries, gallery
    read = [finite_rows([pair[side] for pair in embedded.values()]).tolist() for side in (0, 1)]
    kept = [
        np.array([ok and getattr(row, by) is not None for row, ok in zip(part, finite, strict=True)], bool)
        for part, finite in zip(sides, read, strict=True)
    ]
    keys = [
        [getattr(row, by) for row, ok in zip(part, mask, strict=True) if ok]
        for part, mask in zip(sides, kept, strict=True)
    ]
    parts: list[Part] = []
    for setting, pair in embedded.items():
        vectors = [np.asarray(part)[mask] for part, mask in zip(pair, kept, strict=True)]
        for asks, answers in ((0, 1), (1, 0), (0, 0), (1, 1)):
            part = calibrate_part(
                vectors[asks], vectors[answers], keys[asks], keys[answers],
                (model.domains[asks], model.domains[answers], setting), rate,
                prior=prior, itself=asks == answers, bootstrap=bootstrap, seed=seed,
            )  # fmt: skip
            if part is not None and (asks != answers or part.genuine >= FEWEST):
                parts.append(part)
            elif asks != answers:
                raise IsthmusError(
                    f"The validation images of {model.domains[0]} ({len(keys[0])} with a {by}) and {model.domains[1]} "
                    f"({len(keys[1])}) make no pair of one {by}, or none of two; a threshold needs both kinds."
                )
    images = (len(keys[0]), len(keys[1]))
    centres = "centred" in embedded
    return Calibration(model.fingerprint, model.domains, by, rate, model.centring, centres, images, tuple(parts))


def cautions(calibration: Calibration) -> list[str]:
    """What makes a calibration less sure than it looks, a sentence each."""
    said = []
    rate = calibration.rate
    highest: dict[tuple[str, str], Part] = {}  # settings have the same pairs
    for part in sorted(calibration.parts, key=lambda part: part.fmr_high):
        highest[part.query, part.item] = part
    for part in highest.values():
        name = f"{part.query}->{part.item}"
        if part.impostor * rate < 1 - 1e-9:
            said.append(
                f"{name}: {part.impostor:,} validation impostor pairs can't measure a rate of {rate:g}, which takes "
                f"{math.ceil(1 / rate - 1e-6):,}: the threshold is above all of them, and the rate may be up to "
                f"{part.fmr_high:.2g}."
            )
        elif part.impostor * rate < SURE:
            said.append(
                f"{name}: {part.impostor:,} validation impostor pairs leave {part.impostor * rate:.1f} false matches "
                f"to measure a rate of {rate:g} by; {math.ceil(SURE / rate - 1e-6):,} pairs would leave {SURE}."
            )
    for part in calibration.parts:
        if part.slope == 0:
            name = f"{part.query}->{part.item} ({part.setting})"
            said.append(f"{name}: genuine pairs score no higher than others, so every probability is the prior.")
    return said


def _upper(passed: np.ndarray[tuple[int], np.dtype[np.int32]], pairs: Ints, draws: int, seed: int) -> float:
    """The upper end of the 95 % interval of a rate at a fixed threshold, by the bootstrap over queries."""
    drawn: list[Floats] = []
    for counts in resamples(len(passed), draws, np.random.default_rng(seed)):
        total = counts @ pairs
        drawn.append((counts @ passed)[total > 0] / total[total > 0])
    return float(np.quantile(np.concatenate(drawn), 0.975))
