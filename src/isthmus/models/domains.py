"""Which of a model's two domains an image is of: a small classifier kept beside the model, as `domains.json`.

It looks at cheap figures of the image (`domain_statistics`) and not at the embedding, which is trained to hide the
domain. It is no part of the model's fingerprint: a catalog stays valid whether there is one or not.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from isthmus.data.images import ImageError
from isthmus.data.loading import prefetch
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, read_json, stable_hash
from isthmus.models.domain_statistics import NAMES, Numbers, load_small, statistics
from isthmus.models.drawn_look import DrawnLook, read_look, usual_look
from isthmus.models.logistic import Line, calibrate, cross_validate, fit_line, sigmoid

FILE = "domains.json"
FORMAT = 1
MOST = 200  # images of each domain: more hardly change the classifier
FEWEST = 10
LEAST_SURE = 0.8
RIGHT = 0.99  # of the held-out choices that count as sure
FAR = 6.0  # standard deviations: a figure beyond is as far as can be, so that one odd figure does not decide alone
Source = str | Path | bytes | Image.Image


@dataclass(frozen=True)
class DomainChooser:
    """Says which domain an image is of, with a calibrated probability.

    Attributes:
        domains: the query domain and the gallery domain.
        mean, scale, weights: one value for each of `NAMES`.
        bias: of the logistic regression; a positive sum speaks for the gallery domain.
        sure: choices of at least this probability are sure: held out, 99 of 100 of them were right. 1: none are.
        accuracy: on held-out images, mean of both domains.
        confusion: held-out counts, `[true][chosen]`.
        sure_share: of held-out images, how many choices were sure.
        images: how many of each domain it was fitted on.
        look: what is usual in the query domain's drawings; None where its images are no drawings.

    Example:
        >>> chooser = DomainChooser.load("runs/pacs")                                       # doctest: +SKIP
        >>> chooser.choose("cat.png")                                                       # doctest: +SKIP
        ('sketch', 0.994)
    """

    domains: tuple[str, str]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    sure: float
    accuracy: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    sure_share: float
    images: tuple[int, int]
    look: DrawnLook | None = None

    @classmethod
    def fit(
        cls, query: Sequence[Source], gallery: Sequence[Source], domains: tuple[str, str], *, workers: int = 2
    ) -> DomainChooser:
        """Fit on images of both domains; deterministic.

        Args:
            query: images of the query domain, at least 10 that can be read; unreadable ones are passed over.
            gallery: the same of the gallery domain.
            domains: names of both.
            workers: threads that decode.

        Raises:
            IsthmusError: too few readable images of a domain.
        """
        sides = [_figures(images, workers) for images in (query, gallery)]
        for name, figures in zip(domains, sides, strict=True):
            if len(figures) < FEWEST:
                raise IsthmusError(
                    f"Telling the domains apart needs {FEWEST} readable images of '{name}', and there are "
                    f"{len(figures)}; name more of them."
                )
        figures = np.concatenate(sides)
        truth = np.repeat([0.0, 1.0], [len(side) for side in sides])
        mean, scale = figures.mean(axis=0), figures.std(axis=0)
        # What is the same in every image tells nothing; divided by its rounding error it would shout.
        scale[scale < 1e-6] = np.inf
        seen = _standardised(figures, mean, scale)
        # Interleaved folds: a folder in the order of its classes leaves some of each class in every part.
        fold = np.concatenate([np.arange(len(side)) % 5 for side in sides])
        strength, held_out = cross_validate(seen, truth, fold)
        scaling = calibrate(held_out, truth)
        line = fit_line(seen, truth, strength)
        probability = sigmoid(scaling.weights[0] * held_out + scaling.bias)
        chosen = probability > 0.5
        confusion = [[int(((truth == side) & (chosen == bool(pick))).sum()) for pick in (0, 1)] for side in (0, 1)]
        certain = np.maximum(probability, 1 - probability)
        sure = _threshold(certain, chosen == (truth == 1))
        final = Line(line.weights * scaling.weights[0], line.bias * scaling.weights[0] + scaling.bias)
        return cls(
            domains=domains,
            mean=tuple(mean.tolist()),
            scale=tuple(np.where(np.isinf(scale), 0.0, scale).tolist()),
            weights=tuple(final.weights.tolist()),
            bias=float(final.bias),
            sure=sure,
            accuracy=float(np.mean([confusion[side][side] / sum(confusion[side]) for side in (0, 1)])),
            confusion=((confusion[0][0], confusion[0][1]), (confusion[1][0], confusion[1][1])),
            sure_share=float((certain >= sure).mean()),
            images=(len(sides[0]), len(sides[1])),
            look=usual_look(query, workers=workers),
        )

    def choose(self, image: Source) -> tuple[str, float]:
        """The domain of an image and the probability of that choice, in [0.5, 1).

        Raises:
            ImageError: the image can't be read.
        """
        figures = statistics(load_small(image))[None]
        scale = np.array(self.scale)
        seen = _standardised(figures, np.array(self.mean), np.where(scale == 0, np.inf, scale))[0]
        gallery = float(sigmoid(np.array([float(seen @ np.array(self.weights)) + self.bias]))[0])
        return self.domains[int(gallery > 0.5)], min(max(gallery, 1 - gallery), 1 - 1e-6)

    def is_sure(self, probability: float) -> bool:
        """Whether a choice of that probability needs no word of caution."""
        return probability >= self.sure

    def save(self, folder: str | Path) -> None:
        """Write `domains.json` into a model folder, whole or not at all."""
        atomic_write_json(Path(folder) / FILE, {"format": FORMAT, "figures": list(NAMES), **asdict(self)})

    @classmethod
    def load(cls, folder: str | Path) -> DomainChooser | None:
        """The chooser of a model folder, or of a run folder that holds one; None where there is none.

        Raises:
            IsthmusError: the file is damaged, or of another version.
        """
        place = Path(folder)
        file = (place / "model" if (place / "model" / "config.json").is_file() else place) / FILE
        if not file.is_file():
            return None
        values = read_json(file)
        mend = "make it anew with  isthmus domains RUN"
        if isinstance(values, dict) and (values.get("format"), values.get("figures")) != (FORMAT, list(NAMES)):
            raise IsthmusError(f"{file} is not of a kind that this version reads; {mend}.")
        try:
            found = _checked(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IsthmusError(f"{file} is damaged ({error}); {mend}.") from error
        return found


def fit_rows(
    rows: tuple[Sequence[Row], Sequence[Row]], domains: tuple[str, str], *, most: int = MOST, workers: int = 2
) -> DomainChooser:
    """`DomainChooser.fit` on at most `most` images of each domain, drawn by a hash of their ids.

    Raises:
        IsthmusError: as `fit`.
    """
    drawn = [sorted(side, key=lambda row: stable_hash("domains", row.id))[:most] for side in rows]
    query, gallery = ([row.path for row in side] for side in drawn)
    return DomainChooser.fit(query, gallery, domains, workers=workers)


def _figures(images: Sequence[Source], workers: int) -> Numbers:
    def read(image: Source) -> Numbers | None:
        with contextlib.suppress(ImageError):
            return statistics(load_small(image))
        return None

    found = [values for values in prefetch(images, read, workers, ahead=2 * max(1, workers)) if values is not None]
    return np.stack(found) if found else np.empty((0, len(NAMES)))


def _standardised(figures: Numbers, mean: Numbers, scale: Numbers) -> Numbers:
    return np.clip((figures - mean) / scale, -FAR, FAR)


def _threshold(certain: Numbers, right: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """The least probability from which on so many held-out choices were right; 1 where there is none."""
    order = np.argsort(-certain, kind="stable")
    counts = np.arange(1, len(order) + 1)
    good = (np.cumsum(right[order]) / counts >= RIGHT) & (counts >= FEWEST)  # a lucky few prove nothing
    values = certain[order]
    # A threshold can't part equal probabilities: only the last of equals is a place to cut.
    good &= np.append(values[1:] < values[:-1], True)
    places = np.flatnonzero(good)
    return max(LEAST_SURE, math.floor(float(values[places[-1]]) * 1e6) / 1e6) if len(places) else 1.0


def _checked(values: dict[str, Any]) -> DomainChooser:
    mean, scale, weights = (tuple(float(value) for value in values[name]) for name in ("mean", "scale", "weights"))
    bias, sure, accuracy, sure_share = (float(values[name]) for name in ("bias", "sure", "accuracy", "sure_share"))
    if {len(mean), len(scale), len(weights)} != {len(NAMES)}:
        raise ValueError(f"it needs {len(NAMES)} figures")
    if not all(math.isfinite(value) for value in (*mean, *scale, *weights, bias)):
        raise ValueError("a number is not finite")
    if min(scale) < 0 or not all(0 <= share <= 1 for share in (sure, accuracy, sure_share)):
        raise ValueError("a number is out of range")
    first, second = values["domains"]
    (a, b), (c, d) = values["confusion"]
    n, m = values["images"]
    if not all(isinstance(name, str) and name for name in (first, second)) or first == second:
        raise ValueError("its domains are no two names")
    counts = ((int(a), int(b)), (int(c), int(d)))
    return DomainChooser(
        (first, second),
        mean,
        scale,
        weights,
        bias,
        sure,
        accuracy,
        counts,
        sure_share,
        (int(n), int(m)),
        read_look(values.get("look")),
    )
