"""`isthmus evaluate`: how well a model retrieves, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest
    from isthmus.evaluate.run import Evaluation
    from isthmus.models.encoder import Model

# What a row of the evaluation holds for each query: for the file, too much for a screen.
_BULK = ("query_ids", "query_labels", "per_query", "hits", "first_ranks")


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a model's.")],
    split: Annotated[str, typer.Option(help="The split to measure on: train, val or test.")] = "test",
    query_domain: Annotated[
        str | None,
        typer.Option(metavar="NAME=PATH", help="Images that ask, instead of those in the run's settings."),
    ] = None,
    gallery_domain: Annotated[
        str | None, typer.Option(metavar="NAME=PATH", help="Images that answer, likewise.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that paths in the lists and tables given here start from.")
    ] = None,
    by: Annotated[str, typer.Option(help="What makes an image relevant: label, identity or auto.")] = "auto",
    centring: Annotated[
        bool | None,
        typer.Option("--centring/--no-centring", help="Only with, or only without each domain's mean; default: both."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.json", help="Write here and not into RUN; the report goes beside it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON and nothing else.")] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals; 0: no intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a forward pass.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode.")] = 2,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out and count them.")] = False,
) -> None:
    """Measure retrieval in both directions, with intervals and chance.

    Writes RUN/evaluation-SPLIT.json and RUN/report-SPLIT.html and prints a table. Without domain options the images are
    those of the run's settings (RUN/config.yaml).
    """
    from isthmus import __version__
    from isthmus.cli.common import plain, print_json
    from isthmus.data.images import show_name
    from isthmus.errors import IsthmusError
    from isthmus.io import atomic_write_json, make_folder, read_json
    from isthmus.models.card import refuse_translator

    if by not in ("auto", "label", "identity"):
        raise IsthmusError(f"--by {by} is unknown; choose label, identity or auto.")
    if split not in ("train", "val", "test"):
        raise IsthmusError(f"--split {split} is unknown; choose train, val or test.")
    if not Path(run).is_dir():
        raise IsthmusError(f"There is no run {show_name(run)}; name the folder that  isthmus train --out  wrote.")
    if out is not None and Path(out).suffix != ".json":
        raise IsthmusError(f"--out {out} must end in .json; the report stands beside it as .html.")
    described = Path(run) / "model" / "config.json"
    if described.is_file():
        refuse_translator(read_json(described), run)
    # What can be wrong with arguments and places shows now, not after all images are embedded.
    domains = _domains(Path(run), split, query_domain, gallery_domain, root)
    rows = [_rows(domain, split) for domain in domains]
    file = Path(out) if out is not None else Path(run) / f"evaluation-{split}.json"
    page = file.with_suffix(".html") if out is not None else Path(run) / f"report-{split}.html"
    make_folder(file.parent)
    model = _load(run, domains)
    from isthmus.evaluate.run import evaluate_model

    evaluation = evaluate_model(
        model,
        rows[0],
        rows[1],
        by=cast(Literal["label", "identity", "auto"], by),
        centring=centring,
        bootstrap=bootstrap,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        progress=not json,
        on_bad="skip" if skip_bad else "raise",
    )
    values = {"isthmus": __version__, "run": str(run), "split": split, "evaluation": plain(evaluation.to_dict())}
    atomic_write_json(file, values)
    method = str(model.provenance.get("method", "model"))
    if report:
        from isthmus.report.html import write_report

        write_report(
            page,
            f"{Path(run).resolve().name}: {model.domains[0]} and {model.domains[1]}",
            {method: evaluation},
            run_folder=run,
            images={row.id: row.path for part in rows for row in part},
            subtitle=f"Split {split}, {len(rows[0])} and {len(rows[1])} images, backbone {model.architecture.backbone}",
        )
    if json:
        print_json({**values, "evaluation": summary(evaluation)})
    else:
        show(evaluation)
        print(f"Scores: {show_name(file)}" + (f"\nReport: {show_name(page)}" if report else ""))


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation without what it holds for each single query."""
    values = evaluation.to_dict()
    values["sides"] = [{key: value for key, value in side.items() if key not in _BULK} for side in values["sides"]]
    return values


def show(evaluation: Evaluation) -> None:
    """Print a table for each direction on standard output."""
    from isthmus.cli.common import console, number, table, visible, with_interval

    screen = console()
    for direction in dict.fromkeys(side.direction for side in evaluation.sides):
        sides = [side for side in evaluation.sides if side.direction == direction]
        first = sides[0]
        rows = [
            [metric, *[with_interval(side.scores.get(metric), side.intervals.get(metric)) for side in sides],
             number(first.chance.get(metric))]
            for metric in first.scores
        ]  # fmt: skip
        ties = ", ".join(f"{side.tie_share:.1%} {side.setting}" for side in sides)
        screen.print(table(direction.replace("->", " -> "), ["metric", *[s.setting for s in sides], "chance"], rows))
        screen.print(
            f"{first.n_queries - first.n_left_out} queries, gallery of {first.n_gallery}; left out for want of a "
            f"relevant image: {first.n_left_out}; queries with a tie: {ties}\nprotocol: {visible(first.protocol)}\n",
            soft_wrap=True,
        )
    if evaluation.skipped:
        screen.print(f"Left out because they can't be read: {len(evaluation.skipped)} images.")
    name = evaluation.primary
    screen.print(f"{name} = {number(evaluation.scores.get(name))} (relevant: same {evaluation.by})")


def _domains(
    run: Path, split: str, query: str | None, gallery: str | None, root: str | None
) -> tuple[DomainConfig, DomainConfig]:
    """Both domains: from the command line where named there, else from the run's settings."""
    from isthmus.config import DomainConfig, RunConfig
    from isthmus.errors import IsthmusError

    given = [DomainConfig.parse(text, main=split, root=root) if text else None for text in (query, gallery)]
    settings = run / "config.yaml"
    if None in given and settings.is_file():
        data = RunConfig.load(settings).data
        given = [ours or theirs for ours, theirs in zip(given, (data.query, data.gallery), strict=True)]
    if given[0] is None or given[1] is None:
        missing = "--query-domain" if given[0] is None else "--gallery-domain"
        raise IsthmusError(f"{run} names no images to evaluate on: add  {missing} NAME=PATH.")
    return given[0], given[1]


def _rows(domain: DomainConfig, split: str) -> Manifest:
    from isthmus.data.training import read_domain
    from isthmus.errors import IsthmusError

    rows = read_domain(domain, split)
    if rows is not None:
        rows = rows.select(domain=domain.name, real=True)
    if rows is None or not len(rows):
        raise IsthmusError(
            f"The domain '{domain.name}' has no {split} images; name some:  --query-domain / --gallery-domain "
            f"{domain.name}=PATH, or choose another --split."
        )
    return rows


def _load(run: str, domains: tuple[DomainConfig, DomainConfig]) -> Model:
    from isthmus.errors import IsthmusError
    from isthmus.models.encoder import load

    model = load(run)
    names = (domains[0].name, domains[1].name)
    if names == model.domains[::-1]:
        raise IsthmusError(f"The model asks with '{model.domains[0]}': exchange --query-domain and --gallery-domain.")
    if names != model.domains:
        raise IsthmusError(
            f"The model's domains are {' and '.join(model.domains)}, those to evaluate {' and '.join(names)}; use the "
            "model's names, as in  --query-domain NAME=PATH."
        )
    return model
