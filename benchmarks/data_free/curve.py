"""What a longer run is worth: the method measured after each of its epochs, on test images that nothing is chosen by.

    python benchmarks/data_free/curve.py --root DATA --weights MOBILENETV2.safetensors --work SCRATCH \\
        --settings benchmarks/data_free/sketchy.yaml --known 10 --seed 0 --epochs 20

It starts from the teachers that `run.py` left in SCRATCH, or makes them; the curve goes to results/curves/, and
`table.py` prints it. The learning rate falls with the run: the tenth epoch of 20 is not the last of 10.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from run import HERE, planner

from isthmus.benchmark.data_free_measure import HELD_OUT, KNOWN
from isthmus.benchmark.data_free_rows import METHOD, NAMED
from isthmus.benchmark.jobs import machine, perform, with_needs
from isthmus.data.manifest import Manifest
from isthmus.evaluate.metrics import retrieval_metrics
from isthmus.io import atomic_write_json
from isthmus.models.data_free import DataFreeModel
from isthmus.train.trainer import Trainer


def measured(model: DataFreeModel, tables: dict[str, Manifest]) -> dict[str, dict[str, float]]:
    """mAP@all of both directions' mean: of whole vectors, of the embedding alone, of the trained map alone."""
    begin, width = model.architecture.begin, model.architecture.dim
    parts = {
        "vectors": slice(None),
        "embedding": slice(begin, None),
        "trained map": slice(begin, begin + width),
    }
    found: dict[str, dict[str, float]] = {}
    for name, table in tables.items():
        rows = [list(table.select(domain=domain)) for domain in model.domains]
        vectors = [
            model.encode([row.path for row in part], domain=domain, centring=False)
            for domain, part in zip(model.domains, rows, strict=True)
        ]
        labels, ids = [[row.label for row in part] for part in rows], [[row.id for row in part] for part in rows]
        found[name] = {}
        for what, part in parts.items():
            cut = [one[:, part] for one in vectors]
            ways = [
                retrieval_metrics(cut[a], cut[b], labels[a], labels[b], gallery_ids=ids[b], bootstrap=0)
                for a, b in ((0, 1), (1, 0))
            ]
            found[name][what] = round(float(np.mean([way.scores["mAP@all"] for way in ways])), 5)
    return found


def main() -> None:
    """Train with a look at the test images after each epoch, and write the curve down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with pacs/ and sketchy/")
    parser.add_argument("--weights", type=Path, required=True, help="MobileNetV2 checkpoint")
    parser.add_argument("--work", type=Path, required=True, help="folder for teachers and runs")
    parser.add_argument("--settings", type=Path, required=True, help="pacs.yaml or sketchy.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="default: results/ here")
    parser.add_argument("--known", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    options.root, options.work = options.root.absolute(), options.work.absolute()
    made = planner(options, options.settings, options.known, 1.0)
    *teachers, method, _ = made.jobs({"independent": [NAMED[METHOD]]}, [options.seed])
    for job in teachers:
        perform(job)
    config = with_needs(method)
    config.train.epochs = options.epochs
    folder = options.work / "curves" / f"{options.settings.stem}-{options.known}-{options.seed}-{options.epochs}"
    shutil.rmtree(folder, ignore_errors=True)
    trainer = Trainer(config, folder)
    model, judge = trainer.model, trainer.judge
    assert isinstance(model, DataFreeModel)
    tables = {name: Manifest.load(path) for name, path in made.tests.items() if name in (KNOWN, HELD_OUT)}
    curve: list[dict[str, Any]] = []
    verdict = judge.verdict

    def look() -> Any:
        # Asked after each epoch, and of the untrained students before the first.
        found = verdict()
        curve.append({"epoch": trainer.progress.epoch, **measured(model, tables)})
        print(curve[-1], flush=True)
        return found

    judge.verdict = look  # type: ignore[method-assign]
    trainer.fit()
    name = f"{options.settings.stem}-{options.known}-{options.seed}-{options.epochs}.json"
    record = {"machine": machine(), "steps_per_epoch": config.train.steps_per_epoch, "curve": curve}
    atomic_write_json(options.results / "curves" / name, record)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
