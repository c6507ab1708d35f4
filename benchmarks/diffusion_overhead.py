"""Images a second of a whole `img2img` translation against the bare diffusers pipeline at the same batch size.

    python benchmarks/diffusion_overhead.py
    python benchmarks/diffusion_overhead.py --model FOLDER_OR_HUB_ID --size 512 --steps 50 --images 64

The bare pipeline is given squares that lie in memory and its pictures are thrown away; the translation reads, decodes,
resizes, and writes PNG files with their provenance. Both take turns in one process: the machine's mood hits both.
Without --model it is a random model of the tests, wider, so that a step takes about as long beside a picture's decoding
as in Stable Diffusion on a fast GPU.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isthmus.data.manifest import Manifest, Row
from isthmus.translate.base import Samples, TranslatorChoice, choose
from isthmus.translate.diffusion.noise import generators
from isthmus.translate.diffusion.translator import DiffusionTranslator
from isthmus.translate.pool import run_here
from isthmus.translate.select import form_batches
from isthmus.translate.work import Item, Job

ROUNDS = 5


def write_photos(folder: Path, count: int, side: int) -> Manifest:
    """JPEG files as a camera or the web has them, larger than the model's squares."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        path = folder / f"{number:03d}.jpg"
        coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(path, quality=92)
        rows.append(Row(f"photo/{number:03d}", str(path), "photo"))
    return Manifest(rows)


def random_model(folder: Path) -> str:
    """The tests' tiny Stable Diffusion with a wider UNet."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import diffusion_zoo
    from diffusers import StableDiffusionPipeline

    parts = diffusion_zoo.sd_parts(folder / "tokenizer")
    parts["unet"] = diffusion_zoo.unet(block_out_channels=(64, 128), attention_head_dim=8, norm_num_groups=8)
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return str(folder)


def bare(pipeline: Any, settings: dict[str, Any], squares: list[Image.Image]) -> float:
    """Seconds of the pipeline alone for all squares."""
    size = settings["batch_size"]
    began = time.perf_counter()
    for start in range(0, len(squares), size):
        part = squares[start : start + size]
        pipeline(
            prompt=[settings["prompt"]] * len(part), image=part, strength=settings["strength"],
            guidance_scale=settings["guidance"], num_inference_steps=settings["steps"],
            generator=generators(range(len(part))),
        )  # fmt: skip
    return time.perf_counter() - began


def whole(choice: TranslatorChoice, translator: DiffusionTranslator, source: Manifest, out: Path) -> float:
    """Seconds of a run from files to files, without loading the model."""
    job = Job(choice, out, "sketch", 0, False)
    batches = form_batches([Item(row.id, row.path, row.label) for row in source], translator.batch_size)
    began = time.perf_counter()
    written = sum(done.written for done in run_here(batches, job, translator))
    seconds = time.perf_counter() - began
    assert written == len(source), written
    shutil.rmtree(out)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--photo-side", type=int, default=480, help="shorter side of the source files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        source = write_photos(folder / "photos", options.images, options.photo_side)
        model = options.model or random_model(folder / "model")
        settings = {
            "model": model, "size": options.size, "steps": options.steps, "batch_size": options.batch_size,
            "safety_checker": False,
        }  # fmt: skip
        choice = choose("img2img", settings, Samples(target_domain="sketch"))
        translator = choice.build()
        assert isinstance(translator, DiffusionTranslator)
        pipeline = translator.pipeline()
        squares = [Image.open(row.path).convert("RGB").resize((options.size,) * 2) for row in source]
        fixed = dict(choice.settings)
        bare(pipeline, fixed, squares[: options.batch_size])
        rates: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            alone = options.images / bare(pipeline, fixed, squares)
            rates.append((alone, options.images / whole(choice, translator, source, folder / "out")))
        device = (
            torch.cuda.get_device_name() if fixed["device"] == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        )
        print(f"{platform.platform()}, {device}, {fixed['dtype']}, torch {torch.__version__}")
        print(f"{options.images} images, {options.size} px, batch {options.batch_size}, {options.steps} steps")
        for alone, run in rates:
            print(f"bare {alone:.2f} images/s, translation {run:.2f} images/s, ratio {run / alone:.3f}")
        print(f"median ratio {statistics.median(run / alone for alone, run in rates):.3f}")


if __name__ == "__main__":
    main()
