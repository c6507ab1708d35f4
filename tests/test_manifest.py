"""The one table: rows, ids, CSV and Parquet."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.io import make_folder


def full(folder: Path) -> Manifest:
    """Rows with everything, with nothing, and with what breaks careless table writers."""
    return Manifest(
        [
            Row(
                "photo/a.jpg",
                str(folder / "a.jpg"),
                "photo",
                "007",
                "id 1",
                {"heel": 0.1, "zip": 1.0},
                "train",
                "sketch/a",
            ),
            Row("photo/b.jpg", str(folder / "sub" / 'b, "c".jpg'), "photo", label="NA", attributes={"price": -1e-300}),
            Row("photo/two\nlines\r\n.jpg", str(folder / "two\nlines\r\n.jpg"), "photo", label="null"),
            Row("sketch/猫 ü.png", "/elsewhere/猫 ü.png", "sketch", label="=1+1", split="test"),
        ]
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str) -> None:
    manifest = full(tmp_path)
    manifest.save(tmp_path / f"table{suffix}")
    loaded = Manifest.load(tmp_path / f"table{suffix}")
    assert loaded.rows == manifest.rows


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_moves_with_its_images(tmp_path: Path, suffix: str) -> None:
    old, new = make_folder(tmp_path / "old"), tmp_path / "new"
    full(old).save(old / f"table{suffix}")
    shutil.move(old, new)
    paths = [row.path for row in Manifest.load(new / f"table{suffix}")]
    assert paths == [row.path for row in full(new)]
    rooted = Manifest.load(new / f"table{suffix}", root=tmp_path / "third")
    assert rooted[0].path == str(tmp_path / "third" / "a.jpg") and rooted[3].path == "/elsewhere/猫 ü.png"


def test_parquet_and_csv_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    full(tmp_path).save(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    names = ["id", "path", "domain", "label", "identity", "split", "source_id", "attr:heel", "attr:zip", "attr:price"]
    assert table.column_names == names
    assert table["attr:zip"].to_pylist() == [1.0, None, None, None] and table["label"].to_pylist()[0] == "007"
    full(tmp_path).save(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == ",".join(names)
    assert lines[1] == "photo/a.jpg,a.jpg,photo,007,id 1,train,sketch/a,0.1,1.0,"


def test_an_empty_manifest_survives(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet"):
        Manifest().save(tmp_path / name)
        assert len(Manifest.load(tmp_path / name)) == 0


def test_foreign_csv(tmp_path: Path) -> None:
    """A byte-order mark, Windows line ends, other columns, no ids."""
    text = "path,domain,label,note\r\nx/../a.jpg,photo,cat,hello\r\nsub/b.jpg,photo,,\r\n"
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    manifest = Manifest.load(tmp_path / "t.csv")
    assert [row.id for row in manifest] == ["photo/a.jpg", "photo/sub/b.jpg"]
    assert manifest.labels() == ["cat", None] and manifest[0].path == str(tmp_path / "a.jpg")


def test_foreign_parquet_with_numbers_as_labels(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"path": ["a.jpg"], "domain": ["p"], "label": [3], "attr:x": [2], "pixels": [[1, 2]]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    row = Manifest.load(tmp_path / "t.parquet")[0]
    assert row.label == "3" and row.attributes == {"x": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label\na.jpg,cat\n",
            "has no column 'domain' .it has: path, label.; an image table needs the columns path",
        ),
        ("file,domain\na.jpg,p\n", "has no column 'path'"),
        ("", "has no column 'path' .it has: none"),
        ("path,domain\n,p\n", "Row 1 .* has no path"),
        ("path,domain\na.jpg,p\nb.jpg,\n", "Row 2 .* has no domain"),
        ("path,domain\na.jpg,p,extra\n", "Line 2 .* another number of fields"),
        ("path,domain,label\na.jpg,p\n", "Line 2 .* another number of fields"),
        ("path,domain,attr:x\na.jpg,p,high\n", "'high' as 'attr:x'; attributes are numbers"),
        ("id,path,domain\n1,a.jpg,p\n2,b.jpg,p\n1,c.jpg,p\n", r"ids must be unique, and 1 \(2 times\) repeat"),
        ('path,domain\n"a.jpg,p\n', "can't be read"),
    ],
)
def test_bad_tables_say_what_is_needed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(IsthmusError, match=message):
        Manifest.load(tmp_path / "t.csv")


def test_unreadable_tables(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    (tmp_path / "t.csv").write_bytes(b"path,domain\n\xff\xfe.jpg,p\n")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(IsthmusError, match=f"{name} can't be read"):
            Manifest.load(tmp_path / name)
    with pytest.raises(IsthmusError, match="There is no table"):
        Manifest.load(tmp_path / "none.csv")
    for act in (Manifest().save, Manifest.load):
        with pytest.raises(IsthmusError, match=r"end it in \.csv or \.parquet"):
            act(tmp_path / "t.xlsx")


def test_names_that_are_no_unicode_are_refused_in_words(tmp_path: Path) -> None:
    manifest = Manifest([Row("p/\udcff.jpg", str(tmp_path / "\udcff.jpg"), "p")])
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(IsthmusError, match=r"udcff.*not valid UTF-8; rename it"):
            manifest.save(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_failed_save_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(tmp_path).save(tmp_path / "t.csv")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(IsthmusError, match="disk is full"):
        Manifest().save(tmp_path / "t.csv")
    assert len(Manifest.load(tmp_path / "t.csv")) == 4


def test_ids_are_unique_and_the_message_names_them() -> None:
    rows = [Row(f"p/{n}", f"/{n}", "p") for n in range(6)]
    with pytest.raises(IsthmusError, match=r"p/0 \(2 times\), p/1 \(3 times\), p/2 \(2 times\) and 1 more repeat"):
        Manifest([*rows, *rows[:4], rows[1]])
    with pytest.raises(IsthmusError, match="p/1"):
        Manifest(rows) + Manifest(rows[1:2])


def test_select_by_id_and_order() -> None:
    rows = [
        Row("s/1", "/1", "s", label="cat", split="train"),
        Row("p/1", "/2", "p", label="dog", split="test"),
        Row("s/2", "/3", "s", split="test", source_id="p/1"),
    ]
    manifest = Manifest(rows)
    assert manifest.domains == ["s", "p"] and manifest.labels() == ["cat", "dog", None]
    assert [row.id for row in manifest.select(domain="s")] == ["s/1", "s/2"]
    assert [row.id for row in manifest.select(split="test", real=True)] == ["p/1"]
    assert [row.id for row in manifest.select(real=False)] == ["s/2"]
    assert manifest.by_id("p/1") is manifest[1] and "p/1" in manifest and "p/2" not in manifest
    with pytest.raises(IsthmusError, match="no id p/9"):
        manifest.by_id("p/9")
    assert (Manifest(rows[:1]) + Manifest(rows[1:])) == manifest
    assert pickle.loads(pickle.dumps(manifest)) == manifest
