"""One run measured for `isthmus evaluate`: what can be wrong shows before any image is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from isthmus.cli.evaluate_bank import Banks
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest
    from isthmus.evaluate.after import After
    from isthmus.evaluate.attributes import AttributeScores
    from isthmus.evaluate.human import Agreement, Triplet
    from isthmus.evaluate.reranked import Reranked
    from isthmus.evaluate.run import Evaluation
    from isthmus.evaluate.variants import Variants
    from isthmus.evaluate.verify import Verified
    from isthmus.models.encoder import Model


@dataclass(frozen=True)
class Options:
    """The options of `isthmus evaluate`, by their names there."""

    split: str
    query: str | None
    gallery: str | None
    root: str | None
    by: str
    centring: bool | None
    attributes: bool
    triplets: str | None
    report: bool
    bootstrap: int
    seed: int
    batch_size: int
    workers: int
    skip_bad: bool
    progress: bool
    rerank: After | None = None
    variants: bool = False
    verify: tuple[tuple[float, ...], ...] | None = None  # rates of false acceptance, and of answered strangers


@dataclass(frozen=True)
class Plan:
    """A run, its images, and the files to write."""

    run: str
    domains: tuple[DomainConfig, DomainConfig]
    rows: tuple[Manifest, Manifest]
    triplets: list[Triplet]
    file: Path
    page: Path
    banks: Banks | None = None  # images that a hubness correction compares with, of both domains


@dataclass(frozen=True)
class Measured:
    """What a run scores, and what describes it."""

    run: str
    split: str
    evaluation: Evaluation
    facts: dict[str, str]
    attributes: list[AttributeScores] = field(default_factory=list)
    agreement: dict[str, Agreement] = field(default_factory=dict)  # by setting, the main one first
    reranked: Reranked | None = None
    variants: Variants | None = None
    verified: list[Verified] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As the JSON file has it."""
        from isthmus import __version__
        from isthmus.cli.common import plain

        values: dict[str, Any] = {
            "isthmus": __version__, "run": self.run, "split": self.split, "evaluation": plain(self.evaluation.to_dict())
        }  # fmt: skip
        if self.attributes:
            values["attributes"] = plain({scores.domain: scores.to_dict() for scores in self.attributes})
        if self.agreement:
            values["triplets"] = plain({setting: found.to_dict() for setting, found in self.agreement.items()})
        if self.reranked is not None:
            values["rerank"] = plain(self.reranked.to_dict())
        if self.variants is not None:
            values["variants"] = plain(self.variants.to_dict())
        if self.verified:
            values["verify"] = plain([one.to_dict() for one in self.verified])
        return values

    def figures(self) -> dict[str, float]:
        """What is summed up over runs beside the evaluation's scores."""
        found = {f"attributes, {s.domain}/{name}": value for s in self.attributes for name, value in s.means.items()}
        found |= {f"triplets ({setting})/agreement": part.value for setting, part in self.agreement.items()}
        if self.variants is not None:
            from isthmus.cli.evaluate_variants import VARIANTS

            found |= {f"{VARIANTS}{name}": value for name, value in self.variants.figures().items()}
        for one in self.verified:
            head = f"verification, {one.direction} ({one.setting})"
            found |= {f"{head}/{name}": f.value for name, f in one.figures.items() if f.value is not None}
        return found


def prepare(run: str, options: Options, out: Path | None) -> Plan:
    """Read settings, tables and triplets, and make the folder to write to."""
    from isthmus.cli.evaluate_bank import bank_rows
    from isthmus.cli.evaluate_inputs import domains_of, rows_of
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.human import read_triplets
    from isthmus.io import make_folder, read_json
    from isthmus.models.card import refuse_translator

    described = next((path for path in (Path(run) / "model", Path(run)) if (path / "config.json").is_file()), None)
    config = read_json(described / "config.json") if described is not None else {}
    refuse_translator(config, run)
    if options.attributes and not (isinstance(config, dict) and config.get("attributes")):
        raise IsthmusError(
            f"{run} has no attribute head to measure with --attributes; only  isthmus train --method ihda  with an "
            "attribute-labelled source makes one."
        )
    triplets = read_triplets(options.triplets) if options.triplets is not None else []
    domains = domains_of(Path(run), options)
    rows = rows_of(domains[0], options.split), rows_of(domains[1], options.split)
    if triplets:
        _require_named(triplets, rows, options)
    file = out if out is not None else Path(run) / f"evaluation-{options.split}.json"
    page = file.with_suffix(".html") if out is not None else Path(run) / f"report-{options.split}.html"
    banks = bank_rows(run, domains, rows, options)
    make_folder(file.parent)
    return Plan(run, domains, rows, triplets, file, page, banks)


def measure(plan: Plan, options: Options) -> Measured:
    """Embed the images once and measure all that was asked for."""
    from isthmus.cli.evaluate_inputs import load_model
    from isthmus.evaluate.human import embedding_agreement
    from isthmus.evaluate.run import embed_domains, evaluate_model

    model = load_model(plan.run, plan.domains, attributes=options.attributes)
    on_bad: Literal["raise", "skip"] = "skip" if options.skip_bad else "raise"
    # First what may still find the tables wanting: it reads fewer images, or none.
    if options.verify is not None:
        from isthmus.evaluate.sides import relevance
        from isthmus.evaluate.verify import require_pairs

        by = relevance(list(plan.rows[0]), list(plan.rows[1])) if options.by == "auto" else options.by
        keys = [[getattr(row, by) for row in rows] for rows in plan.rows]
        require_pairs(keys[0], keys[1], "->".join(model.domains))
    attributes = _attributes(model, plan, options, on_bad) if options.attributes else []
    embedded = embed_domains(
        model, *plan.rows, centring=options.centring, batch_size=options.batch_size, workers=options.workers,
        progress=options.progress, on_bad=on_bad,
    )  # fmt: skip
    evaluation = evaluate_model(
        model, *plan.rows, by=cast(Literal["label", "identity", "auto"], options.by), bootstrap=options.bootstrap,
        seed=options.seed, embedded=embedded,
    )  # fmt: skip
    reranked = None
    if options.rerank is not None:
        from isthmus.cli.evaluate_bank import embed_banks
        from isthmus.evaluate.reranked import add_reranked

        setting = evaluation.sides[0].setting
        banks = embed_banks(model, plan.banks, setting, options) if plan.banks is not None else None
        evaluation, reranked = add_reranked(
            evaluation, embedded, *plan.rows, options.rerank, banks=banks, bootstrap=options.bootstrap,
            seed=options.seed,
        )  # fmt: skip
    variants = None
    if options.variants:
        from isthmus.evaluate.variants import variants_of

        variants = variants_of(evaluation, embedded, *plan.rows, bootstrap=options.bootstrap, seed=options.seed)
    verified: list[Verified] = []
    if options.verify is not None:
        from isthmus.evaluate.verify import verify_domains

        verified = verify_domains(
            embedded, *plan.rows, evaluation.by, fars=options.verify[0], fpirs=options.verify[1],
            bootstrap=options.bootstrap, seed=options.seed,
        )  # fmt: skip
    queries, gallery = ([row.id for row in part] for part in plan.rows)
    agreement = {
        setting: embedding_agreement(
            q, g, queries, gallery, plan.triplets, bootstrap=options.bootstrap, seed=options.seed
        )
        for setting, (q, g) in embedded.items()
        if plan.triplets
    }
    facts = {
        "title": f"{Path(plan.run).resolve().name}: {model.domains[0]} and {model.domains[1]}",
        "method": str(model.provenance.get("method", "model")),
        "backbone": model.architecture.backbone,
    }
    return Measured(
        str(plan.run), options.split, evaluation, facts, attributes, agreement, reranked, variants, verified
    )


def write(plan: Plan, measured: Measured, options: Options) -> None:
    """Write the JSON file and, if asked for, the report."""
    from isthmus.io import atomic_write_json

    atomic_write_json(plan.file, measured.to_dict())
    if options.report:
        from isthmus.report.html import write_report

        write_report(
            plan.page,
            measured.facts["title"],
            {measured.facts["method"]: measured.evaluation},
            run_folder=plan.run,
            notes=[measured.reranked.text] if measured.reranked is not None else [],
            images={row.id: row.path for part in plan.rows for row in part},
            subtitle=f"Split {options.split}, {len(plan.rows[0])} and {len(plan.rows[1])} images, backbone "
            f"{measured.facts['backbone']}",
            attributes=measured.attributes,
            agreement=measured.agreement,
            variants=measured.variants,
            verified=measured.verified,
        )


def _attributes(model: Model, plan: Plan, options: Options, on_bad: Literal["raise", "skip"]) -> list[AttributeScores]:
    from isthmus.data.loading import ImageSource
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.attributes import score_attributes
    from isthmus.models.ihda import IhdaModel

    assert isinstance(model, IhdaModel)
    source = ImageSource(model.preprocessing, 0, model.preprocessing.filters_of(model.domains))
    found = [
        score_attributes(
            model.attribute_probabilities, model.attributes, list(rows), source=source, domain=domain,
            batch_size=options.batch_size, workers=options.workers, progress=options.progress, on_bad=on_bad,
        )
        for domain, rows in enumerate(plan.rows)
    ]  # fmt: skip
    if not any(scores.scores for scores in found):
        raise IsthmusError(
            f"None of the run's attributes ({', '.join(model.attributes)}) is known of the {options.split} images and "
            "varies among them; give tables with  attr:NAME  columns, or leave --attributes out."
        )
    return found


def _require_named(triplets: list[Triplet], rows: tuple[Manifest, Manifest], options: Options) -> None:
    from isthmus.errors import IsthmusError

    queries, gallery = rows
    if not any(t.query in queries and t.nearer in gallery and t.farther in gallery for t in triplets):
        one = triplets[0]
        raise IsthmusError(
            f"None of the {len(triplets)} triplets of {options.triplets} names a query and two gallery images of split "
            f"{options.split}, as {one.query}, {one.nearer} and {one.farther} are not; its ids must be the tables' own."
        )
