"""`isthmus evaluate` from a run's folder to table, JSON and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from isthmus.cli.main import build
from isthmus.config import RunConfig
from isthmus.evaluate.run import Evaluation
from isthmus.models.encoder import Architecture, Model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained model, and two domains of 12 test images with a class folder each."""
    base = tmp_path_factory.mktemp("work")
    for domain in ("sketch", "photo"):
        for i in range(12):
            label = ("cat", "dög")[i % 2]
            path = base / domain / "test" / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", (40, 40), "white")
            draw = ImageDraw.Draw(picture)
            box = (4 + i, 4, 30, 34)
            if i % 2:
                draw.rectangle(box, outline="black", fill=None if domain == "sketch" else "grey")
            else:
                draw.line(box, fill="black", width=2)
            picture.save(path)
    torch.manual_seed(0)
    model = Model.create(Architecture("resnet10t", 16, 32), ("sketch", "photo"), weights="random")
    model.means = torch.full((2, 16), 0.1)
    model.provenance = {"method": "syncdr", "seed": 0}
    run = base / "run"
    model.save(run / "model")
    RunConfig.build(
        "tiny",
        {
            "data.query": {"name": "sketch", "train": str(base / "sketch")},
            "data.gallery": {"name": "photo", "train": str(base / "photo")},
        },
    ).save(run / "config.yaml")
    return run


def invoke(arguments: Sequence[str | Path]) -> Result:
    return CliRunner().invoke(build(), ["evaluate", *map(str, arguments), "--bootstrap", "20", "--workers", "0"])


def test_table_json_and_report(run_folder: Path) -> None:
    done = invoke([run_folder])
    assert done.exit_code == 0, done.output
    for word in ("sketch -> photo", "photo -> sketch", "centred", "plain", "chance", "mAP@all", "Prec@15", "mINP"):
        assert word in done.stdout
    assert "12 queries, gallery of 12; left out for want of a relevant image: 0" in done.stdout
    stored = json.loads((run_folder / "evaluation-test.json").read_text(encoding="utf-8"))
    evaluation = Evaluation.from_dict(stored["evaluation"])
    assert stored["split"] == "test"
    assert len(evaluation.sides) == 4
    assert len(evaluation.side("sketch->photo", "plain").per_query["mAP@all"]) == 12
    page = (run_folder / "report-test.html").read_text(encoding="utf-8")
    assert "dög" in page
    assert page.count("<img") > 50


def test_json_alone(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "scores.json"
    done = invoke([run_folder, "--json", "--out", out, "--no-centring", "--by", "label"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)["evaluation"]
    assert values["primary"] == "mean/Prec@1"
    assert {side["setting"] for side in values["sides"]} == {"plain"}
    assert "per_query" not in values["sides"][0]
    assert out.is_file()
    assert out.with_suffix(".html").is_file()


def test_same_seed_same_file(run_folder: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.json"
        assert invoke([run_folder, "--out", out, "--no-report", "--seed", "7"]).exit_code == 0
        texts.append(out.read_text())
        assert not out.with_suffix(".html").exists()
    assert texts[0] == texts[1]


def test_domains_on_the_command_line(run_folder: Path, tmp_path: Path) -> None:
    sketches, photos = run_folder.parent / "sketch", run_folder.parent / "photo" / "test"
    out = tmp_path / "x.json"
    done = invoke([run_folder / "model", "--query-domain", f"sketch={sketches}", "--gallery-domain", f"photo={photos}",
                   "--out", out])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["evaluation"]["sides"][0]["n_gallery"] == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "val"], "no val images"),
        (["--split", "all"], "--split all"),
        (["--by", "colour"], "--by colour"),
        (["--out", "scores.html"], "must end in .json"),
        (["--by", "identity"], "identit"),
        (["--query-domain", "sketch"], "is not a domain"),
        (["--query-domain", "sketch=/nowhere at all"], "nowhere at all"),
        (["--query-domain", "drawing={sketch}"], "sketch and photo"),
        (["--query-domain", "photo={photo}", "--gallery-domain", "sketch={sketch}"], "exchange"),
    ],
)
def test_bad_input_is_one_sentence(run_folder: Path, arguments: list[str], said: str) -> None:
    places = {name: run_folder.parent / name for name in ("sketch", "photo")}
    done = invoke([run_folder, *(text.format(**places) for text in arguments)])
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert done.stderr.strip().count("\n") == 0


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    done = invoke([tmp_path])
    assert done.exit_code == 2
    assert "--query-domain" in done.stderr


def test_output_that_can_not_be_written(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = invoke([run_folder, "--out", tmp_path / "file" / "x.json"])
    assert done.exit_code == 2
    assert "file stands where a folder is needed" in done.stderr


def test_unreadable_images(run_folder: Path, tmp_path: Path) -> None:
    import shutil

    photos = tmp_path / "photo"
    shutil.copytree(run_folder.parent / "photo", photos)
    broken = photos / "test" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = ["--gallery-domain", f"photo={photos}", "--out", tmp_path / "x.json"]
    done = invoke([run_folder, *options])
    assert done.exit_code == 2
    assert "0.png" in done.stderr
    assert not (tmp_path / "x.json").exists()
    done = invoke([run_folder, *options, "--skip-bad"])
    assert done.exit_code == 0, done.output
    assert "can't be read: 1 images" in done.stdout
