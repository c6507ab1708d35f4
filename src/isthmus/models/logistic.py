"""Logistic regression of two classes in float64: a few Newton steps, cross-validation and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Line:
    """`values @ weights + bias`; above zero class 1 is the likelier."""

    weights: Numbers
    bias: float

    def __call__(self, values: Numbers) -> Numbers:
        """(n, d) -> (n,)."""
        result: Numbers = values @ self.weights + self.bias
        return result


def sigmoid(values: Numbers) -> Numbers:
    """1 / (1 + exp(-x)) without overflow."""
    result: Numbers = np.exp(-np.logaddexp(0.0, -values))
    return result


def fit_line(values: Numbers, targets: Numbers, strength: float, counts: Numbers | None = None) -> Line:
    """Minimise the mean cross-entropy plus `strength / 2` times the squared weights.

    Both classes count alike, however many examples each has: which domain the next image is of is not known.

    Args:
        values: (n, d), about of unit variance.
        targets: (n,), the wanted probability of class 1; above 0.5 an example is of class 1.
        strength: of the L2 penalty; the bias is free.
        counts: (n,) how many examples each row stands for; one each if None.
    """
    share = _shares(targets, counts)
    design = np.column_stack([values, np.ones(len(values))])
    penalty = np.full(design.shape[1], strength)
    penalty[-1] = 0.0
    line = np.zeros(design.shape[1])
    loss = _loss(design, targets, share, penalty, line)
    for _ in range(50):
        probability = sigmoid(design @ line)
        slope = design.T @ (share * (probability - targets)) + penalty * line
        curve = (design.T * (share * probability * (1 - probability))) @ design + np.diag(penalty)
        # The tiny ridge keeps a bias whose examples are all certain from a division by nothing.
        step = np.linalg.solve(curve + 1e-10 * np.eye(len(line)), slope)
        size = 1.0
        while size > 1e-6:
            later = _loss(design, targets, share, penalty, line - size * step)
            if later <= loss:
                break
            size /= 2
        else:
            break
        line = line - size * step
        gain, loss = loss - later, later
        if gain < 1e-12:
            break
    return Line(line[:-1], float(line[-1]))


def cross_validate(values: Numbers, truth: Numbers, fold: np.ndarray[Any, Any]) -> tuple[float, Numbers]:
    """The best strength by held-out cross-entropy, and the sums that each example got when it was held out."""
    best: tuple[float, float, Numbers] | None = None
    for strength in STRENGTHS:
        sums = np.zeros(len(truth))
        for part in np.unique(fold):
            out = fold == part
            sums[out] = fit_line(values[~out], truth[~out], strength)(values[out])
        loss = float((_shares(truth) * _entropies(sums, truth)).sum())
        if best is None or loss <= best[0]:  # of equals the stronger
            best = loss, strength, sums
    assert best is not None
    return best[1], best[2]


def calibrate(sums: Numbers, truth: Numbers) -> Line:
    """Platt's scaling of held-out sums: with n examples no probability beyond (n + 1) / (n + 2) is learnt."""
    ones, zeros = float(truth.sum()), float((1 - truth).sum())
    targets = np.where(truth == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    line = fit_line(sums[:, None], targets, 0.0)
    # A classifier that is wrong more often than not on what it has not seen has learnt nothing: half and half.
    return line if line.weights[0] > 0 else Line(np.zeros(1), 0.0)


def _shares(targets: Numbers, counts: Numbers | None = None) -> Numbers:
    ones = targets > 0.5
    if counts is None:
        return np.where(ones, 0.5 / max(1, int(ones.sum())), 0.5 / max(1, int((~ones).sum())))
    each = 0.5 / max(1.0, float(counts[~ones].sum())), 0.5 / max(1.0, float(counts[ones].sum()))
    result: Numbers = counts * np.where(ones, each[1], each[0])
    return result


def _entropies(sums: Numbers, targets: Numbers) -> Numbers:
    result: Numbers = np.logaddexp(0.0, sums) - targets * sums
    return result


def _loss(design: Numbers, targets: Numbers, share: Numbers, penalty: Numbers, line: Numbers) -> float:
    return float((share * _entropies(design @ line, targets)).sum() + 0.5 * (penalty * line * line).sum())
