"""A trained CUT as a folder: what is kept, what can be wrong with it; and the settings it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_zoo import cut_settings
from PIL import Image
from safetensors.torch import load, save
from training_zoo import isthmus, settings, world

import isthmus as package
from isthmus.config import RunConfig
from isthmus.config.presets import presets_of
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.methods.cut import Cut
from isthmus.models.cut import CutModel
from isthmus.train.build import learning_rate
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("cut"), 8)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two steps, three samples a domain."""
    out = tmp_path_factory.mktemp("run") / "run"
    train(cut_settings(folder, cut__samples=3), out)
    return out


def test_the_kept_model_is_the_last_epochs(run: Path) -> None:
    model, checkpoint = CutModel.load(run), load_checkpoint(run / "checkpoints" / "last.pt")
    for side in (0, 1):
        own = {f"members.{side}.generator.{name}": value for name, value in model.generator(side).state_dict().items()}
        assert own and all(torch.equal(value, checkpoint["parts"]["generator"][name]) for name, value in own.items())
    assert not model.translations.training


def test_save_and_load_give_the_same_pictures(run: Path, tmp_path: Path) -> None:
    model = CutModel.load(run)
    pictures = [Image.effect_noise((50, 30), 80).convert("RGB"), Image.new("RGB", (20, 40), "red")]
    model.save(tmp_path / "copy")
    again = CutModel.load(tmp_path / "copy")
    assert again.fingerprint == model.fingerprint and again.provenance == model.provenance
    for side in (0, 1):
        made = model.translate(pictures, side)
        assert [image.tobytes() for image in made] == [image.tobytes() for image in again.translate(pictures, side)]
        assert [image.size for image in made] == [(32, 32)] * 2
    assert made[0].tobytes() != model.translate(pictures, 0)[0].tobytes()
    assert model.translate(pictures, 0, 64)[1].size == (64, 64)
    with torch.no_grad():
        next(again.generator(1).parameters()).add_(1e-3)
    assert again.fingerprint != model.fingerprint


def test_damaged_models_are_one_sentence(run: Path, tmp_path: Path) -> None:
    CutModel.load(run).save(tmp_path / "model")
    config, weights = tmp_path / "model" / "config.json", tmp_path / "model" / "generators.safetensors"
    data = weights.read_bytes()
    whole, tensors = json.loads(config.read_text()), load(data)
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(IsthmusError, match="is damaged"):
        CutModel.load(tmp_path / "model")
    weights.write_bytes(save({name: value for name, value in tensors.items() if not name.startswith("1.")}))
    with pytest.raises(IsthmusError, match="is damaged"):
        CutModel.load(tmp_path / "model")
    weights.unlink()
    with pytest.raises(IsthmusError, match="is damaged"):
        CutModel.load(tmp_path / "model")
    weights.write_bytes(data)
    for change in (
        {"settings": {"width": "wide"}},
        {"domains": ["one"]},
        {"settings": {**whole["settings"], "width": 8}},
    ):
        config.write_text(json.dumps(whole | change))
        with pytest.raises(IsthmusError, match="is damaged"):
            CutModel.load(tmp_path / "model")
    config.write_text(json.dumps({**whole, "format": 99}))
    with pytest.raises(IsthmusError, match="another version of Isthmus"):
        CutModel.load(tmp_path / "model")
    config.write_text('{"kind": "encoder"}')
    with pytest.raises(IsthmusError, match="holds no CUT but another model"):
        CutModel.load(tmp_path / "model")
    config.write_text("{")
    with pytest.raises(IsthmusError, match=r"config\.json"):
        CutModel.load(tmp_path / "model")
    with pytest.raises(IsthmusError, match="holds no trained CUT"):
        CutModel.load(tmp_path / "nothing")


def test_a_translator_is_no_encoder_nor_the_other_way_round(run: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match=r"holds a translator, not an encoder; use it with  isthmus translate"):
        package.load(run)
    train(settings(folder, train__epochs=1, method="cds", data__synthetic=[]), tmp_path / "cds")
    with pytest.raises(IsthmusError, match="holds no CUT but another model"):
        CutModel.load(tmp_path / "cds")


def test_linear_schedule() -> None:
    train_settings = settings(Path(), train__lr=1.0, train__schedule="linear", train__decay_from=0.75).train
    rates = [learning_rate(train_settings, step, 40) for step in range(41)]
    assert rates[:31] == [1.0] * 31 and rates[40] == 0
    assert rates[30:] == pytest.approx([(40 - step) / 10 for step in range(30, 41)])
    train_settings.decay_from = 0.0
    assert [learning_rate(train_settings, step, 4) for step in range(5)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    train_settings.decay_from = 1.0
    assert [learning_rate(train_settings, step, 4) for step in range(4)] == [1.0] * 4
    train_settings.warmup_steps, train_settings.decay_from = 4, 0.5
    rates = [learning_rate(train_settings, step, 14) for step in range(15)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0])


def test_presets_are_the_papers() -> None:
    """Values of the paper and its public code, for CUT and FastCUT."""
    for method, epochs, decay_from in (("cut", 400, 0.5), ("fastcut", 200, 0.75)):  # 200 + 200, 150 + 50
        config = RunConfig.build("paper", {"method": method})
        cut, trained = config.cut, config.train
        assert (trained.epochs, trained.decay_from, trained.schedule) == (epochs, decay_from, "linear")
        assert (trained.optimizer, trained.lr, trained.betas, trained.weight_decay) == ("adam", 2e-4, (0.5, 0.999), 0)
        assert (trained.batch_size, trained.steps_per_epoch, trained.precision) == (1, None, "32-true")
        assert (config.model.image_size, config.augment.resize, config.augment.flip) == (256, None, True)
        assert config.augment.crop == 1 and config.data.holdout == 0
        assert (cut.width, cut.blocks, cut.discriminator_width, cut.patch_dim) == (64, 9, 64, 256)
        assert (cut.layers, cut.patches, cut.temperature, cut.gan_weight) == ((0, 4, 8, 12, 16), 256, 0.07, 1)
        fast = method == "fastcut"
        assert (cut.nce_weight, cut.identity, cut.flip_equivariance) == (10 if fast else 1, not fast, fast)
        assert set(presets_of(method)) == set(presets_of("syncdr"))
        for name in ("default", "tiny"):
            other = RunConfig.build(name, {"method": method})
            same_cut = other.cut.model_copy(update={"width": 64, "discriminator_width": 64})
            assert same_cut == cut and other.train.decay_from == decay_from
            assert (other.train.lr, other.train.betas, other.train.optimizer) == (2e-4, (0.5, 0.999), "adam")
        usual = RunConfig.build("default", {"method": method}).train
        # What SynCDR's authors trained: 4 images, 5,000 steps.
        assert usual.batch_size == 4 and usual.epochs * (usual.steps_per_epoch or 0) == 5000
    small = RunConfig.build("tiny", {"method": "cut"})
    assert small.model.image_size == 64 and small.augment.resize is None


@pytest.mark.parametrize(
    ("size", "resize", "expected"), [(256, None, 286), (64, None, 72), (32, None, 36), (512, None, 572), (64, 64, 64)]
)
def test_the_crops_are_of_one_scale_at_every_size(size: int, resize: int | None, expected: int) -> None:
    small = {"cut.width": 4, "cut.discriminator_width": 4, "model.image_size": size, "augment.resize": resize}
    data = TrainingData(("ink", "paint"), ([], []), ([], []))
    model = Cut.build(RunConfig.build("default", {"method": "cut"}, small), data)
    assert (model.preprocessing.size, model.preprocessing.resize) == (size, expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model__image_size": 34}, r"model\.image_size = 34 must be a multiple of 4 from 32 on for cut"),
        ({"cut__layers": [0, 17]}, r"wrong: cut\.layers must lie in 0 to 16"),
        ({"cut__layers": [-1, 4]}, r"cut\.layers must lie in 0 to 16"),
        ({"cut__gan_weight": 0.0, "cut__nce_weight": 0.0}, r"All losses are switched off; set cut\.gan_weight"),
        ({"model__image_size": 16}, r"model\.image_size = 16"),
        ({"train__select": "labels"}, r"train\.select = labels is not to be had with cut, .* last epoch is kept"),
        ({"model__backbone": "resnet18", "model__dim": 8}, r"cut .* doesn't use model\.backbone, model\.dim; leave it"),
        ({"data__synthetic": ["made"], "train__balance": True}, r"doesn't use data\.synthetic, train\.balance"),
        ({"loss__pair_weight": 0.1, "method": "fastcut"}, r"fastcut .* doesn't use loss\.pair_weight"),
        ({"method": "cds"}, r"cds doesn't use settings cut\.\*; .* --method cut"),
        ({"cut__direction": "sideways"}, r"cut\.direction"),
    ],
)
def test_wrong_settings_are_one_sentence(folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        train(cut_settings(folder, **changes), tmp_path / "run")


def test_evaluate_says_first_that_a_run_is_a_translator(run: Path) -> None:
    done = isthmus("evaluate", run)
    assert done.returncode == 2 and "holds a translator, not an encoder" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
