"""What a vector is made of: the teachers' probabilities, trained features, and stages of mixed weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from data_free_zoo import BOTH, make_teacher, make_teachers, trainer
from torch import Tensor

from isthmus.methods.data_free import DataFree
from isthmus.models.classifier import Classifier
from isthmus.models.encoder import Model

MIXED: dict[str, Any] = {
    "data_free__readout": "both", "data_free__train": "heads", "data_free__belief_share": 0.4, "data_free__mixing": 0.3,
    "data_free__stages": 2, "data_free__stages_share": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two teachers that began alike: the second is the first, changed a little, with another head and statistics."""
    folder = tmp_path_factory.mktemp("siblings")
    first = make_teacher(folder / "photo", BOTH, 1, domains=("photo",))
    other = Classifier.load(first)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in other.network.backbone.state_dict().items():  # type: ignore[union-attr, operator]
            if value.is_floating_point():
                value += 0.2 * value.abs().mean() * torch.rand_like(value)
                assert value.isfinite().all(), name
        for part in other.network.head.parameters():  # type: ignore[union-attr]
            part += torch.randn_like(part)
    other.save(folder / "sketch")
    return {"data_free.photo": str(first), "data_free.sketch": str(folder / "sketch")}


def method_of(folder: Path, teachers: dict[str, str], **changes: Any) -> tuple[Any, DataFree]:
    made = trainer(folder, teachers, **changes)
    assert isinstance(made.method, DataFree)
    return made, made.method


def test_the_network_of_the_stages_is_mixed_and_its_statistics_are_not(
    siblings: dict[str, str], tmp_path: Path
) -> None:
    _, method = method_of(tmp_path, siblings, **MIXED)
    states = [part.backbone_state() for part in method.teachers.sides]
    assert 0.5 < method.teachers.likeness < 1
    for side in range(2):
        tower = method.model.student(side)
        assert tower.stager is not None
        for name, value in tower.stager.state_dict().items():
            own, other = states[side][name], states[1 - side][name]
            still = "running_" in name or not value.is_floating_point()
            assert torch.allclose(value, own if still else 0.7 * own + 0.3 * other, atol=1e-6), name
        assert all(torch.equal(value, states[side][name]) for name, value in tower.backbone.state_dict().items())
        assert not any(part.requires_grad for part in [*tower.backbone.parameters(), *tower.stager.parameters()])


@pytest.mark.parametrize("mixing", [0.0, 0.3])
@pytest.mark.parametrize("readout", ["both", "embedding"])
def test_a_vector_is_probabilities_and_the_last_features_and_the_stages(
    siblings: dict[str, str], tmp_path: Path, readout: str, mixing: float
) -> None:
    """Against the same vector put together by hand, its stages seen by hooks on the network."""
    made, method = method_of(
        tmp_path, siblings, **{**MIXED, "data_free__readout": readout, "data_free__mixing": mixing}
    )
    images = [torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    model = made.model
    model.encoder.eval()
    vectors, parts, inner = [], [], list[Tensor]()
    with torch.no_grad():
        for side in range(2):
            tower, inputs = model.student(side), model.input_of(images[side])
            said = method.teachers.answer(side, images[side])
            beliefs = said.logits.softmax(1)[:, method.teachers.columns[side]]
            last = F.normalize(tower.head.embedding(said.features), dim=1)
            network = tower.backbone if mixing == 0 else tower.stager
            inner.clear()
            hooks = [
                stage.register_forward_hook(lambda _, __, out: inner.append(out.mean((2, 3))))
                for stage in (network.layer3, network.layer4)  # type: ignore[union-attr]
            ]
            vectors.append(tower(inputs))
            for hook in hooks:
                hook.remove()
            assert len(inner) == 2
            parts.append([beliefs, last, *(F.normalize(part, dim=1) for part in inner)])
            learned = model.learned(tower, side, images[side], said.features)
            assert torch.allclose(learned, last, atol=1e-5)
            assert torch.allclose(model.learned_of(vectors[side]), last, atol=1e-5)
            assert torch.allclose(vectors[side].norm(dim=1), torch.ones(5), atol=1e-5)
    alike = [one @ other.T for one, other in zip(*parts, strict=True)]
    expected = 0.8 * alike[1] + 0.2 * (alike[2] + alike[3]) / 2
    if readout == "both":
        expected = 0.4 * alike[0] + 0.6 * expected
    assert torch.allclose(vectors[0] @ vectors[1].T, expected, atol=1e-4)


def test_training_moves_the_maps_alone_and_a_saved_model_is_the_same(siblings: dict[str, str], tmp_path: Path) -> None:
    made, method = method_of(tmp_path / "run", siblings, **MIXED)
    assert method.model.kept_backbones
    before = {name: value.clone() for name, value in made.model.encoder.state_dict().items()}
    made._mode(training=True)
    for plan in list(method.epoch(0))[2:4]:
        made._step(method.load(plan), 1e-3)
    changed = {name for name, value in made.model.encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"towers.{side}.head.embedding.{part}" for side in range(2) for part in ("weight", "bias")}
    made.model.save(tmp_path / "kept")
    again, views = Model.load(tmp_path / "kept"), (torch.rand(3, 3, 32, 32) * 255).byte()
    assert again.architecture.stager and again.architecture.stages == 2
    for side in range(2):
        assert torch.allclose(again.embed(views, side), made.model.embed(views, side), atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"data_free__crossing": False}, {"data_free__mixing": 0.0}, {"data_free__stages": 0}]
)
def test_nothing_is_mixed_where_it_is_not_wanted(
    siblings: dict[str, str], tmp_path: Path, changes: dict[str, Any]
) -> None:
    _, method = method_of(tmp_path, siblings, **{**MIXED, **changes})
    assert not method.model.architecture.stager and method.model.student(0).stager is None
    assert method.model.architecture.stages == (0 if "data_free__stages" in changes else 2)


def test_a_network_gives_as_many_stages_as_it_has(siblings: dict[str, str], tmp_path: Path) -> None:
    _, method = method_of(tmp_path, siblings, **{**MIXED, "data_free__stages": 40})
    assert method.model.architecture.stages == 5
    assert method.model.student(0)(torch.rand(2, 3, 32, 32)).shape == (2, 2 + 2 + 512 + 64 + 64 + 128 + 256 + 512)


def test_strangers_are_not_mixed_aloud(tmp_path: Path) -> None:
    _, method = method_of(tmp_path / "run", make_teachers(tmp_path), **MIXED)
    assert abs(method.teachers.likeness) < 0.1
    assert any("did not begin with the same weights" in note for note in method.data.notes)
    assert not method.model.architecture.stager and method.model.architecture.stages == 2


def test_features_are_not_computed_twice_and_are_the_same(siblings: dict[str, str], tmp_path: Path) -> None:
    """Backbones that stay the teachers' give what the images themselves would."""
    _, method = method_of(tmp_path, siblings, **{**MIXED, "data_free__mixing": 0.0})
    images = torch.rand(4, 3, 32, 32)
    model = method.model
    model.encoder.eval()
    for side in range(2):
        features = method.teachers.answer(side, images).features
        short = model.learned(model.student(side), side, images, features)
        model.kept_backbones = False
        long = model.learned(model.student(side), side, images, features)
        model.kept_backbones = True
        assert torch.allclose(short, long, atol=1e-5)
    _, trained = method_of(tmp_path / "all", siblings, **{**MIXED, "data_free__mixing": 0.0, "data_free__train": "all"})
    assert not trained.model.kept_backbones
