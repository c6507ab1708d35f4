"""Folders, lists and tables as people have them."""

from __future__ import annotations

import os
from pathlib import Path

import images_zoo as zoo
import pytest

from isthmus.data.lists import parse_line, read_classes
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import matched_labels, read_folder, read_source, require_usable
from isthmus.errors import IsthmusError


def touch(folder: Path, *names: str) -> Path:
    """Files that only have to be there."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def facts(manifest: Manifest) -> list[tuple[str, str | None, str | None]]:
    return [(row.id, row.label, row.split) for row in manifest]


def test_flat_folder(tmp_path: Path) -> None:
    manifest = read_source(touch(tmp_path, "b.png", "a b.JPG", "notes.txt"), "photo", split="val")
    assert facts(manifest) == [("photo/a b.JPG", None, "val"), ("photo/b.png", None, "val")]
    assert manifest[1].path == str(tmp_path / "b.png") and manifest.domains == ["photo"]


def test_folder_of_labels(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "train/2.png", "dog/deep/3.png", "4.png")
    assert facts(Manifest.from_folder(tmp_path, "p")) == [
        ("p/4.png", None, None),
        ("p/cat/1.png", "cat", None),
        ("p/dog/deep/3.png", "dog", None),
        ("p/train/2.png", "train", None),  # a class called train, among classes, is no split
    ]


def test_folder_of_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "Validation/cat/2.png", "test/3.png", "test/.cache/4.png")
    manifest = read_folder(tmp_path, "p")
    assert facts(manifest) == [
        ("p/Validation/cat/2.png", "cat", "val"),
        ("p/test/3.png", None, "test"),
        ("p/train/cat/1.png", "cat", "train"),
    ]
    assert facts(read_folder(tmp_path, "p", split="test")) == [("p/test/3.png", None, "test")]
    (tmp_path / "test" / "3.png").unlink()
    with pytest.raises(IsthmusError, match=r"no image of the split 'test' \(it has: train, val\)"):
        read_folder(tmp_path, "p", split="test")


def test_relative_and_absolute_folder_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "data", "a.png")
    monkeypatch.chdir(tmp_path)
    assert read_source("data/../data/", "p") == read_source(tmp_path / "data", "p")


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match=r"no folder, list or table .*none for domain 'p'"):
        read_source(tmp_path / "none", "p")
    with pytest.raises(IsthmusError, match="for domain 'p' holds no image"):
        read_source(touch(tmp_path, "a.txt"), "p")
    with pytest.raises(IsthmusError, match="does not exist"):
        read_folder(tmp_path / "none", "p")
    with pytest.raises(IsthmusError, match="neither a folder, a list"):
        read_source(touch(tmp_path, "a.png") / "a.png", "p")
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(IsthmusError, match="names no image"):
        read_source(tmp_path / "a.txt", "p")


def test_folder_with_a_manifest_uses_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    rows = [Row("s/a", str(tmp_path / "a.png"), "s", source_id="p/a"), Row("p/b", str(tmp_path / "b.png"), "p")]
    Manifest(rows).save(tmp_path / "manifest.parquet")
    assert read_source(tmp_path, "s").rows == (rows[0],)
    with pytest.raises(IsthmusError, match=r"no image of the domain 'x' \(it has: s, p\)"):
        read_source(tmp_path, "x")


def test_table_without_domain_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,split\na.png,train\nb.png,test\nc.png,\n")
    assert facts(read_source(tmp_path / "t.csv", "p", split="test")) == [("p/b.png", None, "test")]
    assert len(read_source(tmp_path / "t.csv", "p")) == 3
    (tmp_path / "t.csv").write_text("path\na.png\n")
    assert facts(read_source(tmp_path / "t.csv", "p", split="test")) == [("p/a.png", None, "test")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a/b.jpg 3", ("a/b.jpg", "3")),
        ("a/b.jpg -1", ("a/b.jpg", "-1")),
        ("a/my cat 2.jpg 3", ("a/my cat 2.jpg", "3")),
        ("a/my cat 2.jpg", ("a/my cat 2.jpg", None)),
        ("a/my  cat.jpg\tdog\r", ("a/my  cat.jpg", "dog")),
        ("a.jpg alarm clock", ("a.jpg", "alarm clock")),
        ("no suffix dog", ("no suffix", "dog")),
        ("no suffix 7", ("no suffix", "7")),
        ("no suffix", ("no suffix", None)),
        ("a.jpg dir/b.png", ("a.jpg dir/b.png", None)),
        ("old.jpg copies/img 7", ("old.jpg copies/img", "7")),
        ("a.jpg zebra", ("a.jpg", "zebra")),  # no class list, but what follows a suffix is no path
    ],
)
def test_list_lines(line: str, expected: tuple[str, str | None]) -> None:
    assert parse_line(line, frozenset({"dog", "alarm clock", "clock"})) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog\nalarm clock\n", {"0": "dog", "1": "alarm clock"}),
        ("1 001.Black footed\r\n2 002.Laysan\r\n", {"1": "001.Black footed", "2": "002.Laysan"}),
        ("alarm clock 5\ndog 07\n", {"5": "alarm clock", "7": "dog"}),
        ("boeing 747\nairbus 747\n", {"0": "boeing 747", "1": "airbus 747"}),  # one number twice: part of the names
    ],
)
def test_classes_files(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert read_classes(tmp_path / "classes.txt") == expected
    assert read_classes(tmp_path / "none.txt") == {}


def test_list_finds_its_root(tmp_path: Path) -> None:
    touch(tmp_path, "photo/a b.jpg", "photo/c.jpg", "lists/own/d.jpg", "far/photo/a b.jpg", "far/photo/c.jpg")
    listing = tmp_path / "lists" / "train.txt"
    listing.write_text("\ufeffphoto/a b.jpg 1\n\n./photo/c.jpg 0\n")
    (tmp_path / "lists" / "classes.txt").write_text("dog\ncat\n")
    expected = [("p/photo/a b.jpg", "cat", "train"), ("p/photo/c.jpg", "dog", "train")]
    manifest = read_source(listing, "p", split="train")
    assert facts(manifest) == expected and manifest[1].path == str(tmp_path / "photo" / "c.jpg")
    far = Manifest.from_list(listing, "p", root=tmp_path / "far", split="train")
    assert facts(far) == expected and far[1].path == str(tmp_path / "far" / "photo" / "c.jpg")
    listing.write_text(f"own/d.jpg\n{tmp_path}/photo/c.jpg\n")
    assert [row.path for row in read_source(listing, "p")] == [
        str(tmp_path / "lists" / "own" / "d.jpg"),
        str(tmp_path / "photo" / "c.jpg"),
    ]


def test_list_with_missing_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "l.txt").write_text("a.jpg 0\n" + "".join(f"x{n}.jpg 1\n" for n in range(5)))
    with pytest.raises(IsthmusError, match=r"5 of the 6 images .* x0.jpg, x1.jpg, x2.jpg and 2 more; .* --root"):
        read_source(tmp_path / "l.txt", "p")


def test_list_that_names_a_file_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "l.txt").write_text("a.jpg 0\nb.jpg 0\n./a.jpg 1\n")
    with pytest.raises(IsthmusError, match=r"1 files more than once: ./a.jpg \(lines 1 and 3\); remove"):
        read_source(tmp_path / "l.txt", "p")


def test_list_label_beyond_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    (tmp_path / "l.txt").write_text("a.jpg 2\n")
    with pytest.raises(IsthmusError, match=r"label 2 in line 1 of .*l\.txt is not in classes\.txt, which has 2"):
        read_source(tmp_path / "l.txt", "p")


def test_odd_names_in_folders_and_lists(tmp_path: Path) -> None:
    paths = zoo.odd_names(tmp_path)
    manifest = read_folder(tmp_path, "p")
    assert {row.path for row in manifest} == {str(path) for path in paths}
    (tmp_path / "l.txt").write_text("".join(f"{path.name} 1\n" for path in paths if "\n" not in path.name))
    assert len(read_source(tmp_path / "l.txt", "p")) == len(paths) - 1
    broken = os.fsdecode(b"caf\xe9.png")
    (tmp_path / broken).write_bytes(b"x")
    (tmp_path / "l.txt").write_bytes(b"caf\xe9.png 1\n")
    assert read_source(tmp_path / "l.txt", "p")[0].path == str(tmp_path / broken)


def test_usable_domains() -> None:
    manifest = Manifest([Row("a/1", "/1", "a", split="test"), Row("b/1", "/2", "b"), Row("b/2", "/3", "b")])
    require_usable(manifest, "b")
    with pytest.raises(IsthmusError, match="'a' holds a single image; at least 2"):
        require_usable(manifest, "a")
    with pytest.raises(IsthmusError, match=r"'c' is empty \(the manifest has: a, b\)"):
        require_usable(manifest, "c")
    with pytest.raises(IsthmusError, match="'a', split 'train', is empty"):
        require_usable(manifest, "a", split="train")


def test_matched_labels() -> None:
    def rows(domain: str, *labels: str | None) -> Manifest:
        return Manifest(Row(f"{domain}/{n}", f"/{n}", domain, label=label) for n, label in enumerate(labels))

    matched = matched_labels(rows("s", "cat", "cat", "dog", None), rows("p", "owl", "cat", "eel"))
    assert matched.labels == ("cat",) and (matched.left_out_a, matched.left_out_b) == (2, 2)
    with pytest.raises(IsthmusError, match=r"No label of s \(0, 1\) occurs in p \(cat, dog\)"):
        matched_labels(rows("s", "0", "1"), rows("p", "cat", "dog"))
    with pytest.raises(IsthmusError, match="The 1 images of p have no label"):
        matched_labels(rows("s", "0"), rows("p", None))
    with pytest.raises(IsthmusError, match="have no identity"):
        matched_labels(rows("s", "0"), rows("p", "0"), by="identity")


def test_shared_lists(shared_data: Path) -> None:
    lists = shared_data / "data" / "pacs" / "lists"
    classes = (lists / "classes.txt").read_text().split()
    for name in ("photo_train", "photo_val", "photo_test", "sketch_train", "sketch_train_cls_disjoint1"):
        lines = (lists / f"{name}.txt").read_text().split("\n")[:-1]
        manifest = read_source(lists / f"{name}.txt", "d")
        assert len(manifest) == len(lines)
        for row, line in zip(manifest, lines, strict=True):
            path, number = line.rsplit(" ", 1)
            assert row.id == f"d/{path}" and row.label == classes[int(number)] == Path(path).parent.name
            assert row.path == str(lists.parent / path)
    photos = {row.path for row in read_source(lists.parent / "photo", "photo")}
    assert len(photos) == 1670 and {row.path for row in read_source(lists / "photo_test.txt", "photo")} < photos
