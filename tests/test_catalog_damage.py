"""Places that are no catalog, and catalogs that are damaged: told in a sentence, never served."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from catalog_tools import FakeModel, photos

from isthmus import Catalog, IsthmusError
from isthmus.catalog.table import explained


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Catalog.create(tmp_path / "catalog", FakeModel()).add(photos(tmp_path / "photos", 20))
    return tmp_path / "catalog"


def truncate(table: Path) -> None:
    for file in (table / "data").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose(table: Path) -> None:
    for file in (table / "data").iterdir():
        file.unlink()


def flip(table: Path) -> None:
    for file in (table / "data").iterdir():
        data = bytearray(file.read_bytes())
        data[100 : len(data) // 2] = bytes(value ^ 0x55 for value in data[100 : len(data) // 2])
        file.write_bytes(data)


def garble_versions(table: Path) -> None:
    for file in (table / "_versions").iterdir():
        file.write_bytes(b"garbage" * 20)


def lose_versions(table: Path) -> None:
    shutil.rmtree(table / "_versions")


@pytest.mark.parametrize("damage", [truncate, lose, flip, garble_versions, lose_versions])
def test_damage_is_told_and_not_served(place: Path, damage: Callable[[Path], None]) -> None:
    damage(place / "items.lance")
    with pytest.raises(IsthmusError, match=r"damaged|could not be used") as told:
        Catalog.open(place).search(np.ones(48))
    assert str(place) in str(told.value) and ".rs:" not in str(told.value) and "\n" not in str(told.value)
    try:
        report = Catalog.open(place).verify()
    except IsthmusError:
        return
    assert not report.sound and report.problems


def test_one_flipped_bit_in_one_vector_is_found(place: Path) -> None:
    catalog = Catalog.open(place)
    _, vectors = catalog.items.fetch(["photo/007.png"])
    for file in (place / "items.lance" / "data").iterdir():
        data = bytearray(file.read_bytes())
        spot = data.find(vectors[0].tobytes())
        if spot >= 0:
            data[spot + 1] ^= 1  # a low bit: neither the length nor the rank betrays it
            file.write_bytes(data)
            break
    else:
        pytest.fail("the vector does not lie in the file as it is")
    catalog = Catalog.open(place)
    with pytest.raises(IsthmusError, match=r"damaged.*photo/007\.png"):
        catalog.search(vectors[0], k=1)
    report = catalog.verify()
    assert report.rows == 20 and not report.sound
    assert "1 vectors are not what was written: photo/007.png" in report.problems[0]


def test_an_id_written_twice_is_found(place: Path) -> None:
    catalog = Catalog.open(place)
    catalog.items.table.add(catalog.items.table.to_arrow().slice(3, 2))
    report = catalog.verify()
    assert [problem for problem in report.problems if "2 ids stand there more than once" in problem]


def test_a_vector_that_is_no_direction_is_found(place: Path) -> None:
    catalog = Catalog.open(place)
    rows, _ = catalog.items.fetch(["photo/001.png", "photo/002.png"])
    catalog.items.upsert(rows, np.stack([np.full(48, np.inf), np.full(48, 3.0)]).astype(np.float32))
    assert "2 vectors are not of unit length" in catalog.verify().problems[0]
    with pytest.raises(IsthmusError, match="not finite"):
        catalog.search(np.ones(48))


def test_places_that_are_no_catalog(tmp_path: Path, place: Path) -> None:
    with pytest.raises(IsthmusError, match=r"no catalog .*nowhere.*isthmus index"):
        Catalog.open(tmp_path / "nowhere")
    with pytest.raises(IsthmusError, match="is no catalog"):
        Catalog.open(tmp_path / "photos")
    with pytest.raises(IsthmusError, match="is no catalog"):
        Catalog.open(tmp_path / "photos" / "000.png")
    with pytest.raises(IsthmusError, match="holds other files"):
        Catalog.create(tmp_path / "photos", FakeModel())
    with pytest.raises(IsthmusError, match=r"a catalog in .* already"):
        Catalog.create(place, FakeModel())
    with pytest.raises(IsthmusError, match="a file stands where a folder is needed"):
        Catalog.create(tmp_path / "photos" / "000.png" / "catalog", FakeModel())
    lancedb.connect(tmp_path / "foreign").create_table("items", pa.table({"a": [1]}))
    with pytest.raises(IsthmusError, match="no catalog of Isthmus"):
        Catalog.open(tmp_path / "foreign")
    facts = json.dumps({"format": 99}).encode()
    schema = pa.schema([pa.field("a", pa.int64())], metadata={b"isthmus": facts})
    lancedb.connect(tmp_path / "later").create_table("items", schema=schema)
    with pytest.raises(IsthmusError, match="later version"):
        Catalog.open(tmp_path / "later")


def test_a_uri_is_a_place_too(tmp_path: Path) -> None:
    place = (tmp_path / "remote").as_uri()
    assert not Catalog.exists(place)
    with pytest.raises(IsthmusError, match="no catalog at"):
        Catalog.open(place)
    Catalog.create(place, FakeModel()).add(photos(tmp_path / "photos", 3))
    assert Catalog.exists(place)
    assert len(Catalog.open(place).search(np.ones(48))) == 3
    with pytest.raises(IsthmusError, match="already"):
        Catalog.create(place, FakeModel())


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("lance error: LanceError(IO): No space left on device (os error 28), /a/b.rs:1:2", "is full"),
        ("lance error: Permission denied (os error 13), /root/x.rs:1:2", "change permissions"),
        ("lance error: Commit conflict for version 4", "at the same time"),
        ("lance error: Too many concurrent writers", "at the same time"),
        ("dispatch failure: could not connect", "can't be reached"),
        ("anything else\nTraceback ...", "could not be used \\(anything else\\)"),
    ],
)
def test_what_the_storage_says_becomes_a_sentence(message: str, says: str) -> None:
    with pytest.raises(IsthmusError, match=says) as told, explained("/shop/catalog"):
        raise RuntimeError(message)
    assert "/shop/catalog" in str(told.value) and "\n" not in str(told.value) and ".rs" not in str(told.value)


def test_the_checksum_covers_id_content_and_vector(place: Path) -> None:
    rows, vectors = Catalog.open(place).items.fetch(["photo/000.png"])
    whole = f"{rows[0]['id']}\0{rows[0]['hash']}".encode() + vectors[0].tobytes()
    assert rows[0]["crc"] == zlib.crc32(whole)
