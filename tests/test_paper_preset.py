"""The recipe of the paper runs as it is, for one step: its ResNet-50, its sizes, its losses."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from training_zoo import INK, PAINT, isthmus, world


def test_the_paper_preset_takes_a_step(tmp_path: Path) -> None:
    folder = world(tmp_path / "world", 8, classes=2, val=4)
    run = tmp_path / "run"
    # The paper's own weights are not at hand; all else stays but the number of images.
    done = isthmus(
        "train", "--preset", "paper", "--weights", "random",
        "--query-domain", f"{INK}={folder / INK},val={folder / 'val_ink'}",
        "--gallery-domain", f"{PAINT}={folder / PAINT},val={folder / 'val_paint'}",
        "--synthetic", folder / "to_paint", "--synthetic", folder / "to_ink",
        "--set", "train.batch_size=4", "--set", "train.epochs=1", "--set", "train.steps_per_epoch=1",
        "--out", run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("16-mixed needs a GPU" in done.stderr) is not torch.cuda.is_available()
    assert "Fabric" not in done.stderr
    state = load_file(str(run / "model" / "model.safetensors"))
    assert (512, 2048) in {tuple(value.shape) for value in state.values()}
    with (run / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert int(last["step"]) == 1 and float(last["lr"]) == 0.003
    for term in ("instance", "matching", "pairs"):
        assert math.isfinite(float(last[term])) and float(last[term]) > 0
    # With T_syn = 1 and unit vectors a set's term can't fall below log(1 + 3 e^-2); two sets, half weight each.
    assert float(last["pairs"]) > math.log(1 + 3 * math.exp(-2))
