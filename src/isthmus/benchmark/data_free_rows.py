"""The rows of the data-free benchmark: the method, its rivals, its ablation and the upper bound, each as settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isthmus.benchmark.rows import named
from isthmus.errors import IsthmusError

Setting = Literal["independent", "unified"]
METHOD, EMBEDDING, OWN = "data-free", "embedding-only", "own-features"
#: What real images with their labels teach, every weight and the maps alone: which of them is better depends on how
#: many images there are, and the better one bounds what can be reached.
UPPER, UPPER_MAPS = "upper-bound", "upper-maps"
#: The teachers as they are: nothing is trained, so nothing starts from anything else.
_AS_THEY_ARE: dict[str, Any] = {
    "data_free.images": "none", "data_free.shared": False, "data_free.mixing": 0.0, "data_free.readout": "embedding",
    "data_free.stages": 0,
}  # fmt: skip
#: As published: what other images teach, without the probabilities and the stages, which no image made.
_EMBEDDING: dict[str, Any] = {"data_free.readout": "embedding", "data_free.stages": 0}
#: Encoders whose every weight is learned, and nothing but their embedding.
_ENCODERS: dict[str, Any] = {"data_free.train": "all", **_EMBEDDING}
_REAL: dict[str, Any] = {
    "data_free.images": "folders", "data_free.labels": "given", "data_free.proxy_weight": 1.0,
    "data_free.distillation_weight": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class DataFreeRow:
    """A row of the table.

    Attributes:
        name: as on the command line and in file names.
        title: as in the table.
        settings: over the benchmark's.
        students: how they start; None: as the benchmark's settings say.
        looks: real images that it looks at: another data set's, or the teachers' own.
        dot: probabilities are compared by their dot product.
        independent: only with two teachers; with one for both it would be another row again.
        term: the setting `data_free.*` that it switches off, or on.
        bank: students alone differ from the method's: they learn from the images that it made.
        part: no run of its own: the method's, measured without the teachers' probabilities.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    students: Literal["teachers", "scratch", "weights"] | None = None
    looks: Literal["alternative", "private"] | None = None
    dot: bool = False
    independent: bool = False
    term: str | None = None
    bank: bool = False
    part: bool = False

    @property
    def of_method(self) -> bool:
        """Whether it needs the method's run."""
        return self.bank or self.part or self.name == METHOD


def _without(
    name: str, title: str, term: str, off: float | bool | str = 0.0, *, independent: bool = False, bank: bool = False
) -> DataFreeRow:
    settings = {f"data_free.{term}": off}
    return DataFreeRow(name, f"without {title}", settings, term=term, independent=independent, bank=bank)


def _with(name: str, title: str, term: str) -> DataFreeRow:
    return DataFreeRow(name, f"with {title}", {f"data_free.{term}": 1.0}, term=term, bank=True)


_STUDENTS = ("proxy_weight", "queue_weight", "contrast_weight", "distillation_weight")
ROWS: tuple[DataFreeRow, ...] = (
    DataFreeRow(METHOD, "data-free (the method)"),
    DataFreeRow(EMBEDDING, "data-free, embedding alone", part=True),
    DataFreeRow(OWN, "classifiers' own features", {**_AS_THEY_ARE, "data_free.crossing": False}, "teachers"),
    DataFreeRow("procrustes", "own features turned (Procrustes)", _AS_THEY_ARE, "teachers", independent=True),
    DataFreeRow(
        "averaged-weights", "averaged weights", {**_AS_THEY_ARE, "data_free.shared": True}, "teachers",
        independent=True,
    ),
    DataFreeRow(
        "posteriors", "class posteriors, cosine", {**_AS_THEY_ARE, "data_free.readout": "posteriors"}, "teachers"
    ),
    DataFreeRow(
        "posteriors-dot", "class posteriors, dot product", {**_AS_THEY_ARE, "data_free.readout": "posteriors"},
        "teachers", dot=True,
    ),
    DataFreeRow(
        "posteriors-features", "posteriors and turned features", {**_AS_THEY_ARE, "data_free.readout": "both"},
        "teachers",
    ),
    DataFreeRow(
        "untrained", "the method, untrained", {"data_free.images": "none", "data_free.shared": False}, "teachers",
        independent=True,
    ),
    DataFreeRow(
        "unimodal", "uni-modal distillation",
        {**_ENCODERS, "data_free.crossing": False, "data_free.shared": False}, bank=True,
    ),
    DataFreeRow("noise", "Gaussian-noise prior", {"data_free.images": "noise", **_EMBEDDING}),
    DataFreeRow("meta-data", "meta-data (inverted images)", {"data_free.images": "inverted", **_EMBEDDING}),
    DataFreeRow("alternative", "alternative data", {"data_free.images": "folders", **_EMBEDDING}, looks="alternative"),
    DataFreeRow(UPPER, "upper bound (real images)", {**_REAL, "data_free.train": "all"}, looks="private"),
    DataFreeRow(UPPER_MAPS, "upper bound, maps alone", {**_REAL, "data_free.train": "heads"}, looks="private"),
    DataFreeRow("data-free-scratch", "data-free, from scratch", _ENCODERS, "scratch", bank=True),
    DataFreeRow("data-free-weights", "data-free, from pretrained", _ENCODERS, "weights", bank=True),
    _without("no-mixing", "the other teacher's weights", "mixing", independent=True, bank=True),
    _without("no-stages", "the networks' stages", "stages", 0, bank=True),
    _without("all-weights", "frozen backbones", "train", "all", bank=True),
    _without("no-semantic", "the semantic term", "semantic_weight"),
    _without("no-balance", "the balance of classes", "entropy_weight"),
    _without("no-diversity", "mode seeking", "diversity_weight"),
    _without("no-statistics", "batch-norm statistics", "statistics_weight"),
    _without("no-modality", "modality guidance", "modality_weight"),
    _without("no-alignment", "class alignment", "alignment_weight"),
    _without("no-adversarial", "adversarial estimation", "adversarial_weight"),
    _without("no-proxy", "proxy anchor", "proxy_weight", bank=True),
    _without("no-distillation", "distillation", "distillation_weight", bank=True),
    _without("no-contrast", "the contrast", "contrast_weight", bank=True),
    _with("with-proxy", "proxy anchor", "proxy_weight"),
    _with("with-distillation", "distillation", "distillation_weight"),
    _with("with-queue", "the queue", "queue_weight"),
    _without("no-drawn-classes", "drawn classes", "drawn_classes", False),
)  # fmt: skip
NAMED = {row.name: row for row in ROWS}


def choose_rows(
    names: Iterable[str] | None, setting: Setting, *, alternative: bool, weights: str, terms: Mapping[str, Any]
) -> tuple[list[DataFreeRow], list[str]]:
    """The rows to run in the table's order, and sentences about what is left out.

    Args:
        names: rows asked for; None for all.
        setting: with independent teachers or a unified one.
        alternative: whether another data set is named.
        weights: what teachers start from: `model.weights`.
        terms: the benchmark's own settings `data_free.*`: a term that is off can't be left out once more.

    Raises:
        IsthmusError: an unknown row; or one asked for that can't be had.

    Example:
        >>> [row.name for row in choose_rows(["noise", "data-free"], "unified", alternative=False, weights="x",
        ...                                  terms={"students": "teachers"})[0]]
        ['data-free', 'noise']
    """
    wanted = named(names, [row.name for row in ROWS])
    rows, notes = [], []
    for row in ROWS:
        if row.name not in wanted:
            continue
        reason = _why_not(row, setting, alternative, weights, terms)
        if reason is None:
            rows.append(row)
        else:
            notes.append(f"The row '{row.name}' is left out: {reason}.")
            if names is not None and row.looks == "alternative":
                raise IsthmusError(f"The row '{row.name}' can't be had: {reason}.")
    if not rows:
        raise IsthmusError(f"No row is left ({notes[0]}); ask for others with --rows.")
    return rows, notes


def _why_not(
    row: DataFreeRow, setting: Setting, alternative: bool, weights: str, terms: Mapping[str, Any]
) -> str | None:
    if row.looks == "alternative" and not alternative:
        return "name another data set's images with --alternative photo=PATH,sketch=PATH"
    if row.independent and setting == "unified":
        return "with one teacher for both domains there is nothing to turn or to mix"
    if row.students == "weights" and weights == "random":
        return "there are no pretrained weights to start from (--weights)"
    if row.students is not None and "data_free.images" not in row.settings and row.students == terms["students"]:
        return f"the row '{METHOD}' starts so already"
    if row.part and terms["readout"] == "embedding":
        return "the method's vectors are its embedding already"
    if row.term is not None and terms[row.term] == row.settings[f"data_free.{row.term}"]:
        return f"data_free.{row.term} is {terms[row.term]} already"
    off = row.term is not None and not row.settings[f"data_free.{row.term}"]
    if off and row.term in _STUDENTS and not any(terms[name] for name in _STUDENTS if name != row.term):
        return f"students learn from data_free.{row.term} alone"
    return None
