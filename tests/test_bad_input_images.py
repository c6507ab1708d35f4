"""Odd and broken image files on the way through all verbs: odd ones just work, broken ones are told by name."""

from __future__ import annotations

from pathlib import Path

import images_zoo
import numpy as np
import pytest
from cli_zoo import World, answer_of, call, make_world, refused, unharmed, works
from images_zoo import BROKEN, ODD_NAMES, SOUND

from isthmus.catalog.store import Catalog
from isthmus.cli.common import visible
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.models.encoder import Model


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, cli_world: World) -> World:
    """A world with every kind of sound image and every odd name, after translation, training and indexing."""
    world = make_world(tmp_path_factory.mktemp("ödd world") / "of it")
    for make in SOUND.values():
        make(world.folder / "photo" / "train" / "cat")
        make(world.folder / "photo" / "test" / "cat")
    images_zoo.odd_names(world.folder / "photo" / "train" / "dog\nand more")
    for domain in ("sketch", "photo"):
        images_zoo.odd_names(world.folder / domain / "test" / "dog")
        works(*world.translate(domain))
    works(*world.train(method="syncdr"))
    works("index", world.folder / "runs" / "syncdr", world.folder / "photo", "--out", world.folder / "catalog")
    return world


def test_every_verb_takes_them(odd: World) -> None:
    images = 12 + 2 * len(SOUND) + 2 * len(ODD_NAMES)
    assert answer_of("check", odd.folder / "photo" / "train")["images"] == 8 + len(SOUND) + len(ODD_NAMES)
    assert answer_of("catalog", "info", odd.folder / "catalog")["items"] == images
    assert len(Manifest.load(odd.made("photo") / "manifest.parquet")) == 8 + len(SOUND) + len(ODD_NAMES)
    trained = Manifest.load(odd.folder / "runs" / "syncdr" / "manifest.parquet")
    assert sum("@" not in row.id and row.domain == "photo" for row in trained) == 8 + len(SOUND) + len(ODD_NAMES)
    scores = answer_of("evaluate", odd.folder / "runs" / "syncdr", "--bootstrap", 0)["evaluation"]
    assert scores["sides"][0]["n_gallery"] == 4 + len(SOUND) + len(ODD_NAMES)
    page = (odd.folder / "runs" / "syncdr" / "report-test.html").read_text(encoding="utf-8")
    assert "猫" in page


def test_one_embedding_in_training_index_and_search(odd: World) -> None:
    model = Model.load(odd.folder / "runs" / "syncdr")
    rows = read_source(odd.folder / "photo", "photo").rows
    source = ImageSource(model.preprocessing)
    opened = Catalog.open(odd.folder / "catalog")
    stored, vectors = opened.items.fetch(row.id for row in rows)
    indexed = {row["id"]: vector for row, vector in zip(stored, vectors, strict=True)}
    for row in rows:
        trained = model.centre(model.embed(source.test_view(row)[None], 1), 1)[0].numpy()
        np.testing.assert_allclose(indexed[row.id], trained, atol=2e-5, err_msg=row.id)
    queries = [row.path for row in rows if Path(row.path).stem not in "0123"]
    answers = answer_of("search", odd.folder / "catalog", *queries, "--domain", "photo", "-k", len(rows))
    by_path = {row.path: row.id for row in rows}
    for answer in answers:
        score = next(hit["score"] for hit in answer["hits"] if hit["id"] == by_path[answer["query"]])
        assert score == pytest.approx(1, abs=2e-5)


def test_rotation_and_transparency_reach_the_network(odd: World, tmp_path: Path) -> None:
    """The same picture stored in another way has the same vector, up to the losses of JPEG."""
    for orientation in (6, 8, 3):
        images_zoo.rotated(tmp_path, orientation)
    images_zoo.upright((32, 64)).save(tmp_path / "upright6.png")
    images_zoo.upright((64, 32)).save(tmp_path / "upright3.png")
    model = Model.load(odd.folder / "runs" / "syncdr")
    names = ("rotated6.jpg", "rotated8.jpg", "upright6.png", "rotated3.jpg", "upright3.png")
    a, b, c, d, e = model.encode([tmp_path / name for name in names], domain="photo")
    assert min(a @ c, b @ c, d @ e) > 0.995
    assert c @ e < min(a @ c, b @ c, d @ e)  # else nothing was shown


def test_names_are_printed_visibly(odd: World) -> None:
    for name in ODD_NAMES:
        query = odd.folder / "sketch" / "test" / "dog" / name
        shown = works("search", odd.folder / "catalog", query, "-k", 40).stdout
        for other in ODD_NAMES:
            assert visible(other) in shown, (other, shown)
        assert "and more/two\nlines" not in shown
    none = works("search", odd.folder / "catalog", odd.folder / "sketch" / "test" / "dog" / ODD_NAMES[1],
                 "--where", "label = 'no'").stdout  # fmt: skip
    assert "two\\nlines.png" in none and none.count("\n") == 1


@pytest.fixture
def broken(tmp_path: Path) -> World:
    """A world where one photo's name holds a line break and its file is no image."""
    world = make_world(tmp_path / "world")
    (world.folder / "photo" / "train" / "cat" / "bro\nken.png").write_text("<html>")
    return world


def test_a_broken_image_is_listed_or_raised(cli_world: World, broken: World, tmp_path: Path) -> None:
    run, photo, catalog = cli_world.folder / "runs" / "syncdr", broken.folder / "photo", tmp_path / "catalog"
    name, out = "bro\\nken.png", tmp_path / "out"
    evaluate = ["evaluate", run, "--split", "train", "--gallery-domain", f"photo={photo}", "--bootstrap", 0,
                "--out", tmp_path / "scores.json"]  # fmt: skip
    with unharmed(tmp_path):
        refused(*broken.train(out=out), says=(name, "1 of 17 images", "data.on_bad_image=skip"))
        refused(*broken.train("--plan", out=out), says=(name,))
        refused(*evaluate, says=(name,))
    works(*broken.train("--set", "data.on_bad_image=skip", "--plan", out=out))
    assert not any(out.rglob("*"))
    # Translating strictly keeps what was done before the bad image.
    refused(*broken.translate("photo", "--on-bad", "raise", out=tmp_path / "strict"), says=(name,))
    refused("index", run, photo, "--out", catalog, "--on-bad", "raise", says=(name,))
    assert len(Catalog.open(catalog)) in (0, 12)

    trained = works(*broken.train("--set", "data.on_bad_image=skip", out=out))
    assert name in trained.stderr and "1 unreadable images are left out" in trained.stderr
    assert name in (out / "skipped.txt").read_text(encoding="utf-8")
    for command, says in (
        (broken.translate("photo"), "Left out"),
        (["index", run, photo, "--out", catalog], "left out"),
        (["catalog", "sync", catalog, photo], "left out"),
    ):
        answer = works(*command)
        told = [line for line in answer.stderr.splitlines() if says in line and name in line]
        assert len(told) == 1, answer.stderr
        assert not any(line.startswith("ken.png") for line in answer.output.splitlines())
    assert len(Catalog.open(catalog)) == 12
    assert "1 images" in works(*evaluate, "--skip-bad").stdout
    looked = call("check", photo)
    assert looked.exit_code == 2 and name in looked.stdout and "1 errors to mend" in looked.stdout


@pytest.mark.parametrize("kind", BROKEN)
def test_every_kind_of_broken_image(cli_world: World, tmp_path: Path, kind: str) -> None:
    path = BROKEN[kind](tmp_path / "photos")
    catalog, run = cli_world.folder / "catalog", cli_world.folder / "runs" / "syncdr"
    with unharmed(tmp_path, cli_world.folder):
        sentence = refused("search", catalog, path, says=(path,))
        refused("index", run, path.parent, "--out", catalog, "--on-bad", "raise", says=(sentence,))
        looked = call("check", path.parent)
        assert looked.exit_code == 2 and path.name in looked.stdout and looked.stderr == ""
    if kind == "bomb":
        assert "400,000,000 pixels" in sentence and "not decoded" in sentence
    left_out = works("index", run, path.parent, "--out", tmp_path / "catalog")
    assert sentence in left_out.stderr and "0 items" in left_out.stdout
    refused(*cli_world.translate("photo", "--source", f"photo={path.parent}", out=tmp_path / "made"),
            says=("None of the 1 images could be translated", path))  # fmt: skip


def test_a_domain_of_nothing_but_broken_images(cli_world: World, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    images_zoo.truncated(photos)
    images_zoo.zero_bytes(photos)
    with unharmed(photos):
        refused(*cli_world.train("--gallery-domain", f"photo={photos}", "--set", "data.on_bad_image=skip",
                                 out=tmp_path / "out"), says=("'photo'", "0 readable", "2 are needed"))  # fmt: skip
        refused("evaluate", cli_world.folder / "runs" / "syncdr", "--gallery-domain", f"photo={photos}", "--skip-bad",
                "--out", tmp_path / "scores.json", says=("no image that could be read",))  # fmt: skip
        refused(*cli_world.translate("photo", "--source", f"photo={photos}", "--plan", out=tmp_path / "made"),
                says=("None of the first 2 images can be read",))  # fmt: skip
    assert not (tmp_path / "scores.json").exists() and not (tmp_path / "made").exists()
