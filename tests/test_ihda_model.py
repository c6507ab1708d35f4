"""What IHDA trains and leaves behind: two towers, features around the neck, heads, and a folder that holds them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ihda_zoo import ATTRIBUTES, method_of, settings, wake, world
from safetensors.torch import save_file
from torch import Tensor, nn
from training_zoo import BATCH_NORM, INK, NO_NORM, PAINT, same

import isthmus
from isthmus.errors import IsthmusError
from isthmus.methods.ihda import IHDA
from isthmus.models.backbones import create_backbone
from isthmus.models.encoder import Architecture, Model
from isthmus.models.heads import classifier, mlp
from isthmus.models.ihda import IhdaModel
from isthmus.models.modules import Encoder, Features, Towers

NORMS = {"ihda__head_style": "norm", "ihda__attribute_dropout": 0.5, "model__neck": True,
         "model__backbone": BATCH_NORM}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 4, 4)


def lived(folder: Path, **changes: Any) -> IhdaModel:
    """A model with statistics of its own in each norm, and towers that have parted."""
    method = method_of(settings(folder, **changes))
    model = method.model
    wake(model)
    torch.manual_seed(1)
    for part in model.modules().values():
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for child in part.modules():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is not None:
                child.running_mean.normal_(0, 0.2)
                child.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    with torch.no_grad():
        for tower in model.encoders().values():
            for weight in tower.parameters():
                weight.mul_(1 + 0.1 * torch.randn_like(weight))
    model.means = torch.randn(2, model.dim) / 10
    return model


def views(count: int = 5, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("changes", [{}, {"ihda__shared": True}, NORMS, {"model__gallery_filter": "edges"}])
def test_a_folder_gives_back_the_same_to_the_bit(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    model = lived(folder, **changes)
    model.save(tmp_path / "model")
    for loaded in (
        IhdaModel.load(tmp_path / "model"),
        Model.load(tmp_path / "model"),
        isthmus.load(tmp_path / "model"),
    ):
        assert loaded.fingerprint == model.fingerprint and loaded.architecture == model.architecture
        assert loaded.preprocessing == model.preprocessing
        for domain in (0, 1):
            assert torch.equal(loaded.embed(views(), domain), model.embed(views(), domain))
    again = IhdaModel.load(tmp_path / "model")
    assert again.attributes == ATTRIBUTES == model.attributes
    for domain in (0, 1):
        mine = model.attribute_probabilities(views(), domain)
        assert torch.equal(again.attribute_probabilities(views(), domain), mine)
        assert mine.shape == (5, 4) and mine.dtype == torch.float32 and mine.std() > 0.01
    again.save(tmp_path / "copy")
    for name in ("config.json", "model.safetensors", "attributes.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_probabilities_are_the_heads_on_features_before_the_neck(folder: Path) -> None:
    model = lived(folder, **NORMS)
    for domain in (0, 1):
        assert isinstance(model.encoder, Towers)
        tower, look = model.encoder.tower(domain).eval(), model.preprocessing
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (look.mean, look.std))
        with torch.no_grad():
            pooled = tower.head(tower.backbone((views() / 255 - mean) / std))
            wanted = model.heads["attributes"].eval()(pooled).sigmoid()
        torch.testing.assert_close(model.attribute_probabilities(views(), domain), wanted, atol=1e-5, rtol=0)


def test_each_domain_has_its_tower(folder: Path) -> None:
    model = lived(folder)
    assert isinstance(model.encoder, Towers)
    a, b = (model.embed(views(), domain) for domain in (0, 1))
    assert float((a - b).abs().max()) > 0.01
    for domain, wanted in ((0, a), (1, b)):
        alone = model.encoder.tower(domain).eval()
        with torch.no_grad():
            torch.testing.assert_close(alone(model.preprocessing.normalise(views())), wanted, atol=1e-6, rtol=0)
    sheet = [folder / INK / "0000-0.png"]
    assert np.abs(model.encode(sheet, domain=INK) - model.encode(sheet, domain=PAINT)).max() > 0.01
    before = model.fingerprint
    with torch.no_grad():
        next(model.encoder.tower(0).parameters()).add_(1e-3)
    assert model.fingerprint != before


def test_towers_start_alike_and_share_nothing() -> None:
    towers = Towers(Encoder(create_backbone(NO_NORM, "random"), 8, True))
    assert same(dict(towers.tower(0).state_dict()), dict(towers.tower(1).state_dict()))
    places = [{weight.data_ptr() for weight in towers.tower(n).parameters()} for n in (0, 1)]
    assert not places[0] & places[1]


@pytest.mark.parametrize("backbone", [NO_NORM, BATCH_NORM, "test_vit", "test_convnext"])
@pytest.mark.parametrize("dim", [0, 8])
def test_features_before_and_behind_the_neck(backbone: str, dim: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(create_backbone(backbone, "random", 64), dim, neck=True).eval()
    assert isinstance(encoder.neck, nn.BatchNorm1d) and encoder.neck.running_mean is not None
    encoder.neck.running_mean.normal_()
    assert not encoder.neck.bias.requires_grad and encoder.neck.weight.requires_grad
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        plain, inner, embedding = encoder(images, True), encoder(images, True, True), encoder(images)
    assert isinstance(plain, Features) and isinstance(inner, Features) and plain.inner is None
    assert inner.inner is not None and inner.inner.ndim == 2 and inner.inner.shape != (0,)
    for a, b in zip(plain[:2], inner[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.neck(plain.pooled), plain.necked)
    torch.testing.assert_close(nn.functional.normalize(plain.necked, dim=1), embedding, atol=1e-6, rtol=1e-5)
    bare = Encoder(encoder.backbone, 0, neck=False).eval()
    with torch.no_grad():
        assert torch.equal(*bare(images, True)[:2])


def test_the_heads_are_those_of_paper_and_code(folder: Path) -> None:
    def shape(head: nn.Module) -> list[str]:
        return [f"{layer.in_features}-{layer.out_features}" if isinstance(layer, nn.Linear) else type(layer).__name__
                for layer in head.modules() if not list(layer.children())]  # fmt: skip

    assert shape(mlp(7, 3)) == ["7-512", "ReLU", "512-512", "ReLU", "512-3"]
    unit = ["BatchNorm1d", "LeakyReLU", "Dropout"]
    assert shape(mlp(7, 3, hidden=128, style="norm", dropout=0.5)) == ["7-128", *unit, "128-128", *unit, "128-3"]
    assert [layer.negative_slope for layer in mlp(7, 3, style="norm") if isinstance(layer, nn.LeakyReLU)] == [0.1] * 2
    head = classifier(2048, 150, dropout=0.7)
    assert shape(head) == ["Dropout", "2048-150"] and head[0].p == 0.7
    assert 9e-4 < float(head[1].weight.std()) < 1.1e-3 and not head[1].bias.any()
    code, paper = (method_of(settings(folder, preset)).model.heads for preset in ("code", "paper"))
    assert shape(code["identity"]) == ["Dropout", "16-4"] and shape(code["attributes"])[-3:] == [*unit[1:], "12-4"]
    assert shape(code["domain"]) == ["16-12", *unit[:2], "12-12", *unit[:2], "12-3"]
    assert shape(paper["identity"]) == shape(paper["attributes"]) == ["16-12", "ReLU", "12-12", "ReLU", "12-4"]


def test_preprocessing_of_the_settings_is_that_of_the_model(folder: Path) -> None:
    method = method_of(settings(folder, model__gallery_filter="grey", model__image_size=(48, 32)))
    assert method.model.preprocessing.filters == ("none", "grey") and method.model.preprocessing.size == (48, 32)
    batch = method.load(method.epoch(1)[0])
    assert batch.query is not None and batch.gallery is not None and batch.source is not None
    for part in (batch.gallery, batch.source):
        assert part.views.shape[2:] == (48, 32)
        assert torch.equal(part.views[:, 0], part.views[:, 1]) and torch.equal(part.views[:, 0], part.views[:, 2])
    colourful = method_of(settings(folder))
    batch = colourful.load(colourful.epoch(1)[0])
    assert batch.gallery is not None and not torch.equal(batch.gallery.views[:, 0], batch.gallery.views[:, 1])


def test_fingerprints_of_models_without_towers_are_as_they_were(tmp_path: Path) -> None:
    """The description by hand: what was added since stands in it only where it is used."""
    torch.manual_seed(0)
    model = Model.create(Architecture(NO_NORM, 8, 32), (INK, PAINT), weights="random")
    look = model.preprocessing
    description = {
        "format": 1,
        "architecture": {"backbone": NO_NORM, "dim": 8, "image_size": 32, "domain_norm": False},
        "preprocessing": {"size": 32, "resize": 37, "mean": look.mean, "std": look.std, "interpolation": "bicubic"},
        "domains": [INK, PAINT],
        "centring": True,
    }
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode())
    tensors = {**{f"encoder.{name}": value for name, value in model.encoder.state_dict().items()}, "means": model.means}
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    assert model.fingerprint == digest.hexdigest()[:16]
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config.keys() == {*description, "fingerprint", "provenance"}
    assert config["architecture"] == description["architecture"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors"]  # fmt: skip
    with pytest.raises(IsthmusError, match="has no attribute head: only  isthmus train --method ihda"):
        IhdaModel.load(tmp_path / "model")


def test_damaged_heads_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    lived(folder).save(tmp_path / "good")
    config = json.loads((tmp_path / "good" / "config.json").read_text())
    assert config["attributes"] == {"names": list(ATTRIBUTES), "hidden": 12, "style": "plain", "dropout": 0.0}
    for change, says in (
        ({"names": ["one"]}, "does not fit its config.json"),
        ({"hidden": 7}, "does not fit its config.json"),
        ({"colour": 1}, "does not fit its config.json"),
        ({"names": None}, "does not fit its config.json"),
        (None, "attributes.safetensors can't be read"),
    ):
        bad = tmp_path / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(tmp_path / "good", bad)
        if change is None:
            (bad / "attributes.safetensors").unlink()
        else:
            (bad / "config.json").write_text(json.dumps({**config, "attributes": {**config["attributes"], **change}}))
        with pytest.raises(IsthmusError, match=says):
            IhdaModel.load(bad)
        assert Model.load(bad).fingerprint == config["fingerprint"]  # searching needs no head


def test_starting_from_another_run(folder: Path, tmp_path: Path) -> None:
    lived(folder).save(tmp_path / "a")
    config = settings(folder, ihda__stages="target", ihda__start=str(tmp_path / "a"))
    model = IHDA.build(config, IHDA.read(config))
    old = IhdaModel.load(tmp_path / "a")
    assert same(dict(model.encoder.state_dict()), dict(old.encoder.state_dict()))
    assert same(dict(model.heads["attributes"].state_dict()), dict(old.heads["attributes"].state_dict()))
    for changes, says in (
        ({"model__dim": 8}, "can't be started from: its dim is 16, here it is 8"),
        ({"ihda__shared": True}, "its towers is True, here it is False"),
        ({"model__neck": True}, "its neck is False, here it is True"),
        ({"model__gallery_filter": "grey"}, "its query_filter and gallery_filter are none and none, here"),
        ({"ihda__attributes": ["dark"]}, "has another attribute head"),
        ({"ihda__head_width": 9}, "has another attribute head"),
        ({"ihda__start": str(tmp_path / "nothing")}, "is no model"),
    ):
        other = settings(folder, **({"ihda__stages": "target", "ihda__start": str(tmp_path / "a")} | changes))
        with pytest.raises(IsthmusError, match=says):
            IHDA.build(other, IHDA.read(other))
    Model.create(Architecture(NO_NORM, 16, 32), (INK, PAINT), weights="random").save(tmp_path / "plain")
    config.ihda.start = str(tmp_path / "plain")
    with pytest.raises(IsthmusError, match="has no attribute head"):
        IHDA.build(config, IHDA.read(config))
    save_file({"x": torch.zeros(1)}, tmp_path / "a" / "attributes.safetensors")
    config.ihda.start = str(tmp_path / "a")
    with pytest.raises(IsthmusError, match="does not fit its config"):
        IHDA.build(config, IHDA.read(config))
