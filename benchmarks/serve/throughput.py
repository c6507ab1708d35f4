"""Embedding a folder into a catalog: images a second beside the model's own, and beside what the cores allow.

    python benchmarks/serve/throughput.py --work SCRATCH [--images 1500] [--large 600] [--rounds 2] [--threads 2]

JPEGs of about 500 x 375, warm in the disk's cache. `alone` is the network on tensors that are ready (batches of 64,
channels_last). Decoding is measured by one thread: reading, JPEG, resizing, to a tensor. Cores that decode don't
compute; so both on the same cores can't do better than

    bound = 1 / (decoding seconds of one core / cores + 1 / images a second of the network on all cores)

ResNet-50 in bfloat16 is held against `alone` (wanted: 0.8), MobileNetV2 in float32 against the bound (wanted: 0.85).
The package has no OpenVINO and no int8 backend yet: neither is measured.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import DOMAINS, clocked, memory_mb, model_folder, parser, write

BATCH = 64
MODELS = {"mobilenetv2_100": ("float32", "bfloat16"), "resnet50": ("bfloat16",)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=1500)
    options.add_argument("--large", type=int, default=600, help="images for ResNet-50")
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--workers", type=int, default=2, help="threads that decode, as in Catalog.add")
    settings = options.parse_args()
    begun = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    folder = jpegs(settings.work, max(settings.images, settings.large))
    result: dict[str, Any] = {"jpeg_bytes": round(float(np.mean([one.stat().st_size for one in folder.iterdir()])))}
    for backbone, precisions in MODELS.items():
        for precision in precisions:
            result[f"{backbone}, {precision}"] = _measure(settings, folder, backbone, precision == "bfloat16")
    result["memory"] = memory_mb()
    quick = result["mobilenetv2_100, float32"]["ratio_to_bound"]  # as the package computes
    large = result["resnet50, bfloat16"]["ratio_to_alone"]
    result["targets"] = {
        "ResNet-50 in bfloat16 at least 0.8 of the network alone": large >= 0.8,
        "MobileNetV2 (float32) at least 0.85 of what the cores allow": quick >= 0.85,
    }
    write(settings, "throughput", result, begun)


def jpegs(work: Path, count: int, size: tuple[int, int] = (500, 375)) -> Path:
    """A folder with so many JPEGs, made once."""
    from server import picture

    folder = work / f"jpegs-{count}-{size[0]}x{size[1]}"
    if not folder.exists():
        scratch = folder.with_name(folder.name + ".part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for number in range(count):
            picture(1000 + number, size).save(scratch / f"{number:06}.jpg", quality=90)
        scratch.rename(folder)
    return folder


def _measure(settings: Any, folder: Path, backbone: str, half: bool) -> dict[str, Any]:
    import torch

    import isthmus
    from isthmus.catalog.store import Catalog
    from isthmus.data.images import content_hash, load_image

    torch.set_num_threads(settings.threads)
    folder_of = model_folder(settings, backbone, native=True)
    model = isthmus.load(folder_of, precision="bfloat16" if half else "float32")
    count = settings.large if backbone == "resnet50" else settings.images
    files = sorted(folder.iterdir())[:count]
    part = settings.work / f"folder-{count}"
    if not part.exists():
        part.mkdir()
        for file in files:
            os.link(file, part / file.name)
    files = sorted(part.iterdir())
    tensors = torch.randn(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    looks = model.preprocessing

    def forward(times: int) -> None:
        for _ in range(times):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                model.encoder(tensors)

    def decode() -> list[torch.Tensor]:
        return [looks(load_image(file, min_side=looks.min_side), 1) for file in files[:150]]

    def hash_all() -> None:
        for file in files:
            content_hash(file)

    model.encoder.eval()
    forward(2)
    alone, decoding, hashing, adding, encoding, rest = [], [], [], [], [], []
    for turn in range(settings.rounds):
        times = max(2, min(count, 600) // BATCH)
        alone.append(times * BATCH / clocked(forward, times)[0])
        torch.set_num_threads(1)
        decoding.append(clocked(decode)[0] / len(files[:150]))
        hashing.append(clocked(hash_all)[0] / len(files))
        torch.set_num_threads(settings.threads)
        place = settings.work / f"throughput-{turn}"
        shutil.rmtree(place, ignore_errors=True)
        catalog = Catalog.create(place, model)
        seconds, changes = clocked(catalog.add, part, workers=settings.workers)
        if changes.added + len(changes.same) != len(files):
            raise SystemExit(f"not all images were added: {changes}")
        adding.append(len(files) / seconds)
        paths = [str(file) for file in files]
        seconds = clocked(model.encode, paths, domain=DOMAINS[1], workers=settings.workers)[0]
        encoding.append(len(files) / seconds)
        alone.append(times * BATCH / clocked(forward, times)[0])
        rest.append(len(files) / adding[-1] - len(files) / encoding[-1])
        shutil.rmtree(place)
    own, decoded = float(np.median(alone)), float(np.median(decoding))
    bound = 1 / (decoded / settings.threads + 1 / own)
    return {
        "images": len(files),
        "alone_images_s": _round(alone),
        "decoding_ms_one_core": round(1e3 * decoded, 3),
        "hashing_ms": round(1e3 * float(np.median(hashing)), 3),
        "bound_images_s": round(bound, 1),
        "add_images_s": _round(adding),
        "encode_images_s": _round(encoding),
        "add_beyond_encode_s": round(float(np.median(rest)), 2),
        "ratio_to_alone": round(float(np.median(adding)) / own, 3),
        "ratio_to_bound": round(float(np.median(adding)) / bound, 3),
        "bound_to_alone": round(bound / own, 3),
        "torch_threads": torch.get_num_threads(),
    }


def _round(values: list[float]) -> dict[str, Any]:
    return {"median": round(float(np.median(values)), 1), "each": [round(value, 1) for value in values]}


if __name__ == "__main__":
    main()
