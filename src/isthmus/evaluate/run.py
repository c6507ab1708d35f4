"""Evaluate embeddings or a model in both directions: what `isthmus evaluate` shows, stores and compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from isthmus.data.manifest import Manifest
from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.evaluate.outcome import MOST_HITS, Evaluation, Hit, Side
from isthmus.evaluate.sides import Vectors, finite_rows, relevance, side_of

if TYPE_CHECKING:
    from isthmus.models.encoder import Model

By = Literal["label", "identity", "auto"]

__all__ = ["Evaluation", "Hit", "Side", "embed_domains", "evaluate_embeddings", "evaluate_model", "relevance"]


def evaluate_embeddings(
    query: Vectors,
    gallery: Vectors,
    queries: Manifest,
    gallery_rows: Manifest,
    *,
    by: By = "auto",
    setting: str = "plain",
    others: Mapping[str, tuple[Vectors, Vectors]] | None = None,
    ks: Cutoffs = Cutoffs(),
    bootstrap: int = 1000,
    seed: int = 0,
    keep_hits: int = MOST_HITS,
) -> Evaluation:
    """Measure both directions: queries ask the gallery, then the gallery's images ask the queries.

    Args:
        query: (n, d), row i belongs to `queries[i]`; rows with NaN (images that could not be read) are left out.
        gallery: (m, d), likewise of `gallery_rows`.
        queries: n rows.
        gallery_rows: m rows.
        by: what makes an item relevant; `"auto"` takes labels where the domains share some, identities otherwise.
        setting: the name of this pair of embeddings in the table.
        others: further pairs of embeddings of the same rows, by name, such as without centring.
        ks: the cutoffs of the metrics.
        bootstrap: resamples for the intervals; 0 for none.
        seed: of the resamples.
        keep_hits: first hits kept for each query, at most 10.

    Raises:
        IsthmusError: sizes that do not fit, or no label or identity in common.

    Example:
        >>> rows = lambda d: Manifest([Row(f"{d}/{i}", f"/{i}", d, label=i) for i in "ab"])
        >>> evaluation = evaluate_embeddings(torch.eye(2), torch.eye(2), rows("sketch"), rows("photo"))
        >>> evaluation.primary, evaluation.scores[evaluation.primary]
        ('mean/Prec@1', 1.0)
    """
    if len(query) != len(queries) or len(gallery) != len(gallery_rows):
        raise IsthmusError(
            f"{len(query)} and {len(gallery)} embeddings for {len(queries)} queries and {len(gallery_rows)} gallery "
            "images do not fit; give one each."
        )
    pairs = {setting: (query, gallery), **(others or {})}
    read_q, read_g = (finite_rows([pair[side] for pair in pairs.values()]) for side in (0, 1))
    read = [list(zip(queries, read_q.tolist(), strict=True)), list(zip(gallery_rows, read_g.tolist(), strict=True))]
    rows = [[row for row, ok in part if ok] for part in read]
    skipped = [row.id for part in read for row, ok in part if not ok]
    if not rows[0] or not rows[1]:
        raise IsthmusError("One of the two domains has no image that could be read; look at the list of bad images.")
    by = relevance(rows[0], rows[1]) if by == "auto" else by
    sides: list[Side] = []
    scores: dict[str, float] = {}
    for name, (q, g) in pairs.items():
        vectors = [torch.as_tensor(q)[read_q], torch.as_tensor(g)[read_g]]
        mark = "" if name == setting else f" ({name})"
        both = []
        for asks, answers in ((0, 1), (1, 0)):
            keys = [[getattr(row, by) for row in part] for part in rows]
            result = retrieval_metrics(
                vectors[asks], vectors[answers], keys[asks], keys[answers],
                gallery_ids=[row.id for row in rows[answers]], ks=ks, bootstrap=bootstrap, seed=seed,
                top=min(keep_hits, MOST_HITS),
            )  # fmt: skip
            both.append(side_of(result, name, rows[asks], rows[answers], keys[asks], keys[answers]))
        for side in both:
            scores |= {f"{side.direction}{mark}/{metric}": value for metric, value in side.scores.items()}
        scores |= {f"mean{mark}/{m}": (both[0].scores[m] + both[1].scores[m]) / 2 for m in both[0].scores}
        sides += both
    metric = "Prec@1" if by == "label" else "R@1"
    if f"mean/{metric}" not in scores:
        raise IsthmusError(f"The main figure {metric} is not among the cutoffs; add 1 to them.")
    protocol = f"relevant = same {by}" + "".join(f"; {side.direction}: {side.protocol}" for side in sides[:2])
    if skipped:
        protocol += f"; {len(skipped)} images could not be read and were left out"
    return Evaluation(scores, f"mean/{metric}", by, sides, protocol, skipped)


def embed_domains(
    model: Model,
    queries: Manifest,
    gallery: Manifest,
    *,
    centring: bool | None = None,
    batch_size: int = 64,
    workers: int = 2,
    progress: bool = False,
    on_bad: Literal["raise", "skip"] = "raise",
) -> dict[str, tuple[Vectors, Vectors]]:
    """Embed the images of both domains once: (n, d) and (m, d) for each setting, the main one first.

    Arguments and errors as of `evaluate_model`; a skipped image is a row of NaN.
    """
    plain: list[Tensor] = []
    for domain, rows in zip(model.domains, (queries, gallery), strict=True):
        if not len(rows):
            raise IsthmusError(f"There are no {domain} images to evaluate on; check the split and the folder.")
        vectors = model.encode(
            [row.path for row in rows], domain=domain, batch_size=batch_size, workers=workers, centring=False,
            progress=progress, on_bad=on_bad,
        )  # fmt: skip
        plain.append(torch.from_numpy(vectors))
    pairs: dict[str, tuple[Vectors, Vectors]] = {"plain": (plain[0], plain[1])}
    if bool(model.means.any()) and centring is not False:
        pairs["centred"] = (model.centre(plain[0], 0), model.centre(plain[1], 1))
    elif centring:
        raise IsthmusError("This model has no training means to centre with; evaluate it with centring off.")
    main = "centred" if "centred" in pairs and (model.centring if centring is None else centring) else "plain"
    main_pair = pairs.pop(main)
    return {main: main_pair, **(pairs if centring is None else {})}


def evaluate_model(
    model: Model,
    queries: Manifest,
    gallery: Manifest,
    *,
    by: By = "auto",
    centring: bool | None = None,
    ks: Cutoffs = Cutoffs(),
    bootstrap: int = 1000,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 2,
    progress: bool = False,
    on_bad: Literal["raise", "skip"] = "raise",
    embedded: Mapping[str, tuple[Vectors, Vectors]] | None = None,
) -> Evaluation:
    """Embed the images of both domains once and measure both directions, with and without centring.

    Args:
        model: its `domains` name the query and the gallery domain.
        queries: rows of the query domain, such as the test split.
        gallery: rows of the gallery domain.
        by: see `evaluate_embeddings`.
        centring: True or False for that row alone; None for both rows, the model's own setting as the main one. A model
            without training means has only the plain row.
        ks, bootstrap, seed: see `evaluate_embeddings`.
        batch_size, workers, progress, on_bad: see `Model.encode`. Skipped images are left out and listed.
        embedded: what `embed_domains` gave for the same images, where it is needed for more than this.

    Raises:
        IsthmusError: a domain is empty, an image is unreadable (`on_bad="raise"`), or nothing is relevant.
    """
    pairs = dict(
        embedded
        if embedded is not None
        else embed_domains(
            model, queries, gallery, centring=centring, batch_size=batch_size, workers=workers, progress=progress,
            on_bad=on_bad,
        )
    )  # fmt: skip
    main = next(iter(pairs))
    result = evaluate_embeddings(
        *pairs.pop(main), queries, gallery, by=by, setting=main, others=pairs, ks=ks, bootstrap=bootstrap, seed=seed
    )
    return Evaluation(**{**vars(result), "model": model.fingerprint})
