"""Data-free retrieval on PACS and Sketchy: the core table, the curve over overlaps and the ablation, resumable.

    python benchmarks/data_free/run.py --root DATA --weights MOBILENETV2.safetensors --work SCRATCH --jobs 2 \\
        --settings benchmarks/data_free/pacs.yaml benchmarks/data_free/sketchy.yaml

Results (one small JSON a run) are kept here in results/, in `SETTINGS/KNOWN-OVERLAP/SETTING/ROW/SEED.json`, and
`table.py` makes the tables from them; teachers and runs go to SCRATCH. The order is such that any prefix of it gives
an honest table: seed after seed the core rows with independent teachers, with a unified one, the ablation, the curve
over overlaps and the larger sets; of the largest only what is measured on the method's run or not trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isthmus.benchmark.data_free_classes import choose_classes, read_images
from isthmus.benchmark.data_free_plan import DataFreePlanner
from isthmus.benchmark.data_free_protocol import DataFreeProtocol
from isthmus.benchmark.data_free_rows import ROWS, Setting, choose_rows
from isthmus.benchmark.jobs import Job
from isthmus.benchmark.runner import lock, run_jobs
from isthmus.config import DomainConfig
from isthmus.config.run import read_yaml

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
CORE = tuple(row.name for row in ROWS if row.term is None)
ABLATION = ("data-free", *(row.name for row in ROWS if row.term is not None))
CURVE = ("data-free", "embedding-only", "own-features", "posteriors-dot", "posteriors-features")
ONCE_ROWS = tuple(
    row.name for row in ROWS if row.term is None and ((row.of_method and not row.bank) or row.students == "teachers")
)
OVERLAPS = (0.2, 0.5, 0.8)
PARTS = ("independent", "unified", "ablation", "overlaps", "sizes")
ONCE = 125  # classes with which one seed is enough


def listed(root: Path, collection: str, domain: str) -> str:
    """The lists of a domain, as `--photos` takes them."""
    lists = root / collection / "lists"
    parts = {split: lists / f"{domain}_{split}.txt" for split in ("train", "val", "test")}
    return f"{parts['train']},val={parts['val']},test={parts['test']}"


def planner(options: argparse.Namespace, regime: Path, known: int, overlap: float) -> DataFreePlanner:
    """The runs with one number of classes and one overlap."""
    settings = read_yaml(regime)
    root, collection = options.root, str(settings["collection"])
    sketch, photo = (
        read_images(name, listed(root, collection, name), root=str(root / collection)) for name in ("sketch", "photo")
    )
    # Of Sketchy's 125 classes not all have test sketches; the 125 of the largest set are those that have them.
    able = {name for name in photo.counts("test") if sketch.counts("test")[name] and sketch.counts("train")[name]}
    count = min(known, len(able))
    held_out = int(settings["held_out"]) if count + int(settings["held_out"]) <= len(sketch.counts()) else 0
    chosen, apart = choose_classes(sketch, photo, classes=None, known=count, held_out=held_out)
    other = [
        DomainConfig(
            name=name,
            train=str(root / str(settings["alternative"]) / "lists" / f"{name}_train.txt"),
            root=str(root / str(settings["alternative"])),
        )
        for name in ("sketch", "photo")
    ]
    parts: list[dict[str, Any]] = [dict(settings["students"]), dict(settings["teachers"])]
    presets = [str(part.pop("preset", "default")) for part in parts]
    protocol = DataFreeProtocol(
        sketch, photo, chosen, apart, overlap,
        preset=presets[0], settings=parts[0], teacher_preset=presets[1], teacher_settings=parts[1],
        weights=str(options.weights.absolute()), alternative=(other[0], other[1]),
    )  # fmt: skip
    place = Path(regime.stem) / f"{known}-{round(100 * overlap)}"
    return DataFreePlanner(protocol, options.results / place, options.work / place)


def plan(options: argparse.Namespace) -> list[Job]:
    """Every run in the order of work."""
    made: dict[tuple[Path, int, float], DataFreePlanner] = {}
    jobs: dict[Path, Job] = {}

    def add(regime: Path, known: int, overlap: float, setting: Setting, names: Sequence[str], seed: int) -> None:
        key = (regime, known, overlap)
        one = made.setdefault(key, made.get(key) or planner(options, *key))
        asked = [name for name in names if name in options.rows]
        if not asked:
            return
        if not options.list:
            one.write_queries([setting])
        terms = one.protocol.base.data_free.model_dump()
        rows, _ = choose_rows(asked, setting, alternative=True, weights=one.protocol.looks.weights, terms=terms)
        for job in one.jobs({setting: rows}, [seed]):
            jobs.setdefault(job.result or job.run, job)

    sizes = {regime: [int(known) for known in read_yaml(regime)["known"]] for regime in options.settings}
    last = options.settings[-1]
    settings: tuple[Setting, Setting] = ("independent", "unified")
    for seed in options.seeds:
        for setting in settings:
            for regime, known in sizes.items():
                if setting in options.parts:
                    add(regime, known[0], 1.0, setting, CORE, seed)
        if "ablation" in options.parts:
            add(last, sizes[last][0], 1.0, "independent", ABLATION, seed)
        for overlap in OVERLAPS if "overlaps" in options.parts else ():
            add(last, sizes[last][0], overlap, "independent", CURVE, seed)
        for regime, known in sizes.items():
            for count in known[1:]:
                if "sizes" in options.parts and (count < ONCE or seed == options.seeds[0]):
                    add(regime, count, 1.0, "independent", CORE if count < ONCE else ONCE_ROWS, seed)
    return list(jobs.values())


def main() -> None:
    """Do everything that has no result yet."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with pacs/ and sketchy/")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 checkpoint")
    parser.add_argument("--work", type=Path, required=True, help="folder for teachers and runs")
    parser.add_argument("--settings", type=Path, nargs="+", required=True, help="pacs.yaml, sketchy.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="default: results/ here")
    parser.add_argument("--rows", nargs="*", default=names, choices=names)
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the runs in order, and stop")
    options = parser.parse_args()
    options.root, options.work = options.root.absolute(), options.work.absolute()
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
