"""One step of data-free training: each term against an obvious computation, and what is trained by what."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from data_free_zoo import DOMAINS, make_teacher, make_teachers, trainer
from torch import Tensor

from isthmus.methods.data_free import DataFree
from isthmus.methods.data_free_generators import GeneratorStep
from isthmus.methods.data_free_images import Pictures
from isthmus.models.data_free import ENCODERS, GENERATORS
from isthmus.models.encoder import Model
from isthmus.models.modules import active_domain
from isthmus.train.trainer import Trainer

OFF = {
    "data_free__entropy_weight": 0.0, "data_free__statistics_weight": 0.0, "data_free__alignment_weight": 0.0,
    "data_free__adversarial_weight": 0.0, "data_free__semantic_weight": 0.0,
    "data_free__diversity_weight": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_teachers(tmp_path_factory.mktemp("teachers"))


def method_of(made: Trainer) -> DataFree:
    assert isinstance(made.method, DataFree)
    made._mode(training=True)
    made.method.students_begun = True
    return made.method


def step_of(method: DataFree, count: int = 6) -> GeneratorStep:
    dice = torch.Generator().manual_seed(3)
    z = torch.randn(count, method.config.data_free.noise, generator=dice)
    return GeneratorStep(method, z, method._classes(dice, count))


def probabilities(logits: Tensor, columns: list[int]) -> list[list[float]]:
    """Of each image, over some columns alone."""
    found = []
    for row in logits.double().tolist():
        powers = [math.exp(row[k] - max(row[j] for j in columns)) for k in columns]
        found.append([value / sum(powers) for value in powers])
    return found


def test_each_term_of_the_generators(teachers: dict[str, str], tmp_path: Path) -> None:
    method = method_of(trainer(tmp_path, teachers))
    step = step_of(method)
    terms = step.losses()
    query_codes, gallery_codes = step.classes or ()
    matched = method.teachers.columns[:, : method.teachers.matched].tolist()
    for side, name in enumerate(DOMAINS):
        logits = step.answers[side].logits.detach()
        everyone = list(range(logits.shape[1]))
        asked = method.teachers.columns[side][step.classes[side]].tolist()  # type: ignore[index]
        each = probabilities(logits, everyone)
        semantic = -sum(math.log(each[i][k]) for i, k in enumerate(asked)) / len(asked)
        assert float(terms[f"semantic/{name}"]) == pytest.approx(semantic, rel=1e-5)
        mean = [sum(row[k] for row in each) / len(each) for k in everyone]
        assert float(terms[f"balance/{name}"]) == pytest.approx(sum(p * math.log(p) for p in mean), abs=1e-6)
        assert f"activation/{name}" not in terms and f"modality/{name}" not in terms
        assert float(terms[f"statistics/{name}"]) > 0
        order = sorted(range(len(asked)), key=lambda i: (asked[i], i))
        ratios = []
        for a, b in itertools.pairwise(order):
            if asked[a] == asked[b]:
                apart = float((step.images[side][a] - step.images[side][b]).abs().mean())
                ratios.append(1 / (1 + apart / float((step.z[a] - step.z[b]).abs().mean())))
        assert float(terms[f"modes/{name}"]) == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)
        assert -0.1 * math.log(2) <= float(terms[f"adversarial/{name}"]) < 0
    pairs = [i for i in range(len(query_codes)) if int(query_codes[i]) == int(gallery_codes[i])]
    assert 0 < len(pairs) < len(query_codes)
    p, q = (probabilities(step.answers[side].logits.detach()[pairs], matched[side]) for side in (1, 0))
    total = 0.0
    for a, b in zip(p, q, strict=True):
        total += sum(x * math.log(x / y) + y * math.log(y / x) for x, y in zip(a, b, strict=True)) / 2
    assert float(terms["alignment"]) == pytest.approx(total / len(pairs), rel=1e-4)


def test_terms_that_are_off_are_not_computed(teachers: dict[str, str], tmp_path: Path) -> None:
    names = {
        "semantic": "semantic",
        "entropy": "balance",
        "diversity": "modes",
        "statistics": "statistics",
        "adversarial": "adversarial",
    }
    for number, (setting, term) in enumerate(names.items()):
        changes = {**OFF, f"data_free__{setting}_weight": 2.0}
        terms = step_of(method_of(trainer(tmp_path / f"{number}", teachers, **changes))).losses()
        assert set(terms) == {f"{term}/{name}" for name in DOMAINS}
    changes = {**OFF, "data_free__alignment_weight": 1.0}
    assert set(step_of(method_of(trainer(tmp_path / "a", teachers, **changes))).losses()) == {"alignment"}
    changes = {**OFF, "data_free__activation_weight": 1.0}
    step = step_of(method_of(trainer(tmp_path / "b", teachers, **changes)))
    terms = step.losses()
    for side, name in enumerate(DOMAINS):
        features = step.answers[side].features.detach()
        assert float(terms[f"activation/{name}"]) == pytest.approx(-float(features.abs().mean()), rel=1e-5)


def test_a_modality_classifier_says_which_is_which(teachers: dict[str, str], tmp_path: Path) -> None:
    modality = make_teacher(tmp_path / "m", ("photo", "sketch"), 4, kind="modality")
    changes = {**OFF, "data_free__modality": str(modality)}
    method = method_of(trainer(tmp_path / "run", teachers, **changes))
    step = step_of(method)
    terms = step.losses()
    assert method.teachers.modality is not None
    for side, (name, column) in enumerate((("sketch", 1), ("photo", 0))):
        logits = method.teachers.modality.answer(step.images[side].detach()).logits
        expected = F.cross_entropy(logits, torch.full((6,), column))
        assert float(terms[f"modality/{name}"]) == pytest.approx(float(expected), rel=1e-5)


def gradients(network: torch.nn.Module) -> list[float]:
    return [float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None]


def test_generators_and_students_train_apart(teachers: dict[str, str], tmp_path: Path) -> None:
    method = method_of(trainer(tmp_path, teachers))
    before = {k: v.clone() for k, v in method.model.encoder.state_dict().items()}
    step = step_of(method)
    sum(step.losses().values()).backward()  # type: ignore[union-attr]
    for name in GENERATORS:
        assert all(value > 0 for value in gradients(method.model.generators[name]))
    assert not gradients(method.model.encoder)
    for part in method.teachers.sides:
        assert not gradients(part.network) and not part.network.training
    assert all(torch.equal(before[k], v) for k, v in method.model.encoder.state_dict().items())
    made = step.pictures()
    for name in GENERATORS:
        method.model.generators[name].zero_grad(set_to_none=True)
    sum(method.students.losses(made).values()).backward()  # type: ignore[union-attr]
    assert not any(gradients(method.model.generators[name]) for name in GENERATORS)
    for side in range(len(ENCODERS)):
        assert gradients(method.model.student(side))


def test_adversarial_images_are_those_where_student_and_teacher_differ(
    teachers: dict[str, str], tmp_path: Path
) -> None:
    changes = {**OFF, "data_free__adversarial_weight": 1.0}
    method = method_of(trainer(tmp_path, teachers, **changes))
    optimizer = torch.optim.Adam([p for g in method.model.generators.values() for p in g.parameters()], 1e-2)
    found: list[float] = []
    for _ in range(8):
        loss: Any = sum(step_of(method).losses().values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < found[0] - 0.02  # further apart than at first


def test_students_of_a_batch_by_hand(teachers: dict[str, str], tmp_path: Path) -> None:
    method = method_of(trainer(tmp_path, teachers, data_free__queue_weight=0.0))
    dice = torch.Generator().manual_seed(5)
    images = [torch.rand(4, 3, 32, 32, generator=dice) for _ in DOMAINS]
    batch = Pictures((images[0], images[1]), (torch.tensor([0, 1, 4, 0]), torch.tensor([0, 1, 2, 3])), True)
    method.model.encoder.eval()
    terms = method.students.losses(batch)
    settings = method.config.data_free
    for side, name in enumerate(DOMAINS):
        vectors = method.model.student(side)(method.model.input_of(images[side])).detach()
        logits = method.teachers.answer(side, images[side]).logits / settings.logit_temperature
        known = method.teachers.known(side).tolist()
        columns = method.teachers.columns[side][known]
        cosines = vectors @ method.proxies[side][known].T
        target = logits[:, columns].softmax(1)
        expected = (target * (target.log() - (settings.similarity_scale * cosines).log_softmax(1))).sum(1).mean()
        assert float(terms[f"distillation/{name}"]) == pytest.approx(float(expected), rel=1e-3, abs=1e-5)
    vectors = [method.model.student(k)(method.model.input_of(images[k])).detach() for k in range(2)]
    beliefs = []
    for side in range(2):
        columns = method.teachers.columns[side][:2]
        beliefs.append(method.teachers.answer(side, images[side]).logits.softmax(1)[:, columns].double())
    total = 0.0
    for a, b, p, q in ((*vectors, *beliefs), (*vectors[::-1], *beliefs[::-1])):
        for i in range(4):
            alike = [float((p[i] * q[j]).sum()) for j in range(4)]
            scores = [math.exp(float(a[i] @ b[j]) / settings.temperature) for j in range(4)]
            total -= sum(alike[j] / sum(alike) * math.log(scores[j] / sum(scores)) for j in range(4)) / 8
    assert float(terms["contrast"]) == pytest.approx(total, rel=1e-3)
    # One space: the sketches' proxies are the photos'. Apart: each has its teacher's own.
    assert torch.equal(method.proxies[0], method.proxies[1])
    apart = method_of(trainer(tmp_path / "apart", teachers, data_free__crossing=False))
    assert torch.allclose(apart.proxies[0][:2], apart.teachers.weights(0)[:2])
    assert torch.allclose(apart.proxies[1][:4], apart.teachers.weights(1)[:4])
    assert not {"queue", "contrast"} & set(apart.students.losses(batch))


def test_students_begin_as_their_teachers(teachers: dict[str, str], tmp_path: Path) -> None:
    method = method_of(trainer(tmp_path, teachers, data_free__crossing=False))
    images = torch.rand(4, 3, 32, 32)
    method.model.encoder.eval()
    for side in range(2):
        vectors = method.model.student(side)(method.model.input_of(images))
        expected = F.normalize(method.teachers.answer(side, images).features, dim=1)
        assert torch.allclose(vectors, expected, atol=1e-4)
    crossed = method_of(trainer(tmp_path / "crossed", teachers))
    crossed.model.encoder.eval()
    turned = crossed.model.student(0)(crossed.model.input_of(images))
    own = crossed.teachers.answer(0, images).features
    assert torch.allclose(turned, F.normalize(own @ crossed.teachers.rotation(), dim=1), atol=1e-4)


def test_a_shared_student_is_the_teachers_mean_with_the_statistics_of_each(
    teachers: dict[str, str], tmp_path: Path
) -> None:
    made = trainer(tmp_path, teachers, data_free__shared=True)
    method = method_of(made)
    assert set(made.model.modules()) == {"encoder", *GENERATORS}
    query, gallery = (part.network.backbone for part in method.teachers.sides)
    mean = [(a + b) / 2 for a, b in zip(query.conv1.parameters(), gallery.conv1.parameters(), strict=True)]
    own = list(method.model.student(0).backbone.conv1.parameters())  # type: ignore[union-attr]
    assert len(own) == len(mean) and all(torch.allclose(a, b) for a, b in zip(own, mean, strict=True))
    norm: Any = method.model.student(0).backbone.bn1  # type: ignore[union-attr]
    for side, part in enumerate((query, gallery)):
        assert torch.equal(norm.domain_running_mean[side], part.bn1.running_mean)  # type: ignore[union-attr]
    assert torch.equal(method.proxies[0], method.proxies[1])
    expected = F.normalize(method.teachers.weights(0)[:2] + method.teachers.weights(1)[:2], dim=1)
    assert torch.allclose(method.proxies[0][:2], expected, atol=1e-6)
    method.model.encoder.eval()
    found = []
    for side in range(2):
        with active_domain(method.model.encoder, side):
            found.append(method.model.student(side)(method.model.input_of(torch.full((1, 3, 32, 32), 0.3))))
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    before = [p.clone() for p in method.model.encoder.parameters()]
    made._mode(training=True)
    for plan in list(method.epoch(0))[2:4]:
        made._step(method.load(plan), 1e-3)
    assert any(not torch.equal(a, b) for a, b in zip(before, method.model.encoder.parameters(), strict=True))
    # Frozen norms: statistics stay those of real images.
    assert torch.equal(norm.domain_running_mean[0], query.bn1.running_mean)  # type: ignore[union-attr]


def test_a_vector_of_both_is_the_chance_of_one_class_and_the_embeddings_cosine(
    teachers: dict[str, str], tmp_path: Path
) -> None:
    changes = {"data_free__readout": "both", "data_free__train": "heads", "data_free__belief_share": 0.3}
    made = trainer(tmp_path, teachers, **changes)
    method = method_of(made)
    images = [torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    method.model.encoder.eval()
    vectors = [method.model.student(k)(method.model.input_of(images[k])).detach() for k in range(2)]
    assert method.model.dim == vectors[0].shape[1] == 2 + 2 + 512
    beliefs, embedded = [], []
    for side in range(2):
        said = method.teachers.answer(side, images[side])
        columns = method.teachers.columns[side][:2]
        beliefs.append(said.logits[:, columns].softmax(1))
        turn = method.teachers.rotation() if side == 0 else torch.eye(512)
        embedded.append(F.normalize(said.features @ turn, dim=1))
        assert torch.allclose(vectors[side].norm(dim=1), torch.ones(5), atol=1e-5)
        assert torch.allclose(method.model.learned_of(vectors[side]), embedded[side], atol=1e-4)
    expected = 0.3 * beliefs[0] @ beliefs[1].T + 0.7 * embedded[0] @ embedded[1].T
    assert torch.allclose(vectors[0] @ vectors[1].T, expected, atol=1e-4)
    before = {k: v.clone() for k, v in method.model.encoder.state_dict().items()}
    for plan in list(method.epoch(0))[2:4]:
        made._step(method.load(plan), 1e-3)
    changed = {k for k, v in method.model.encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"towers.{k}.head.embedding.{part}" for k in range(2) for part in ("weight", "bias")}
    made.model.save(tmp_path / "kept")
    again = Model.load(tmp_path / "kept")
    views = (torch.rand(3, 3, 32, 32) * 255).byte()
    for side in range(2):
        assert torch.allclose(again.embed(views, side), made.model.embed(views, side), atol=1e-6)  # type: ignore[attr-defined]
