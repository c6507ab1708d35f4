"""The attribute-labelled sources: Market-1501, UT-Zap50K and CelebA."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapters_zoo import ZAPPOS_HEADER, make_celeba, make_market, make_zappos, put, unprepared
from scipy.io import savemat

from isthmus.data.adapters import Options, prepare
from isthmus.data.adapters.zappos import ATTRIBUTES


def known(root: Path, name: str, identity: str, attributes: str = "paper") -> dict[str, float]:
    """The attributes of an identity, which all of its images have."""
    rows = [row for row in prepare(name, Options(root, attributes=attributes)).manifest if row.identity == identity]
    found = [dict(row.attributes or {}) for row in rows]
    assert found and all(each == found[0] for each in found)
    return found[0]


def test_market_values_say_what_their_names_say(tmp_path: Path) -> None:
    make_market(tmp_path)
    nothing = {"female": 0.0, "short_sleeve": 0.0, "short_lower": 0.0, "pants": 0.0, "hat": 0.0, "adult": 0.0}
    assert known(tmp_path, "market", "market-0002") == {**nothing, "long_hair": 1.0, "any_bag": 1.0}
    # The file's 0 for the hair of person 7 is no answer: the attribute is missing, not 0.
    assert known(tmp_path, "market", "market-0007") == {
        **nothing,
        "female": 1.0,
        "hat": 1.0,
        "adult": 1.0,
        "any_bag": 0.0,
    }
    assert known(tmp_path, "market", "market-0001") == {**nothing, "long_hair": 0.0, "pants": 1.0, "any_bag": 1.0}
    bare = {name: value for name, value in nothing.items() if name != "adult"}
    assert known(tmp_path, "market", "market-0002", "code") == {**bare, "long_hair": 1.0, "backpack": 0.0, "bag": 1.0}
    assert known(tmp_path, "market", "market-0001", "code") == {
        **bare, "long_hair": 0.0, "pants": 1.0, "backpack": 1.0, "bag": 0.0}  # fmt: skip


def test_market_splits_junk_and_distractors(tmp_path: Path) -> None:
    make_market(tmp_path)
    prepared = prepare("market", Options(tmp_path))
    rows = prepared.manifest
    assert prepared.splits == () and prepared.source
    assert {row.identity for row in rows.select(split="train")} == {"market-0002", "market-0007"}
    assert {row.identity for row in rows.select(split="test")} == {"market-0001", "market-0003", None}
    distractor = rows.by_id("photo/bounding_box_test/0000_c1s1_000151_01.jpg")
    assert distractor.identity is None and distractor.attributes is None
    assert not any("-1_c" in row.id for row in rows) and len(rows) == 9
    assert prepared.notes == (
        "2 people to train and 2 to test on; the publication has 751 and 750",
        "2 junk images (-1) left out",
        "1 distractors (0000) have no identity and no attributes",
    )


def test_market_in_its_own_subfolder_and_a_person_without_attributes(tmp_path: Path) -> None:
    root = tmp_path / "Market-1501-v15.09.15"
    make_market(root)
    (tmp_path / "Market-1501_Attribute").mkdir()
    (root / "market_attribute.mat").rename(tmp_path / "Market-1501_Attribute" / "market_attribute.mat")
    put(root / "bounding_box_train" / "0011_c1s1_000151_01.jpg")
    prepared = prepare("market", Options(tmp_path))
    assert "1 people are not in market_attribute.mat, their attributes are unknown: market-0011" in prepared.notes
    (row,) = [row for row in prepared.manifest if row.identity == "market-0011"]
    assert row.attributes is None and row.split == "train"


def test_what_is_wrong_with_market_is_said(tmp_path: Path) -> None:
    make_market(tmp_path, without=("handbag",))

    def says(*texts: str, **options: str) -> None:
        unprepared("market", tmp_path, *texts, **options)

    says("has not the fields of the published file for its 'train' half", "backpack", "vana77")
    savemat(tmp_path / "market_attribute.mat", {"market_attribute": 3})
    says("has not the fields of the published file", "it has: nothing")
    savemat(tmp_path / "market_attribute.mat", {"x": 3})
    says("no variable 'market_attribute' (it has: x)")
    (tmp_path / "market_attribute.mat").unlink()
    says("no file", "market_attribute.mat", "vana77")
    make_market(tmp_path)
    says("--attributes is 'all'; write paper or code", attributes="all")
    put(tmp_path / "query" / "IMG_7.jpg")
    says("query/IMG_7.jpg")
    (tmp_path / "query" / "IMG_7.jpg").unlink()
    put(tmp_path / "query" / "0002_c1s1_000151_00.jpg")
    says("market-0002 (test and train)", "more than one split")


def test_zappos_has_the_thirty_attributes(tmp_path: Path) -> None:
    make_zappos(tmp_path)
    prepared = prepare("zappos", Options(tmp_path))
    rows = {Path(row.path).stem: row for row in prepared.manifest}
    assert rows.keys() == {"100.1", "100.2", "100.30", "102.7", "102.8", "102.9"}
    assert rows["100.30"].identity == rows["100.1"].identity == "zappos-100"
    assert len(ATTRIBUTES) == 30 and tuple(rows["100.1"].attributes or ()) == ATTRIBUTES
    kinds = [name.split(".")[0] for name in ATTRIBUTES]
    assert [kinds.count(kind) for kind in ("Category", "Closure", "ToeStyle")] == [4, 19, 7]
    yes = {name for name, value in (rows["100.1"].attributes or {}).items() if value == 1.0}
    assert yes == {"Category.Shoes", "Closure.Lace.up", "ToeStyle.Bump.Toe"}
    assert {name for name, value in (rows["102.7"].attributes or {}).items() if value} == {
        "Category.Sandals", "ToeStyle.Bump.Toe"}  # fmt: skip
    assert "Closure.Belt" not in (rows["100.2"].attributes or {}) and len(rows["100.2"].attributes or {}) == 29
    assert rows["102.9"].attributes is None
    assert prepared.notes == (
        "2 images of 1 products with fewer than 3 left out",
        "1 images are not in meta-data-bin.csv, their attributes are unknown: 102-9",
    )
    assert len(prepare("zappos", Options(tmp_path, min_images=1)).manifest) == 8
    # The root may also be the folder of the images, with the table's folder beside it.
    assert len(prepare("zappos", Options(tmp_path / "ut-zap50k-images-square")).manifest) == 6


def test_what_is_wrong_with_zappos_is_said(tmp_path: Path) -> None:
    make_zappos(tmp_path, [name for name in ZAPPOS_HEADER if name != "Closure.Belt"])
    table = tmp_path / "ut-zap50k-data" / "meta-data-bin.csv"

    def says(*texts: str, **options: str) -> None:
        unprepared("zappos", tmp_path, *texts, **options)

    says("lacks 1 columns (Closure.Belt)", "vision.cs.utexas.edu")
    good = ",".join(ZAPPOS_HEADER) + "\n"
    table.write_text(good + "100-1,1\n")
    says("Line 2 of", "has 2 fields and the header 34")
    table.write_text(good + ",".join(["100-1", "yes", *["0"] * (len(ZAPPOS_HEADER) - 2)]) + "\n")
    says("Line 2 of", "'yes' as Category.Shoes")
    table.write_text(good)
    says("has no row for any image")
    table.write_bytes(b"\xff\xfe\x00")
    says("can't be read as a table")
    table.unlink()
    says("no file", "meta-data-bin.csv")
    make_again = tmp_path / "again"
    make_zappos(make_again)
    unprepared("zappos", make_again, "has 4 images; lower --min-images", min_images=4)
    unprepared("zappos", make_again, "--min-images is 0", min_images=0)


@pytest.mark.parametrize("nested", [False, True])
def test_celeba(nested: bool, tmp_path: Path) -> None:
    make_celeba(tmp_path)
    if nested:  # as the archive of the publication unpacks
        for folder, names in (("Img", ["img_align_celeba"]), ("Eval", ["list_eval_partition.txt"]),
                              ("Anno", ["list_attr_celeba.txt", "identity_CelebA.txt"])):  # fmt: skip
            (tmp_path / folder).mkdir()
            for name in names:
                (tmp_path / name).rename(tmp_path / folder / name)
    prepared = prepare("celeba", Options(tmp_path))
    rows = prepared.manifest
    assert [row.split for row in rows] == ["train", "train", "val", "val", "test", "test"]
    assert [row.identity for row in rows] == [f"celeba-{2880 + k // 2}" for k in range(6)]
    assert dict(rows[0].attributes or {}) == {"5_o_Clock_Shadow": 0.0, "Bald": 0.0, "Male": 1.0}
    assert (rows[1].attributes or {})["5_o_Clock_Shadow"] == 1.0
    assert prepared.notes == () and prepared.source


def test_what_is_wrong_with_celeba_is_said(tmp_path: Path) -> None:
    make_celeba(tmp_path)
    attributes, people, parts = (
        tmp_path / f"{n}.txt" for n in ("list_attr_celeba", "identity_CelebA", "list_eval_partition"))  # fmt: skip
    good = attributes.read_text()

    def says(*texts: str) -> None:
        unprepared("celeba", tmp_path, *texts)

    attributes.write_text(good.replace("000003.jpg  -1 -1", "000003.jpg  -1 7"))
    says("Line 5 of", "3 values of -1 or 1")
    attributes.write_text(good.replace("000003.jpg  -1 -1", "000003.jpg  -1"))
    says("Line 5 of", "3 values of -1 or 1")
    attributes.write_text("9" + good[1:])
    says("announces 9 images and lists 6")
    attributes.write_text("nonsense")
    says("does not begin with a count")
    attributes.write_text(good.replace("000003.jpg  -1 -1", "000003.jpg  -1 0"))
    row = prepare("celeba", Options(tmp_path)).manifest[2]
    assert dict(row.attributes or {}) == {"5_o_Clock_Shadow": 0.0, "Male": 1.0}
    attributes.write_text(good)
    people.write_text(people.read_text().replace("000006.jpg 2882\n", ""))
    parts.write_text(parts.read_text().replace("000006.jpg 2\n", ""))
    put(tmp_path / "img_align_celeba" / "000099.jpg")
    prepared = prepare("celeba", Options(tmp_path))
    assert prepared.manifest[5].identity is None and prepared.manifest[5].split is None
    assert [note.split(" images ")[1].split(":")[0] for note in prepared.notes] == [
        "are not in identity_CelebA.txt and have no identity",
        "are not in list_eval_partition.txt and have no split",
        "are in no list and left out",
    ]
    (tmp_path / "img_align_celeba" / "000002.jpg").unlink()
    says("1 of the 6 listed images", "000002.jpg")
    put(tmp_path / "img_align_celeba" / "000002.jpg")
    parts.write_text(parts.read_text().replace("000002.jpg 0", "000002.jpg 2"))
    says("celeba-2880 (test and train)")
    parts.write_text("000001.jpg 5\n")
    says("other values than 0, 1 and 2: 000001.jpg 5")
    parts.write_text("000001.jpg\n")
    says("Line 1 of", "list_eval_partition.txt needs an image and a number")
    people.unlink()
    says("no file", "identity_CelebA.txt", "mmlab.ie.cuhk.edu.hk")
