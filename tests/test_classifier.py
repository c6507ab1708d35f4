"""A classifier: what it answers, what it hands out, and the folder that it is kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from classifier_zoo import CLASSES, SIDE, seen, timm_model, tiny
from cli_zoo import refused
from safetensors.torch import load_file
from training_zoo import BATCH_NORM, NO_NORM, same

import isthmus as package
from isthmus.errors import IsthmusError
from isthmus.models.backbones import create_backbone
from isthmus.models.classifier import Classifier
from isthmus.models.modules import Encoder


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 48, 40, generator=torch.Generator().manual_seed(1))


def test_answers_are_those_of_timm_on_preprocessed_images(tmp_path: Path, images: torch.Tensor) -> None:
    classifier = tiny()
    classifier.save(tmp_path / "model")
    network = timm_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    inputs = seen(images, classifier.preprocessing.mean, classifier.preprocessing.std)
    logits, features = classifier.answer(images)
    assert logits.shape == (4, 3) and logits.dtype == features.dtype == torch.float32
    assert torch.allclose(logits, network(inputs), atol=1e-4)
    assert torch.allclose(features, network.forward_head(network.forward_features(inputs), pre_logits=True), atol=1e-4)
    assert logits.std() > 0.1 and not torch.allclose(logits, network(seen(images)), atol=1e-2)  # normalisation matters
    weight, bias = classifier.head()
    assert torch.allclose(F.linear(features, weight, bias), logits, atol=1e-5)


def test_each_answer_is_its_own_image_s_also_after_training_mode(images: torch.Tensor) -> None:
    classifier = tiny()
    together = classifier.answer(images).logits
    classifier.network.train()
    alone = torch.cat([classifier.answer(image[None]).logits for image in images])
    assert torch.allclose(together, alone, atol=1e-5)


def test_gradient_of_images_by_finite_differences(images: torch.Tensor) -> None:
    classifier = tiny(backbone=NO_NORM)
    images = images[:2].clone().requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        answers = classifier.answer(x)
        return answers.logits[:, 1].sum() + answers.features.square().mean()

    (gradient,) = torch.autograd.grad(loss(images), images)
    dice = torch.Generator().manual_seed(3)
    for _ in range(3):
        way = gradient / gradient.norm() + 0.02 * torch.randn(images.shape, generator=dice)
        step = 5e-3 * way
        with torch.no_grad():
            measured = (loss(images + step) - loss(images - step)) / 2
        expected = (gradient * step).sum()
        assert float(measured) == pytest.approx(float(expected), rel=0.02)
    assert float(gradient.abs().sum()) > 0.01


def test_images_of_another_shape_are_refused() -> None:
    for wrong in (
        torch.zeros(3, SIDE, SIDE),
        torch.zeros(2, 1, SIDE, SIDE),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match=r"float \(n, 3, h, w\)"):
            tiny().answer(wrong)


@pytest.mark.parametrize("backbone", [BATCH_NORM, "test_vit", "test_efficientnet"])
def test_round_trip_is_bit_for_bit(tmp_path: Path, images: torch.Tensor, backbone: str) -> None:
    first = tiny(("b", "a"), backbone, kind="modality", domains=("x", "y"))
    first.provenance = {"accuracy": 0.5}
    first.save(tmp_path / "one")
    second = Classifier.load(tmp_path / "one")
    second.save(tmp_path / "two")
    third = Classifier.load(tmp_path / "two")
    assert same(first.network.state_dict(), third.network.state_dict())
    assert torch.equal(second.answer(images).logits, third.answer(images).logits)
    assert (third.classes, third.kind, third.domains, third.backbone) == (("b", "a"), "modality", ("x", "y"), backbone)
    assert third.provenance == {"accuracy": 0.5} and third.preprocessing == first.preprocessing
    assert first.fingerprint == third.fingerprint
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not any(p.requires_grad for p in third.network.parameters()) and not third.network.training


def test_fingerprint_sees_weights_names_and_sizes() -> None:
    usual, other = tiny(), tiny()
    assert usual.fingerprint == other.fingerprint
    with torch.no_grad():
        other.norms()[0].running_mean[0] += 1e-3  # type: ignore[index]
    assert len({usual.fingerprint, other.fingerprint, tiny(("ant", "bee", "dog")).fingerprint}) == 3


def test_weights_have_timm_s_names_and_fit_an_encoder(tmp_path: Path) -> None:
    classifier = tiny()
    classifier.save(tmp_path)
    names = set(timm_model(BATCH_NORM, num_classes=3).state_dict())
    assert set(load_file(tmp_path / "model.safetensors")) == names
    encoder = Encoder(create_backbone(BATCH_NORM, "random"))
    encoder.backbone.load_state_dict(classifier.backbone_state())
    views = torch.rand(2, 3, SIDE, SIDE)
    features = classifier.network.eval()(views).features
    assert torch.allclose(encoder.eval()(views), F.normalize(features, dim=1), atol=1e-5)
    assert len(classifier.norms()) == sum("running_var" in name for name in names) > 3
    assert tiny(backbone="test_vit").norms() == []


def test_start_is_the_checkpoint_with_an_unsure_head(tmp_path: Path, images: torch.Tensor) -> None:
    tiny().save(tmp_path)
    made = Classifier.create(BATCH_NORM, ("a", "b"), SIDE, weights=str(tmp_path / "model.safetensors"))
    assert same(made.backbone_state(), tiny().backbone_state())
    assert float(made.answer(images).logits.softmax(dim=1).max()) < 0.6


def test_head_that_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(IsthmusError, match=r"no single linear layer \(Conv2d\)"):
        Classifier.create("resnetv2_50x1_bit", CLASSES, SIDE, weights="random")
    with pytest.raises(IsthmusError, match=r"no backbone 'resnet35': did you mean"):
        Classifier.create("resnet35", CLASSES, SIDE, weights="random")


@pytest.mark.parametrize(
    ("names", "sentence"), [(("a", "b", "a"), "the class 'a' twice"), (("a",), "needs 2 at least")]
)
def test_class_names_are_checked(names: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        tiny(names)


def test_card_and_description_say_what_it_is(tmp_path: Path) -> None:
    classifier = tiny(domains=("photo",))
    classifier.provenance = {"accuracy": 0.91234, "validation_images": 40}
    classifier.save(tmp_path)
    card, config = (tmp_path / "README.md").read_text(), json.loads((tmp_path / "config.json").read_text())
    assert "Classifier of photo images: 3 classes" in card and "ant, bee, cat" in card
    assert "On 40 validation images" in card and "| accuracy | 0.9123 |" in card
    assert (config["kind"], config["classes"], config["head"]) == ("classifier", list(CLASSES), "fc")


def test_it_is_no_encoder(tmp_path: Path) -> None:
    tiny().save(tmp_path / "run" / "model")
    with pytest.raises(IsthmusError, match=r"holds a classifier, not an encoder.*--method data-free"):
        package.load(tmp_path / "run")
    for verb in (("evaluate", tmp_path / "run"), ("index", tmp_path / "run", tmp_path, "--out", tmp_path / "catalog")):
        refused(*verb, says=("holds a classifier, not an encoder",))


def test_a_damaged_folder_is_one_sentence(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    for change, sentence in (
        ({"format": 9}, "not of a classifier that this version reads"),
        ({"kind": "cut", "architecture": None}, "holds another model, not a classifier"),
        ({"preprocessing": {}}, "incomplete"),
        ({"predicts": "species"}, "incomplete.*species"),
        ({"classes": ["a", "b"]}, "tells 3 classes apart, but 2 class names"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(IsthmusError, match=sentence):
            Classifier.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(IsthmusError, match=r"model\.safetensors can't be read"):
        Classifier.load(tmp_path)
    with pytest.raises(IsthmusError, match="There is no classifier"):
        Classifier.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IsthmusError, match="holds no classifier"):
        Classifier.load(tmp_path / "empty")
