"""`isthmus evaluate`: how well a model retrieves, in both directions; several runs: mean and standard deviation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A run's folder, or a model's; several: one for each split or seed."),
    ],
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
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Also how well the run's attribute head reads each domain.")
    ] = False,
    triplets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.csv",
            help="Also agreement with human triplets: columns query_id, nearer_id, farther_id and perhaps votes.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Also re-rank the main row's hits and show that beside it: k-reciprocal, alpha-qe, csls or "
            "inverted-softmax.",
        ),
    ] = None,
    rerank_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Of k-reciprocal: k1=20, k2=6, lambda=0.3, queries=alone (together: transductive). Of alpha-qe: n=50, "
            "alpha=3. Of csls: k=10, of inverted-softmax: beta=30, of both: bank=train (val; test: transductive), "
            "size=5000.",
        ),
    ] = None,
    variants: Annotated[
        bool, typer.Option("--variants", help="Also mAP and P@k as other papers define them, under names of their own.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also verification: TAR@FAR, EER, DET curve, and FNIR@FPIR in an open set.")
    ] = False,
    far: Annotated[
        list[float] | None,
        typer.Option(metavar="RATE", help="A further false accept rate beside 1e-2 and 1e-3; may be repeated."),
    ] = None,
    fpir: Annotated[
        list[float] | None,
        typer.Option(metavar="RATE", help="A further rate of answered strangers beside 1e-1 and 1e-2, likewise."),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report.")] = True,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json",
            help="Write here and not into RUN, the report beside it; of several runs: their mean and deviation.",
        ),
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
    those of the run's settings (RUN/config.yaml). Several runs, as of repeated splits or seeds, are each measured anew
    on their own split; the table is then their mean and sample standard deviation.
    """
    from isthmus.cli.common import parse_settings, print_json
    from isthmus.cli.evaluate_many import evaluate_many
    from isthmus.cli.evaluate_one import Options, measure, prepare, write
    from isthmus.cli.evaluate_show import show, summary
    from isthmus.cli.evaluate_verify import verify_settings
    from isthmus.data.images import show_name
    from isthmus.errors import IsthmusError
    from isthmus.evaluate.after import settings_of
    from isthmus.models.hub import is_hub, local

    if by not in ("auto", "label", "identity"):
        raise IsthmusError(f"--by {by} is unknown; choose label, identity or auto.")
    if split not in ("train", "val", "test"):
        raise IsthmusError(f"--split {split} is unknown; choose train, val or test.")
    if any(is_hub(run) for run in runs) and (out is None or len(runs) > 1):
        raise IsthmusError(
            "A model on the hub has no folder to write scores into: evaluate it alone, with --out FILE.json."
        )
    runs = [str(local(run)) for run in runs]
    for run in runs:
        if not Path(run).is_dir():
            raise IsthmusError(f"There is no run {show_name(run)}; name the folder that  isthmus train --out  wrote.")
    if out is not None and Path(out).suffix != ".json":
        raise IsthmusError(f"--out {out} must end in .json; the report stands beside it as .html.")
    options = Options(
        split=split, query=query_domain, gallery=gallery_domain, root=root, by=by, centring=centring,
        attributes=attributes, triplets=triplets, report=report, bootstrap=bootstrap, seed=seed, batch_size=batch_size,
        workers=workers, skip_bad=skip_bad, progress=not json,
        rerank=settings_of(rerank, parse_settings(rerank_set or []).items(), measured=split), variants=variants,
        verify=verify_settings(verify, far or [], fpir or []),
    )  # fmt: skip
    if len(runs) > 1:
        evaluate_many(runs, options, Path(out) if out is not None else None, json=json)
        return
    plan = prepare(runs[0], options, Path(out) if out is not None else None)
    measured = measure(plan, options)
    write(plan, measured, options)
    if json:
        print_json({**measured.to_dict(), "evaluation": summary(measured.evaluation)})
    else:
        show(measured)
        print(f"Scores: {show_name(plan.file)}" + (f"\nReport: {show_name(plan.page)}" if report else ""))
