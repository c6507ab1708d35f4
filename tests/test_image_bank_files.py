"""Generated images as a file: what one run made, the students of another learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data_free_zoo import make_teacher, make_teachers, settings, trainer
from training_zoo import same

from isthmus.errors import IsthmusError
from isthmus.methods.data_free import DataFree
from isthmus.methods.image_bank_files import FILE, load_bank
from isthmus.train.run import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A finished run that generated images, and its teachers."""
    folder = tmp_path_factory.mktemp("made")
    teachers = make_teachers(folder)
    train(settings(teachers), folder / "run")
    return folder / "run", teachers


def test_a_bank_is_read_as_it_was_left(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    run, teachers = made
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"]["bank"]
    method = trainer(tmp_path, teachers, data_free__images="bank", data_free__bank=str(run)).method
    assert isinstance(method, DataFree) and method.bank is not None and len(method.bank) == state["seen"] == 64
    dice = [torch.Generator().manual_seed(3) for _ in range(2)]
    drawn = method.bank.draw(64, dice[0])
    order = torch.randperm(64, generator=dice[1])
    for side, (images, codes) in enumerate(((drawn.photos, drawn.photo_codes), (drawn.sketches, drawn.sketch_codes))):
        assert torch.equal((images * 255).round().byte(), state["images"][side][order].permute(0, 3, 1, 2))
        assert torch.equal(codes, state["codes"][order, side])


def test_students_learn_from_it_and_nothing_is_generated(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    run, teachers = made
    first = trainer(tmp_path / "first", teachers, data_free__images="bank", data_free__bank=str(run))
    assert set(first.model.modules()) == {"query", "gallery"}
    begun = {name: value.clone() for name, value in first.model.encoder.state_dict().items()}
    record = first.fit()
    assert not same(begun, first.model.encoder.state_dict())
    assert "students_images_per_s" in record and "generators_images_per_s" not in record
    # What another run made isn't kept again, neither as a file nor in checkpoints; the run can be gone on with.
    assert not (tmp_path / "first" / FILE).exists()
    kept = torch.load(tmp_path / "first" / "checkpoints" / "last.pt", weights_only=True)
    assert kept["method"]["bank"] is None
    again = trainer(tmp_path / "again", teachers, data_free__images="bank", data_free__bank=str(run))
    again.fit()
    assert same(first.model.encoder.state_dict(), again.model.encoder.state_dict())


def test_classes_are_matched_by_name(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    run, _ = made  # classes dog and cat of both, owl and car of photos, bee of sketches
    others = {
        "data_free.photo": str(make_teacher(tmp_path / "photo", ("owl", "cat"), 4)),
        "data_free.sketch": str(make_teacher(tmp_path / "sketch", ("cat", "owl"), 5)),
    }
    method = trainer(tmp_path / "run", others, data_free__images="bank", data_free__bank=str(run / FILE)).method
    assert isinstance(method, DataFree) and method.bank is not None
    names = {"sketch": ("dog", "cat", "bee"), "photo": ("cat", "dog", "owl", "car")}
    counts = method.bank.coverage(2).counts
    before = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["method"]["bank"]["codes"]
    space = ("cat", "dog", "owl", "car", "bee")
    assert set(space) == {*names["sketch"], *names["photo"]}
    for side in range(2):
        for code, name in enumerate(method.teachers.classes):
            assert int(counts[side, code]) == int((before[:, side] == space.index(name)).sum())


def spoiled(path: Path) -> Path:
    path.write_bytes(b"no tensors")
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder, "there is no bank.safetensors there; name a finished run"),
        (lambda folder: folder / "nowhere", "there is no nowhere there"),
        (lambda folder: spoiled(folder / "odd"), "holds no generated images"),
    ],
)
def test_what_is_no_bank_is_one_sentence(
    made: tuple[Path, dict[str, str]], tmp_path: Path, make: Any, sentence: str
) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        trainer(tmp_path / "run", made[1], data_free__images="bank", data_free__bank=str(make(tmp_path)))


def test_a_bank_of_other_domains_is_refused(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    teachers = trainer(tmp_path, made[1], data_free__names=("drawing", "picture")).method.teachers  # type: ignore[attr-defined]
    with pytest.raises(IsthmusError, match=r"images of sketch and photo, not of drawing and picture"):
        load_bank(str(made[0]), teachers)


def test_a_bank_must_be_named(made: tuple[Path, dict[str, str]]) -> None:
    with pytest.raises(IsthmusError, match=r"data_free\.images=bank needs data_free\.bank"):
        settings(made[1], data_free__images="bank")
