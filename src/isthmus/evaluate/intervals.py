"""Intervals by the bootstrap over queries, for one run and for the difference of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.errors import IsthmusError

Floats = NDArray[np.float64]
Values = ArrayLike | Mapping[str, ArrayLike]


def resamples(n: int, draws: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each of n queries is drawn, for `draws` resamples, in blocks (b, n) of bounded memory."""
    rows = max(1, (1 << 22) // max(n, 1))
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = rng.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        yield np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n).astype(np.float64)


def bootstrap_intervals(
    values: ArrayLike, weights: ArrayLike | None = None, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile intervals of sum(values) / sum(weights), resampled over queries (Efron and Tibshirani, 1993, 13.3).

    Numerators and denominators are drawn together, as a ratio such as SynCDR's Prec@k asks for; without weights the
    ratio is the mean.

    Args:
        values: (q, m), m metrics of q queries; all metrics see the same draws.
        weights: (q, m), positive.
        draws: resamples.
        seed: of the draws.
        level: of the interval, in (0, 1).

    Returns:
        low (m,), high (m,).

    Example:
        >>> low, high = bootstrap_intervals([[0.0], [1.0]] * 50)
        >>> bool(0.35 < low[0] < 0.45 and 0.55 < high[0] < 0.65)
        True
    """
    top = np.asarray(values, dtype=np.float64)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, dtype=np.float64)
    rng = np.random.default_rng(seed)
    parts = [(counts @ top) / (counts @ bottom) for counts in resamples(len(top), draws, rng)]
    low, high = np.quantile(np.concatenate(parts), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference a - b of two runs on the same queries.

    Attributes:
        mean: of the difference.
        low, high: the interval.
        level: of the interval.
        n_queries: how many queries were compared, over all directions.
        seeds: runs averaged for a and for b.
    """

    mean: float
    low: float
    high: float
    level: float
    n_queries: int
    seeds: tuple[int, int]

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def text(self) -> str:
        """The difference as a table shows it, such as `+0.052 [+0.031, +0.074]`."""
        verdict = "" if self.distinguishable else " (not distinguishable)"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]{verdict}"


def paired_difference(
    a_values: Values,
    b_values: Values,
    *,
    weights: Values | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Mean difference a - b with its interval by the paired bootstrap over queries.

    The values of several seeds are averaged per query first, then the queries are resampled; each resample takes the
    same queries of a and of b. With directions, as in the paper's mean Prec@1 of both, each direction is resampled by
    itself and the directions' differences are averaged.

    Args:
        a_values: (q,), or (seeds, q), or a mapping from direction to either: values such as `per_query["R@1"]`.
        b_values: the same queries in the same order; the number of seeds may differ.
        weights: the denominators of a ratio metric (q,), or a mapping to them; without them the plain mean.
        draws: resamples.
        seed: of the draws.
        level: of the interval.

    Raises:
        IsthmusError: a and b do not have the same directions or queries, or there are none.

    Example:
        >>> paired_difference([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]).mean
        0.25
    """
    a, b = _directions(a_values), _directions(b_values)
    parts = {} if weights is None else _directions(weights)
    if a.keys() != b.keys() or not a or (weights is not None and parts.keys() != a.keys()):
        raise IsthmusError(f"The runs to compare have the directions {list(a)} and {list(b)}; compare the same ones.")
    rng = np.random.default_rng(seed)
    mean, total, queries = 0.0, np.zeros(draws), 0
    for name in a:
        difference = a[name].mean(axis=0) - _like(b[name], a[name], name).mean(axis=0)
        weight = np.ones_like(difference) if weights is None else _like(parts[name], a[name], name)[0]
        mean += float(difference.sum() / weight.sum()) / len(a)
        drawn = [(c @ difference) / (c @ weight) for c in resamples(len(difference), draws, rng)]
        total += np.concatenate(drawn) / len(a)
        queries += len(difference)
    low, high = np.quantile(total, [(1 - level) / 2, (1 + level) / 2])
    seeds = max(len(x) for x in a.values()), max(len(x) for x in b.values())
    return Difference(mean, float(low), float(high), level, queries, seeds)


def _directions(values: Values) -> dict[str, Floats]:
    """Each direction's values as (seeds, q)."""
    named = values if isinstance(values, Mapping) else {"": values}
    result = {name: np.atleast_2d(np.asarray(value, dtype=np.float64)) for name, value in named.items()}
    for name, value in result.items():
        if value.ndim != 2 or value.size == 0:
            raise IsthmusError(f"The values to compare {name} have the shape {value.shape}; give (seeds, queries).")
    return result


def _like(values: Floats, other: Floats, name: str) -> Floats:
    if values.shape[1] != other.shape[1]:
        raise IsthmusError(
            f"The runs to compare {name} have {other.shape[1]} and {values.shape[1]} queries; ask both the same."
        )
    return values


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over seeds or splits; the deviation of one value is NaN.

    Example:
        >>> mean_std([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")
