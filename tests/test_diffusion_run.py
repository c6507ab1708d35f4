"""Diffusion translators as whole runs: command line, resume, shards, one loading, recorded batch size."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_zoo import pictures, save_checked_sd, save_instruct, save_sd
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from isthmus.cli.main import build
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.translate.base import NoPicture, Samples, choose
from isthmus.translate.diffusion import translator as shared
from isthmus.translate.diffusion.translator import FLAGGED
from isthmus.translate.record import Request
from isthmus.translate.run import Options, Outcome, translate_source

SKETCH = Samples(target_domain="sketch")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd": save_sd(folder / "sd"),
        "instruct": save_instruct(folder / "instruct"),
    }


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    for number, picture in enumerate(pictures(10)):
        path = tmp_path / "photos" / ("round", "flat")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return read_source(tmp_path / "photos", "photo")


def request(model: Path, **settings: Any) -> Request:
    return Request("img2img", {"model": str(model), "size": 32, "steps": 4, **settings}, "sketch", 0)


def run(source: Manifest, wanted: Request, out: Path, **options: Any) -> Outcome:
    return translate_source(source, wanted, out, Options(**options))


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted((out / "images").rglob("*.png"))}


def test_the_command_line_translates(models: dict[str, Path], photos: Manifest, tmp_path: Path) -> None:
    arguments = ["translate", "--source", f"photo={tmp_path / 'photos'}", "--target", "sketch", "--json"]
    arguments += ["--out", str(tmp_path / "out"), "--translator", "instruct-pix2pix", "--limit", "4"]
    arguments += [
        "--set",
        f"model={models['instruct']}",
        "--set",
        "size=32",
        "--set",
        "steps=2",
        "--set",
        "batch_size=2",
    ]
    arguments += ["--set", "prompt=Draw a {label} with a pencil."]
    result = CliRunner().invoke(build(), arguments)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["images"] == said["written"] == 4 and said["complete"]
    assert said["settings"]["image_guidance"] == 1.2 and said["settings"]["dtype"] == "float32"
    for name in contents(tmp_path / "out"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size == (32, 32)


def test_restarts_and_shards_end_in_the_same_bytes(
    models: dict[str, Path], photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    load = shared.save_memory
    monkeypatch.setattr(shared, "save_memory", lambda pipeline, settings: (loaded.append(1), load(pipeline, settings)))
    wanted = request(models["sd"], batch_size=3, scheduler="euler-ancestral", strength=0.6)
    outcome = run(photos, wanted, tmp_path / "one")
    assert outcome.complete and outcome.written == 10
    assert len(loaded) == 1  # what was loaded to settle the settings serves the run
    expected = contents(tmp_path / "one")
    assert len(set(expected.values())) == 10
    for name in list(expected)[::4]:
        (tmp_path / "one" / name).unlink()
    (tmp_path / "one" / "manifest.parquet").unlink()
    assert run(photos, wanted, tmp_path / "one").written == 3
    assert contents(tmp_path / "one") == expected
    for number in (2, 1):
        done = run(photos, wanted, tmp_path / "shards", shard=(number, 2))
    assert done.complete and contents(tmp_path / "shards") == expected


def test_the_batch_size_is_found_once_and_recorded(
    models: dict[str, Path], photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[int] = []

    def find(trial: Any, device: str) -> Any:
        trial(4)
        searches.append(1)
        return SimpleNamespace(size=4, sentence=lambda: "Batch size 4, found by trying.")

    monkeypatch.setattr(shared, "find_batch_size", find)
    out = tmp_path / "out"
    outcome = run(photos, request(models["sd"]), out, limit=5)
    assert outcome.choice.settings["batch_size"] == 4 and "Batch size 4" in outcome.choice.notes[1]
    assert f"torch {torch.__version__}" in outcome.choice.notes[2]
    (sorted((out / "images").rglob("*.png"))[0]).unlink()
    again = run(photos, request(models["sd"]), out, limit=5)
    assert again.written == 1 and searches == [1]
    assert json.loads((out / "settings.json").read_text())["settings"]["batch_size"] == 4
    resolved = choose("img2img", outcome.choice.settings, SKETCH)
    assert resolved == outcome.choice and searches == [1]


def test_a_batch_that_does_not_fit_ends_the_search(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    real = StableDiffusionImg2ImgPipeline.encode_prompt
    room = [2]

    def encode(self: Any, prompt: Any, *arguments: Any, **more: Any) -> Any:
        if len(prompt) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore advice.")
        return real(self, prompt, *arguments, **more)

    monkeypatch.setattr(StableDiffusionImg2ImgPipeline, "encode_prompt", encode)
    monkeypatch.setattr("isthmus.translate.diffusion.fit.GAIN", 0.0)
    chosen = choose("img2img", request(models["sd"]).settings, SKETCH)
    assert chosen.settings["batch_size"] == 2 and "memory runs out at 4" in chosen.notes[1]
    with pytest.raises(IsthmusError, match="Memory ran out with 3 image"):
        chosen.build().translate(pictures(3), [1, 2, 3], [None] * 3)
    room[0] = 0
    with pytest.raises(IsthmusError, match="Memory ran out with 1 image"):
        choose("img2img", request(models["sd"]).settings, SKETCH)


def test_other_weights_are_refused_on_resume(models: dict[str, Path], photos: Manifest, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(models["sd"], model)
    wanted = request(model, batch_size=2)
    run(photos, wanted, tmp_path / "out", limit=2)
    moved = tmp_path / "elsewhere"
    shutil.copytree(model, moved)
    (moved / "notes.md").write_text("not a weight")
    same = choose("img2img", request(moved, batch_size=2).settings, SKETCH)
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"] = weights["conv_in.bias"] + 0.5
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(IsthmusError, match=r"weights in .*model are not those .* begun with"):
        run(photos, wanted, tmp_path / "out", limit=2)
    other = choose("img2img", wanted.settings, SKETCH)
    before = json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]["weights"]
    assert before == same.settings["weights"] != other.settings["weights"]


def test_pictures_that_the_safety_checker_flags_are_left_out(photos: Manifest, tmp_path: Path) -> None:
    model = save_checked_sd(tmp_path / "checked")
    wanted = request(model, batch_size=2)
    found = choose("img2img", wanted.settings, SKETCH).build().translate(pictures(2), [1, 2], [None, None])
    assert list(found) == [NoPicture(FLAGGED)] * 2
    with pytest.raises(IsthmusError, match=r"no picture in 3 attempts: the safety checker flagged"):
        run(photos, wanted, tmp_path / "out", limit=2)
    without = run(photos, request(model, batch_size=2, safety_checker=False), tmp_path / "unchecked", limit=2)
    assert without.complete and not without.failed


class Sleeper:
    """A pipeline that takes a fixed time and no processor, as a GPU's does."""

    scheduler = None

    def __call__(
        self, image: Any = None, prompt: Any = None, generator: Any = None, strength: float = 0.5,
        guidance_scale: float = 1.0, num_inference_steps: int = 2, output_type: str = "pil",
    ) -> Any:  # fmt: skip
        time.sleep(0.15)
        return SimpleNamespace(images=np.stack([np.asarray(one, dtype=np.float32) / 255 for one in image]))


def test_reading_and_writing_overlap_with_the_model(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow disks on both sides of the model: the run takes the model's time, not the sum of the three."""
    from isthmus.translate import work

    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures(12)):
        picture.save(tmp_path / "photos" / f"{number:02d}.png")
    source = read_source(tmp_path / "photos", "photo")
    sleeper = Sleeper()
    monkeypatch.setattr(shared, "takes_batches", lambda pipeline: True)
    read, write = work.load_image, work.write_counterpart

    def slowly(function: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            time.sleep(0.12)
            return function(*arguments, **more)

        return call

    wanted = request(models["sd"], batch_size=1)
    out = tmp_path / "out"
    run(source, wanted, out, limit=1)
    monkeypatch.setattr(shared.DiffusionTranslator, "pipeline", lambda self: sleeper)
    monkeypatch.setattr(work, "load_image", slowly(read))
    monkeypatch.setattr(work, "write_counterpart", slowly(write))
    began = time.perf_counter()
    run(source, wanted, out)
    seconds = time.perf_counter() - began
    # One after the other: 11 x 0.39 = 4.3 s; side by side: 11 x 0.15 and a bit at both ends.
    assert seconds < 11 * 0.3, seconds


def test_a_relative_model_folder_is_recorded_whole(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another working folder, or another machine of a Ray cluster, has to find it."""
    monkeypatch.chdir(models["sd"].parent)
    chosen = choose("img2img", {"model": "./sd", "size": 32, "steps": 4, "batch_size": 1}, SKETCH)
    assert chosen.settings["model"] == str(models["sd"])
    monkeypatch.chdir(models["sd"])
    assert chosen.build().translate(pictures(1), [1], [None])[0] is not None
