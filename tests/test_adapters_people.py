"""PKU-Sketch, faces, and two folders of one's own."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest
from adapters_zoo import make_faces, make_pku, put, unprepared

from isthmus import IsthmusError
from isthmus.data.adapters import Options, prepare
from isthmus.data.adapters.faces import match


def test_pku_as_published(tmp_path: Path) -> None:
    style_of = make_pku(tmp_path)
    prepared = prepare("pku", Options(tmp_path))
    assert len(prepared.splits) == 10 and prepared.notes == ()
    tested = []
    for rows in prepared.splits:
        queries, gallery = rows.select(domain="sketch", split="test"), rows.select(domain="photo", split="test")
        assert (len(queries), len(gallery)) == (50, 100)
        assert (len(rows.select(domain="sketch", split="train")), len(rows.select(domain="photo", split="train"))) == (
            150,
            300,
        )
        styles = Counter(style_of[int(str(row.identity).removeprefix("pku-"))] for row in queries)
        assert styles == {"a": 46 - 34, "b": 20 - 15, "c": 79 - 60, "d": 33 - 25, "e": 22 - 16}
        tested.append(frozenset(row.identity for row in queries))
    assert len(set(tested)) == 10
    # Everybody is tested on now and then, nobody always.
    times = Counter(identity for those in tested for identity in those)
    assert len(times) > 170 and max(times.values()) < 8
    assert all(row.label is None for row in prepared.manifest)  # a style as label would make it what retrieval is for
    table = {row["identity"]: row["style"] for row in csv.DictReader(io.StringIO(prepared.texts["styles.csv"]))}
    assert table == {f"pku-{number}": style for number, style in style_of.items()}
    assert prepare("pku", Options(tmp_path, splits=2)).splits == prepared.splits[:2]
    assert prepare("pku", Options(tmp_path, splits=1, seed=1)).splits != prepared.splits[:1]


def test_pku_of_another_size_is_in_proportion_and_says_so(tmp_path: Path) -> None:
    style_of = make_pku(tmp_path, {"a": 7, "b": 5})
    prepared = prepare("pku", Options(tmp_path, splits=2))
    assert "the styles have 7/5 people" in prepared.notes[0] and "5/4 are trained on" in prepared.notes[0]
    for rows in prepared.splits:
        trained = Counter(style_of[int(str(r.identity)[4:])] for r in rows.select(domain="sketch", split="train"))
        assert trained == {"a": 5, "b": 4}


def test_what_is_wrong_with_pku_is_said(tmp_path: Path) -> None:
    make_pku(tmp_path, {"a": 3, "b": 3})
    notes = tmp_path / "styleAnnotation"

    def says(*texts: str) -> None:
        unprepared("pku", tmp_path, *texts)

    (notes / "c_1.txt").write_text("1\n")
    says("Person 1 has two styles, a and c")
    (notes / "c_1.txt").write_text("seven\n")
    says("c_1.txt holds 'seven'")
    (notes / "c_1.txt").unlink()
    put(tmp_path / "sketch" / "9.jpg")
    says("1 only as sketch (9)", "--unmatched skip")
    put(tmp_path / "photo" / "9_1_2.jpg")
    says("1 people have no style", "(9)", "pkuml.org")
    put(tmp_path / "photo" / "who.jpg")
    says("photo/who.jpg", "person's number")
    for path in notes.iterdir():
        path.unlink()
    (tmp_path / "photo" / "who.jpg").unlink()
    says("styleAnnotation", "holds no .txt file")


CUFS = [
    ("f-005-01.jpg", "F2-005-01-sz1.jpg"),
    ("f1-005-01.jpg", "f1-005-01-sz1.jpg"),
    ("m-008-01.jpg", "M2-008-01-sz1.jpg"),
    ("AR_m-001-1.jpg", "ar_M-001-01_sketch.png"),
    ("000_1_1.jpg", "000_1_1.jpg"),
]


def test_faces_match_through_the_names_they_were_published_under(tmp_path: Path) -> None:
    make_faces(tmp_path, CUFS)
    prepared = prepare("cufs", Options(tmp_path))
    by_identity: dict[str | None, set[str]] = {}
    for row in prepared.manifest:
        by_identity.setdefault(row.identity, set()).add(Path(row.path).name)
    assert sorted(map(sorted, by_identity.values())) == sorted(sorted({photo, sketch}) for photo, sketch in CUFS)
    assert prepared.notes == ()
    assert len(prepared.splits[0].select(domain="photo", split="test")) == 1


def test_faces_without_a_partner(tmp_path: Path) -> None:
    make_faces(tmp_path, CUFS)
    put(tmp_path / "photos" / "f-099-01.jpg", tmp_path / "sketches" / "f2-040-01-sz1.jpg")
    unprepared("cufs", tmp_path, "1 only as sketch (f2-40-1) and 1 only as photo (f-99-1)")
    prepared = prepare("cufs", Options(tmp_path, unmatched="skip"))
    assert len(prepared.manifest) == 10 and "f-99-1" in prepared.notes[0]


def test_faces_that_can_not_be_told_apart() -> None:
    with pytest.raises(IsthmusError, match=r"5\.jpg and 05\.png have the same name but"):
        match([Path("5.jpg"), Path("05.png")], [Path("5.jpg")])
    # Two sketches could belong to the one photo: neither is taken for it.
    left, right = match([Path("f2-5-1.jpg"), Path("f3-5-1.jpg")], [Path("f-5-1.jpg")])
    assert not left.keys() & right.keys()


def test_faces_in_folders_of_other_names(tmp_path: Path) -> None:
    make_faces(tmp_path, [(f"{k}.jpg", f"{k}.jpg") for k in range(4)])
    (tmp_path / "photos").rename(tmp_path / "Originals")
    unprepared("iiitd", tmp_path, "no folder 'photos'", "--gallery")
    assert len(prepare("iiitd", Options(tmp_path, gallery="Originals")).manifest) == 8
    unprepared("iiitd", tmp_path, "nowhere is not there", gallery="nowhere")


def test_pairs_of_ones_own(tmp_path: Path) -> None:
    for number in range(1, 9):
        put(tmp_path / "drawn" / f"{number}.png", tmp_path / "shop" / f"{number}.jpg")
    put(tmp_path / "shop" / "8.png", tmp_path / "drawn" / "boots" / "1.png", tmp_path / "shop" / "boots" / "1.jpg")
    options = Options(tmp_path, query="drawn", gallery="shop", splits=2, test_share=1 / 3)
    prepared = prepare("pairs", options)
    assert len(prepared.manifest.select(domain="sketch")) == 9 and len(prepared.manifest.select(domain="photo")) == 10
    assert {r.identity for r in prepared.manifest} == {*map(str, range(1, 9)), "boots/1"}
    assert all(row.attributes is None for row in prepared.manifest)
    for rows in prepared.splits:
        assert len({row.identity for row in rows.select(split="test")}) == 3
    # The same pairs in files of other names, made in another order, are split in the same way.
    other = tmp_path / "other"
    for number in range(8, 0, -1):
        put(other / "photo" / f"{number}.png", other / "sketch" / f"{number}.jpg")
    put(other / "photo" / "boots" / "1.png", other / "sketch" / "boots" / "1.jpg")
    again = prepare("pairs", Options(other, splits=2, test_share=1 / 3))
    for one, two in zip(prepared.splits, again.splits, strict=True):
        assert {r.identity for r in one.select(split="test")} == {r.identity for r in two.select(split="test")}


def test_pairs_without_partners_are_refused_or_counted(tmp_path: Path) -> None:
    for number in range(1, 5):
        put(tmp_path / "sketch" / f"{number}.png", tmp_path / "photo" / f"{number + 1}.jpg")
    unprepared("pairs", tmp_path, "1 only as sketch (1) and 1 only as photo (5)")
    prepared = prepare("pairs", Options(tmp_path, unmatched="skip"))
    assert len(prepared.manifest) == 6 and "1 only as sketch (1)" in prepared.notes[0]
    unprepared("pairs", tmp_path, "drawn is not there", query="drawn")
    (tmp_path / "empty").mkdir()
    unprepared("pairs", tmp_path, "empty holds no image", gallery="empty")
    one = tmp_path / "one"
    put(one / "sketch" / "1.png", one / "photo" / "1.png")
    unprepared("pairs", one, "1 identities", "at least 2")
