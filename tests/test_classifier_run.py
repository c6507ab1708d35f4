"""Training a classifier: one domain, both, or what tells them apart; resumed to the bit, judged, and refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from classifier_zoo import SIDE, drawn, settings
from cli_zoo import answer_of, refused, works
from test_trainer_resume import differing, extend, state
from torchmetrics.functional.classification import multiclass_accuracy
from training_zoo import INK, NO_NORM, PAINT

from isthmus.config import DataConfig, DomainConfig, RunConfig
from isthmus.config.presets import presets_of
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest
from isthmus.data.training import read_labelled_data
from isthmus.errors import IsthmusError
from isthmus.methods.base import Processes
from isthmus.methods.classifier import ClassifierMethod, scores
from isthmus.models.classifier import Classifier
from isthmus.train.estimate import estimate
from isthmus.train.run import train

NAMES = ("class0", "class1", "class2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("drawn"), 24)


def method_of(config: RunConfig) -> ClassifierMethod:
    torch.manual_seed(config.seed)
    data = ClassifierMethod.read(config)
    model = ClassifierMethod.build(config, data)
    source = ImageSource(model.preprocessing, 100, model.preprocessing.filters_of(data.names))
    return ClassifierMethod(config, model, data, source, Processes())


@pytest.mark.parametrize("side", [INK, PAINT])
def test_a_classifier_of_one_domain(folder: Path, tmp_path: Path, side: str) -> None:
    record = train(settings(folder, side), tmp_path / "run")
    teacher = Classifier.load(tmp_path / "run")
    assert teacher.classes == NAMES and teacher.domains == (side,) and teacher.kind == "label"
    assert teacher.provenance["method"] == "classifier" and teacher.provenance["accuracy"] == record["accuracy"]
    assert teacher.provenance["validation_images"] == 6 and sum(teacher.provenance["training_images"]) == 18
    rows = Manifest.load(tmp_path / "run" / "manifest.parquet")
    assert {row.domain for row in rows} == {side}
    assert Counter(row.label for row in rows if row.split == "val") == dict.fromkeys(NAMES, 2)  # held out of each
    assert teacher.answer(torch.rand(2, 3, 50, 50)).logits.shape == (2, 3)


def test_four_epochs_are_two_and_two(folder: Path, tmp_path: Path) -> None:
    usual: dict[str, Any] = {"train__schedule": "constant", "train__warmup_epochs": 0}
    train(settings(folder, PAINT, train__epochs=4, **usual), tmp_path / "four")
    train(settings(folder, PAINT, **usual), tmp_path / "two")
    half = state(tmp_path / "two")
    extend(tmp_path / "two", 4)
    four = state(tmp_path / "four")
    assert differing(four, state(tmp_path / "two")) == []
    assert {"parts", "optimizers", "progress"} <= set(differing(half, four))


def test_best_epoch_is_chosen_by_accuracy(folder: Path, tmp_path: Path) -> None:
    best = train(settings(folder, train__epochs=4, train__steps_per_epoch=4), tmp_path / "run")
    log = state(tmp_path / "run")["log"]
    accuracies = [float(line["accuracy"]) for line in log[1:]]
    assert len(set(accuracies)) > 1  # else any choice would do
    assert best["accuracy"] == pytest.approx(max(accuracies), abs=1e-5)
    # Of equals the later one.
    assert best["epoch"] == 4 - accuracies[::-1].index(max(accuracies))


def test_one_head_for_both_domains_balanced(folder: Path) -> None:
    (folder / "few.txt").write_text(
        "\n".join(f"paint/class{n % 3}/{n:04}.png class{n % 3 + 1}" for n in range(1000, 1004))
    )
    changes = {"data.gallery": {"name": PAINT, "train": str(folder / "few.txt")}, "data.holdout": 0.0}
    method = method_of(settings(folder, **changes, train__batch_size=6, classifier__label_smoothing=0.1))
    assert method.model.classes == (*NAMES, "class3") and method.model.domains == (INK, PAINT)
    (plan, *_) = method.epoch(0)
    assert [len(part) for part in plan.positions] == [6, 4] and method.images_per_step() == 10
    batch = method.load(plan)
    method.model.network.eval()
    ((part, terms),) = method.updates(batch)
    images = (
        batch.views.float() / 255 - torch.tensor(method.model.preprocessing.mean).view(1, 3, 1, 1)
    ) / torch.tensor(method.model.preprocessing.std).view(1, 3, 1, 1)
    logits = method.model.network(images).logits
    expected = [0.0, 0.0]
    rows = [method.data.train[side][n] for side in (0, 1) for n in plan.positions[side]]
    for row, said in zip(rows, logits.log_softmax(dim=1), strict=True):
        side, truth = method.data.names.index(row.domain), method.model.classes.index(str(row.label))
        target = torch.full((4,), 0.1 / 4)
        target[truth] += 0.9
        expected[side] -= float((target * said).sum()) / len(plan.positions[side]) / 2
    assert part == "classifier" and list(terms) == [f"cross_entropy/{INK}", f"cross_entropy/{PAINT}"]
    assert [float(term) for term in terms.values()] == pytest.approx(expected, rel=1e-4)


def test_modality_classifier_learns(folder: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "classifier__target": "domain",
        "train__lr": 1e-2,
        "train__steps_per_epoch": 15,
        "train__batch_size": 9,
    }
    changes |= {"augment__crop": 1.0, "augment__saturation": 0.0}
    record = train(settings(folder, model__backbone=NO_NORM, **changes), tmp_path / "run")
    teacher = Classifier.load(tmp_path / "run")
    assert (teacher.kind, teacher.classes, teacher.domains) == ("modality", (INK, PAINT), (INK, PAINT))
    assert record["accuracy"] > 0.85 and record["confidence"] > 0.6
    assert record["accuracy"] == pytest.approx((record[f"accuracy/{INK}"] + record[f"accuracy/{PAINT}"]) / 2)


def test_order_of_files_does_not_matter(folder: Path, tmp_path: Path) -> None:
    lines = [f"{path.relative_to(folder)} {path.parent.name}" for path in sorted((folder / PAINT).rglob("*.png"))]
    models = []
    for name, order in (("a", lines), ("b", lines[::-1])):
        (tmp_path / f"{name}.txt").write_text("\n".join(order))
        data = {"name": PAINT, "train": str(tmp_path / f"{name}.txt"), "root": str(folder)}
        models.append(method_of(settings(folder, PAINT, **{"data.gallery": data})))
    assert models[0].model.classes == models[1].model.classes == NAMES
    assert {row.id for row in models[0].data.val[1]} == {row.id for row in models[1].data.val[1]}


def test_a_share_of_each_class_is_held_out(folder: Path, tmp_path: Path) -> None:
    images = sorted(path.relative_to(folder) for path in (folder / INK).rglob("*.png"))
    sizes = {"two": 2, "five": 5, "many": 15}
    labels = [label for label, count in sizes.items() for _ in range(count)]
    lines = [f"{image} {label}" for image, label in zip(images, labels, strict=False)]

    def kept_apart(text: list[str]) -> dict[str, set[str]]:
        (tmp_path / "list.txt").write_text("\n".join(text))
        domain = DomainConfig(name=INK, train=str(tmp_path / "list.txt"), root=str(folder))
        data = read_labelled_data(DataConfig(query=domain, holdout=0.2), seed=0)
        assert len(data.train[0]) + len(data.val[0]) == len(text) and not data.rows()[len(text) :]
        return {label: {row.id for row in data.val[0] if row.label == label} for label in sizes}

    whole = kept_apart(lines)
    assert {label: len(ids) for label, ids in whole.items()} == {"two": 0, "five": 1, "many": 3}
    fewer = kept_apart(lines[:4] + lines[7:])  # other classes' images stay where they are
    assert (fewer["five"], fewer["many"]) == (set(), whole["many"])


def test_a_step_shows_each_image_once_and_epochs_differ(folder: Path) -> None:
    method = method_of(settings(folder, PAINT, train__steps_per_epoch=None, train__batch_size=5))
    plans = method.epoch(0)
    seen = [n for plan in plans for n in plan.positions[1]]
    assert len(plans) == 3 and len(seen) == len(set(seen)) == 15 and not any(plan.positions[0] for plan in plans)
    assert plans == method.epoch(0) and plans != method.epoch(1)
    one, other = method.load(plans[0]), method.load(plans[0])
    assert torch.equal(one.views, other.views) and one.views.shape == (5, 3, SIDE, SIDE)
    labels = [method.model.classes[n] for n in one.targets]
    assert labels == [method.data.train[1][n].label for n in plans[0].positions[1]]


def test_scores_are_the_library_s() -> None:
    dice = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(200, 5, generator=dice), torch.randint(0, 4, (200,), generator=dice).pow(2) % 5
    found = scores(logits, targets)
    present = torch.unique(targets)
    each = multiclass_accuracy(logits, targets, 5, average="none")[present]
    assert found["accuracy"] == pytest.approx(float(multiclass_accuracy(logits, targets, 5, average="micro")))
    assert found["balanced_accuracy"] == pytest.approx(float(each.mean()))
    assert found["confidence"] == pytest.approx(float(F.softmax(logits, 1).max(1).values.mean()))
    assert len(present) < 5 and found["accuracy"] != pytest.approx(found["balanced_accuracy"], abs=1e-4)


def test_judge_asks_as_answer_does(folder: Path, tmp_path: Path) -> None:
    method = method_of(settings(folder, PAINT, augment__resize=SIDE))
    rows = method.data.val[1]
    views = torch.stack([method.source.test_view(row) for row in rows])
    judge = method.judge(tmp_path, autocast=False)
    assert torch.allclose(judge.logits(rows), method.model.answer(views / 255).logits, atol=1e-5)
    assert judge.images() == 6


def test_estimate_and_bad_images(folder: Path, tmp_path: Path) -> None:
    plan = estimate(settings(folder, INK))
    assert plan.what == "train classifier" and plan.units == 4 and plan.seconds > 0
    broken = drawn(tmp_path / "broken", 9)
    (broken / PAINT / "class0" / "0999.png").write_bytes(b"nothing")
    with pytest.raises(IsthmusError, match="1 of 10 images can't be read"):
        train(settings(broken, PAINT), tmp_path / "run")
    train(settings(broken, PAINT, data__on_bad_image="skip", train__epochs=1), tmp_path / "run")
    assert "0999.png" in (tmp_path / "run" / "skipped.txt").read_text()


def test_validation_images_of_unknown_classes_are_left_out_aloud(folder: Path, tmp_path: Path) -> None:
    (folder / "val.txt").write_text("ink/class0/0000.png class0\nink/class1/0001.png zebra\n")
    data = {"name": PAINT, "train": str(folder / PAINT), "val": str(folder / "val.txt")}
    method = method_of(settings(folder, PAINT, **{"data.gallery": data}))
    assert [row.label for row in method.data.val[1]] == ["class0"]
    assert any("1 validation images are left out" in note and "zebra" in note for note in method.data.notes)


def test_without_validation_images_the_last_epoch_is_kept(folder: Path, tmp_path: Path) -> None:
    record = train(settings(folder, PAINT, data__holdout=0.0), tmp_path / "run")
    assert record["epoch"] == 2 and "accuracy" not in record
    assert "accuracy" not in Classifier.load(tmp_path / "run").provenance


def test_command_line(folder: Path, tmp_path: Path) -> None:
    base = ["train", "--method", "classifier", "--backbone", NO_NORM, "--weights", "random", "--preset", "tiny"]
    base += ["--set", "train.epochs=1", "--set", "train.steps_per_epoch=1", "--set", "train.precision=32-true"]
    photo = ["--gallery-domain", f"photo={folder / PAINT}"]
    done = works(*base, *photo, "--out", tmp_path / "run")
    assert f"isthmus train --method data-free --sketch-classifier SKETCHES --photo-classifier {tmp_path}" in done.output
    assert Classifier.load(tmp_path / "run").domains == ("photo",)
    assert answer_of(*base, *photo, "--plan", "--json")["units"] == 1
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, path in enumerate((folder / PAINT).rglob("*.png")):
        (flat / f"{n}.png").write_bytes(path.read_bytes())
    out = ["--out", tmp_path / "none"]
    refused(*base, *out, says=("A domain is needed",))
    refused(*base, *out, "--gallery-domain", f"photo={flat}", says=("24 of 24 images of 'photo' have no label",))
    refused(*base, *out, *photo, "--set", "classifier.target=domain", says=("tells two domains apart",))
    one = ["--gallery-domain", f"photo={folder / PAINT / 'class0'}"]
    refused(*base, *out, *one, says=("have no label",))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model.dim": 8}, r"classifier doesn't use model\.dim"),
        ({"model.gallery_filter": "edges"}, r"model\.gallery_filter"),
        ({"loss.momentum": 0.1}, r"loss\.momentum"),
        ({"data.synthetic": ["x"]}, r"data\.synthetic"),
        ({"data.source": {"name": "s", "train": "x"}}, r"no use for data\.source"),
        ({"train.balance": True}, r"train\.balance"),
        ({"train.select": "labels"}, r"train\.select = labels scores retrieval"),
        ({"cut.width": 8}, r"doesn't use settings cut\.\*"),
        ({"ihda.margin": 1.0}, r"doesn't use settings ihda\.\*"),
        ({"classifier.target": "colour"}, r"classifier\.target"),
        ({"method": "cds", "classifier.target": "domain"}, r"cds doesn't use settings classifier\.\*"),
    ],
)
def test_settings_that_would_change_nothing_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        RunConfig.build("default", {"method": "classifier"}, change)


def test_presets() -> None:
    assert set(presets_of("classifier")) == set(presets_of("syncdr"))
    paper = RunConfig.build("paper", {"method": "classifier"})
    assert paper.model.backbone.startswith("resnet34") and paper.model.image_size == paper.augment.resize == 224
    assert (paper.train.optimizer, paper.train.lr, paper.train.weight_decay) == ("adam", 1e-3, 5e-4)
    for name in ("default", "tiny"):
        run = RunConfig.build(name, {"method": "classifier"})
        assert run.augment.crop < 1 and run.augment.flip and run.augment.saturation and run.train.select == "auto"


def test_one_class_is_none(tmp_path: Path) -> None:
    drawn(tmp_path, 6)
    (tmp_path / "one.txt").write_text("paint/class0/1002.png a\npaint/class1/1000.png a\n")
    data = {"name": PAINT, "train": str(tmp_path / "one.txt")}
    with pytest.raises(IsthmusError, match="All training images are of the class 'a'"):
        method_of(settings(tmp_path, PAINT, **{"data.gallery": data}))
