"""`isthmus train --method cut` and `isthmus translate --translator cut`: from images to counterparts, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cut_zoo import cut_settings, enlarge
from PIL import Image
from training_zoo import isthmus, settings, world
from typer.testing import CliRunner

from isthmus.cli.main import build
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.models.cut import CutModel
from isthmus.train.run import train
from isthmus.translate.base import Samples, choose
from isthmus.translate.outputs import read_provenance
from isthmus.translate.record import Request
from isthmus.translate.run import Outcome, translate_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("cut"), 6, classes=2)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both directions whose pictures differ well from each other."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(cut_settings(folder, train__epochs=1, train__steps_per_epoch=1), out)
    model = CutModel.load(out)
    torch.manual_seed(0)
    enlarge(model.translations)
    model.save(out / "model")
    return out


def translate(folder: Path, out: Path, source: str, to: str, **settings: Any) -> Outcome:
    return translate_source(read_source(folder / source, source), Request("cut", settings, to, 0), out)


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(("source", "target"), [("ink", "paint"), ("paint", "ink")])
def test_each_image_gets_the_generators_picture(
    folder: Path, trained: Path, tmp_path: Path, source: str, target: str
) -> None:
    outcome = translate(folder, tmp_path / "out", source, target, run=str(trained), batch_size=4)
    assert outcome.complete and outcome.written == len(outcome.manifest) == 6 and not outcome.failed
    model = CutModel.load(trained)
    side = model.domains.index(source)
    for row in outcome.manifest:
        origin = next(r for r in read_source(folder / source, source) if r.id == row.source_id)
        assert row.domain == target and row.label == origin.label and row.id == f"{origin.id}@{target}/cut"
        picture = Image.open(origin.path).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC, reducing_gap=2.0)
        x = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            y = model.generator(side)(x)[0]
        expected = ((y + 1) * 127.5).permute(1, 2, 0).numpy()
        assert np.abs(pixels(row.path) - expected).max() <= 1  # rounding, and sums in another order
    assert len({pixels(row.path).tobytes() for row in outcome.manifest}) == 6


def test_settings_are_settled_and_recorded(folder: Path, trained: Path, tmp_path: Path) -> None:
    outcome = translate(folder, tmp_path / "out", "ink", "paint", run=str(trained), size=64)
    chosen = outcome.choice.settings
    assert chosen["size"] == 64 and chosen["target"] == "paint" and len(chosen["weights"]) == 16
    assert {pixels(row.path).shape for row in outcome.manifest} == {(64, 64, 3)}
    said = read_provenance(outcome.manifest[0].path)
    assert said is not None and said["settings"] == outcome.choice.fingerprint
    again = choose("cut", chosen, Samples(target_domain="paint"))
    assert again.settings == chosen  # what is settled stays as it is
    usual = choose("cut", {"run": str(trained)}, Samples(target_domain="ink"))
    assert usual.settings["size"] == 32 and "32 x 32" in usual.notes[0]
    by_model = choose("cut", {"run": str(trained / "model")}, Samples(target_domain="ink"))
    assert by_model.settings["weights"] == usual.settings["weights"]
    # The domain's name among one's images may be another one than in training.
    other = choose("cut", {"run": str(trained), "target": "paint"}, Samples(target_domain="drawing"))
    assert other.settings["target"] == "paint"


def test_resume_ends_in_the_same_bytes(folder: Path, trained: Path, tmp_path: Path) -> None:
    whole = translate(folder, tmp_path / "whole", "ink", "paint", run=str(trained), batch_size=2)
    part = translate(folder, tmp_path / "part", "ink", "paint", run=str(trained), batch_size=2)
    for row in (part.manifest[1], part.manifest[4]):
        Path(row.path).unlink()
    resumed = translate(folder, tmp_path / "part", "ink", "paint", run=str(trained), batch_size=2)
    assert resumed.complete and 2 <= resumed.written <= 4 and resumed.written + resumed.kept == 6
    for a, b in zip(whole.manifest, resumed.manifest, strict=True):
        assert a.id == b.id and Path(a.path).read_bytes() == Path(b.path).read_bytes()


def test_pictures_hardly_depend_on_the_batch(folder: Path, trained: Path, tmp_path: Path) -> None:
    one, many = (
        translate(folder, tmp_path / str(size), "ink", "paint", run=str(trained), batch_size=size) for size in (1, 6)
    )
    for a, b in zip(one.manifest, many.manifest, strict=True):
        assert np.abs(pixels(a.path).astype(int) - pixels(b.path)).max() <= 2


def test_a_run_that_was_trained_on_is_not_mixed_in(folder: Path, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    outcome = translate(folder, tmp_path / "out", "ink", "paint", run=str(run))
    Path(outcome.manifest[0].path).unlink()
    model = CutModel.load(run)
    with torch.no_grad():
        next(model.translations.parameters()).mul_(1.01)
    model.save(run / "model")
    with pytest.raises(IsthmusError, match=r"has changed since this translation began; translate into another folder"):
        translate(folder, tmp_path / "out", "ink", "paint", run=str(run))
    shutil.rmtree(run)
    with pytest.raises(IsthmusError, match="holds no trained CUT"):
        translate(folder, tmp_path / "out", "ink", "paint", run=str(run))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, r"needs a trained run: give --set run=RUN"),
        ({"run": "nowhere"}, r"nowhere holds no trained CUT; make one with  isthmus train --method cut"),
        ({"run": "RUN", "size": 50}, r"Setting 'size' of translator 'cut': .*multiple of 4"),
        ({"run": "RUN", "size": 16}, r"Setting 'size' of translator 'cut'"),
        ({"run": "RUN", "target": "clipart"}, r"translates to paint and ink, not to 'clipart'"),
        ({"run": "RUN", "device": "mps"}, r"Setting 'device': mps can't be used here"),
        ({"run": "RUN", "weights": "0" * 16}, r"has changed since"),
        ({"run": "RUN", "strength": 0.3}, r"Setting 'strength' of translator 'cut'"),
    ],
)
def test_refusals_are_one_sentence_and_leave_nothing(
    folder: Path, trained: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    given = {name: str(trained) if value == "RUN" else value for name, value in changes.items()}
    with pytest.raises(IsthmusError, match=sentence):
        translate(folder, tmp_path / "out", "ink", "paint", **given)
    assert not (tmp_path / "out").exists()


def test_the_trained_direction_only(folder: Path, tmp_path: Path) -> None:
    config = cut_settings(folder, cut__direction="query-to-gallery", train__epochs=1, train__steps_per_epoch=1)
    train(config, tmp_path / "run")
    assert translate(folder, tmp_path / "out", "ink", "paint", run=str(tmp_path / "run")).complete
    with pytest.raises(IsthmusError, match=r"translates to paint, not to 'ink'"):
        translate(folder, tmp_path / "back", "paint", "ink", run=str(tmp_path / "run"))


def test_an_encoder_is_no_translator(folder: Path, tmp_path: Path) -> None:
    train(settings(folder, method="pretrained", data__synthetic=[], data__holdout=0.0), tmp_path / "run")
    with pytest.raises(IsthmusError, match="holds no CUT but another model"):
        translate(folder, tmp_path / "out", "ink", "paint", run=str(tmp_path / "run"))


def test_command_lines_end_to_end(folder: Path, tmp_path: Path) -> None:
    """Two folders of images in; counterparts out that SynCDR trains on."""
    small = {
        "model.image_size": 32, "augment.resize": 36, "cut.width": 4, "cut.discriminator_width": 4, "cut.blocks": 5,
        "cut.patches": 16, "cut.samples": 2, "train.epochs": 1, "train.steps_per_epoch": 2, "train.batch_size": 2,
        "train.precision": "32-true", "train.accelerator": "cpu", "data.workers": 0,
    }  # fmt: skip
    words = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    domains = ["--query-domain", f"ink={folder / 'ink'}", "--gallery-domain", f"paint={folder / 'paint'}"]
    run = tmp_path / "run"
    done = isthmus("train", "--method", "cut", "--preset", "tiny", *domains, *words, "--out", run, "--json")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    record = json.loads(done.stdout)
    assert record["run"] == str(run) and record["epoch"] == 1 and record["loss"] > 0
    assert {path.name for path in (run / "samples").iterdir()} == {"0000.png", "0001.png"}
    model = CutModel.load(run)
    torch.manual_seed(0)
    enlarge(model.translations)  # after two steps some pictures are blank still, and blank ones are left out
    model.save(run / "model")
    runner = CliRunner()
    made = []
    for source, target in (("ink", "paint"), ("paint", "ink")):
        out = tmp_path / f"to_{target}"
        arguments = ["translate", "--source", f"{source}={folder / source}", "--target", target, "--translator", "cut"]
        result = runner.invoke(build(), [*arguments, "--set", f"run={run}", "--out", str(out), "--json"])
        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
        assert said["images"] == said["written"] == 6 and said["complete"] and said["settings"]["size"] == 32
        made += [str(out)]
    config = settings(folder, data__synthetic=made, data__holdout=0.0, train__epochs=1, train__steps_per_epoch=1)
    assert train(config, tmp_path / "syncdr")["loss"] > 0


def test_plan(folder: Path, trained: Path, tmp_path: Path) -> None:
    arguments = ["translate", "--source", f"ink={folder / 'ink'}", "--target", "paint", "--translator", "cut"]
    planned = [*arguments, "--set", f"run={trained}", "--out", str(tmp_path / "out"), "--plan", "--json"]
    result = CliRunner().invoke(build(), planned)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["units"] == 6 and not (tmp_path / "out").exists()
