"""Embeddings that the benchmarks of this folder share: frozen MobileNetV2 at 128 px on parts of PACS and QMUL shoes.

Each domain is centred by the mean of its bank: up to BANK of its training images, chosen by the hash of their ids. The
same images are the bank of the hubness corrections. Vectors are kept in SCRATCH, so that a second benchmark embeds
nothing anew.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from isthmus import ops
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_folder, read_source
from isthmus.evaluate.reranked import Bank
from isthmus.evaluate.run import Evaluation, evaluate_embeddings
from isthmus.models.encoder import Architecture, Model
from isthmus.ops import normalise

BANK, SIDE, BACKBONE = 500, 128, "mobilenetv2_100"
DOMAINS = ("sketch", "photo")
SETS = ("pacs", "shoes")


@dataclass(frozen=True)
class Embedded:
    """One data set: test rows and vectors of both domains, and their banks."""

    rows: tuple[Manifest, Manifest]
    vectors: tuple[torch.Tensor, torch.Tensor]
    banks: tuple[Bank, Bank]

    def evaluation(self, draws: int) -> Evaluation:
        """Both directions, by label (PACS) or identity (shoes)."""
        return evaluate_embeddings(*self.vectors, *self.rows, setting="centred", bootstrap=draws)


def rows_of(root: Path, name: str, domain: str, split: str) -> list[Row]:
    """The images of one split of a domain; a shoe's identity is its number."""
    if name == "pacs":
        folder = root / "pacs"
        return list(read_source(folder / "lists" / f"{domain}_{split}.txt", domain, root=folder, split=split))
    folder = root / "qmul_shoes" / split / {"sketch": "sketches", "photo": "images"}[domain]
    return [replace(row, label=None, identity=Path(row.path).stem) for row in read_folder(folder, domain, split=split)]


def embedded(name: str, options: argparse.Namespace) -> Embedded:
    """The vectors of a data set, from SCRATCH where they are there."""
    root, work = Path(options.root), Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    model = Model.create(Architecture(BACKBONE, 0, SIDE), DOMAINS, weights=options.weights)
    rows, vectors, banks = [], [], []
    for domain in DOMAINS:
        test, train = (rows_of(root, name, domain, split) for split in ("test", "train"))
        chosen = ops.tie_keys([row.id for row in train]).argsort()[:BANK].tolist()
        train = [train[place] for place in sorted(chosen)]
        file = work / f"{name}-{domain}.npz"
        if not file.is_file():
            began = time.perf_counter()
            parts = [model.encode([row.path for row in part], domain=domain, centring=False, workers=0)
                     for part in (test, train)]  # fmt: skip
            seconds = (time.perf_counter() - began) * len(train) / (len(train) + len(test))
            np.savez(file, test=parts[0], train=parts[1], seconds=seconds)
        kept = np.load(file)
        own, bank = (torch.from_numpy(kept[key]) for key in ("test", "train"))
        mean = bank.mean(dim=0)
        rows.append(Manifest(test))
        vectors.append(normalise(own - mean))
        banks.append(Bank(normalise(bank - mean), float(kept["seconds"])))
    return Embedded((rows[0], rows[1]), (vectors[0], vectors[1]), (banks[0], banks[1]))


def arguments(text: str | None) -> argparse.Namespace:
    """`--root DATA --weights FILE --work SCRATCH`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, says in (("root", "folder with pacs/ and qmul_shoes/"), ("weights", "a MobileNetV2 checkpoint"),
                       ("work", "where vectors are kept")):  # fmt: skip
        parser.add_argument(f"--{name}", required=True, help=says)
    return parser.parse_args()


def machine() -> str:
    """What the timings were taken on."""
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} thread, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )
