"""Classifiers that others trained: weights and programs with a description, and one sentence for each thing amiss."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier_zoo import CLASSES, MEAN, SIDE, STD, describe, export, given, seen, small, tiny, weights
from torch import Tensor
from training_zoo import BATCH_NORM

from isthmus.errors import IsthmusError
from isthmus.models.classifier import Classifier


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports cost a second each: all tests share them."""
    folder = tmp_path_factory.mktemp("programs")
    export(small(), folder / "both.pt2")
    export(small(both=False), folder / "logits.pt2")
    torch.jit.trace(small(), torch.rand(2, 3, SIDE, SIDE)).save(str(folder / "script.pt"))
    return folder


def fails(path: Path, sentence: str, **options: Any) -> None:
    with pytest.raises(IsthmusError, match=sentence) as caught:
        Classifier.load(path, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_timm_weights_with_a_description(tmp_path: Path, images: Tensor) -> None:
    teacher = Classifier.load(given(tmp_path, domains=["photo"]))
    assert (teacher.classes, teacher.domains, teacher.kind) == (CLASSES, ("photo",), "label")
    assert (teacher.preprocessing.mean, teacher.preprocessing.std, teacher.preprocessing.size) == (MEAN, STD, SIDE)
    network: Any = tiny().network
    assert torch.allclose(teacher.answer(images).logits, network.eval()(seen(images)).logits, atol=1e-5)


def test_state_dict_of_another_s_trainer_and_a_list_of_names(tmp_path: Path, images: Tensor) -> None:
    network: Any = tiny().network
    state = {f"module.{key}".replace(".fc.", ".top."): value for key, value in network.backbone.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pt")
    (tmp_path / "names.txt").write_text("\ufeffant\n\nbee \ncat\n", encoding="utf-8")
    said = {"weights": "weights.pt", "classes": "names.txt", "mean": None, "std": None}
    teacher = Classifier.load(given(tmp_path, head="top", **said))
    assert teacher.classes == CLASSES
    own = tiny().preprocessing
    assert (teacher.preprocessing.mean, teacher.preprocessing.std) == (own.mean, own.std)
    assert torch.allclose(teacher.answer(images).logits, tiny().answer(images).logits, atol=1e-5)
    fails(given(tmp_path, **said), r"hold no final linear layer 'fc' \(linear layers in it: top\)")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "weights.pt")
    fails(given(tmp_path, weights="weights.pt"), "holds more than tensors")
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap()))
    fails(given(tmp_path, weights="weights.pt"), "weights.pt")
    assert not (tmp_path / "sprung").exists()


def test_folder_in_timm_s_layout(tmp_path: Path, images: Tensor) -> None:
    tiny().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    theirs = {key: config[key] for key in ("architecture", "num_classes", "label_names", "pretrained_cfg")}
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    teacher = Classifier.load(tmp_path)
    assert teacher.classes == CLASSES and teacher.preprocessing == tiny().preprocessing
    assert torch.allclose(teacher.answer(images).logits, tiny().answer(images).logits, atol=1e-5)
    theirs.pop("label_names")
    (tmp_path / "config.json").write_text(json.dumps(theirs))
    fails(tmp_path, "names no classes")


@pytest.mark.parametrize(("name", "said"), [
    ("both.pt2", {"program": "both.pt2"}), ("script.pt", {"script": "script.pt"})
])  # fmt: skip
def test_program_with_features(programs: Path, images: Tensor, name: str, said: dict[str, str]) -> None:
    path = describe(programs, f"{name}.yaml", head="fc", outputs=["logits", "features"], **said)
    teacher = Classifier.load(path, trust="script" in said)
    images = images.clone().requires_grad_()
    logits, features = teacher.answer(images)
    truth = small()
    expected, inner = truth(seen(images))
    assert torch.allclose(logits, expected, atol=1e-5) and torch.allclose(features, inner, atol=1e-5)
    (gradient,) = torch.autograd.grad(logits.square().sum() + features.sum(), images)
    (wanted,) = torch.autograd.grad(expected.square().sum() + inner.sum(), images)
    assert torch.allclose(gradient, wanted, atol=1e-5) and float(wanted.abs().max()) > 1e-3
    weight, bias = teacher.head()
    assert torch.equal(weight, truth.fc.weight) and torch.equal(bias, truth.fc.bias)
    assert teacher.norms() == [] and teacher.backbone is None
    assert torch.allclose(teacher.answer(images[:1]).logits, expected[:1], atol=1e-5)
    for use in (teacher.backbone_state, lambda: teacher.save(programs / "saved"), lambda: teacher.main):
        with pytest.raises(IsthmusError, match="is a program, which can't be"):
            use()


def test_program_without_features(programs: Path, images: Tensor) -> None:
    teacher = Classifier.load(describe(programs, "plain.yaml", program="logits.pt2"))
    logits, features = teacher.answer(images)
    assert torch.allclose(logits, small(both=False)(seen(images)), atol=1e-5) and features.shape == (3, 0)
    with pytest.raises(IsthmusError, match="without a named final linear layer"):
        teacher.head()
    other = Classifier.load(describe(programs, program="logits.pt2", mean=[0.5, 0.5, 0.5]))
    assert teacher.fingerprint != other.fingerprint


def test_script_only_with_trust(programs: Path, tmp_path: Path) -> None:
    path = describe(programs, "script.yaml", script="script.pt", outputs=["logits", "features"])
    fails(path, "TorchScript, which may do anything.*--trust")
    (tmp_path / "script.pt").write_bytes(b"nothing")
    fails(describe(tmp_path, script="script.pt"), "TorchScript .* can't be read", trust=True)


def rewritten(source: Path, out: Path, change: Any) -> Path:
    """The archive with its program's text changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data.decode()).encode() if name.endswith("models/model.json") else data)
    return out


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("torch.ops.aten.relu.default", "torch.os.system", "calls torch.os.system"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.__init__.default", "calls torch.ops.aten.__init__"),
        ("torch.ops.aten.relu.default", "_operator.methodcaller", "calls _operator.methodcaller"),
        ("torch.ops.aten.relu.default", "math.exp", "calls math.exp"),
        ('"name": "relu"', '"name": "relu\\"); import os #"', "has the name"),
        ('"expr_str": "', '"expr_str": "__import__(\'os\')+', "computes a size as"),
    ],
)
def test_program_that_calls_more_than_tensor_operators(
    programs: Path, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    found: list[int] = []

    def change(text: str) -> str:
        found.append(text.count(old))
        return text.replace(old, new)

    rewritten(programs / "both.pt2", tmp_path / "trap.pt2", change)
    assert found[0]
    fails(describe(tmp_path, program="trap.pt2", outputs=["logits", "features"]), f"{sentence}.*allow it with --trust")


def test_pickles_in_a_program_are_not_run(programs: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save((Trap(),), tmp_path / "trap.pt")
    with zipfile.ZipFile(programs / "both.pt2") as old, zipfile.ZipFile(tmp_path / "trap.pt2", "w") as new:
        for name in old.namelist():
            data = (tmp_path / "trap.pt").read_bytes() if "sample_inputs" in name else old.read(name)
            new.writestr(name, data)
    fails(describe(tmp_path, program="trap.pt2", outputs=["logits", "features"]), "trap.pt2")
    assert not (tmp_path / "sprung").exists()


def test_programs_that_can_t_teach(programs: Path, tmp_path: Path) -> None:
    both = ["logits", "features"]
    export(small().train(), tmp_path / "training.pt2")
    export(small(), tmp_path / "two.pt2", batch=False)
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    for said, sentence in (
        ({"program": "training.pt2", "outputs": both}, "exported in training mode"),
        ({"program": "two.pt2", "outputs": both}, "fails on 3 images.*any number of images"),
        ({"program": "broken.pt2"}, "can't be read"),
        ({"program": str(programs / "both.pt2")}, r"returns 2 values, but outputs = \[logits\]"),
        ({"program": str(programs / "both.pt2"), "outputs": both, "head": "top"}, "no final linear layer 'top' .*: fc"),
        ({"program": str(programs / "both.pt2"), "outputs": both[::-1]}, "classes are named; mend classes or outputs"),
        ({"program": str(programs / "both.pt2"), "outputs": both, "image_size": 48}, "image_size"),
        ({"program": str(programs / "logits.pt2"), "classes": ["a", "b"]}, r"shape \(3, 3\).*but 2 classes"),
        ({"program": str(programs / "logits.pt2"), "head": "conv"}, "The head of .* has shape"),
    ):
        fails(describe(tmp_path, **said), sentence)


def test_programs_that_freeze_or_break_are_told(tmp_path: Path) -> None:
    class Cut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small(both=False)

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.inner(images)
            return made.detach()

    export(Cut().eval(), tmp_path / "cut.pt2")
    fails(describe(tmp_path, program="cut.pt2"), "gives no gradients")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"weights": "gone.safetensors"}, r"gone\.safetensors, which is no file"),
        ({"backbone": "resnet35"}, "no backbone 'resnet35': did you mean"),
        ({"backbone": "resnet18"}, "are not of the backbone 'resnet18'"),
        ({"classes": ["a", "b"]}, "tells 3 classes apart, but 2 class names are given"),
        ({"classes": ["ant", "bee", "ant"]}, "the class 'ant' twice"),
        ({"classes": ["yes", True, "no"]}, "must be quoted in YAML"),
        ({"classes": "gone.txt"}, r"can't be read from .*gone\.txt"),
        ({"classes": None}, "classes"),
        ({"image_size": None}, "image_size"),
        ({"image_size": 8}, "16 pixels"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"std": [0.5, 0.5, 0.0]}, "std must be above 0"),
        ({"head": "layer9"}, "no final linear layer 'layer9'"),
        ({"backbone": None}, "backbone and weights belong together"),
        ({"program": "p.pt2"}, "name one of weights"),
        ({"architecture": "x"}, "there is no setting 'architecture'"),
        ({"predicts": "species"}, "predicts"),
    ],
)
def test_bad_descriptions(tmp_path: Path, said: dict[str, Any], sentence: str) -> None:
    weights(tmp_path)
    fails(given(tmp_path, **({"weights": "weights.safetensors"} | said)), sentence)


def test_bad_weights(tmp_path: Path) -> None:
    fails(weights(tmp_path), "neither a run nor a description")
    (tmp_path / "list.yaml").write_text("- a\n")
    fails(tmp_path / "list.yaml", "holds no settings")
    path = given(tmp_path)
    for changes, sentence in (
        ({"conv1__0__weight": None}, f"not of the backbone '{BATCH_NORM}': 1 tensors missing"),
        ({"strange": torch.zeros(1)}, r"1 unknown \(such as 'strange'\)"),
        ({"fc__weight": torch.full((3, 96), torch.nan)}, "answers NaN or infinities"),
        (
            {"conv1__1__weight": torch.full_like(tiny().network.backbone.conv1[1].weight, torch.nan)},
            "answers NaN or infinities",
        ),
    ):
        weights(tmp_path, **changes)
        fails(path, sentence)


def test_a_head_without_bias(tmp_path: Path, images: Tensor) -> None:
    weights(tmp_path, fc__bias=None)
    teacher = Classifier.load(given(tmp_path, weights="weights.safetensors"))
    weight, bias = teacher.head()
    logits, features = teacher.answer(images)
    assert float(bias.abs().max()) == 0 and torch.allclose(features @ weight.T, logits, atol=1e-5)
