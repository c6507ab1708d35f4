"""CDS and SynCDR on PACS and Sketchy, with counterparts by `edges` and by CUT: every row of the table, resumable.

    python benchmarks/syncdr/run.py --root DATA --weights MOBILENETV2.safetensors --work SCRATCH

DATA holds pacs/ and sketchy/ with their lists/. Runs, counterparts and models go to SCRATCH; the settings, the log and
the scores of each run are kept here in results/, and `table.py` makes the table from them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from isthmus.cli.common import plain
from isthmus.config import DomainConfig, RunConfig
from isthmus.data.training import read_domain
from isthmus.evaluate.run import evaluate_model
from isthmus.io import atomic_write_json, atomic_write_text
from isthmus.models.encoder import Model
from isthmus.train.run import finished_epochs, train
from isthmus.translate.quality import measure_quality
from isthmus.translate.run import run_translation

HERE = Path(__file__).parent
SETS = ("pacs", "sketchy")
SEEDS = (0, 1, 2)
HALF = {"sketch": 1, "photo": 2}  # which class-disjoint half a domain trains on
COMMON: dict[str, Any] = {
    "model": {"image_size": 96},
    "train": {"epochs": 6, "steps_per_epoch": 20, "precision": "32-true"},
}
ROWS: dict[str, dict[str, Any]] = {
    "frozen": {"method": "pretrained"},
    "syncdr": {"method": "syncdr"},
    "cds": {"method": "cds"},
    "cds-synthetic": {"method": "syncdr", "loss.pair_weight": 0.0},
    "syncdr-no-matching": {"method": "syncdr", "loss.matching_weight": 0.0},
    "syncdr-shared-slots": {"method": "syncdr", "loss.ablation": "shared-slots"},
    "syncdr-paper-temperature": {"method": "syncdr", "loss.pair_temperature": 1.0},
    "syncdr-cut": {"method": "syncdr"},
}
# Whose counterparts a row trains on; where nothing stands, those of `edges`.
TRANSLATORS = {"syncdr-cut": "cut"}
# 1,000 steps of one image a domain, both directions at once: a quarter of an hour on two cores.
CUT: dict[str, Any] = {
    "method": "cut",
    "seed": 0,
    "model.image_size": 96,
    "augment.resize": 108,
    "cut.nce_weight": 2.0,
    "train": {"batch_size": 1, "epochs": 4, "steps_per_epoch": 250, "precision": "bf16-mixed"},
}
KEPT = ("Prec@1", "mAP@all")  # per query, for paired differences


def domain(root: Path, name: str) -> DomainConfig:
    """Class-disjoint training list, validation and test lists of all classes."""
    lists = {"train": f"{name}_train_cls_disjoint{HALF[name]}", "val": f"{name}_val", "test": f"{name}_test"}
    paths = {split: str(root / "lists" / f"{file}.txt") for split, file in lists.items()}
    return DomainConfig(name=name, root=str(root), **paths)


def counterparts(root: Path, work: Path, weights: str, translator: str) -> list[str]:
    """Pictures of sketches and drawings of photos, of training and validation images."""
    read = {
        (name, split): part
        for name in HALF
        for split in ("train", "val")
        if (part := read_domain(domain(root, name), split)) is not None
    }
    settings = {"run": str(cut(root, work))} if translator == "cut" else {}
    folders = []
    for source, target in (("sketch", "photo"), ("photo", "sketch")):
        folder = work / (f"{source}-as-{target}" + ("-cut" if translator == "cut" else ""))
        images = read[source, "train"] + read[source, "val"]
        made = run_translation(images, target, folder, translator, settings, target=read[target, "train"])
        folders.append(str(folder))
        kept = HERE / "results" / f"{root.name}-{translator}" / f"{source}-as-{target}.json"
        if not kept.is_file():
            quality = measure_quality(images, made, read[target, "train"], weights=weights)
            atomic_write_json(kept, plain({**quality.to_dict(), "weights": "WEIGHTS"}))
    return folders


def cut(root: Path, work: Path) -> Path:
    """The run of CUT on the training images of a set; its settings and log are kept."""
    out = work / "cut"
    layer = {"data": {"query": domain(root, "sketch").model_dump(), "gallery": domain(root, "photo").model_dump()}}
    config = RunConfig.build("tiny", layer, CUT)
    if (finished_epochs(out) or -1) < config.train.epochs:
        train(config, out)
    keep(out, HERE / "results" / f"{root.name}-cut", {str(root.parent.absolute()): "DATA"})
    return out


def keep(out: Path, result: Path, words: dict[str, str]) -> None:
    """Copy a run's settings, with words for the paths of this machine, and its log."""
    text = (out / "config.yaml").read_text()
    for path, word in words.items():
        text = text.replace(path, word)
    atomic_write_text(result / "config.yaml", text)
    shutil.copy(out / "log.csv", result / "log.csv")


def one(root: Path, work: Path, weights: str, folders: list[str], row: str, seed: int) -> None:
    """Train and evaluate one row with one seed, unless its result is there."""
    name = f"{root.name}-{row}-{seed}"
    result = HERE / "results" / name
    if (result / "scores.json").is_file():
        return
    layer = {
        "seed": seed,
        "data": {
            "query": domain(root, "sketch").model_dump(),
            "gallery": domain(root, "photo").model_dump(),
            "synthetic": folders,
        },
        "model.weights": weights,
    }
    config = RunConfig.build("default", COMMON, layer, ROWS[row])
    out = work / name
    start = time.process_time()
    if (finished_epochs(out) or -1) < config.train.epochs:
        train(config, out)
    minutes = (time.process_time() - start) / 60  # of CPU: the wall clock also counts what else the machine does
    model = Model.load(out)
    test = [read_domain(domain(root, side), "test") for side in HALF]
    assert test[0] is not None and test[1] is not None
    evaluation = evaluate_model(model, test[0], test[1])
    sides = [
        {
            "direction": side.direction,
            "setting": side.setting,
            "scores": side.scores,
            "intervals": side.intervals,
            "chance": side.chance,
            "n_queries": side.n_queries,
            "n_gallery": side.n_gallery,
            "per_query": {metric: [round(value, 5) for value in side.per_query[metric]] for metric in KEPT},
            "relevant": side.relevant,
        }
        for side in evaluation.sides
    ]
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    record = {
        "cpu_minutes": minutes, "machine": machine, "provenance": model.provenance, "sides": sides,
    }  # fmt: skip
    keep(out, result, {str(root.parent.absolute()): "DATA", str(work.absolute()): "WORK", weights: "WEIGHTS"})
    atomic_write_json(result / "scores.json", json.loads(json.dumps(record)))
    print(name, {k: round(v, 3) for k, v in evaluation.scores.items() if k.startswith("mean") and k.endswith("Prec@1")})


def main() -> None:
    """Run everything that has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    options = parser.parse_args()
    torch.set_num_threads(2)
    weights = str(Path(options.weights).absolute())
    for seed, row, name in itertools.product(options.seeds, options.rows, options.sets):
        if row == "frozen" and seed != SEEDS[0]:
            continue  # nothing random in it
        root, work = options.root / name, options.work / name
        folders = counterparts(root, work, weights, TRANSLATORS.get(row, "edges"))
        one(root, work, weights, folders, row, seed)


if __name__ == "__main__":
    main()
