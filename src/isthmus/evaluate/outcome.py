"""What an evaluation found, as plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import canonical_json

MOST_HITS = 10
MOST_QUERIES = 2000  # queries whose hits are kept for pictures; their scores are kept for all


@dataclass(frozen=True, slots=True)
class Hit:
    """A gallery item that was found: its id, its similarity, and whether it is relevant."""

    id: str
    score: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One row of the table: one direction under one setting.

    Attributes:
        direction: such as `"sketch->photo"`.
        setting: `"centred"`, `"plain"`, or as the caller named it.
        scores, chance, intervals: by metric; see `RetrievalResult`.
        n_queries, n_gallery, n_left_out, tie_share, protocol: see `RetrievalResult`.
        query_ids: the m queries that have a relevant item.
        query_labels: their labels or identities.
        relevant: (m,) how many relevant items each has; min(k, relevant) is the weight of `Prec@k`.
        per_query: metric -> m values of the main metrics, to compare runs by `paired_difference`; of `Prec@k` the hits.
        hits: query id -> its first hits, best first, of at most `MOST_QUERIES` evenly spaced queries.
        precision_at_recall: mean precision at the recalls 0.05, 0.1, ... 1 (not interpolated).
        first_ranks: (m,) rank of each query's first relevant item, from which the CMC curve follows.
    """

    direction: str
    setting: str
    scores: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    n_queries: int
    n_gallery: int
    n_left_out: int
    tie_share: float
    protocol: str
    query_ids: list[str]
    query_labels: list[str]
    relevant: list[int]
    per_query: dict[str, list[float]]
    hits: dict[str, list[Hit]]
    precision_at_recall: list[float]
    first_ranks: list[int]


@dataclass(frozen=True)
class Evaluation:
    """What a model scores on two sets of images.

    Attributes:
        scores: flat; `sketch->photo/mAP@all` and `mean/mAP@all` (of both directions) of the main setting, and
            `sketch->photo (plain)/mAP@all` of any other.
        primary: the key of the main figure: `mean/Prec@1` for labels, `mean/R@1` for identities.
        by: `"label"` or `"identity"`, what makes an item relevant.
        sides: both directions of the main setting, then of the others.
        protocol: how it was measured, in words.
        skipped: ids of images that could not be read.
        model: fingerprint, where a model was evaluated.
    """

    scores: dict[str, float]
    primary: str
    by: str
    sides: list[Side]
    protocol: str
    skipped: list[str] = field(default_factory=list)
    model: str | None = None

    def side(self, direction: str, setting: str | None = None) -> Side:
        """The row of a direction; of the main setting if None."""
        for side in self.sides:
            if side.direction == direction and setting in (None, side.setting):
                return side
        known = ", ".join(f"{side.direction} ({side.setting})" for side in self.sides)
        raise IsthmusError(f"The evaluation has no row {direction} ({setting}); it has {known}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`, also after JSON made lists of tuples.

        Raises:
            IsthmusError: the values are not those of an evaluation.
        """
        try:
            sides = [
                Side(
                    **{
                        **side,
                        "intervals": {name: (low, high) for name, (low, high) in side["intervals"].items()},
                        "hits": {name: [Hit(**hit) for hit in hits] for name, hits in side["hits"].items()},
                    }
                )
                for side in values["sides"]
            ]
            return cls(**{**values, "sides": sides})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IsthmusError(f"These values are no evaluation of this version ({error}); evaluate again.") from None

    def to_json(self) -> str:
        """JSON text with sorted keys."""
        return canonical_json(self.to_dict())
