"""`isthmus benchmark data-free`: the method, its rivals, its ablation and the upper bound on one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.benchmark_tools import names_of, positive, seeds_of, show_estimate, show_tables, write_tables
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.benchmark.data_free_protocol import DataFreeProtocol
    from isthmus.benchmark.data_free_rows import DataFreeRow, Setting
    from isthmus.config import DomainConfig

SETTINGS = {"independent": ("independent",), "unified": ("unified",), "both": ("independent", "unified")}


def data_free(
    photos: Annotated[
        str, typer.Option(help="PATH[,val=PATH][,test=PATH]: folder, list or table of the labelled photos.")
    ],
    sketches: Annotated[str, typer.Option(help="The same of the sketches.")],
    out: Annotated[Path, typer.Option(help="Folder of the benchmark; the same command goes on with what is there.")],
    classes: Annotated[str | None, typer.Option(help="The classes that teachers know, as in cat,dog.")] = None,
    known: Annotated[
        int | None, typer.Option(help="Or how many: those with most test sketches. Default: all that are left.")
    ] = None,
    held_out: Annotated[
        int, typer.Option(help="How many of the next classes nothing is trained on, to search in.")
    ] = 0,
    overlap: Annotated[
        float, typer.Option(help="Share of the known classes that both teachers know; the rest is one's alone.")
    ] = 1.0,
    seeds: Annotated[str, typer.Option(help="Seeds, as in 0,1,2.")] = "0,1,2",
    setting: Annotated[str, typer.Option(help="independent, unified or both: two teachers, or one.")] = "independent",
    rows: Annotated[str | None, typer.Option(help="Rows, as in data-free,posteriors; default: all.")] = None,
    alternative: Annotated[
        str | None, typer.Option(help="photo=PATH,sketch=PATH: another data set's images, for the row 'alternative'.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="Of the data-free runs: default, tiny, paper, paper-unified.")
    ] = "default",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of the data-free runs, such as train.epochs=40.")
    ] = None,
    teacher_preset: Annotated[str, typer.Option(help="Of the classifiers: default, tiny, paper.")] = "default",
    teacher_settings: Annotated[
        list[str] | None, typer.Option("--teacher-set", help="Any setting of the classifiers.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Of teachers and students: any timm model name.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="What teachers start from: 'pretrained', 'random' or a checkpoint file.")
    ] = None,
    root: Annotated[str | None, typer.Option(help="Folder that the paths in lists are relative to.")] = None,
    query_domain_name: Annotated[str, typer.Option(help="The sketches' domain, where tables name it.")] = "sketch",
    gallery_domain_name: Annotated[str, typer.Option(help="The photos' domain, where tables name it.")] = "photo",
    jobs: Annotated[int, typer.Option(help="Runs at once, each with its share of the cores.")] = 1,
    keep: Annotated[
        bool, typer.Option(help="Keep each run's checkpoints and weights, not the teachers' alone.")
    ] = False,
    list_runs: Annotated[bool, typer.Option("--list", help="Print the runs in their order, and stop.")] = False,
    plan: Annotated[bool, typer.Option(help="Estimate time, memory and disk, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Data-free retrieval against all its rivals: teachers from your images, then students that see none of them."""
    import tempfile

    from isthmus.benchmark.data_free_classes import choose_classes, read_images
    from isthmus.benchmark.data_free_plan import DataFreePlanner
    from isthmus.benchmark.data_free_protocol import DataFreeProtocol
    from isthmus.benchmark.runner import lock, run_jobs
    from isthmus.cli.common import parse_settings, print_json

    positive(jobs)
    numbers = seeds_of(seeds)
    if setting not in SETTINGS:
        raise IsthmusError(f"--setting is '{setting}'; write independent, unified or both.")
    sketch = read_images(query_domain_name, sketches, root=root)
    photo = read_images(gallery_domain_name, photos, root=root)
    named = names_of(classes) if classes is not None else None
    chosen, apart = choose_classes(sketch, photo, classes=named, known=known, held_out=held_out)
    protocol = DataFreeProtocol(
        sketch, photo, chosen, apart, overlap,
        preset=preset, settings=parse_settings(settings or []),
        teacher_preset=teacher_preset, teacher_settings=parse_settings(teacher_settings or []),
        backbone=backbone, weights=weights,
        alternative=None if alternative is None else _alternative(alternative, (sketch.name, photo.name)),
    )  # fmt: skip
    for seed in numbers:
        protocol.classes_of(seed)
    wanted, notes = _choose(protocol, rows, setting, alternative is not None)
    for note in [*sketch.notes, *photo.notes, *notes]:
        typer.echo(note, err=True)
    out = out.absolute()
    if plan or list_runs:
        with tempfile.TemporaryDirectory() as scratch:
            planner = DataFreePlanner(protocol, out / "results", out, tables=Path(scratch) / "tables")
            _foresee(planner, wanted, numbers, jobs if plan else None, Path(scratch), as_json)
        return
    held = lock(out)
    try:
        planner = DataFreePlanner(protocol, out / "results", out, keep=keep)
        planner.write_queries(wanted)
        failed = run_jobs(planner.jobs(wanted, numbers), processes=jobs)
        values = write_data_free(out, as_json)
    finally:
        held.close()
    if as_json:
        print_json({**values, "failed": failed})
    if failed:
        raise IsthmusError(f"{len(failed)} runs could not be done; the first: {failed[0]}")


def _alternative(text: str, names: tuple[str, str]) -> tuple[DomainConfig, DomainConfig]:
    """`photo=PATH,sketch=PATH` in either order; a comma within a path stays in it."""
    from isthmus.config import DomainConfig

    found: dict[str, str] = {}
    key = ""
    for piece in text.split(","):
        head, mark, tail = piece.partition("=")
        if mark and head in (*names, "photo", "sketch"):
            key = {"sketch": names[0], "photo": names[1]}.get(head, head)
            found[key] = tail
        elif key:
            found[key] += "," + piece
    missing = [name for name in names if not found.get(name)]
    if missing:
        raise IsthmusError(f"--alternative is '{text}'; write photo=PATH,sketch=PATH with images of both domains.")
    query, gallery = (DomainConfig(name=name, train=found[name]) for name in names)
    return query, gallery


def _choose(
    protocol: DataFreeProtocol, rows: str | None, setting: str, alternative: bool
) -> tuple[dict[Setting, list[DataFreeRow]], list[str]]:
    from isthmus.benchmark.data_free_rows import choose_rows

    wanted: dict[Setting, list[DataFreeRow]] = {}
    notes: list[str] = []
    terms = protocol.base.data_free.model_dump()
    for one in SETTINGS[setting]:
        wanted[one], told = choose_rows(  # type: ignore[index]
            names_of(rows) if rows is not None else None, one,  # type: ignore[arg-type]
            alternative=alternative, weights=protocol.looks.weights, terms=terms,
        )  # fmt: skip
        notes += told
    return wanted, list(dict.fromkeys(notes))


def _foresee(planner: Any, wanted: Any, seeds: list[int], processes: int | None, scratch: Path, as_json: bool) -> None:
    """Print the runs, or (with `processes`) what they will take."""
    from isthmus.benchmark.data_free_estimate import DataFreeEstimate
    from isthmus.benchmark.estimate import estimate_jobs
    from isthmus.cli.common import print_json

    work = planner.jobs(wanted, seeds)
    if processes is not None:
        meter = DataFreeEstimate(planner, scratch)
        show_estimate(estimate_jobs(work, processes, what="data-free", kind=meter.kind, one=meter.one), as_json)
        return
    listed = [{"run": job.name, "done": job.done(), "steps": job.steps} for job in work]
    if as_json:
        print_json(listed)
    else:
        for line in listed:
            print(f"{'done' if line['done'] else 'open'}  {line['steps']:5d} steps  {line['run']}")


def write_data_free(out: Path, as_json: bool) -> dict[str, Any]:
    """Make the tables from the results that are there, and show them."""
    from isthmus.benchmark.data_free_grids import data_free_grids, data_free_markdown
    from isthmus.benchmark.data_free_table import DataFreeResults, compile_data_free
    from isthmus.benchmark.page import write_data_free_page
    from isthmus.cli.common import plain

    read = [DataFreeResults.read(out / "results" / name) for name in SETTINGS["both"]]
    found = [(results, compile_data_free(results)) for results in read if results is not None]
    values = {
        "settings": {
            results.setting: {"about": plain(results.about), "rows": plain([line.to_dict() for line in lines])}
            for results, lines in found
        }
    }
    if not found:
        return values
    records = [dict(one) for results, _ in found for runs in results.rows.values() for one in runs.values()]
    text = "\n".join(data_free_markdown(lines, results) for results, lines in found)
    write_tables(
        out, "Data-free retrieval", records, values, text,
        lambda path, heading, subtitle: write_data_free_page(path, heading, subtitle, found),
    )  # fmt: skip
    if not as_json:
        show_tables(out, [grid for results, lines in found for grid in data_free_grids(lines, results, narrow=True)])
    return values
