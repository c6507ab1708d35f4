"""Other papers' variants of mAP and P@k, each under a name of its own, to be set beside figures found elsewhere.

With the ranks m_1 < m_2 < ... of a query's R relevant items among n, and the precision p_i = i / m_i at hit i:

    mAP@k/k                      sum of p_i over m_i <= k, over k
    mAP@k/found                  the same over the number of hits in the top k, 0 where there is none
    mAP 11-point (VOC 2007)      mean over t = 0, 0.1, ... 1 of the best precision at a recall of t or more
    mAP all-point (VOC 2010)     mean over the hits i of the best precision at hit i or behind it
    mAP@khits (data-free-sbir)   mean of p_i over the first k hits, of all where there are fewer (`formulas.first_hits`)
    P@k/min(k, gallery)          hits in the top k over min(k, n)

VOC is Everingham et al. (IJCV 2010) and the development kit of 2010. mAP@all, mAP@k (over min(k, R)) and P@k (over k)
are this package's own figures and stand beside them. `one_per.py` has the gallery of one photo for each sketch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from isthmus import ops
from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs, average_precision, chance_scores, first_hits, query_values
from isthmus.evaluate.intervals import bootstrap_intervals
from isthmus.evaluate.one_per import OnePer, one_per_key
from isthmus.evaluate.outcome import Evaluation
from isthmus.evaluate.ranking import Floats, Hits, Ints, cosine_scores, ranked_blocks, relevance_codes
from isthmus.evaluate.sides import Vectors, readable

AVERAGE, PRECISION, FIRST = (200,), (100, 200), (10,)
OWN = Cutoffs(precision=PRECISION, micro=(), average=AVERAGE, recall=(), gain=(), first=FIRST)
ELEVEN, ALL_POINT = "mAP 11-point (VOC 2007)", "mAP all-point (VOC 2010)"
# In the order of a table: each figure of this package is followed by what varies it.
NAMES = (
    "mAP@all", ELEVEN, ALL_POINT, *(first_hits(k) for k in FIRST),
    *(f"mAP@{k}{tail}" for k in AVERAGE for tail in ("", "/found", "/k")),
    *(f"P@{k}{tail}" for k in PRECISION for tail in ("", "/min(k, gallery)")),
)  # fmt: skip
HOUSE = ("mAP@all", *(f"mAP@{k}" for k in AVERAGE), *(f"P@{k}" for k in PRECISION))
DRAWS = 4000  # random orders in all, for the chance of the interpolated figures


def variant_values(hits: Hits, relevant: Ints, n: int) -> dict[str, Floats]:
    """The variants and the figures that they vary, of each query of a block.

    Args:
        hits: ranks of the relevant items of b queries.
        relevant: (b,) how many each has, at least 1.
        n: gallery items.
    """
    found = query_values(hits, relevant, OWN)
    found[ALL_POINT], found[ELEVEN] = interpolated(hits, relevant)
    for k in AVERAGE:
        found[f"mAP@{k}/k"] = found[f"mAP@{k}"] * np.minimum(k, relevant) / k
    for k in PRECISION:
        found[f"P@{k}/min(k, gallery)"] = found[f"P@{k}"] * k / min(k, n)
    return {name: found[name] for name in NAMES}


def interpolated(hits: Hits, relevant: Ints) -> tuple[Floats, Floats]:
    """All-point (VOC 2010) and 11-point (VOC 2007) interpolated average precision of each query: (b,) and (b,).

    Recalls are compared as whole numbers (10 i >= t R), so that no rounding decides whether hit 3 of 10 has recall 0.3.
    """
    ends = np.cumsum(relevant)
    starts = ends - relevant
    best = (np.arange(1, len(hits.rows) + 1) - starts[hits.rows]) / hits.ranks
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        best[start:end] = np.maximum.accumulate(best[start:end][::-1])[::-1]
    everywhere = np.bincount(hits.rows, best, minlength=len(relevant)) / relevant
    needed = np.maximum(1, -(-np.arange(11) * relevant[:, None] // 10))
    return everywhere, best[starts[:, None] + needed - 1].mean(axis=1)


def variant_chance(n: int, relevant: Ints) -> dict[str, float]:
    """What a random order scores on average: exact, but for the interpolated figures, which are drawn (`DRAWS`)."""
    r, times = np.unique(relevant, return_counts=True)
    found = chance_scores(n, relevant, OWN)
    share = max(20, DRAWS // len(r))
    drawn = np.array([_drawn(n, one, max(4, min(share, (1 << 21) // one))) for one in r.tolist()])
    found[ALL_POINT], found[ELEVEN] = (float(np.average(part, weights=times)) for part in drawn.T)
    for k in AVERAGE:
        found[f"mAP@{k}/k"] = float(np.average(average_precision(n, r, k) * np.minimum(k, r) / k, weights=times))
    for k in PRECISION:
        found[f"P@{k}/min(k, gallery)"] = found[f"P@{k}"] * k / min(k, n)
    return {name: found[name] for name in NAMES}


def _drawn(n: int, r: int, draws: int) -> tuple[float, float]:
    if r == 1:  # both are 1 / rank then
        exact = float((1.0 / np.arange(1, n + 1)).mean())
        return exact, exact
    rng = np.random.default_rng(0)
    ranks = np.concatenate([np.sort(rng.choice(n, r, replace=False, shuffle=False)) + 1 for _ in range(draws)])
    rows, none = np.repeat(np.arange(draws), r), np.empty((draws, 0))
    hits = Hits(rows, ranks, np.zeros(draws, dtype=np.bool_), none.astype(np.int64), none)
    everywhere, eleven = interpolated(hits, np.full(draws, r))
    return float(everywhere.mean()), float(eleven.mean())


@dataclass(frozen=True)
class VariantSide:
    """The variants of one direction.

    Attributes:
        direction: such as `"sketch->photo"`.
        scores, chance, intervals: by the variant's name; the package's own figures among them.
        one_per: the gallery of one item for each label or identity.
        n_queries: with a relevant item; n_gallery: items.
    """

    direction: str
    scores: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    one_per: OnePer
    n_queries: int
    n_gallery: int


@dataclass(frozen=True)
class Variants:
    """Other papers' variants in both directions, for the main setting.

    Attributes:
        setting: such as `"centred"`.
        by: what makes an item relevant.
        sides: both directions.
    """

    setting: str
    by: str
    sides: list[VariantSide]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def figures(self) -> dict[str, float]:
        """By direction and name, such as `sketch->photo/mAP@200/k`."""
        found = {f"{side.direction}/{name}": value for side in self.sides for name, value in side.scores.items()}
        for side in self.sides:
            found |= {f"{side.direction}/one per {self.by}/{n}": mean for n, (mean, _) in side.one_per.scores.items()}
        return found


def variant_metrics(
    query: Vectors, gallery: Vectors, query_keys: Sequence[str | None], gallery_keys: Sequence[str | None], *,
    gallery_ids: Sequence[str], direction: str = "", bootstrap: int = 1000, seed: int = 0,
) -> VariantSide:  # fmt: skip
    """The variants of one direction, by cosine similarity, in blocks of bounded memory.

    Args:
        query: (q, d); gallery: (n, d); any length.
        query_keys, gallery_keys: labels or identities; None is relevant to nothing.
        gallery_ids: n ids, which break ties as in `retrieval_metrics`.
        direction: what to call it.
        bootstrap: resamples for the 95 % intervals; 0 for none.
        seed: of the resamples and of the items of the small gallery.

    Raises:
        IsthmusError: lengths that do not fit, a NaN, or no query with a relevant gallery item.

    Example:
        >>> side = variant_metrics(torch.eye(2), torch.eye(2), ["a", "b"], ["a", "b"], gallery_ids=["1", "2"])
        >>> side.scores["mAP@200"], side.scores["mAP@200/k"], side.scores["P@100/min(k, gallery)"]
        (1.0, 0.005, 0.5)
    """
    scores_of, q, g = cosine_scores(query, gallery)
    if (len(query_keys), len(gallery_keys), len(gallery_ids)) != (len(q), len(g), len(g)):
        raise IsthmusError("Vectors, labels and ids do not fit together; give one of each an item.")
    asked, offered, kept, relevant = relevance_codes(query_keys, gallery_keys)
    here, chance = torch.from_numpy(kept).to(q.device), variant_chance(len(g), relevant)
    per_query = {name: np.empty(len(kept)) for name in chance}
    for rows, hits in ranked_blocks(
        lambda part: scores_of(here[part]), torch.from_numpy(asked[kept]).to(q.device),
        torch.from_numpy(offered).to(q.device), ops.tie_keys(gallery_ids).to(q.device),
    ):  # fmt: skip
        for name, values in variant_values(hits, relevant[rows], len(g)).items():
            per_query[name][rows] = values
    table = np.stack(list(per_query.values()), axis=1)
    intervals = {}
    if bootstrap:
        low, high = bootstrap_intervals(table, draws=bootstrap, seed=seed)
        intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(per_query)}
    small = one_per_key(q, g, query_keys, gallery_keys, gallery_ids=gallery_ids, seed=seed)
    means = table.sum(axis=0) / len(kept)  # as `metrics_of_scores` sums up, to the last bit
    scores = {name: float(means[i]) for i, name in enumerate(per_query)}
    return VariantSide(direction, scores, chance, intervals, small, len(kept), len(g))


def variants_of(
    evaluation: Evaluation, embedded: Mapping[str, tuple[Vectors, Vectors]], queries: Manifest, gallery: Manifest, *,
    bootstrap: int = 1000, seed: int = 0,
) -> Variants:  # fmt: skip
    """The variants of an evaluation's main setting; arguments as of `add_reranked`.

    Raises:
        IsthmusError: the embeddings lack the evaluation's main setting.
    """
    base = evaluation.sides[0].setting
    if base not in embedded:
        raise IsthmusError(f"The embeddings lack the evaluation's setting '{base}'.")
    rows, vectors = readable(embedded, base, queries, gallery)
    keys = [[getattr(row, evaluation.by) for row in part] for part in rows]
    sides = [
        variant_metrics(
            vectors[a], vectors[b], keys[a], keys[b], gallery_ids=[row.id for row in rows[b]],
            direction=f"{rows[a][0].domain}->{rows[b][0].domain}", bootstrap=bootstrap, seed=seed,
        )
        for a, b in ((0, 1), (1, 0))
    ]  # fmt: skip
    return Variants(base, evaluation.by, sides)
