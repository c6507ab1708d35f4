"""From results to a row of the table: what is relevant, which images could be read, what is kept of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.evaluate.metrics import RetrievalResult
from isthmus.evaluate.outcome import MOST_QUERIES, Hit, Side

Vectors = Tensor | NDArray[Any]
COMPARED = ("mAP@all", "mAP@200", "P@200", "Prec@1", "Prec@5", "Prec@15", "R@1", "R@5", "R@10", "R@20", "mINP")


def relevance(queries: Sequence[Row], gallery: Sequence[Row]) -> Literal["label", "identity"]:
    """Labels where the two sides share one, identities where they share one of those, else an error."""
    for by in ("label", "identity"):
        shared = {getattr(row, by) for row in queries} & {getattr(row, by) for row in gallery}
        if shared - {None}:
            return "label" if by == "label" else "identity"
    raise IsthmusError(
        "The queries and the gallery share neither a label nor an identity, so nothing can be measured; give both "
        "domains subfolders, lists or a table with the same names."
    )


def finite_rows(parts: Sequence[Vectors]) -> Tensor:
    """(n,) bool: which rows are finite in each of several embeddings (n, d) of the same images."""
    return torch.stack([torch.as_tensor(part).isfinite().all(dim=1).cpu() for part in parts]).all(dim=0)


def readable(
    embedded: Mapping[str, tuple[Vectors, Vectors]], setting: str, queries: Manifest, gallery: Manifest
) -> tuple[list[list[Row]], list[Tensor]]:
    """Rows and vectors of both sides whose images could be read in every setting, as `evaluate_embeddings` takes them.

    Args:
        embedded: (n, d) and (m, d) by setting.
        setting: whose vectors to give.
        queries, gallery: n and m rows.
    """
    read = [finite_rows([pair[side] for pair in embedded.values()]) for side in (0, 1)]
    rows = [
        [row for row, ok in zip(part, kept.tolist(), strict=True) if ok]
        for part, kept in zip((queries, gallery), read, strict=True)
    ]
    return rows, [torch.as_tensor(part)[kept] for part, kept in zip(embedded[setting], read, strict=True)]


def side_of(
    result: RetrievalResult,
    setting: str,
    asks: Sequence[Row],
    answers: Sequence[Row],
    wanted: Sequence[str | None],
    offered: Sequence[str | None],
) -> Side:
    """The row of the table that a direction's result is.

    Args:
        result: of `retrieval_metrics` or `metrics_of_scores`.
        setting: the row's name.
        asks, answers: the rows of the queries and of the gallery.
        wanted, offered: their labels or identities.
    """
    kept = result.kept.tolist()
    shown = np.unique(np.linspace(0, len(kept) - 1, min(MOST_QUERIES, len(kept))).round().astype(int))
    hits = {
        asks[kept[i]].id: [
            Hit(answers[j].id, score, offered[j] == wanted[kept[i]])
            for j, score in zip(result.top[i].tolist(), result.top_scores[i].tolist(), strict=True)
        ]
        for i in shown.tolist()
    }
    return Side(
        direction=f"{asks[0].domain}->{answers[0].domain}",
        setting=setting,
        scores=result.scores,
        chance=result.chance,
        intervals=result.intervals,
        n_queries=result.n_queries,
        n_gallery=result.n_gallery,
        n_left_out=result.n_left_out,
        tie_share=result.tie_share,
        protocol=result.protocol,
        query_ids=[asks[i].id for i in kept],
        query_labels=[str(wanted[i]) for i in kept],
        relevant=result.relevant.tolist(),
        per_query={name: result.per_query[name].tolist() for name in COMPARED if name in result.per_query},
        hits=hits,
        precision_at_recall=result.precision_at_recall.tolist(),
        first_ranks=result.first_ranks.tolist(),
    )
