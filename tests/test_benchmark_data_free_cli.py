"""`isthmus benchmark data-free`: its tables, its plan, and a sentence for each wrong argument."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_free_bench_zoo import arguments, collection
from typer.testing import CliRunner

from isthmus.benchmark.data_free_classes import read_images
from isthmus.cli.main import build
from isthmus.errors import IsthmusError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("collection"))


def test_the_command_makes_table_and_page(images: Path, tmp_path: Path) -> None:
    words = [*arguments(images), f"--out={tmp_path}", "--rows=own-features,posteriors"]
    told = CliRunner().invoke(build(), [*words, "--list"])
    assert told.exit_code == 0, told.stderr
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["open"] * 4
    assert "photo teacher 0" in told.stdout and not list(tmp_path.iterdir())
    result = CliRunner().invoke(build(), [*words, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["settings"]["independent"]
    assert [row["row"] for row in found["rows"]] == ["own-features", "posteriors"]
    assert found["about"]["one_initialisation"] is False and found["rows"][0]["students_start_from"] == "not trained"
    assert {path.name for path in tmp_path.glob("table.*")} == {"table.html", "table.json", "table.md"}
    text = (tmp_path / "table.md").read_text()
    assert "random weights of its own" in text and "| classifiers' own features |" in text
    told = CliRunner().invoke(build(), [*words, "--list"])
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["done"] * 4


def test_a_plan_trains_nothing(images: Path, tmp_path: Path) -> None:
    words = [*arguments(images), f"--out={tmp_path / 'out'}", "--rows=meta-data", "--plan", "--json"]
    result = CliRunner().invoke(build(), words)
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["units"] == 1 and plan["unit"] == "results from 4 runs" and plan["seconds"] > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--rows=data-free,no-such"], "There is no row 'no-such'; choose --rows from: data-free, "),
        (["--rows=alternative"], "The row 'alternative' can't be had: name another data set's images"),
        (["--rows=procrustes", "--setting=unified"], "No row is left"),
        (["--setting=twin"], "--setting is 'twin'; write independent, unified or both"),
        (["--classes=class0,class1"], "--classes names the known classes and --known counts them"),
        (["--known=9"], "--known is 9, but 5 classes have training and test images in both domains"),
        (["--known=1"], "1 classes are known; a classifier needs 2"),
        (["--held-out=3"], "--held-out is 3, but 2 classes"),
        (["--held-out=-1"], "--held-out is -1"),
        (["--overlap=0.1"], "--overlap 0.1 of 3 known classes leaves none that both teachers know"),
        (["--overlap=0"], "--overlap is 0; write a share"),
        (["--overlap=0.34", "--known=2"], "leaves a teacher 1 class"),
        (["--photos=nowhere"], "There is no folder, list or table nowhere"),
        (["--alternative=photo=x"], "--alternative is 'photo=x'; write photo=PATH,sketch=PATH"),
        (["--set=data_free.images=noise"], "The benchmark sets data_free.images itself; leave it out of --set"),
        (["--teacher-set=seed=3"], "The benchmark sets seed itself; leave it out of --teacher-set"),
        (["--set=train.no=1"], "there is no setting 'train.no'"),
        (["--seeds=a"], "--seeds is 'a'"),
        (["--jobs=0"], "--jobs is 0"),
    ],
)
def test_bad_input_is_one_sentence(images: Path, tmp_path: Path, more: list[str], sentence: str) -> None:
    result = CliRunner().invoke(build(), [*arguments(images), f"--out={tmp_path / 'out'}", *more])
    assert result.exit_code == 2, result.stderr
    assert sentence in result.stderr.replace("\n", " ") and "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_a_class_without_photos_and_an_image_without_label_are_named(images: Path, tmp_path: Path) -> None:
    words = [word for word in arguments(images) if word != "--known=3"]
    result = CliRunner().invoke(build(), [*words, "--classes=class0,bee"])
    assert result.exit_code == 2 and "The class 'bee' of --classes has no sketch in" in result.stderr
    lists = {}
    for name, text in {"train": "class0/0500.png class0\n", "bare": "class0/0500.png\n"}.items():
        lists[name] = tmp_path / f"{name}.txt"
        lists[name].write_text(text.replace("0500", "1500"))
    root = str(images / "sketch")
    with pytest.raises(IsthmusError, match=r"1 of 1 images of 'sketch' in .* have no label"):
        read_images("sketch", str(lists["bare"]), root=root)
    with pytest.raises(IsthmusError, match="is in the splits train and test of"):
        read_images("sketch", f"{lists['train']},test={lists['train']}", root=root)
