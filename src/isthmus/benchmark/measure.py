"""What is measured of a finished run on the test split, as one small JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest, Row
from isthmus.data.paired import identity_of
from isthmus.evaluate.attributes import score_attributes
from isthmus.evaluate.human import embedding_agreement, read_triplets
from isthmus.evaluate.outcome import Side
from isthmus.evaluate.probe import FEWEST, separability
from isthmus.evaluate.run import evaluate_embeddings
from isthmus.io import read_json
from isthmus.models.encoder import Model
from isthmus.models.ihda import IhdaModel

METRICS = ("R@1", "R@5", "R@10", "R@20", "mAP@all", "mINP")
HALVINGS = 5  # of the domain probe


@dataclass(frozen=True)
class MeasureIhda:
    """`measure` with a table of test images and human triplets, to be sent to another process."""

    table: Path
    triplets: Path | None = None

    def __call__(self, run: Path, workers: int) -> dict[str, Any]:
        """See `measure`."""
        return measure(run, Manifest.load(self.table), self.triplets, workers)


def test_rows(table: Manifest, domain: str) -> list[Row]:
    """The test images of a domain, each with its identity."""
    rows = table.select(domain=domain, split="test", real=True)
    return [replace(row, identity=identity_of(row)) for row in rows]


def measure(run: Path, table: Manifest, triplets: Path | None, workers: int) -> dict[str, Any]:
    """Retrieval in both directions and settings, attributes read, domains told apart, agreement with people.

    Args:
        run: folder of a finished run.
        table: with the test images of both domains.
        triplets: CSV of human triplets, or None.
        workers: decoding threads.

    Returns:
        Plain values; `sides` hold the rank of each test image's first relevant image, null where it has none.
    """
    model = Model.load(run)
    rows = [test_rows(table, name) for name in model.domains]
    vectors = [
        torch.from_numpy(model.encode([row.path for row in part], domain=name, workers=workers, centring=False))
        for name, part in zip(model.domains, rows, strict=True)
    ]
    pairs = {"plain": (vectors[0], vectors[1])}
    if bool(model.means.any()):
        pairs["centred"] = (model.centre(vectors[0], 0), model.centre(vectors[1], 1))
    main = "centred" if model.centring and "centred" in pairs else "plain"
    query, gallery = pairs.pop(main)
    evaluation = evaluate_embeddings(
        query, gallery, Manifest(rows[0]), Manifest(rows[1]), by="identity", setting=main, others=dict(pairs),
        bootstrap=0, keep_hits=0,
    )  # fmt: skip
    asked = {f"{model.domains[0]}->{model.domains[1]}": rows[0], f"{model.domains[1]}->{model.domains[0]}": rows[1]}
    return {
        "setting": main,
        "sides": [_side(side, asked[side.direction]) for side in evaluation.sides],
        "attributes": _attributes(run, rows, workers),
        "probe": _probe(vectors, rows),
        "human": _human(triplets, query, gallery, rows),
    }


def _side(side: Side, asked: Sequence[Row]) -> dict[str, Any]:
    ranks = dict(zip(side.query_ids, side.first_ranks, strict=True))
    values = {
        "direction": side.direction,
        "setting": side.setting,
        "scores": {name: side.scores[name] for name in METRICS},
        "chance": {name: side.chance[name] for name in METRICS},
        "n_gallery": side.n_gallery,
        "ranks": [ranks.get(row.id) for row in asked],
    }
    if max(side.relevant) > 1:  # with one relevant image average precision is 1 / rank
        precision = dict(zip(side.query_ids, side.per_query["mAP@all"], strict=True))
        values["precision"] = [None if row.id not in precision else round(precision[row.id], 5) for row in asked]
    return values


def _attributes(run: Path, rows: list[list[Row]], workers: int) -> dict[str, Any] | None:
    if not read_json(run / "model" / "config.json").get("attributes"):
        return None  # a row that saw no source has no head
    model = IhdaModel.load(run)
    looks = model.preprocessing.filters_of(list(model.domains))
    source = ImageSource(model.preprocessing, 0, looks)
    found = {}
    for domain, name in enumerate(model.domains):
        scores = score_attributes(
            model.attribute_probabilities, model.attributes, rows[domain], source=source, domain=domain, workers=workers
        )
        found[name] = {
            "means": scores.means,
            "n": scores.n_images,
            "balanced_accuracy": {one.name: round(one.balanced_accuracy, 4) for one in scores.scores},
            "accuracy": {one.name: round(one.accuracy, 4) for one in scores.scores},
        }
    return found


def _probe(vectors: list[torch.Tensor], rows: list[list[Row]]) -> dict[str, Any] | None:
    """Whether a fresh linear probe tells the domains apart, on unit vectors that nothing was subtracted from."""
    if min(map(len, vectors)) < FEWEST:
        return None
    names = [[row.identity for row in part] for part in rows]
    found = separability(vectors[1], vectors[0], names[1], names[0], halvings=HALVINGS)
    return {"balanced_accuracy": found.accuracy, "deviation": found.deviation, "n": list(found.n)}


def _human(
    triplets: Path | None, query: torch.Tensor, gallery: torch.Tensor, rows: list[list[Row]]
) -> dict[str, Any] | None:
    if triplets is None:
        return None
    ids = [[row.id for row in part] for part in rows]
    told = read_triplets(triplets)
    known = [set(part) for part in ids]
    inside = [one for one in told if one.query in known[0] and one.nearer in known[1] and one.farther in known[1]]
    if not inside:
        return None  # a re-split may have none
    found = embedding_agreement(query, gallery, ids[0], ids[1], inside, bootstrap=0)
    return {"agreement": found.value, "n": found.n_triplets, "queries": found.n_queries}


def queries_of(table: Manifest, names: tuple[str, str]) -> dict[str, dict[str, list[str]]]:
    """By direction the ids and identities that `ranks` stand for."""
    found = {}
    for asks, answers in (names, names[::-1]):
        rows = test_rows(table, asks)
        found[f"{asks}->{answers}"] = {
            "ids": [row.id for row in rows],
            "identities": [str(row.identity) for row in rows],
        }
    return found
