"""Rows of what follows the ranking, beside those of an evaluation: same metrics and queries, names of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.after import After
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.hubness import OCCURRENCES, occurrences, skewness
from isthmus.evaluate.metrics import RetrievalResult, metrics_of_scores, retrieval_metrics
from isthmus.evaluate.outcome import MOST_HITS, Evaluation
from isthmus.evaluate.scorers import scorer_of
from isthmus.evaluate.sides import Vectors, readable, side_of


@dataclass(frozen=True)
class Bank:
    """Embeddings of queries that are not asked, to measure hubs with.

    Attributes:
        vectors: (b, d), in the setting that is re-ranked; rows of NaN are left out.
        seconds: that embedding them took; once for a model, however many galleries follow.
    """

    vectors: Vectors
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What re-ranking one direction took, and what it did to hubs.

    Attributes:
        ranking_seconds: of ranking and measuring without it, in the same process, intervals left out.
        reranking_seconds: on top of that.
        held_bytes: held besides the vectors and the blocks, such as a graph.
        bank_images: queries of the bank; 0 where none was embedded for it.
        bank_seconds: of embedding them.
        hubness: skewness of N_10 before and after, over the queries that have a relevant item; see
            `isthmus.evaluate.hubness`.
    """

    ranking_seconds: float
    reranking_seconds: float
    held_bytes: int
    bank_images: int
    bank_seconds: float
    hubness: tuple[float, float]

    @property
    def text(self) -> str:
        """In words."""
        bank = f", bank of {self.bank_images} images embedded in {self.bank_seconds:.1f} s" if self.bank_images else ""
        return (
            f"{self.reranking_seconds:.2f} s on top of {self.ranking_seconds:.2f} s of ranking{bank}, "
            f"{self.held_bytes / 1e6:.2f} MB held; hubness (skewness of N_{OCCURRENCES}) {self.hubness[0]:.2f} before, "
            f"{self.hubness[1]:.2f} after"
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

    settings: After
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
    settings: After,
    *,
    banks: tuple[Bank, Bank] | None = None,
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
        banks: of the query and of the gallery domain, for a hubness correction; the images themselves are the bank
            where its settings say transductive.
        ks, bootstrap, seed, keep_hits: as the evaluation was made with.

    Returns:
        The evaluation with rows such as `"<setting>, k-reciprocal"`, whose scores have keys such as
        `"sketch->photo (centred, k-reciprocal)/R@1"`, and what it took.

    Raises:
        IsthmusError: the embeddings lack the evaluation's main setting, a bank is wanting, or see `Reranker`.

    Example:
        >>> more, how = add_reranked(evaluation, embedded, queries, gallery, KReciprocal())     # doctest: +SKIP
        >>> more.side("sketch->photo", how.name).scores["R@1"]                                  # doctest: +SKIP
        0.61
    """
    base = evaluation.sides[0].setting
    if base not in embedded:
        raise IsthmusError(f"The embeddings to re-rank lack the evaluation's setting '{base}'.")
    name = f"{base}, {settings.name}"
    rows, vectors = readable(embedded, base, queries, gallery)
    keys = [[getattr(row, evaluation.by) for row in part] for part in rows]
    ids = [[row.id for row in part] for part in rows]
    sides, costs = [], {}
    for asks, answers in ((0, 1), (1, 0)):
        bank = None if banks is None or settings.transductive else _read(banks[asks])
        began = time.perf_counter()
        before = retrieval_metrics(
            vectors[asks], vectors[answers], keys[asks], keys[answers], gallery_ids=ids[answers], ks=ks, bootstrap=0,
            top=OCCURRENCES,
        )  # fmt: skip
        ranking = time.perf_counter() - began
        others = None if bank is None else bank.vectors
        scorer = scorer_of(settings, vectors[asks], vectors[answers], ids[asks], ids[answers], others)
        result = metrics_of_scores(
            scorer.scores, keys[asks], keys[answers], ids[answers], len(ids[asks]), len(ids[answers]),
            torch.device("cpu"), f"re-ranked similarity ({settings.text})", ks, bootstrap, seed, None, OCCURRENCES,
        )  # fmt: skip
        shown = min(keep_hits, MOST_HITS)
        kept = replace(result, top=result.top[:, :shown], top_scores=result.top_scores[:, :shown])
        side = side_of(kept, name, rows[asks], rows[answers], keys[asks], keys[answers])
        sides.append(side)
        costs[side.direction] = Cost(
            ranking, scorer.seconds, scorer.nbytes, len(bank.vectors) if bank else 0, bank.seconds if bank else 0.0,
            (_hubness(before), _hubness(result)),
        )  # fmt: skip
    scores = {f"{side.direction} ({name})/{metric}": value for side in sides for metric, value in side.scores.items()}
    scores |= {f"mean ({name})/{m}": (sides[0].scores[m] + sides[1].scores[m]) / 2 for m in sides[0].scores}
    found = Evaluation(**{**vars(evaluation), "scores": evaluation.scores | scores, "sides": evaluation.sides + sides})
    return found, Reranked(settings, base, name, costs)


def _read(bank: Bank) -> Bank:
    """The bank without images that could not be read."""
    vectors = torch.as_tensor(bank.vectors)
    return Bank(vectors[vectors.isfinite().all(dim=1)], bank.seconds)


def _hubness(result: RetrievalResult) -> float:
    return skewness(occurrences(result.top, result.n_gallery))
