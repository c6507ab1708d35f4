"""Office-Home, DomainNet, CUB and PACS: published lists re-rooted, seeded splits, and the protocols of halves."""

from __future__ import annotations

import json
import math
import os
import shlex
from pathlib import Path

import pytest
from adapters_zoo import put, unprepared
from classes_zoo import BIRDS, OFFICE, classes_of, make_classes, make_lists, sizes
from cli_zoo import answer_of, works

from isthmus.data.adapters import ADAPTERS, Options, prepare
from isthmus.data.adapters.base import commands
from isthmus.data.adapters.multidomain import CUB, DOMAINNET, OFFICE_HOME
from isthmus.data.sources import read_source

PAIR = {"query": "Art", "gallery": "Real World"}


@pytest.fixture
def office(tmp_path: Path) -> Path:
    root = tmp_path / "office"
    make_classes(root, {"Art": 10, "Real World": 20}, OFFICE)
    make_lists(tmp_path / "lists", ("Art",), OFFICE, 10)
    make_lists(tmp_path / "lists", ("Real",), OFFICE, 20)
    return root


def test_the_specs_counts_are_the_ones_that_are_checked() -> None:
    counts = {d.name: d.splits for family in (OFFICE_HOME, CUB, DOMAINNET) for d in family.domains if d.splits}
    assert OFFICE_HOME.halves == (32, 33) and CUB.halves == (93, 94) and DOMAINNET.halves == (63, 63)
    assert {d.name: d.splits for d in OFFICE_HOME.domains} == {
        "art": (1226, 465, 736), "clipart": (2200, 846, 1319), "product": (2238, 860, 1341), "real": (2196, 846, 1315),
    }  # fmt: skip
    assert {d.name: d.splits for d in CUB.domains} == {"painting": (1460, 558, 991), "real": (5499, 2206, 3327)}
    assert counts["sketch"] == (12261, 4893, 7428)


def test_lists_are_rerooted_and_a_label_is_the_folder_not_the_number(office: Path) -> None:
    prepared = prepare("office-home", Options(office, lists=office.parent / "lists", **PAIR))
    (table,) = prepared.splits
    assert table.domains == ["art", "real"]
    assert sizes(table, "art") == (15, 12, 18) and sizes(table, "real") == (30, 24, 36)
    assert all(Path(row.path).is_file() and Path(row.path).parent.name == row.label for row in table)
    halves = [classes_of(table, domain, "train") for domain in table.domains]
    assert [len(half) for half in halves] == [3, 3] and not halves[0] & halves[1]
    assert halves[0] == set(sorted(OFFICE, key=lambda name: name[::-1])[:3])
    for domain in table.domains:
        assert classes_of(table, domain, "val") == classes_of(table, domain, "test") == set(OFFICE)
    # Which image is where, from the list itself.
    for split, number in (("train", "00005"), ("val", "00007"), ("test", "00008")):
        files = {Path(row.path).stem for row in table.select(domain="art", split=split)}
        assert number in files
    assert any("the lists name 30/12/18 images" in note and "1226/465/736" in note for note in prepared.notes)
    assert any("halves have 3 and 3 classes, the publication 32 and 33" in note for note in prepared.notes)
    assert {row.split for row in prepared.manifest} == {"train", "val", "test"}
    assert len(prepared.manifest) == 60 + 120


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("protocol", ["class-disjoint", "partial", "open-set", "full"])
def test_each_protocol_uses_the_classes_it_says(office: Path, protocol: str, lists: bool) -> None:
    given = office.parent / "lists" if lists else None
    prepared = prepare("office-home", Options(office, lists=given, protocol=protocol, splits=2, **PAIR))
    for table, text in zip(prepared.splits, prepared.texts.values(), strict=True):
        query, gallery = (
            [classes_of(table, domain, split) for split in ("train", "val", "test")] for domain in ("art", "real")
        )
        roles = dict(line.rsplit(",", 1) for line in text.splitlines()[1:])
        assert set(roles) == set(OFFICE)
        if protocol == "class-disjoint":
            assert query[0] == {c for c, r in roles.items() if r == "half 1"} and not query[0] & gallery[0]
            assert query[0] | gallery[0] == set(OFFICE) and query[1:] == gallery[1:] == [set(OFFICE)] * 2
        elif protocol == "partial":
            assert query == [query[0]] * 3 and len(query[0]) == 3 and gallery == [set(OFFICE)] * 3
        elif protocol == "open-set":
            assert query == [query[0]] * 3 and gallery == [gallery[0]] * 3
            assert [len(part) for part in (query[0] & gallery[0], query[0] - gallery[0], gallery[0] - query[0])] == [
                2
            ] * 3
        else:
            assert query == gallery == [set(OFFICE)] * 3
        assert len({row.path for row in table}) == len(table)  # no image twice, so none in two splits
    assert prepared.splits[0] != prepared.splits[1] or protocol == "full"


def test_seeded_splits_have_the_lists_proportions(office: Path) -> None:
    prepared = prepare("office-home", Options(office, protocol="full", **PAIR))
    assert sizes(prepared.splits[0], "art") == (30, 12, 18) and sizes(prepared.splits[0], "real") == (60, 24, 36)
    for label in OFFICE:  # class by class, as ceil(.3 n) of the published lists
        rows = [row for row in prepared.splits[0] if row.label == label and row.domain == "real"]
        assert sum(row.split == "test" for row in rows) == math.ceil(0.3 * 20)
    assert all(row.split is None for row in prepared.manifest)
    assert any("drawn by the seed" in note for note in prepared.notes)


def test_tables_do_not_hang_on_the_order_of_files(office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options(office, seed=3, splits=2, **PAIR)
    once = prepare("office-home", options)
    walk = os.walk

    def backwards(*args: object, **more: object) -> object:
        for place, folders, files in walk(*args, **more):  # type: ignore[call-overload]
            yield place, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert prepare("office-home", options).splits == once.splits
    assert prepare("office-home", Options(office, seed=4, splits=2, **PAIR)).splits != once.splits
    assert prepare("office-home", Options(office, seed=3, **PAIR)).splits == once.splits[:1]
    monkeypatch.undo()
    # The order of a list's lines says nothing either.
    lists = office.parent / "lists"
    listed = prepare("office-home", Options(office, lists=lists, **PAIR)).splits
    for path in lists.iterdir():
        path.write_text("\r\n".join(path.read_text().splitlines()[::-1]))
    assert prepare("office-home", Options(office, lists=lists, **PAIR)).splits == listed


def test_what_is_wrong_with_lists_is_one_sentence(office: Path) -> None:
    lists = office.parent / "lists"
    train = lists / "Art_train.txt"
    good = train.read_text()

    def says(*texts: str, **more: object) -> None:
        unprepared("office-home", office, *texts, lists=lists, **PAIR, **more)

    train.write_text(good + "/x/Art/Bed/09999.jpg 2\n")
    says("1 of the 61 images", "Bed/09999.jpg", "--unmatched skip", "hemanthdv.org")
    skipped = prepare("office-home", Options(office, lists=lists, unmatched="skip", **PAIR))
    assert any("1 listed images are not on the disk" in note for note in skipped.notes)
    train.write_text(good + "/x/Art/Bed/00010.jpg 2\n")
    says("00010.jpg is in the train and the test list of 'Art'")
    train.write_text(good + "loose.jpg 2\n")
    says("Line 31 of", "Art_train.txt", "class folder before the file")
    train.write_text("\n")
    says("Art_train.txt is empty")
    train.write_text("\n".join(good.splitlines()[1:]))
    says("which is no training image in Art_train.txt")
    train.unlink()
    says("There is no list", "Art_train.txt", "_train_cls_disjoint1.txt")
    train.write_text(good)
    half = lists / "Real_train_cls_disjoint1.txt"
    half.write_text((lists / "Real_train_cls_disjoint2.txt").read_text())
    says("is in both halves of the lists")
    make_lists(lists, ("Art",), OFFICE, 10)
    make_lists(lists, ("Real",), OFFICE, 20)
    for path in lists.glob("*_disjoint*"):
        path.write_text("\n".join(line for line in path.read_text().splitlines() if "/Bed/" not in line))
    says("1 classes are in neither half", "Bed")
    says("--unmatched is 'perhaps'", unmatched="perhaps")


def test_what_is_wrong_with_options_is_one_sentence(office: Path) -> None:
    unprepared("office-home", office, "no domain of 'office-home'", "art, real, clipart, product", query="Sketch")
    unprepared("office-home", office, "are both 'art'", query="art", gallery="Art")
    unprepared("office-home", office, "There is no protocol 'closed'", "class-disjoint", protocol="closed")
    unprepared("office-home", office, "'office-home' has no zero-shot split", protocol="zero-shot")
    unprepared("office-home", office, "--class-split says nothing to 'office-home'", class_split=1)
    unprepared("office-home", office, "--test-share says nothing", test_share=0.5)
    (office / "Bed").mkdir()
    make_classes(office, {"Art": 2}, ("alarm clock",))
    unprepared("office-home", office, "differ in spelling only", **PAIR)


def test_folders_too_small_or_without_a_common_class(tmp_path: Path) -> None:
    make_classes(tmp_path / "a", {"Art": 3}, ("Bed",))
    unprepared("office-home", tmp_path / "a", "There is no folder Real World", "hemanthdv.org")
    make_classes(tmp_path / "a", {"Real World": 3}, ("Bike",))
    unprepared("office-home", tmp_path / "a", "No class is in both domains: Bed on one side, Bike on the other")
    make_classes(tmp_path / "b", {"Art": 3, "Real World": 3}, ("Bed",))
    unprepared("office-home", tmp_path / "b", "1 classes in both domains", "at least 2")
    make_classes(tmp_path / "c", {"Art": 1, "Real World": 1}, ("Bed", "Bike"))
    unprepared("office-home", tmp_path / "c", "without test images")
    put(tmp_path / "d" / "Art" / "1.jpg")
    unprepared("office-home", tmp_path / "d", "holds no class folder with images")


def test_cub_and_its_paintings(tmp_path: Path) -> None:
    root = tmp_path / "cub"
    make_classes(root, {"CUB_200_2011/images": 10}, (*BIRDS, "006.Least_Auklet"))
    make_classes(root, {"cub200_drawing": 10}, (*BIRDS[:2], "004.Groove_Billed_Ani", BIRDS[3]))
    put(root / "cub200_drawing" / "stray.jpg")
    make_lists(tmp_path / "lists", ("Painting", "Real"), BIRDS, 10)
    prepared = prepare("cub", Options(root, lists=tmp_path / "lists"))
    (table,) = prepared.splits
    assert table.domains == ["painting", "real"] and sizes(table, "painting") == (10, 8, 12)
    labels = [classes_of(table, domain, "test") for domain in table.domains]
    assert labels[0] == labels[1] and len(labels[0]) == 4  # one spelling in both domains
    assert any("1 images lie in no class folder" in note for note in prepared.notes)
    assert any("1 classes are in one domain only and left out: 006.Least_Auklet" in note for note in prepared.notes)


def test_domainnet(tmp_path: Path) -> None:
    root = tmp_path / "dn"
    make_classes(root, {"sketch": 10, "real": 10, "clipart": 10}, ("axe", "ant", "The_Eiffel_Tower"))
    make_lists(tmp_path / "lists", ("sketch", "clipart"), ("axe", "ant", "The_Eiffel_Tower"), 10)
    listed = prepare("domainnet", Options(root, lists=tmp_path / "lists", gallery="clipart"))
    assert sizes(listed.splits[0], "sketch") == (5, 6, 9) and sizes(listed.splits[0], "clipart") == (10, 6, 9)
    unprepared("domainnet", root, "no published lists of 'real'", lists=tmp_path / "lists", gallery="real")
    assert sizes(prepare("domainnet", Options(root, gallery="real", protocol="full")).splits[0], "real") == (15, 6, 9)


def test_pacs_own_lists_test_on_crossval(tmp_path: Path) -> None:
    root = tmp_path / "pacs"
    classes = ("dog", "house", "guitar")
    make_classes(root, {"photo": 20, "sketch": 20, "cartoon": 4}, classes)
    without = prepare("pacs", Options(root))
    assert without.splits[0].domains == ["sketch", "photo"] and any("drawn by the seed" in n for n in without.notes)
    for domain in ("photo", "sketch"):
        for part, numbers in (("train", range(1, 19)), ("crossval", (19, 20)), ("test", range(1, 21))):
            lines = [f"{domain}/{c}/{n:05d}.jpg {k}" for k, c in enumerate(classes, start=1) for n in numbers]
            (root / f"{domain}_{part}_kfold.txt").write_text("\n".join(lines) + "\n")
    prepared = prepare("pacs", Options(root, protocol="full"))
    (table,) = prepared.splits
    assert sizes(table, "photo") == sizes(table, "sketch") == (48, 6, 6)
    assert {Path(row.path).stem for row in table.select(split="test")} == {"00019", "00020"}
    assert any("crossval list is tested on" in note for note in prepared.notes)
    with (root / "photo_crossval_kfold.txt").open("a") as file:
        file.write("photo/dog/00001.jpg 1\n")
    unprepared("pacs", root, "1 images of 'photo' are in the train and the crossval list", protocol="full")


def test_the_printed_commands_and_what_training_reads(office: Path) -> None:
    out = office.parent / "prepared here"
    said = answer_of(
        "data", "prepare", "office-home", "--root", office, "--lists", office.parent / "lists", "--query", "art",
        "--gallery", "Real World", "--out", out,
    )  # fmt: skip
    assert said["tables"]["split-00.parquet"]["classes"]["art"] == {"test": 6, "train": 3, "val": 6}
    table = out / "split-00.parquet"
    cut, both, back, train, judge = (shlex.split(line) for line in said["next"])
    assert cut[:4] == ["isthmus", "train", "--method", "cut"]  # neither is line drawings, which `edges` is for
    assert all(words[-4:-2] == ["--set", f"run={cut[-1]}"] for words in (both, back))
    assert train[:4] == ["isthmus", "train", "--method", "syncdr"] and "ihda" not in " ".join(train)
    assert train[train.index("--query-domain") + 1] == f"art={table}"
    assert train[train.index("--gallery-domain") + 1] == f"real={table}"
    made = [words[words.index("--out") + 1] for words in (both, back)]
    assert [train[k + 1] for k, word in enumerate(train) if word == "--synthetic"] == made
    assert judge == ["isthmus", "evaluate", train[-1]]
    assert both[both.index("--source") + 1] == back[back.index("--target") + 1] == f"art={table}"
    for domain in ("art", "real"):
        rows = read_source(table, domain, split="train")
        assert len(rows) and all(row.label for row in rows)
    record = json.loads((out / "prepared.json").read_text())
    assert record["lists"] == str(office.parent / "lists") and "classes-00.csv" in record["files"]
    assert "class,role" in (out / "classes-00.csv").read_text()


def test_sketches_need_no_trained_translator(tmp_path: Path) -> None:
    make_classes(tmp_path, {"photo": 3, "sketch": 3}, ("dog", "house"))
    lines = commands(prepare("pacs", Options(tmp_path)), ADAPTERS["pacs"], tmp_path / "out")
    assert len(lines) == 4 and "cut" not in " ".join(lines) and lines[2].startswith("isthmus train --method syncdr")


def test_the_shared_lists_format_is_the_same() -> None:
    shared = os.environ.get("ISTHMUS_TEST_DATA")
    if not shared:
        pytest.skip("ISTHMUS_TEST_DATA is not set")
    root = Path(shared) / "data" / "pacs"
    prepared = prepare("pacs", Options(root, lists=root / "lists"))
    (table,) = prepared.splits
    for side, (domain, half) in enumerate((("sketch", 1), ("photo", 2))):
        for split, name in (("train", f"train_cls_disjoint{half}"), ("val", "val"), ("test", "test")):
            lines = (root / "lists" / f"{domain}_{name}.txt").read_text().splitlines()
            wanted = {str(root / line.rsplit(" ", 1)[0]) for line in lines}
            assert {row.path for row in table.select(domain=domain, split=split)} == wanted, (side, split)


def test_every_set_of_classes_is_listed() -> None:
    names = [name for name, adapter in ADAPTERS.items() if adapter.family]
    assert names == ["office-home", "domainnet", "cub", "pacs", "sketchy", "tuberlin", "quickdraw"]
    assert works("data", "list", "cub").stdout.splitlines()[0].startswith("cub")
