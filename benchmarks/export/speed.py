"""Images a second of a model's exports, as ratios to torch in float32 and bfloat16 in the same run.

    python benchmarks/export/speed.py --backbone mobilenetv2_100 --out benchmarks/export/result.json

Weights and images are random: a network of this kind takes the same time whatever they are. Only the network is timed
(uint8 views to unit vectors); decoding is the same for all. The rounds of the candidates are interleaved, so that a
busy moment of the machine hits all of them; a candidate's figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isthmus.data.manifest import Row
from isthmus.export.run import export_model
from isthmus.models.encoder import Architecture, Model, load

BATCHES = (1, 32)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = Model.create(Architecture(arguments.backbone, 256, arguments.size), ("sketch", "photo"), weights="random")
    model.encoder.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(model, Path(scratch), arguments.size, arguments.rounds)
    text = json.dumps({"backbone": arguments.backbone, "size": arguments.size, **result}, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def measure(model: Model, scratch: Path, size: int, rounds: int) -> dict[str, Any]:
    """Images a second and ratios for each batch size and candidate."""
    dice = np.random.default_rng(0)
    rows = []
    for number in range(8):
        path = scratch / f"{number}.png"
        Image.fromarray(dice.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((size, size)).save(path)
        rows.append(Row(str(number), str(path), "photo"))
    candidates: dict[str, tuple[Model, bool]] = {"torch float32": (model, False), "torch bfloat16": (model, True)}
    for form in ("onnx", "openvino", "int8"):
        done = export_model(model, scratch / form, form, (rows, rows), calibration=(rows, rows))  # type: ignore[arg-type]
        candidates[form] = load(scratch / form), False
        print(f"{form}: largest difference {done.parity.largest:.1e}, cosine {done.parity.cosine:.5f}", file=sys.stderr)
    candidates["openvino bfloat16"] = candidates["openvino"][0], True
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "images_per_second": {},
        "ratios": {},
    }
    for batch in BATCHES:
        views = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
        works = {name: _call(one, views, autocast) for name, (one, autocast) in candidates.items()}
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, work in works.items():
                repeats = 1 if batch > 1 else 5
                start = time.perf_counter()
                for _ in range(repeats):
                    work()
                if number:  # the first round pays for what is paid once
                    seconds[name].append((time.perf_counter() - start) / repeats)
        speeds = {name: batch / statistics.median(taken) for name, taken in seconds.items()}
        found["images_per_second"][str(batch)] = {name: round(speed, 2) for name, speed in speeds.items()}
        found["ratios"][str(batch)] = {
            base: {name: round(speed / speeds[base], 2) for name, speed in speeds.items()}
            for base in ("torch float32", "torch bfloat16")
        }
    return found


def _call(model: Model, views: torch.Tensor, autocast: bool) -> Callable[[], Any]:
    return lambda: model.embed(views, 0, autocast=autocast)


if __name__ == "__main__":
    main()
