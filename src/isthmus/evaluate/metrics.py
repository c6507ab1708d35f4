"""Retrieval metrics by label or identity, with chance, intervals and the values of each query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import RECALLS, Cutoffs, chance_scores, curves, query_values
from isthmus.evaluate.intervals import bootstrap_intervals
from isthmus.evaluate.ranking import Floats, Ints, cosine_scores, floating, ranked_blocks, relevance_codes


@dataclass(frozen=True)
class RetrievalResult:
    """What one direction scores.

    Attributes:
        scores: name -> value in [0, 1].
        chance: name -> what a random order of this gallery scores on average, exactly.
        intervals: name -> bootstrap 95 % interval over queries.
        per_query: name -> (m,) values of the m queries that have a relevant item; for `Prec@k` the hits.
        weights: name -> (m,) denominators of the ratio metrics `Prec@k`; every other score is the mean of its values.
        kept: (m,) positions of these queries among all.
        relevant: (m,) how many relevant items they have.
        first_ranks: (m,) rank of the first one, from which the CMC curve follows.
        precision_at_recall: (20,) mean precision at the recalls 0.05, 0.1, ... 1, not interpolated.
        top: (m, t) gallery positions of their first hits, `top_scores` (m, t) the similarities.
        n_queries: all queries asked, those left out included.
        n_gallery: gallery items.
        n_left_out: queries without any relevant gallery item; no score counts them.
        tie_share: share of the kept queries in which a relevant item ties with one that is not, so that the hash of
            the id decided between them.
        protocol: all of that in a sentence.
    """

    scores: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_query: dict[str, Floats]
    weights: dict[str, Floats]
    kept: Ints
    relevant: Ints
    first_ranks: Ints
    precision_at_recall: Floats
    top: Ints
    top_scores: Floats
    n_queries: int
    n_gallery: int
    n_left_out: int
    tie_share: float
    protocol: str


def retrieval_metrics(
    query: Tensor | NDArray[Any],
    gallery: Tensor | NDArray[Any],
    query_labels: Sequence[str | None],
    gallery_labels: Sequence[str | None],
    *,
    gallery_ids: Sequence[str],
    ks: Cutoffs = Cutoffs(),
    bootstrap: int = 1000,
    seed: int = 0,
    block: int | None = None,
    top: int = 0,
) -> RetrievalResult:
    """Rank the gallery for each query by cosine similarity and measure.

    Ties are broken by a fixed hash of the gallery item's id, so neither the gallery's order nor the block size changes
    a score. Similarities are held a block at a time: about 130 MB over the inputs for 50,000 gallery items.

    Args:
        query: (q, d); any length, zero vectors have similarity 0.
        gallery: (n, d).
        query_labels: q labels or identities; None is relevant to nothing.
        gallery_labels: n of them.
        gallery_ids: n ids, which break ties.
        ks: the cutoffs.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples.
        block: query rows a block of similarities; chosen by memory if None.
        top: how many first hits of each query to keep.

    Raises:
        IsthmusError: lengths that do not fit, a NaN, or no query with a relevant gallery item.

    Example:
        >>> result = retrieval_metrics(torch.eye(2), torch.eye(2), ["a", "b"], ["a", "b"], gallery_ids=["1", "2"])
        >>> result.scores["mAP@all"], result.chance["mAP@all"]
        (1.0, 0.75)
    """
    scores_of, q, g = cosine_scores(query, gallery)
    return metrics_of_scores(
        scores_of, query_labels, gallery_labels, gallery_ids, len(q), len(g), q.device,
        "cosine similarity", ks, bootstrap, seed, block, top,
    )  # fmt: skip


def metrics_from_similarities(
    similarities: Tensor | NDArray[Any],
    query_labels: Sequence[str | None],
    gallery_labels: Sequence[str | None],
    *,
    gallery_ids: Sequence[str],
    ks: Cutoffs = Cutoffs(),
    bootstrap: int = 1000,
    seed: int = 0,
    block: int | None = None,
    top: int = 0,
) -> RetrievalResult:
    """The same from similarities (q, n) that are there already, such as re-ranked ones: higher is nearer.

    Float32 is ranked by the fast kernel, float64 by a stable sort; sums are float64 in both.
    """
    s = floating(similarities)
    if s.ndim != 2:
        raise IsthmusError(f"Similarities are a table of queries by gallery items, not of the shape {tuple(s.shape)}.")
    return metrics_of_scores(
        lambda rows: s[rows], query_labels, gallery_labels, gallery_ids, s.shape[0], s.shape[1], s.device,
        "given similarities", ks, bootstrap, seed, block, top,
    )  # fmt: skip


def metrics_of_scores(
    scores_of: Callable[[Tensor], Tensor],
    query_labels: Sequence[str | None],
    gallery_labels: Sequence[str | None],
    gallery_ids: Sequence[str],
    q: int,
    n: int,
    device: torch.device,
    measure: str,
    ks: Cutoffs,
    draws: int,
    seed: int,
    block: int | None,
    top: int,
) -> RetrievalResult:
    """The same of q queries and n gallery items whose scores a function gives, a block of queries at a time.

    Args:
        scores_of: (b,) positions of queries -> (b, n) scores on `device`, higher is nearer.
        measure: what these scores are, for the protocol.
        draws: resamples for the intervals.
    """
    if len(query_labels) != q or len(gallery_labels) != n or len(gallery_ids) != n:
        raise IsthmusError(
            f"{q} queries with {len(query_labels)} labels and {n} gallery items with {len(gallery_labels)} labels and "
            f"{len(gallery_ids)} ids do not fit together; give one of each an item."
        )
    query_codes, gallery_codes, kept, relevant = relevance_codes(query_labels, gallery_labels)
    kept_here = torch.from_numpy(kept).to(device)
    chance = chance_scores(n, relevant, ks)
    m, top = len(kept), min(top, n)
    # One table each from the start: small arrays kept from every block would lie between the freed blocks of the heap
    # and keep it from shrinking, which cost 0.5 GB at 2,000 x 50,000.
    per_query = {name: np.empty(m) for name in chance}
    tied, first_ranks, precision = np.empty(m, dtype=np.bool_), np.empty(m, dtype=np.int64), np.zeros(len(RECALLS))
    first, first_scores = np.empty((m, top), dtype=np.int64), np.empty((m, top))
    for rows, hits in ranked_blocks(
        lambda part: scores_of(kept_here[part]),
        torch.from_numpy(query_codes[kept]).to(device),
        torch.from_numpy(gallery_codes).to(device),
        ops.tie_keys(gallery_ids).to(device),
        block=block,
        top=top,
    ):
        for name, column in query_values(hits, relevant[rows], ks).items():
            per_query[name][rows] = column
        first_ranks[rows], curve = curves(hits, relevant[rows])
        precision += curve.sum(axis=0) / m
        tied[rows], first[rows], first_scores[rows] = hits.tied, hits.top, hits.top_scores
    weights = {f"Prec@{k}": np.minimum(k, relevant).astype(np.float64) for k in ks.micro}
    values = np.stack(list(per_query.values()), axis=1)
    ones = np.ones(m)
    denominators = np.stack([weights.get(name, ones) for name in per_query], axis=1)
    means = values.sum(axis=0) / denominators.sum(axis=0)
    intervals: dict[str, tuple[float, float]] = {}
    if draws:
        low, high = bootstrap_intervals(values, denominators, draws=draws, seed=seed)
        intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(per_query)}
    tie_share = float(tied.mean())
    return RetrievalResult(
        scores={name: float(means[i]) for i, name in enumerate(per_query)},
        chance=chance,
        intervals=intervals,
        per_query=per_query,
        weights=weights,
        kept=kept,
        relevant=relevant,
        first_ranks=first_ranks,
        precision_at_recall=precision,
        top=first,
        top_scores=first_scores,
        n_queries=q,
        n_gallery=n,
        n_left_out=q - m,
        tie_share=tie_share,
        protocol=(
            f"{measure}; {m} queries against {n} gallery items, {q - m} of {q} queries left out for want of "
            f"a relevant item; ties by a hash of the item's id, deciding in {tie_share:.1%} of queries; Prec@k = hits "
            "in the top min(k, relevant) over their number, summed over queries; mAP@k divided by min(k, relevant)"
            + ("; mAP@khits stops at the first k hits and is no mAP" if ks.first else "")
            + (f"; 95 % intervals from {draws} bootstrap resamples of the queries, seed {seed}" if draws else "")
        ),
    )
