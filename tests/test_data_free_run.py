"""Whole runs of data-free training: without an image, resumed to the same bits, from every source of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data_free_zoo import DOMAINS, make_teacher, make_teachers, settings, trainer
from PIL import Image

import isthmus
from isthmus.data import images as decoding
from isthmus.data import loading
from isthmus.errors import IsthmusError
from isthmus.train.run import train
from isthmus.train.trainer import Trainer


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_teachers(tmp_path_factory.mktemp("teachers"))


def test_no_image_is_read(teachers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifiers' images are gone, and whoever opens any image fails."""

    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("an image was read")

    for place in (decoding, loading):
        monkeypatch.setattr(place, "load_image", refuse)
    monkeypatch.setattr(Image, "open", refuse)
    out = tmp_path / "run"
    record = train(settings(teachers), out)
    assert record["epoch"] == 2 and {path.name for path in (out / "samples").iterdir()} == {
        "0000.png", "0001.png", "0002.png",
    }  # fmt: skip
    assert not list((tmp_path).glob("**/*.jpg"))
    model = isthmus.load(out)
    assert model.domains == DOMAINS and model.provenance["data_free"] and model.provenance["matched_classes"] == 2
    assert model.provenance["students"] == "teachers" and model.provenance["images"] == "generators"
    log = (out / "log.csv").read_text()
    for name in (
        "confidence/photo",
        "coverage/sketch",
        "agreement/photo",
        "generators_images_per_s",
        "students_images",
    ):
        assert name in log


def test_domains_are_refused(teachers: dict[str, str]) -> None:
    with pytest.raises(IsthmusError, match="data-free reads no images"):
        settings(teachers, data__gallery={"name": "photo", "train": "nowhere"})
    with pytest.raises(IsthmusError, match="sees no image to choose by"):
        settings(teachers, train__select="snd")
    with pytest.raises(IsthmusError, match=r"doesn't use model\.backbone"):
        settings(teachers, model__backbone="resnet18")
    with pytest.raises(IsthmusError, match=r"model\.freeze_norm keeps statistics"):
        settings(teachers, data_free__students="scratch")
    with pytest.raises(IsthmusError, match="is no multiple of 8"):
        settings(teachers, data_free__image_size=50)
    with pytest.raises(IsthmusError, match=r"leave out data_free\.photo"):
        settings(teachers, data_free__unified="u")
    with pytest.raises(IsthmusError, match="are all 0; keep one"):
        settings(
            teachers,
            data_free__queue_weight=0.0,
            data_free__proxy_weight=0.0,
            data_free__distillation_weight=0.0,
            data_free__contrast_weight=0.0,
        )


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    return {f"{part}.{k}": v for part, module in made.model.modules().items() for k, v in module.state_dict().items()}


@pytest.mark.parametrize("images", ["generators", "noise", "inverted"])
def test_a_resumed_run_is_the_same_to_the_bit(teachers: dict[str, str], tmp_path: Path, images: str) -> None:
    whole = trainer(tmp_path / "whole", teachers, data_free__images=images)
    whole.fit()
    half = trainer(tmp_path / "half", teachers, data_free__images=images)

    def stop(batch: Any, rate: float, step: Any = half._step) -> Any:
        if half.progress.step == 5:
            raise KeyboardInterrupt
        done = step(batch, rate)
        if half.progress.step == 4:
            half.progress.step, half.progress.step_in_epoch = 5, 1
            half._save()  # as a checkpoint within an epoch would
            half.progress.step, half.progress.step_in_epoch = 4, 0
        return done

    half._step = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        half.fit()
    again = trainer(tmp_path / "half", teachers, data_free__images=images)
    again.fit(resume=True)
    assert again.progress.step == whole.progress.step == 8
    found = weights(again)
    for name, value in weights(whole).items():
        assert torch.equal(value, found[name]), name


def test_images_of_folders_serve_as_alternative_data_and_as_upper_bound(
    teachers: dict[str, str], tmp_path: Path
) -> None:
    for domain, shade in zip(DOMAINS, (90, 160), strict=True):
        for number in range(12):
            path = tmp_path / domain / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (shade + number, shade, 20 * (number % 2))).save(path)
    data = {
        "data__query": {"name": "sketch", "train": str(tmp_path / "sketch")},
        "data__gallery": {"name": "photo", "train": str(tmp_path / "photo")},
        "data_free__images": "folders", "train__batch_size": 4,
    }  # fmt: skip
    for labels in ("teachers", "given"):
        everything = {"data_free__train": "all", "data_free__readout": "embedding", "data_free__stages": 0}
        more = everything if labels == "given" else {}
        made = trainer(tmp_path / labels, teachers, **data, **more, data_free__labels=labels)
        assert "is not data-free" in " ".join(made.data.notes)
        batch = made.method.load(made.method.epoch(0)[0])
        assert batch.views[0].shape == (8, 3, 32, 32)  # two of the students' steps
        made.fit()
        assert not isthmus.load(tmp_path / labels).provenance["data_free"]
    given = made.method._pictures(batch, 0, torch.Generator())  # type: ignore[attr-defined]
    assert set(given.codes[0].tolist()) <= {0, 1} and not given.pairs
    terms = made.method.students.losses(given)  # type: ignore[attr-defined]
    sides = [made.method.students._vectors(side, given.images[side], []) for side in (0, 1)]  # type: ignore[attr-defined]
    # The folders say which belong together, not the teachers.
    same = (given.codes[0][:, None] == given.codes[1]).float()
    rows = -(same * (sides[0] @ sides[1].T / 0.07).log_softmax(1)).sum(1) / same.sum(1).clamp(min=1)
    columns = -(same * (sides[0] @ sides[1].T / 0.07).log_softmax(0)).sum(0) / same.sum(0).clamp(min=1)
    torch.testing.assert_close(terms["contrast"], (rows.mean() + columns.mean()) / 2, rtol=0.02, atol=0.002)
    short = batch._replace(views=tuple(x[:3] for x in batch.views), codes=tuple(x[:3] for x in batch.codes))
    again = made.method._pictures(short, 1, torch.Generator())  # type: ignore[attr-defined]
    assert torch.equal(again.codes[0], batch.codes[0][[1, 2, 0, 1]]) and len(again.images[1]) == 4


def test_a_collapse_is_said(teachers: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(tmp_path, teachers)
    for network in made.model.generators.values():  # type: ignore[attr-defined]
        torch.nn.init.zeros_(network.colours.weight)
    made.method.begun = 1
    notes = made.judge.verdict().notes
    assert len(notes) == 2 and all("all its images look alike" in note for note in notes)
    assert not made.judge.verdict().notes  # once


def test_students_from_scratch_and_from_other_weights(teachers: dict[str, str], tmp_path: Path) -> None:
    other = {"model__backbone": "resnet14t", "model__image_size": 64, "model__freeze_norm": False}
    made = trainer(tmp_path / "scratch", teachers, data_free__students="scratch", **other, train__epochs=1)
    assert made.model.dim == 512 and made.model.preprocessing.size == 64  # type: ignore[attr-defined]
    made.fit()
    assert isthmus.load(tmp_path / "scratch").provenance["data_free"]
    file = tmp_path / "weights.safetensors"
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet14t", num_classes=0).state_dict(), file)
    made = trainer(
        tmp_path / "w", teachers, data_free__students="weights", **other, model__weights=str(file), train__epochs=1
    )
    assert "this run is not data-free" in " ".join(made.data.notes)
    made.fit()
    assert not isthmus.load(tmp_path / "w").provenance["data_free"]


def test_teachers_that_differ_say_what_to_do(tmp_path: Path) -> None:
    photo = make_teacher(tmp_path / "p", ("cat", "dog"))
    from isthmus.models.classifier import Classifier

    large = Classifier.create("resnet10t", ("cat", "dog"), 64, weights="random")
    large.save(tmp_path / "large")
    named = {"data_free.photo": str(photo), "data_free.sketch": str(tmp_path / "large")}
    with pytest.raises(IsthmusError, match="another input size each"):
        trainer(tmp_path / "run", named)
    made = trainer(tmp_path / "run", named, data_free__students="scratch", model__freeze_norm=False)
    made._step(made.method.load(made.method.epoch(0)[3]), 1e-3)
    looks = Classifier.create("resnet10t", ("cat", "dog"), 32, weights="random")
    object.__setattr__(looks.preprocessing, "mean", (0.1, 0.2, 0.3))
    looks.save(tmp_path / "looks")
    with pytest.raises(IsthmusError, match="another normalisation each"):
        trainer(tmp_path / "run2", {**named, "data_free.sketch": str(tmp_path / "looks")})
    deep = Classifier.create("resnet14t", ("cat", "dog"), 32, weights="random")
    deep.save(tmp_path / "deep")
    with pytest.raises(IsthmusError, match="another architecture each"):
        trainer(tmp_path / "run3", {**named, "data_free.sketch": str(tmp_path / "deep")})


@pytest.mark.parametrize(
    "changes",
    [{"crossing": False}, {}, {"shared": True}, {"readout": "posteriors"}],
    ids=lambda c: next(iter(c), "rotated"),
)
def test_teachers_as_they_are(teachers: dict[str, str], tmp_path: Path, changes: dict[str, Any]) -> None:
    """Own features, Procrustes, averaged weights and class posteriors: models that nothing was trained for."""
    made = trainer(
        tmp_path / "run", teachers, data_free__images="none", **{f"data_free__{k}": v for k, v in changes.items()}
    )
    before = {k: v.clone() for k, v in made.model.encoder.state_dict().items()}  # type: ignore[attr-defined]
    assert made.fit()["epoch"] == 0
    model = isthmus.load(tmp_path / "run")
    assert all(torch.equal(before[k], v) for k, v in model.encoder.state_dict().items())
    picture = Image.effect_noise((32, 32), 60).convert("RGB")
    pixels = model.preprocessing(picture).float().unsqueeze(0) / 255
    sides = made.method.teachers.sides  # type: ignore[attr-defined]
    for side, name in enumerate(DOMAINS):
        vector = torch.from_numpy(model.encode([picture], domain=name))[0]
        said = sides[side].answer(pixels)
        if "readout" in changes:
            both = ("cat", "dog")
            chosen = said.logits[0, [sides[side].classes.index(name) for name in both]]
            assert model.dim == 2 and torch.allclose(vector, torch.nn.functional.normalize(chosen.softmax(0), dim=0))
        elif "crossing" in changes or (not changes and side == 1):
            expected = torch.nn.functional.normalize(said.features[0], dim=0)
            assert torch.allclose(vector, expected, atol=1e-4)


def test_posteriors_need_no_students(teachers: dict[str, str]) -> None:
    with pytest.raises(IsthmusError, match=r"set data_free\.images=none"):
        settings(teachers, data_free__readout="posteriors")
    with pytest.raises(IsthmusError, match="trains each student alone"):
        settings(teachers, data_free__shared=True, data_free__crossing=False)
