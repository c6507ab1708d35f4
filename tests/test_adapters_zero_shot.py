"""Sketchy, TU-Berlin and QuickDraw: which classes are new in the test, and what is seen of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from adapters_zoo import put, unprepared
from classes_zoo import SEEN, UNSEEN, classes_of, make_classes, make_sketchy, sizes

from isthmus.data.adapters import Options, prepare
from isthmus.data.adapters.protocols import PROTOCOLS, ZERO_SHOT
from isthmus.data.adapters.zero_shot import NOT_IN_IMAGENET, SKETCHY
from isthmus.data.manifest import Manifest, Row


@pytest.fixture
def sketchy(tmp_path: Path) -> Iterator[Path]:
    make_sketchy(tmp_path / "sketchy")
    yield tmp_path / "sketchy"


def photo_of(row: Row) -> str:
    return f"{row.label}/{Path(row.path).stem.split('-')[0]}"


def no_leak(table: Manifest) -> None:
    """No image twice; no sketch in another split than the photo that it was drawn after."""
    assert len({row.path for row in table}) == len(table)
    split_of: dict[str, str | None] = {}
    for row in table:
        assert split_of.setdefault(photo_of(row), row.split) == row.split, row.id


def test_the_published_test_classes_of_split_2() -> None:
    assert len(set(NOT_IN_IMAGENET)) == 21 and sorted(NOT_IN_IMAGENET) == list(NOT_IN_IMAGENET)
    assert SKETCHY.unseen[1][0] == 25 and SKETCHY.unseen[2] == (21, NOT_IN_IMAGENET) and SKETCHY.classes == 125


def test_plain_zero_shot(sketchy: Path) -> None:
    prepared = prepare("sketchy", Options(sketchy))
    (table,) = prepared.splits
    no_leak(table)
    for domain in ("sketch", "photo"):
        assert classes_of(table, domain, "test") == set(UNSEEN)
        assert classes_of(table, domain, "train") == set(SEEN)
        assert classes_of(table, domain, "val") <= set(SEEN)
    assert sizes(table, "sketch")[2] == 2 * 6 * 2 and sizes(table, "photo")[2] == 2 * (6 + 4)
    assert len(table) == len(prepared.manifest) == 7 * (6 * 2 + 6 + 4)  # every image has a use
    assert any("19 of the 21 published test classes are not there" in note for note in prepared.notes)


def test_generalised_zero_shot_adds_seen_photos_to_the_gallery_alone(sketchy: Path) -> None:
    (table,) = prepare("sketchy", Options(sketchy, protocol="generalised-zero-shot")).splits
    no_leak(table)
    assert classes_of(table, "sketch", "test") == set(UNSEEN)
    assert classes_of(table, "photo", "test") == {*SEEN, *UNSEEN}
    assert classes_of(table, "sketch", "train") == classes_of(table, "photo", "train") == set(SEEN)
    held = [row for row in table.select(domain="photo", split="test") if row.label in SEEN]
    assert len(held) == 5 * 2  # a fifth of the 10 photos of each class
    (plain,) = prepare("sketchy", Options(sketchy)).splits
    # The same validation images in both, and no training image that the other tests on.
    assert {r.id for r in plain.select(split="val")} == {r.id for r in table.select(split="val")}


def test_split_1_is_drawn_and_split_2_is_not(sketchy: Path) -> None:
    drawn = [
        frozenset(classes_of(prepare("sketchy", Options(sketchy, class_split=1, seed=s)).splits[0], "photo", "test"))
        for s in range(8)
    ]
    assert len(set(drawn)) > 2 and all(len(classes) == 1 for classes in drawn)  # 25 of 125 are 1 of 7
    notes = prepare("sketchy", Options(sketchy, class_split=1)).notes
    assert any("drawn by the seed: the literature draws them at random too" in note for note in notes)
    named = [prepare("sketchy", Options(sketchy, seed=s)).splits[0] for s in (0, 1)]
    assert classes_of(named[0], "photo", "test") == classes_of(named[1], "photo", "test")
    unprepared("sketchy", sketchy, "--class-split is 3; 'sketchy' has: 1, 2", class_split=3)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_every_protocol_keeps_a_sketch_with_its_photo(sketchy: Path, protocol: str) -> None:
    prepared = prepare("sketchy", Options(sketchy, protocol=protocol, splits=3, class_split=None))
    for table in prepared.splits:
        no_leak(table)
        trained = {label for domain in table.domains for label in classes_of(table, domain, "train")}
        asked = classes_of(table, "sketch", "test")
        assert not asked & trained if protocol in ZERO_SHOT else asked <= trained
    assert prepared.splits == prepare("sketchy", Options(sketchy, protocol=protocol, splits=3)).splits


def test_without_the_extension_a_note_says_so(sketchy: Path) -> None:
    (sketchy / "EXTEND_image_sketchy").rename(sketchy.parent / "elsewhere")
    prepared = prepare("sketchy", Options(sketchy))
    assert any("photo: 42 images on the disk, the publication has 73002" in note for note in prepared.notes)


def test_test_classes_from_a_file(sketchy: Path) -> None:
    names = sketchy.parent / "unseen.txt"
    names.write_text("car_(sedan) 17\nhot-air balloon\n\n")
    (table,) = prepare("sketchy", Options(sketchy, unseen=names)).splits
    assert classes_of(table, "sketch", "test") == {"car_(sedan)", "hot-air_balloon"}
    names.write_text("cat\nunicorn\n")
    unprepared("sketchy", sketchy, "unseen.txt names 1 classes", "unicorn", unseen=names)
    names.write_text("\n".join((*SEEN, *UNSEEN)))
    unprepared("sketchy", sketchy, "7 of 7 classes would be tested on", unseen=names)
    unprepared("sketchy", sketchy, "There is no file", "gone.txt", unseen=sketchy / "gone.txt")
    unprepared("sketchy", sketchy, "--unseen is for zero-shot protocols", unseen=names, protocol="full")


def test_tuberlin_spells_classes_two_ways_and_asks_for_photos_enough(tmp_path: Path) -> None:
    root = tmp_path / "tu"
    make_classes(root, {"png": 10}, ("alarm clock", "car (sedan)", "cup", "pen"), ".png")
    make_classes(root, {"ImageResized": 10}, ("alarmclock", "carsedan", "cup", "pen"), ".JPEG")
    prepared = prepare("tuberlin", Options(root))
    (table,) = prepared.splits
    assert {row.label for row in table} == {"alarm clock", "car (sedan)", "cup", "pen"}
    assert len(classes_of(table, "photo", "test")) == 1
    assert any("0 classes have the 400 gallery images" in note for note in prepared.notes)
    # Where a class has them, it is the one that is drawn, whatever the seed.
    put(*(root / "ImageResized" / "pen" / f"more{k}.jpg" for k in range(390)))
    for seed in range(4):
        assert classes_of(prepare("tuberlin", Options(root, seed=seed)).splits[0], "sketch", "test") == {"pen"}


def test_quickdraw(tmp_path: Path) -> None:
    root = tmp_path / "qd"
    names = tuple(f"class {k}" for k in range(11))
    make_classes(root, {"sketches": 10}, names, ".png")
    make_classes(root, {"images": 10}, names)
    (table,) = prepare("quickdraw", Options(root)).splits
    assert [len(classes_of(table, "sketch", split)) for split in ("train", "test")] == [8, 3]  # as 80/30 of 110
    unprepared("quickdraw", root, "--lists says nothing to 'quickdraw'", lists=tmp_path)
    (tmp_path / "qd" / "images").rename(tmp_path / "images")
    unprepared("quickdraw", root, "There is no folder images", "datasets.cvc.uab.es")
