"""One training step of SynCDR in Isthmus against the same losses written plainly.

    python benchmarks/train_step.py

ResNet-18, 128 px, 32 images a domain: four forward passes, both memory banks, all losses, backward and optimiser. The
plain version is float32 in channels-first order. Both run in turn in one process, so that the machine's mood hits both.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.models.backbones import create_backbone
from isthmus.train.trainer import Trainer

COUNT, SIZE, BATCH, ROUNDS = 64, 128, 32, 7


def images(folder: Path) -> tuple[dict[str, str], str]:
    """Two domains of noise with counterparts: content does not matter to the clock."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[Row]] = {"a": [], "b": []}
    made: list[Row] = []
    for domain, other in (("a", "b"), ("b", "a")):
        for number in range(COUNT):
            path = folder / f"{domain}{number}.png"
            Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
            tables[domain].append(Row(f"{domain}/{number}", str(path), domain))
            made.append(Row(f"{domain}/{number}@{other}", str(path), other, source_id=f"{domain}/{number}"))
    for domain, rows in tables.items():
        Manifest(rows).save(folder / f"{domain}.parquet")
    (folder / "made").mkdir()
    Manifest(made).save(folder / "made" / "manifest.parquet")
    return {domain: str(folder / f"{domain}.parquet") for domain in tables}, str(folder / "made")


def isthmus_step(folder: Path) -> tuple[Callable[[], object], str]:
    """The trainer's own step, on a batch that is in memory."""
    tables, made = images(folder)
    config = RunConfig.build(
        "default",
        {
            "data": {
                "query": {"name": "a", "train": tables["a"]},
                "gallery": {"name": "b", "train": tables["b"]},
                "synthetic": [made],
                "holdout": 0.0,
            },
            "model": {"backbone": "resnet18", "weights": "random", "image_size": SIZE},
            "train": {"batch_size": BATCH},
        },
    )
    trainer = Trainer(config, folder / "run")
    trainer.model.encoder.train()
    batch = trainer.method.load(trainer.method.epoch(0)[0])
    return lambda: trainer._step(batch, 0.003), trainer.config.train.precision


def plain_step() -> Callable[[], object]:
    """The formula of the paper, line by line."""
    network = create_backbone("resnet18", "random").train()
    optimizer = torch.optim.SGD(network.parameters(), 0.003, momentum=0.9, weight_decay=5e-4)
    a, b, a_made, b_made = (torch.randn(BATCH, 3, SIZE, SIZE) for _ in range(4))
    banks = [F.normalize(torch.randn(2 * COUNT, 512), dim=1) for _ in range(2)]
    slots = torch.arange(BATCH)

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        p = logits.topk(min(700, logits.shape[1]), dim=1).values.softmax(dim=1)
        return -(p * (p + 1e-5).log()).sum(dim=1).mean()

    def step() -> None:
        f_a, f_b, f_am, f_bm = (F.normalize(network(x), dim=1) for x in (a, b, a_made, b_made))
        identity = F.cross_entropy(f_a @ banks[0].T / 0.1, slots) + F.cross_entropy(f_b @ banks[1].T / 0.1, slots)
        matching = entropy(f_b @ banks[0].T / 0.1) + entropy(f_a @ banks[1].T / 0.1)
        pairs = F.cross_entropy(f_am @ f_a.T / 0.1, slots) + F.cross_entropy(f_bm @ f_b.T / 0.1, slots)
        optimizer.zero_grad()
        (identity / 2 + matching + pairs / 2).backward()
        optimizer.step()
        for bank, features in zip(banks, (f_a, f_b), strict=True):
            bank[slots] = F.normalize(0.5 * bank[slots] + 0.5 * features.detach(), dim=1)

    return step


def main() -> None:
    """Print both times and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, precision = isthmus_step(Path(scratch))
        plain = plain_step()
        times: dict[str, list[float]] = {"plain": [], "isthmus": []}
        for turn in range(ROUNDS + 1):
            for name, step in (("plain", plain), ("isthmus", ours)):
                start = time.perf_counter()
                step()
                if turn:
                    times[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(times["plain"], times["isthmus"], strict=True)]
    print(f"machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"plain, float32, channels-first: {1000 * statistics.median(times['plain']):.0f} ms a step")
    print(f"Isthmus, {precision}, channels_last: {1000 * statistics.median(times['isthmus']):.0f} ms a step")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"speed-up: {statistics.median(ratios):.2f} (median of {ROUNDS} pairs, {spread})")


if __name__ == "__main__":
    main()
