"""IHDA on QMUL's shoes: the core table and the ablation, resumable.

    python benchmarks/ihda/data.py --root DATA/qmul_shoes --out TABLES
    python benchmarks/ihda/run.py --tables TABLES --weights MOBILENETV2.safetensors --work SCRATCH --jobs 2 \\
        --settings benchmarks/ihda/grid.yaml

Results (one small JSON a run) are kept here in results/, in a folder named after the settings, and `table.py` makes the
tables from them; runs and models go to SCRATCH. The order is such that any prefix of it gives an honest table: all
splits of seed 0 at 100 pairs with the source as it is, then 50 and 150 pairs, then the other seeds, then the synthetic
sensor; the ablation after that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from isthmus.benchmark.jobs import Job
from isthmus.benchmark.plan import Planner
from isthmus.benchmark.protocol import Protocol, Split
from isthmus.benchmark.rows import VARIANTS
from isthmus.benchmark.runner import lock, run_jobs
from isthmus.config.run import read_yaml

HERE = Path(__file__).parent
SPLITS = range(5)
SEEDS = (0, 1, 2)
SIZES = (100, 50, 150)  # in the order of work
KINDS = {"as-is": "", "sensor": "-sensor"}
CORE = ("ihda", "target-only", "joint")
HARMFUL = ("colour-dark", "colour-light", "colour-colourful", "colour-reddish")


def planner(options: argparse.Namespace, kind: str, size: int) -> Planner:
    """The runs with one kind of source and one number of pairs."""
    tables: Path = options.tables
    splits = tuple(
        Split(
            f"{k}",
            tables / f"pairs-{k}-{size}.parquet",
            tables / f"source-{k}{KINDS[kind]}.parquet",
            first=tables / f"pairs-{k}-150.parquet",
        )
        for k in SPLITS
    )
    settings = {**read_yaml(options.settings), "model.weights": str(options.weights.absolute())}
    preset = str(settings.pop("preset", "default"))
    protocol = Protocol(splits, "sketch", "photo", "source", preset=preset, settings=settings, harmful=HARMFUL)
    return Planner(
        protocol,
        options.results / f"{kind}-{size}",
        options.work / f"{kind}-{size}",
        shared=options.work / f"step1-{kind}",
        triplets=tables / "triplets.csv",
    )


def plan(options: argparse.Namespace) -> list[Job]:
    """Every run in the order of work."""
    rows = {row.name: row for row in VARIANTS}
    planners = {(kind, size): planner(options, kind, size) for kind in options.kinds for size in options.sizes}
    for one in planners.values():
        one.write_queries()
    jobs: dict[Path, Job] = {}

    def add(kind: str, size: int, names: list[str], seed: int) -> None:
        for job in planners[kind, size].jobs([rows[name] for name in names], [seed]):
            jobs.setdefault(job.result or job.run, job)

    core = [name for name in CORE if name in options.rows]
    for kind in options.kinds:
        for seed in options.seeds:
            for size in options.sizes:
                add(kind, size, core, seed)
    for seed in options.seeds:
        if ("as-is", 100) in planners:
            add("as-is", 100, [name for name in rows if name in options.rows], seed)
    return list(jobs.values())


def main() -> None:
    """Do everything that has no result yet."""
    names = [row.name for row in VARIANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, help="what data.py wrote")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 checkpoint")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--settings", type=Path, required=True, help="grid.yaml or towers.yaml")
    parser.add_argument("--results", type=Path, help="default: results/ here, in a folder named after the settings")
    parser.add_argument("--rows", nargs="*", default=names, choices=names)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), choices=SIZES)
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the runs in order, and stop")
    options = parser.parse_args()
    options.work = options.work.absolute()
    if options.results is None:
        options.results = HERE / "results" / options.settings.stem
    held = lock(options.work)
    jobs = plan(options)
    if options.list:
        for job in jobs:
            print(f"{'done' if job.done() else 'open'}  {job.steps:5d} steps  {job.result or job.run}")
        return
    failed = run_jobs(jobs, processes=options.jobs)
    held.close()
    if failed:
        sys.exit("\n".join(["Not done:", *failed]))


if __name__ == "__main__":
    main()
