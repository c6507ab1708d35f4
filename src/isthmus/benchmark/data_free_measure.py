"""What is measured of a teacher and of a data-free run, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.benchmark.data_free_protocol import started_from
from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource, test_batches
from isthmus.data.manifest import Manifest, Row
from isthmus.evaluate.formulas import Cutoffs, first_hits
from isthmus.evaluate.metrics import RetrievalResult, metrics_from_similarities, retrieval_metrics
from isthmus.methods.classifier import scores
from isthmus.models.classifier import Classifier
from isthmus.models.encoder import Model

TRUNCATED = first_hits(10)
CUT = 200
METRICS = ("mAP@all", f"P@{CUT}", "Prec@1", TRUNCATED)
KNOWN, HELD_OUT = "known", "held-out"


@dataclass(frozen=True)
class MeasureTeacher:
    """A classifier's accuracy on test images.

    Attributes:
        table: test images of both domains.
    """

    table: Path

    def __call__(self, run: Path, workers: int) -> dict[str, Any]:
        """`found`: by domain the accuracy, balanced over classes too, and on how many images of classes it knows."""
        teacher = Classifier.load(run)
        known, by_domain = set(teacher.classes), teacher.kind == "modality"
        found = {}
        for domain in teacher.domains:
            rows = [row for row in Manifest.load(self.table) if row.domain == domain]
            rows = [row for row in rows if (row.domain if by_domain else row.label) in known]
            if rows:
                found[domain] = {**self._scores(teacher, rows, by_domain, workers), "images": len(rows)}
        return {"found": found}

    @torch.inference_mode()
    def _scores(self, teacher: Classifier, rows: list[Row], by_domain: bool, workers: int) -> dict[str, float]:
        place = {name: number for number, name in enumerate(teacher.classes)}
        targets = torch.tensor([place[str(row.domain if by_domain else row.label)] for row in rows])
        network, looks = teacher.network.eval(), teacher.preprocessing
        parts = [
            network(looks.normalise(views).contiguous(memory_format=torch.channels_last)).logits.float()
            for views, _, _ in test_batches(ImageSource(looks), rows, 64, workers)
        ]
        return scores(torch.cat(parts), targets)


@dataclass(frozen=True)
class MeasureRow:
    """Retrieval in both directions among the test images of known classes, and among held-out classes.

    Attributes:
        known, held_out: tables of both domains.
        dot: the embeddings are probabilities, compared by their dot product.
        part: the teachers' probabilities are left out of the vectors.
    """

    known: Path
    held_out: Path | None = None
    dot: bool = False
    part: bool = False

    def __call__(self, run: Path, workers: int) -> dict[str, Any]:
        """`sides`: one for each direction and each set of classes, which is called its `setting`."""
        model = Model.load(run)
        sides: list[dict[str, Any]] = []
        for name, table in ((KNOWN, self.known), (HELD_OUT, self.held_out)):
            if table is not None:
                sides += self._sides(model, Manifest.load(table), name, workers)
        said = {name: model.provenance[name] for name in ("data_free", "students", "images")}
        return {"setting": KNOWN, "sides": sides, **said, "start": started_from(RunConfig.load(run / "config.yaml"))}

    def _sides(self, model: Model, table: Manifest, setting: str, workers: int) -> list[dict[str, Any]]:
        rows = [list(table.select(domain=name)) for name in model.domains]
        vectors = [
            model.encode([row.path for row in part], domain=name, workers=workers)
            for name, part in zip(model.domains, rows, strict=True)
        ]
        if self.dot:
            vectors = [probabilities(part) for part in vectors]
        if self.part:
            vectors = [embeddings(part, model.architecture.begin) for part in vectors]
        sides = []
        for asks, answers in ((0, 1), (1, 0)):
            result = _measured(vectors[asks], vectors[answers], rows[asks], rows[answers], dot=self.dot)
            precision = dict(zip(result.kept.tolist(), result.per_query["mAP@all"].tolist(), strict=True))
            cut = f"P@{min(CUT, result.n_gallery)}"
            named = {metric: cut if metric == f"P@{CUT}" else metric for metric in METRICS}
            sides.append(
                {
                    "direction": f"{model.domains[asks]}->{model.domains[answers]}",
                    "setting": setting,
                    "scores": {metric: result.scores[name] for metric, name in named.items()},
                    "chance": {metric: result.chance[name] for metric, name in named.items()},
                    "cut": min(CUT, result.n_gallery),
                    "n_gallery": result.n_gallery,
                    "precision": [
                        round(precision[at], 5) if at in precision else None for at in range(len(rows[asks]))
                    ],
                }
            )
        return sides


def probabilities(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities from the unit vectors that they were made: they sum to 1.

    Example:
        >>> probabilities(np.array([[0.6, 0.8]], dtype=np.float32)).round(3).tolist()
        [[0.42899999022483826, 0.5709999799728394]]
    """
    total: NDArray[np.float32] = vectors.sum(axis=1, keepdims=True)
    return vectors / total


def embeddings(vectors: NDArray[np.float32], begin: int) -> NDArray[np.float32]:
    """What begins at a place of the vectors, of unit length.

    Example:
        >>> embeddings(np.array([[0.8, 0, 0, 0.36, 0.48]], dtype=np.float32), 3).round(3).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    embedding = vectors[:, begin:]
    unit: NDArray[np.float32] = embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-12)
    return unit


def _measured(
    query: NDArray[np.float32], gallery: NDArray[np.float32], asks: Sequence[Row], answers: Sequence[Row], *, dot: bool
) -> RetrievalResult:
    """With P@200 cut at the size of the gallery: no list is longer."""
    ks = Cutoffs(precision=(min(CUT, len(answers)),), micro=(1,), average=(), recall=(), gain=(), first=(10,))
    labels = [[row.label for row in part] for part in (asks, answers)]
    ids = [row.id for row in answers]
    if dot:
        table = query @ gallery.T
        return metrics_from_similarities(table, *labels, gallery_ids=ids, ks=ks, bootstrap=0)
    return retrieval_metrics(query, gallery, *labels, gallery_ids=ids, ks=ks, bootstrap=0)


def queries_of_classes(table: Manifest, names: tuple[str, str]) -> dict[str, dict[str, list[str]]]:
    """By direction the ids, and what is drawn as one, that `precision` stands for."""
    found = {}
    for asks, answers in (names, names[::-1]):
        rows = table.select(domain=asks)
        ids = [row.id for row in rows]
        found[f"{asks}->{answers}"] = {"ids": ids, "identities": ids}
    return found
