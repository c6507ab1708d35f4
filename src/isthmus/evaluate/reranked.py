"""Re-ranked rows beside those of an evaluation: same metrics, same queries, under a name of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.metrics import metrics_of_scores, retrieval_metrics
from isthmus.evaluate.outcome import MOST_HITS, Evaluation
from isthmus.evaluate.rerank import KReciprocal, Reranker
from isthmus.evaluate.sides import Vectors, finite_rows, side_of


@dataclass(frozen=True, slots=True)
class Cost:
    """What re-ranking one direction took.

    Attributes:
        ranking_seconds: of ranking and measuring without it, in the same process, intervals left out.
        reranking_seconds: on top of that.
        graph_bytes: held besides the vectors and the blocks.
    """

    ranking_seconds: float
    reranking_seconds: float
    graph_bytes: int

    @property
    def text(self) -> str:
        """In words."""
        return (
            f"{self.reranking_seconds:.2f} s on top of {self.ranking_seconds:.2f} s of ranking, graph of "
            f"{self.graph_bytes / 1e6:.2f} MB"
        )


@dataclass(frozen=True)
class Reranked:
    """How rows of an evaluation were re-ranked.

    Attributes:
        settings: of the method.
        base: name of the rows that were re-ranked, such as `"centred"`.
        name: name of the re-ranked rows, such as `"centred, k-reciprocal"`.
        costs: by direction.
    """

    settings: KReciprocal
    base: str
    name: str
    costs: dict[str, Cost]

    @property
    def text(self) -> str:
        """Settings and cost in a sentence or two."""
        costs = "; ".join(f"{direction} {cost.text}" for direction, cost in self.costs.items())
        return f"Re-ranked ({self.settings.text}) from the row '{self.base}': {costs}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        costs = {direction: asdict(cost) for direction, cost in self.costs.items()}
        return {**self.settings.to_dict(), "of": self.base, "name": self.name, "cost": costs}


def add_reranked(
    evaluation: Evaluation,
    embedded: Mapping[str, tuple[Vectors, Vectors]],
    queries: Manifest,
    gallery: Manifest,
    settings: KReciprocal,
    *,
    ks: Cutoffs = Cutoffs(),
    bootstrap: int = 1000,
    seed: int = 0,
    keep_hits: int = MOST_HITS,
) -> tuple[Evaluation, Reranked]:
    """Re-rank both directions of the main setting and put the rows behind those that are there, which stay as they are.

    Args:
        evaluation: of these embeddings, see `evaluate_embeddings`.
        embedded: (n, d) and (m, d) by setting, all that were evaluated; a row of NaN is an image left out.
        queries: n rows.
        gallery: m rows.
        settings: of the re-ranking.
        ks, bootstrap, seed, keep_hits: as the evaluation was made with.

    Returns:
        The evaluation with the rows `"<setting>, k-reciprocal"`, whose scores have keys such as
        `"sketch->photo (centred, k-reciprocal)/R@1"`, and what it took.

    Raises:
        IsthmusError: the embeddings lack the evaluation's main setting, or see `Reranker`.

    Example:
        >>> more, how = add_reranked(evaluation, embedded, queries, gallery, KReciprocal())     # doctest: +SKIP
        >>> more.side("sketch->photo", how.name).scores["R@1"]                                  # doctest: +SKIP
        0.61
    """
    base = evaluation.sides[0].setting
    if base not in embedded:
        raise IsthmusError(f"The embeddings to re-rank lack the evaluation's setting '{base}'.")
    name = f"{base}, {settings.name}"
    read = [finite_rows([pair[side] for pair in embedded.values()]) for side in (0, 1)]
    rows = [
        [row for row, ok in zip(part, kept.tolist(), strict=True) if ok]
        for part, kept in zip((queries, gallery), read, strict=True)
    ]
    vectors = [torch.as_tensor(part)[kept] for part, kept in zip(embedded[base], read, strict=True)]
    keys = [[getattr(row, evaluation.by) for row in part] for part in rows]
    ids = [[row.id for row in part] for part in rows]
    sides, costs = [], {}
    for asks, answers in ((0, 1), (1, 0)):
        began = time.perf_counter()
        retrieval_metrics(
            vectors[asks], vectors[answers], keys[asks], keys[answers], gallery_ids=ids[answers], ks=ks, bootstrap=0
        )
        ranking = time.perf_counter() - began
        ranker = Reranker(vectors[asks], vectors[answers], ids[asks], ids[answers], settings)
        result = metrics_of_scores(
            ranker.scores, keys[asks], keys[answers], ids[answers], len(ids[asks]), len(ids[answers]),
            torch.device("cpu"), f"re-ranked similarity ({settings.text})", ks, bootstrap, seed, None,
            min(keep_hits, MOST_HITS),
        )  # fmt: skip
        side = side_of(result, name, rows[asks], rows[answers], keys[asks], keys[answers])
        sides.append(side)
        costs[side.direction] = Cost(ranking, ranker.seconds, ranker.nbytes)
    scores = {f"{side.direction} ({name})/{metric}": value for side in sides for metric, value in side.scores.items()}
    scores |= {f"mean ({name})/{m}": (sides[0].scores[m] + sides[1].scores[m]) / 2 for m in sides[0].scores}
    found = Evaluation(**{**vars(evaluation), "scores": evaluation.scores | scores, "sides": evaluation.sides + sides})
    return found, Reranked(settings, base, name, costs)
