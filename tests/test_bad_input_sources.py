"""Images that are not there, too few, without common labels, or named wrongly: a sentence, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import images_zoo
import pytest
from cli_zoo import World, call, misused, refused, snapshot, unharmed, words, works
from training_zoo import isthmus

VERBS = ("check", "translate", "translate like", "train query", "train gallery", "evaluate", "index", "index sync",
         "catalog add", "catalog sync")  # fmt: skip


def reading(verb: str, world: World, source: Path, out: Path) -> list[str]:
    """The command that makes a verb read a domain's images from `source`."""
    run, catalog = world.folder / "runs" / "syncdr", world.folder / "catalog"
    if verb == "check":
        return words("check", source)
    if verb == "translate":
        return world.translate("photo", "--source", f"photo={source}", out=out)
    if verb == "translate like":
        return world.translate("photo", "--target", f"sketch={source}", out=out)
    if verb.startswith("train"):
        name = "sketch" if "query" in verb else "photo"
        return world.train(f"--{verb.split()[1]}-domain", f"{name}={source}", out=out)
    if verb == "evaluate":
        return words("evaluate", run, "--gallery-domain", f"photo={source}", "--out", out / "scores.json")
    if verb.startswith("index"):
        return words("index", run, source, "--out", out, *(["--sync"] if "sync" in verb else []))
    return words(*verb.split(), catalog, source)


@pytest.mark.parametrize("verb", VERBS)
def test_missing_and_empty_folders(cli_world: World, tmp_path: Path, verb: str) -> None:
    out, missing, empty = tmp_path / "out", tmp_path / "not\nhere", tmp_path / "émpty one"
    empty.mkdir()
    with unharmed(tmp_path, cli_world.folder):
        refused(*reading(verb, cli_world, missing, out), says=("not\\nhere",))
        refused(*reading(verb, cli_world, empty, out), says=("émpty one", "holds no image", "check the path"))
    assert not out.exists()


@pytest.mark.parametrize("verb", ["translate", "train gallery", "index"])
def test_plans_meet_the_same_sentences(cli_world: World, tmp_path: Path, verb: str) -> None:
    out, missing, empty = tmp_path / "out", tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    for source in (missing, empty):
        planned, real = ([*reading(verb, cli_world, source, out), *more] for more in (["--plan"], []))
        assert refused(*planned, says=(source,)) == refused(*real, says=(source,))
    assert list(tmp_path.iterdir()) == [empty]


def test_other_things_that_are_missing(cli_world: World, tmp_path: Path) -> None:
    home, none, out = cli_world.folder, tmp_path / "none", tmp_path / "out"
    sketch = home / "sketch" / "test" / "cat" / "0.png"
    with unharmed(tmp_path, home):
        refused("evaluate", none, says=("There is no run", none))
        refused("index", none, home / "photo", "--out", out, says=("no model", none))
        refused("search", none, sketch, says=("no catalog", none, "isthmus index"))
        refused("search", home / "catalog", none, says=(none, "no file", "no item of that id"))
        refused("search", home / "catalog", sketch, "--model", none, says=("no model", none))
        for verb in ("info", "verify"):
            refused("catalog", verb, none, says=("no catalog", none))
        refused("catalog", "delete", none, "photo/1.png", says=("no catalog", none))
        refused("train", "--resume", none, says=(none, "holds no run to go on with"))
        refused("train", "--resume", home / "photo", says=("photo holds no run to go on with",))
        refused(*cli_world.train("--weights", none, out=out), says=(none, "is no file", "'pretrained'"))
        refused(*cli_world.train("--synthetic", none, method="syncdr", out=out), says=(none, "isthmus translate"))
        refused("index", home / "runs" / "syncdr", home / "photo", "--out", out, "--metadata", none,
                says=("no metadata table", none))  # fmt: skip


def test_metadata_that_does_not_fit_leaves_no_empty_catalog(cli_world: World, tmp_path: Path) -> None:
    home, table = cli_world.folder, tmp_path / "prices.csv"
    base = ["index", home / "runs" / "syncdr", home / "photo", "--out", tmp_path / "out", "--metadata", table]
    for text, says in (
        ("id,price\nphoto/elsewhere.png,3\n", "belongs to an image"),
        ("id,price\nphoto/train/cat/0.png,3\nphoto/train/cat/0.png,4\n", "two different rows"),
        ("price\n3\n", "none of the columns id, path"),
        ("id,price\nphoto/train/cat/0.png\n", "fields"),
    ):
        table.write_text(text, encoding="utf-8")
        with unharmed(tmp_path):
            refused(*base, says=("prices.csv", says))
    table.write_text("path,price\ntrain/cat/0.png,3\n", encoding="utf-8")
    works(*base)


def test_domains_of_one_image(cli_world: World, tmp_path: Path) -> None:
    one = tmp_path / "one"
    images_zoo.plain(one / "cat")
    out = tmp_path / "out"
    for verb in ("train query", "train gallery"):
        refused(*reading(verb, cli_world, one, out), says=("holds a single image", "at least 2"))
    assert not out.exists()
    looked = call("check", one)
    assert looked.exit_code == 2 and "at least 2 are needed" in looked.stdout and looked.stderr == ""
    # One image is enough to be translated, found and searched for.
    works(*cli_world.translate("photo", "--source", f"photo={one}", out=tmp_path / "made"))
    works(*reading("index", cli_world, one, tmp_path / "catalog"))
    works(*reading("evaluate", cli_world, one, tmp_path / "scores"))


def test_labels_without_a_match(cli_world: World, tmp_path: Path) -> None:
    run = cli_world.folder / "runs" / "syncdr"
    for number, label in enumerate(("horse", "zebra")):
        images_zoo.plain(tmp_path / "photo" / label, f"{number}.png", seed=number)
    images_zoo.plain(tmp_path / "flat")
    with unharmed(tmp_path, run):
        for source, by in (("photo", "auto"), ("photo", "label"), ("flat", "auto"), ("flat", "identity")):
            sentence = refused("evaluate", run, "--gallery-domain", f"photo={tmp_path / source}", "--by", by,
                               says=("label", "identit"))  # fmt: skip
            assert "same names" in sentence


def test_duplicate_ids_in_a_table(cli_world: World, tmp_path: Path) -> None:
    table = tmp_path / "twice.csv"
    photos = sorted((cli_world.folder / "photo" / "test" / "cat").glob("*.png"))
    table.write_text("id,path,domain,label\n" + "".join(f"photo/a,{path},photo,cat\n" for path in photos))
    with unharmed(tmp_path, cli_world.folder):
        for verb in VERBS:
            if verb in ("translate like", "train query") or verb.endswith("sync"):
                continue
            refused(*reading(verb, cli_world, table, tmp_path / "out"), says=("twice.csv", "photo/a", "unique"))


@pytest.mark.parametrize("text", ["photo", "=photos", "photo=", "a b=photos", "pho/to=photos"])
def test_domains_that_are_none(cli_world: World, tmp_path: Path, text: str) -> None:
    run = cli_world.folder / "runs" / "syncdr"
    with unharmed(tmp_path, run):
        says = (f"'{text}' is not a domain",)
        refused(*cli_world.train("--gallery-domain", text, out=tmp_path / "out"), says=says)
        refused("evaluate", run, "--gallery-domain", text, says=says)
        refused(*cli_world.translate("photo", "--source", text, out=tmp_path / "out"), says=says)


def test_domains_of_the_wrong_name(cli_world: World, tmp_path: Path) -> None:
    run, out = cli_world.folder / "runs" / "syncdr", tmp_path / "out"
    photo, sketch = cli_world.folder / "photo", cli_world.folder / "sketch"
    with unharmed(tmp_path, run):
        refused("evaluate", run, "--gallery-domain", f"picture={photo}", says=("sketch and photo", "picture"))
        refused("index", run, photo, "--out", out, "--domain", "picture", says=("'picture'", "sketch and photo"))
        refused("index", run, photo, "--out", out, "--domain", "picture", "--plan", says=("'picture'",))
        refused("search", cli_world.folder / "catalog", photo / "test/cat/0.png", "--domain", "x", says=("'x'",))
        refused(*cli_world.train("--query-domain", f"photo={sketch}", out=out), says=("different names",))
        refused(*cli_world.translate("photo", "--target", "photo", out=out), says=("another target domain",))


def test_arguments_that_are_missing() -> None:
    for verb in ("check", "translate", "evaluate", "index", "search"):
        misused(verb, says="Missing")
    refused("train", says=("--out",))
    refused("train", "--plan", says=("--query-domain NAME=PATH",))


def test_a_real_process_ends_with_2_and_one_line(cli_world: World, tmp_path: Path) -> None:
    home = cli_world.folder
    before = snapshot(home)
    done: list[subprocess.CompletedProcess[str]] = [
        isthmus(*cli_world.train("--gallery-domain", f"photo={tmp_path}", out=tmp_path / "out")),
        isthmus("search", home / "catalog", tmp_path / "none.png"),
    ]
    for one, says in zip(done, (os.fspath(tmp_path), "none.png"), strict=True):
        assert one.returncode == 2 and one.stdout == "", one
        assert one.stderr.startswith("isthmus: ") and one.stderr.count("\n") == 1 and says in one.stderr
    assert snapshot(home) == before and list(tmp_path.iterdir()) == []
