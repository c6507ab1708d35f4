"""`isthmus index`, `search` and `catalog` as a person calls them, with a real (tiny, untrained) model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import photos, picture
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import isthmus
from isthmus.catalog import sync as sync_module
from isthmus.catalog.store import Catalog
from isthmus.cli.main import build
from isthmus.models.encoder import Architecture, Model

BACKBONE = "test_resnet"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(build(), [str(word) for word in words])


def result(*words: str | Path) -> Any:
    answer = call(*words, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "run"
    Model.create(Architecture(BACKBONE, 16, 32), ("sketch", "photo"), weights="random").save(place / "model")
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", 8)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f"{number:03}.png,{number * 10},cup" for number in range(8)]
    path = tmp_path / "prices.csv"
    path.write_text("path,price,kind\n" + "\n".join(lines) + "\nnone.png,1,x\n", encoding="utf-8")
    return path


@pytest.fixture
def catalog(tmp_path: Path, run: Path, folder: Path, table: Path) -> Path:
    assert call("index", run, folder, "--out", tmp_path / "catalog", "--metadata", table).exit_code == 0
    return tmp_path / "catalog"


def test_index_says_what_it_did(tmp_path: Path, run: Path, folder: Path, table: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    picture(folder / "twin.png", 3)
    answer = call("index", run, folder, "--out", tmp_path / "c", "--metadata", table)
    assert answer.exit_code == 0
    assert "9 added" in answer.stdout and "9 items" in answer.stdout
    assert "broken.png" in answer.stderr and "1 images were left out" in answer.stderr
    assert "photo/twin.png = photo/003.png" in answer.stderr
    assert "1 rows of the metadata belong to no image" in answer.stderr
    again = result("index", run, folder, "--out", tmp_path / "c")
    assert (again["unchanged"], again["embedded"], again["items"]) == (9, 0, 9)
    assert again["bad"][0]["id"] == "photo/broken.png"
    (folder / "000.png").unlink()
    assert result("index", run, folder, "--out", tmp_path / "c", "--sync")["removed"] == 1


def test_vectors_are_made_in_the_precision_that_is_asked_for(tmp_path: Path, run: Path, folder: Path) -> None:
    assert call("index", run, folder, "--out", tmp_path / "c", "--precision", "bfloat16").exit_code == 0
    exact, half = isthmus.load(run), isthmus.load(run, precision="bfloat16")
    (row,) = Catalog.open(tmp_path / "c").items.fetch(["photo/003.png"])[1]
    wanted, other = (model.encode([folder / "003.png"], domain="photo")[0] for model in (half, exact))
    np.testing.assert_allclose(row, wanted, atol=2e-3)
    assert not np.array_equal(row, other)
    answer = call("index", run, folder, "--out", tmp_path / "new", "--precision", "int4")
    assert answer.exit_code == 2 and "float32 or bfloat16, not in 'int4'" in answer.stderr
    assert not (tmp_path / "new").exists()


def test_search_finds_prints_and_draws(tmp_path: Path, catalog: Path, folder: Path) -> None:
    query = folder / "004.png"
    answer = result("search", catalog, query, "--domain", "photo", "-k", "3", "--where", "price <= 40")
    assert [hit["id"] for hit in answer[0]["hits"]][:1] == ["photo/004.png"]
    assert len(answer[0]["hits"]) == 3
    assert answer[0]["hits"][0]["metadata"] == {"price": 40.0, "kind": "cup"}
    sheet = tmp_path / "hits.png"
    shown = call("search", catalog, query, "photo/001.png", "-k", "2", "--save", sheet)
    assert shown.exit_code == 0, shown.output
    assert "cosine" in shown.stdout and "price" in shown.stdout and str(sheet) in shown.stdout
    with Image.open(sheet) as image:
        assert image.width > 3 * 160 and image.height > 2 * 160
    assert "no item passes" in call("search", catalog, query, "--where", "price > 1000").stdout


def test_the_vectors_are_the_models(catalog: Path, folder: Path, run: Path) -> None:
    model = Model.load(run)
    expected = model.encode([folder / "002.png"], domain="photo")[0]
    opened = Catalog.open(catalog, model)
    _, vectors = opened.items.fetch(["photo/002.png"])
    assert abs(vectors[0] - expected).max() < 1e-5
    assert opened.search(expected, k=1)[0].score == pytest.approx(1, abs=1e-6)


def test_catalog_verbs(tmp_path: Path, catalog: Path, folder: Path) -> None:
    info = result("catalog", "info", catalog)
    assert info["items"] == 8 and info["metadata"] == {"price": "number", "kind": "text"}
    assert "price (number)" in call("catalog", "info", catalog).stdout
    photos(tmp_path / "more", 2, start=20)
    assert result("catalog", "add", catalog, tmp_path / "more")["added"] == 2
    prices = tmp_path / "new.csv"
    prices.write_text("id,price\nphoto/020.png,5\n", encoding="utf-8")
    assert result("catalog", "add", catalog, "--metadata", prices) == {"changed": 1}
    assert result("catalog", "delete", catalog, "photo/020.png", "unknown") == {"deleted": 1, "items": 9}
    assert result("catalog", "delete", catalog, "--where", "price >= 60") == {"deleted": 2, "items": 7}
    (folder / "000.png").unlink()
    changes = result("catalog", "sync", catalog, folder)
    assert (changes["removed"], changes["added"], changes["items"]) == (1, 2, 8)
    assert result("catalog", "verify", catalog, "--files")["sound"] is True
    assert "sound" in call("catalog", "verify", catalog).stdout


def test_plan_measures_and_writes_nothing(tmp_path: Path, run: Path, folder: Path, catalog: Path) -> None:
    plan = result("index", run, folder, "--out", tmp_path / "new", "--plan")
    assert plan["units"] == 8 and plan["seconds"] > 0 and plan["disk"] > 0 and plan["memory"] > 0
    assert not (tmp_path / "new").exists()
    picture(folder / "new.png", 77)
    assert result("index", run, folder, "--out", catalog, "--plan")["units"] == 1
    assert "images/s" in call("index", run, folder, "--out", catalog, "--plan").stdout
    assert len(Catalog.open(catalog)) == 8


def test_mistakes_are_sentences(tmp_path: Path, run: Path, folder: Path, catalog: Path, table: Path) -> None:
    other = tmp_path / "other"
    Model.create(Architecture(BACKBONE, 8, 32), ("sketch", "photo"), weights="random").save(other)
    (folder / "bad.png").write_bytes(b"x")
    for words, says in (
        (("index", other, folder, "--out", catalog), "was made with the model"),
        (("index", run, tmp_path / "nowhere", "--out", tmp_path / "c"), "nowhere"),
        (("index", run, folder, "--out", folder), "holds other files"),
        (("index", run, folder, "--out", catalog, "--on-bad", "stop"), "skip or raise"),
        (("index", run, folder, "--out", catalog, "--on-bad", "raise"), "bad.png"),
        (("index", run, table, "--out", catalog, "--sync"), "--sync compares with a folder"),
        (("index", run, folder, "--out", tmp_path / "c", "--domain", "clipart"), "sketch and photo"),
        (("index", tmp_path, folder, "--out", tmp_path / "c"), "is no model"),
        (("search", tmp_path / "c", folder / "000.png"), "no catalog"),
        (("search", catalog, "missing.png"), "missing.png"),
        (("search", catalog, folder / "bad.png"), "bad.png"),
        (("search", catalog, folder / "000.png", "--where", "cost < 3"), "no column 'cost'"),
        (("search", catalog, folder / "000.png", "--save", tmp_path / "hits.txt"), "no picture by its name"),
        (("catalog", "add", catalog), "Say what to add"),
        (("catalog", "delete", catalog), "Say what to delete"),
    ):
        answer = call(*words)
        assert answer.exit_code == 2, (words, answer.output)
        assert says in answer.stderr and "Traceback" not in answer.output, (words, answer.output)
    assert not (tmp_path / "c").exists()
    assert len(Catalog.open(catalog)) == 8


def test_the_model_is_found_again_after_a_move(tmp_path: Path, run: Path, folder: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(run, home / "run")
    assert call("index", home / "run", folder, "--out", home / "catalog").exit_code == 0
    moved = home.rename(tmp_path / "moved")
    assert result("search", moved / "catalog", folder / "000.png", "--domain", "photo", "-k", "1")
    shutil.rmtree(moved / "run")
    lost = call("search", moved / "catalog", folder / "000.png")
    assert lost.exit_code == 2 and "--model RUN" in lost.stderr
    assert result("search", moved / "catalog", folder / "000.png", "--model", run, "-k", "1")
    assert result("search", moved / "catalog", "photo/000.png", "-k", "1")  # an item needs no model


def test_an_interruption_says_what_is_kept(
    tmp_path: Path, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sync_module.Writer, "flush", stop)
    answer = call("index", run, folder, "--out", tmp_path / "c")
    assert answer.exit_code == 130
    assert "0 items are in" in answer.stderr and "the same command goes on" in answer.stderr
