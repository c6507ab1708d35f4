"""`isthmus benchmark`: many runs that make one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.benchmark.jobs import Job
    from isthmus.benchmark.protocol import Protocol

app = typer.Typer(no_args_is_help=True, help="Many training runs that make one table: ablations over splits and seeds.")


@app.callback()
def benchmark() -> None:
    """Many training runs that make one table: ablations over splits and seeds."""


@app.command("ihda-ablation")
def ihda_ablation(
    pairs: Annotated[
        list[Path], typer.Option(help="Table of pairs with train and test rows of both domains; one each split.")
    ],
    source: Annotated[
        list[Path], typer.Option(help="Table of attribute-labelled images: one for all splits, or one each.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the benchmark; the same command goes on with what is there.")],
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")] = "0,1,2",
    rows: Annotated[str | None, typer.Option(help="Rows, as in ihda,no-domain; default: all.")] = None,
    harmful: Annotated[
        str | None, typer.Option(help="Attributes that only the row 'harmful' learns, as in colour,pattern.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Of IHDA: default, tiny, paper, paper-shoes, code, ...")] = "default",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting, such as train.lr=1e-3.")] = None,
    weights: Annotated[str | None, typer.Option(help="'pretrained', 'random' or a checkpoint file.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Any timm model name.")] = None,
    query_domain_name: Annotated[str, typer.Option(help="The query domain in the tables.")] = "sketch",
    gallery_domain_name: Annotated[str, typer.Option(help="The gallery domain in the tables.")] = "photo",
    source_domain_name: Annotated[
        str | None, typer.Option(help="The domain in the source's table; default: its only one.")
    ] = None,
    triplets: Annotated[
        Path | None, typer.Option(help="CSV of human triplets to agree with (query_id, nearer_id, farther_id).")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs at once, each with its share of the cores.")] = 1,
    keep: Annotated[bool, typer.Option(help="Keep each run's checkpoints and weights.")] = False,
    plan: Annotated[bool, typer.Option(help="Estimate time, memory and disk, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """The ablation of IHDA's paper: each term left out, fewer pairs, and the baselines, over splits and seeds."""
    from isthmus.benchmark.plan import Planner
    from isthmus.benchmark.protocol import Protocol
    from isthmus.benchmark.rows import choose
    from isthmus.benchmark.runner import lock, run_jobs
    from isthmus.cli.common import parse_settings, print_json

    if jobs < 1:
        raise IsthmusError(f"--jobs is {jobs}; write 1 or more.")
    bad = _names(harmful)
    chosen, notes = choose(_names(rows) if rows is not None else None, bad)
    numbers = _seeds(seeds)
    splits = _splits(pairs, source)
    layer: dict[str, Any] = {"model.weights": weights, "model.backbone": backbone}
    values = {name: value for name, value in layer.items() if value is not None} | parse_settings(settings or [])
    for note in notes:
        typer.echo(note, err=True)
    name = source_domain_name or _only_domain(splits[0].source_rows.domains, source[0])
    protocol = Protocol(
        splits, query_domain_name, gallery_domain_name, name, preset=preset, settings=values, harmful=tuple(bad)
    )
    out = out.absolute()
    if plan:
        import tempfile

        with tempfile.TemporaryDirectory() as scratch:
            planner = Planner(protocol, out / "results", Path(scratch), shared=out / "step1")
            _show_plan(protocol, planner.jobs(chosen, numbers), jobs, as_json)
        return
    if triplets is not None:
        from isthmus.evaluate.human import read_triplets

        read_triplets(triplets)
    held = lock(out)
    try:
        planner = Planner(protocol, out / "results", out, triplets=triplets and triplets.absolute(), keep=keep)
        work = planner.jobs(chosen, numbers)
        planner.write_queries()
        failed = run_jobs(work, processes=jobs)
        values = _write(out, protocol, work, as_json)
    finally:
        held.close()
    if as_json:
        print_json({**values, "failed": failed})
    if failed:
        raise IsthmusError(f"{len(failed)} runs could not be done; the first: {failed[0]}")


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _seeds(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise IsthmusError(f"--seeds is '{text}'; write different whole numbers with commas between, as in 0,1,2.")
    return found


def _splits(pairs: list[Path], source: list[Path]) -> tuple[Any, ...]:
    from isthmus.benchmark.protocol import Split

    if len(source) not in (1, len(pairs)):
        raise IsthmusError(
            f"There are {len(pairs)} --pairs and {len(source)} --source; name one source for all of them, or one each."
        )
    if len(set(pairs)) < len(pairs):
        raise IsthmusError("A table is named twice with --pairs; name each split once.")
    sources = source * len(pairs) if len(source) == 1 else source
    return tuple(Split(str(k), path, other) for k, (path, other) in enumerate(zip(pairs, sources, strict=True)))


def _only_domain(domains: list[str], path: Path) -> str:
    if len(domains) != 1:
        raise IsthmusError(
            f"{path} holds the domains {', '.join(domains)}; say which is the source with --source-domain-name."
        )
    return domains[0]


def _show_plan(protocol: Protocol, work: list[Job], jobs: int, as_json: bool) -> None:
    from isthmus.benchmark.estimate import estimate_jobs
    from isthmus.cli.common import print_json

    planned = estimate_jobs(work, jobs)
    if as_json:
        print_json(planned.to_dict())
    else:
        print(planned.text())


def _write(out: Path, protocol: Protocol, work: list[Job], as_json: bool) -> dict[str, Any]:
    """Make the tables from the results that are there, and show them."""
    from isthmus.benchmark.page import write_page
    from isthmus.benchmark.results import Results
    from isthmus.benchmark.rows import VARIANTS
    from isthmus.benchmark.table import compile_lines, grids, markdown
    from isthmus.cli.common import console, plain, table
    from isthmus.data.files import show_name
    from isthmus.io import atomic_write_json, atomic_write_text

    results = Results.read(out / "results", [row.name for row in VARIANTS])
    lines = compile_lines(results)
    values = {"rows": plain([line.to_dict() for line in lines])}
    if not lines:
        return values
    records = [record for runs in results.rows.values() for record in runs.values()]
    machines = "; ".join(sorted({str(record["machine"]) for record in records}))
    dates = sorted({str(record["date"]) for record in records})
    subtitle = f"{len(records)} runs, {dates[0]} to {dates[-1]}, on {machines}"
    heading = "IHDA, ablation"
    atomic_write_json(out / "table.json", {**values, "runs": len(records), "machines": machines, "dates": dates})
    atomic_write_text(out / "table.md", f"# {heading}\n\n{subtitle}.\n\n{markdown(lines, results)}")
    write_page(out / "table.html", heading, subtitle, lines, results)
    if not as_json:
        screen = console()
        for title, columns, cells in grids(lines, results):
            screen.print(table(title, columns, cells))
        print(f"Tables: {', '.join(show_name(out / name) for name in ('table.md', 'table.json', 'table.html'))}")
    return values
