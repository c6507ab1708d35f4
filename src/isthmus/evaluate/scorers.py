"""Scores after the ranking: objects whose `scores(rows)` are those of some queries, as `metrics_of_scores` wants them.

Nothing here holds a table of queries by gallery items.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError
from isthmus.evaluate.after import After, AlphaQE, Hubness
from isthmus.evaluate.expansion import expand_queries
from isthmus.evaluate.hubness import Vectors, correct
from isthmus.evaluate.rerank import KReciprocal, Reranker, unit_vectors


class Scorer(Protocol):
    """Scores after the ranking. `seconds` is what they took so far on top of plain cosines."""

    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes held between queries, without the vectors."""

    def scores(self, rows: Tensor) -> Tensor:
        """(b, n) float32 of the queries `rows` (b,), higher is nearer."""


class Expander:
    """Cosines of expanded queries. Arguments and errors as of `Reranker`."""

    nbytes = 0

    def __init__(
        self, query: Vectors, gallery: Vectors, query_ids: Sequence[str], gallery_ids: Sequence[str],
        settings: AlphaQE = AlphaQE(), *, limit: int = 64 << 20,
    ) -> None:  # fmt: skip
        self.settings, self._limit = settings, limit
        self._query, self._gallery = unit_vectors(query, gallery, query_ids, gallery_ids)
        self._keys = ops.tie_keys(gallery_ids)
        self.seconds = 0.0

    def scores(self, rows: Tensor) -> Tensor:
        """(b, n) float32 in [-1, 1] of the queries `rows` (b,)."""
        began = time.perf_counter()
        s = self.settings
        again = expand_queries(
            self._query[rows], self._gallery, s.n, s.alpha, tie_keys=self._keys, limit=self._limit
        )  # fmt: skip
        self.seconds += time.perf_counter() - began
        return ops.similarity(again, self._gallery)


class Corrector:
    """Cosines with hubs held back. Arguments and errors as of `Reranker`, and `bank` (b, d): queries to compare with.

    Example:
        >>> import torch
        >>> x = torch.eye(3)
        >>> ids = ["a", "b", "c"]
        >>> Corrector(x[:1], x, ["q"], ids, Hubness(k=1), x[:1]).scores(torch.tensor([0])).tolist()
        [[0.5, 0.0, 0.0]]
    """

    def __init__(
        self, query: Vectors, gallery: Vectors, query_ids: Sequence[str], gallery_ids: Sequence[str],
        settings: Hubness, bank: Vectors, *, limit: int = 64 << 20,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._query, self._gallery = unit_vectors(query, gallery, query_ids, gallery_ids)
        began = time.perf_counter()
        self._term = settings.term(self._gallery, bank, limit=limit)
        self.nbytes = self._term.numel() * self._term.element_size()
        self.seconds = time.perf_counter() - began

    def scores(self, rows: Tensor) -> Tensor:
        """(b, n) float32 of the queries `rows` (b,)."""
        cosines = ops.similarity(self._query[rows], self._gallery)
        began = time.perf_counter()
        found = correct(cosines, self._term)
        self.seconds += time.perf_counter() - began
        return found


def scorer_of(
    settings: After, query: Vectors, gallery: Vectors, query_ids: Sequence[str], gallery_ids: Sequence[str],
    bank: Vectors | None = None,
) -> Scorer:  # fmt: skip
    """The scores that settings ask for.

    Args:
        settings: of one of the methods.
        query, gallery, query_ids, gallery_ids: see `Reranker`.
        bank: (b, d), for a hubness correction; the queries themselves where its settings are transductive.

    Raises:
        IsthmusError: see `Reranker`; or a hubness correction without a bank.
    """
    if isinstance(settings, KReciprocal):
        return Reranker(query, gallery, query_ids, gallery_ids, settings)
    if isinstance(settings, AlphaQE):
        return Expander(query, gallery, query_ids, gallery_ids, settings)
    if bank is None and not settings.transductive:
        raise IsthmusError(f"{settings.method} needs a bank: embeddings of {settings.bank} images of the query domain.")
    return Corrector(query, gallery, query_ids, gallery_ids, settings, query if bank is None else bank)
