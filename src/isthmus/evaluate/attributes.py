"""How well an attribute head reads attributes off the images of a domain, against rows that know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.data.loading import ImageSource, test_batches
from isthmus.data.manifest import Row, some_of
from isthmus.errors import IsthmusError
from isthmus.progress import track

Floats = NDArray[np.float64]
FIGURES = ("accuracy", "balanced_accuracy", "average_precision", "base_rate", "positive_share")


@dataclass(frozen=True, slots=True)
class AttributeScore:
    """One attribute in one domain.

    Attributes:
        name: of the attribute.
        n: images that know it; the others are masked.
        positive_share: of these images: the average precision of a guess.
        accuracy: share read rightly, yes where the probability is .5 or more.
        balanced_accuracy: mean of the shares read rightly among yes and among no: .5 for a guess.
        average_precision: area under precision and recall, sum of (R_k - R_{k-1}) P_k over the different probabilities.
        base_rate: accuracy of always giving the more frequent answer.
    """

    name: str
    n: int
    positive_share: float
    accuracy: float
    balanced_accuracy: float
    average_precision: float
    base_rate: float


@dataclass(frozen=True)
class AttributeScores:
    """All attributes in one domain.

    Attributes:
        domain: such as `"sketch"`.
        n_images: images read.
        scores: of each attribute that both occurs and lacks among them.
        constant: attributes left out as they never vary among these images.
        unknown: attributes left out as no image knows them.
        skipped: ids of images that could not be read.
    """

    domain: str
    n_images: int
    scores: tuple[AttributeScore, ...]
    constant: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def means(self) -> dict[str, float]:
        """Macro means over the attributes: each counts the same, however many images know it; empty without any."""
        if not self.scores:
            return {}
        return {figure: float(np.mean([getattr(score, figure) for score in self.scores])) for figure in FIGURES}

    @property
    def left_out(self) -> str:
        """Which attributes were left out and why, as a sentence; empty where none was."""
        if not self.scores and not self.constant:
            return f"No {self.domain} image here knows any of the attributes."
        parts = []
        if self.constant:
            parts.append(f"never vary here: {', '.join(self.constant)}")
        if self.unknown:
            parts.append(f"known of no image: {', '.join(self.unknown)}")
        return f"Left out of the attributes: {'; '.join(parts)}." if parts else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with the means."""
        return {**asdict(self), "means": self.means}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AttributeScores:
        """The inverse of `to_dict`, also after JSON made lists of tuples."""
        try:
            scores = tuple(AttributeScore(**score) for score in values["scores"])
            lists = {name: tuple(values[name]) for name in ("constant", "unknown", "skipped")}
            return cls(values["domain"], values["n_images"], scores, **lists)
        except (KeyError, TypeError) as error:
            raise IsthmusError(
                f"These values are no attribute scores of this version ({error}); evaluate again."
            ) from None


def attribute_metrics(
    probabilities: Tensor | NDArray[Any], truth: Tensor | NDArray[Any], names: Sequence[str], domain: str = ""
) -> AttributeScores:
    """Measure predicted probabilities attribute by attribute.

    Args:
        probabilities: (n, a), in [0, 1].
        truth: (n, a), 1 yes, 0 no, NaN unknown: masked.
        names: a of them.
        domain: for the record.

    Raises:
        IsthmusError: sizes that do not fit, or values other than these.

    Example:
        >>> found = attribute_metrics(np.array([[0.9], [0.6], [0.2]]), np.array([[1.0], [0.0], [0.0]]), ["boot"])
        >>> found.scores[0].balanced_accuracy, found.scores[0].average_precision
        (0.75, 1.0)
    """
    p, t = np.asarray(probabilities, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if p.ndim != 2 or p.shape != t.shape or p.shape[1] != len(names):
        raise IsthmusError(
            f"Probabilities {p.shape}, attributes {t.shape} and {len(names)} names do not fit together; the first two "
            "are (images, names)."
        )
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise IsthmusError("The predicted probabilities are not all numbers from 0 to 1; the attribute head is broken.")
    if not bool((np.isnan(t) | (t == 0) | (t == 1)).all()):
        raise IsthmusError("An attribute is neither 0 nor 1; write 1 for yes, 0 for no and nothing for unknown.")
    scores, constant, unknown = [], [], []
    for column, name in enumerate(names):
        known = ~np.isnan(t[:, column])
        yes = t[known, column] == 1
        if not len(yes):
            unknown.append(name)
        elif yes.all() or not yes.any():
            constant.append(name)
        else:
            scores.append(_score(name, p[known, column], yes))
    return AttributeScores(domain, len(p), tuple(scores), tuple(constant), tuple(unknown))


def _score(name: str, p: Floats, yes: NDArray[np.bool_]) -> AttributeScore:
    right = (p >= 0.5) == yes
    share = float(yes.mean())
    return AttributeScore(
        name=name,
        n=len(p),
        positive_share=share,
        accuracy=float(right.mean()),
        balanced_accuracy=float(right[yes].mean() + right[~yes].mean()) / 2,
        average_precision=_average_precision(p, yes),
        base_rate=max(share, 1 - share),
    )


def _average_precision(p: Floats, yes: NDArray[np.bool_]) -> float:
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(yes[order])
    # Images of equal probability enter together, so no order among them is made up.
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    gained = np.diff(hits[last], prepend=0)
    return float((gained * hits[last] / (last + 1)).sum() / yes.sum())


def known_attributes(rows: Sequence[Row], names: Sequence[str]) -> Floats:
    """The rows' attributes as float64 (n, a): 1, 0, or NaN where a row does not know it.

    Raises:
        IsthmusError: a value that is neither 0 nor 1.
    """
    table = np.array([[(row.attributes or {}).get(name, np.nan) for name in names] for row in rows], dtype=np.float64)
    table = table.reshape(len(rows), len(names))
    wrong = np.argwhere(~(np.isnan(table) | (table == 0) | (table == 1)))
    if len(wrong):
        i, j = wrong[0].tolist()
        raise IsthmusError(
            f"The attribute '{names[j]}' of {some_of([rows[i].id])} is {table[i, j]:g}; write 1 for yes, 0 for no and "
            "nothing for unknown."
        )
    return table


def score_attributes(
    predict: Callable[[Tensor, int], Tensor],
    names: Sequence[str],
    rows: Sequence[Row],
    *,
    source: ImageSource,
    domain: int,
    batch_size: int = 64,
    workers: int = 2,
    progress: bool = False,
    on_bad: Literal["raise", "skip"] = "raise",
) -> AttributeScores:
    """Let a model read the attributes of images and compare with what the rows know.

    Only rows that know at least one of the attributes are read.

    Args:
        predict: views uint8 (n, 3, h, w) and the domain's number -> probabilities (n, a).
        names: a attributes, in the order of `predict`.
        rows: images of one domain.
        source: reads their test views.
        domain: 0 for the query domain, 1 for the gallery domain.
        batch_size, workers, progress, on_bad: as in `Model.encode`.

    Raises:
        IsthmusError: an attribute's value is neither 0 nor 1, or an image is unreadable (`on_bad="raise"`).

    Example:
        >>> score_attributes(model.attribute_probabilities, model.attributes, rows, source=source, domain=0).means[
        ...     "balanced_accuracy"
        ... ]                                                                               # doctest: +SKIP
        0.71
    """
    truth = known_attributes(rows, names)
    some = np.flatnonzero(~np.isnan(truth).all(axis=1)) if len(names) else np.array([], dtype=np.int64)
    asked = [rows[i] for i in some.tolist()]
    probabilities, read = torch.zeros(len(asked), len(names)), np.zeros(len(asked), dtype=np.bool_)
    batches = test_batches(source, asked, batch_size, workers, on_bad=on_bad)
    for views, kept, _ in track(batches, len(asked), "attributes", per_item=batch_size) if progress else batches:
        if kept:
            probabilities[kept] = predict(views, domain).detach().float().cpu()
            read[kept] = True
    found = attribute_metrics(probabilities.numpy()[read], truth[some][read], names, rows[0].domain if rows else "")
    skipped = tuple(row.id for row, ok in zip(asked, read.tolist(), strict=True) if not ok)
    return AttributeScores(found.domain, found.n_images, found.scores, found.constant, found.unknown, skipped)
