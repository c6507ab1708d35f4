"""`isthmus benchmark`: many runs that make one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli.benchmark_data_free import data_free
from isthmus.cli.benchmark_tools import names_of, positive, seeds_of, show_estimate, show_tables, write_tables
from isthmus.errors import IsthmusError

app = typer.Typer(no_args_is_help=True, help="Many training runs that make one table: ablations over splits and seeds.")


@app.callback()
def benchmark() -> None:
    """Many training runs that make one table: ablations over splits and seeds."""


app.command("data-free")(data_free)


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
    from isthmus.benchmark.estimate import estimate_jobs
    from isthmus.benchmark.plan import Planner
    from isthmus.benchmark.protocol import Protocol
    from isthmus.benchmark.rows import choose
    from isthmus.benchmark.runner import lock, run_jobs
    from isthmus.cli.common import parse_settings, print_json

    positive(jobs)
    bad = names_of(harmful)
    chosen, notes = choose(names_of(rows) if rows is not None else None, bad)
    numbers = seeds_of(seeds)
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
            show_estimate(estimate_jobs(planner.jobs(chosen, numbers), jobs), as_json)
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
        values = _write(out, as_json)
    finally:
        held.close()
    if as_json:
        print_json({**values, "failed": failed})
    if failed:
        raise IsthmusError(f"{len(failed)} runs could not be done; the first: {failed[0]}")


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


def _write(out: Path, as_json: bool) -> dict[str, Any]:
    """Make the tables from the results that are there, and show them."""
    from isthmus.benchmark.page import write_page
    from isthmus.benchmark.results import Results
    from isthmus.benchmark.rows import VARIANTS
    from isthmus.benchmark.table import compile_lines, grids, markdown
    from isthmus.cli.common import plain

    results = Results.read(out / "results", [row.name for row in VARIANTS])
    lines = compile_lines(results)
    values = {"rows": plain([line.to_dict() for line in lines])}
    if not lines:
        return values
    records = [dict(record) for runs in results.rows.values() for record in runs.values()]
    write_tables(
        out, "IHDA, ablation", records, values, markdown(lines, results),
        lambda path, heading, subtitle: write_page(path, heading, subtitle, lines, results),
    )  # fmt: skip
    if not as_json:
        show_tables(out, grids(lines, results))
    return values
