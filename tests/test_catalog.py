"""The catalog from making to searching, and what it says when something is wrong."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
from catalog_tools import FakeModel, photos, picture
from PIL import Image

import isthmus
from isthmus import Catalog, IsthmusError
from isthmus.data.manifest import Manifest, Row


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def catalog(tmp_path: Path, model: FakeModel) -> Catalog:
    made = Catalog.create(tmp_path / "catalog", model)
    made.add(photos(tmp_path / "photos", 12))
    return made


def test_a_folder_goes_in_and_is_found(tmp_path: Path, catalog: Catalog, model: FakeModel) -> None:
    assert len(catalog) == 12
    query = tmp_path / "photos" / "007.png"
    hits = catalog.search(query, domain="photo", k=3)
    assert hits[0].id == "photo/007.png"
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert hits[0].path == str(query)
    assert sorted((hit.score for hit in hits), reverse=True) == [hit.score for hit in hits]


def test_the_query_domain_is_the_models_first(tmp_path: Path, catalog: Catalog) -> None:
    with Image.open(tmp_path / "photos" / "003.png") as image:
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert catalog.search(mirrored, k=1)[0].id == "photo/003.png"
    assert catalog.search(mirrored, domain="photo", k=1)[0].score < 0.99


def test_queries_of_every_sort_agree(tmp_path: Path, catalog: Catalog, model: FakeModel) -> None:
    path = tmp_path / "photos" / "005.png"
    vector = model.encode([path], domain="photo")[0] * 3
    with Image.open(path) as image:
        answers = [
            catalog.search(query, domain="photo", k=5) for query in (path, str(path), path.read_bytes(), image, vector)
        ]
    ids = [hit.id for hit in answers[0]]
    for answer in (*answers, *catalog.search_many([path, vector], domain="photo", k=5)):
        assert [hit.id for hit in answer] == ids
        assert [hit.score for hit in answer] == pytest.approx([hit.score for hit in answers[0]], abs=1e-6)
    like = catalog.search(id="photo/005.png", k=4)
    assert [hit.id for hit in like] == ids[1:]
    assert catalog.search("photo/005.png", k=4) == like


def test_it_opens_again_with_and_without_the_model(tmp_path: Path, catalog: Catalog, model: FakeModel) -> None:
    again = isthmus.Catalog.open(tmp_path / "catalog")
    assert again.info()["items"] == 12
    assert again.info()["model"] == model.fingerprint
    assert again.search(np.ones(model.dim), k=2) == catalog.search(np.ones(model.dim), k=2)
    with pytest.raises(IsthmusError, match=r"needs its model .*--model RUN"):
        again.search(tmp_path / "photos" / "001.png")
    assert len(Catalog.open(tmp_path / "catalog", model).search(tmp_path / "photos" / "001.png")) == 10


def test_another_model_is_refused_by_both_names(tmp_path: Path, catalog: Catalog, model: FakeModel) -> None:
    other = FakeModel("b")
    with pytest.raises(IsthmusError, match=rf"{model.fingerprint}.*{other.fingerprint}"):
        Catalog.open(tmp_path / "catalog", other)


def test_metadata_is_typed_stored_and_filtered(tmp_path: Path, model: FakeModel) -> None:
    photos(tmp_path / "photos", 4)
    table = tmp_path / "prices.csv"
    table.write_text(
        "path,price,sku,new,since,Big Brand\n"
        "000.png,10,007,true,2024-01-31,Acme\n001.png,49.9,008,false,2025-06-01,It's\n002.png,,009,,,\n"
        "gone.png,1,1,true,2020-01-01,x\n",
        encoding="utf-8",
    )
    catalog = Catalog.create(tmp_path / "catalog", model)
    changes = catalog.add(tmp_path / "photos", metadata=table)
    assert (changes.added, changes.unmatched) == (4, 1)
    assert catalog.info()["metadata"] == {
        "price": "number", "sku": "text", "new": "flag", "since": "time", "Big Brand": "text",
    }  # fmt: skip
    found = {hit.id: hit.metadata for hit in catalog.search(np.ones(model.dim))}
    assert found["photo/000.png"] == {
        "price": 10.0, "sku": "007", "new": True, "since": dt.datetime(2024, 1, 31), "Big Brand": "Acme",
    }  # fmt: skip
    assert found["photo/002.png"] == {"sku": "009"}
    assert found["photo/003.png"] == {}
    for where, ids in {
        "price < 49.95": {"000", "001"},
        "PRICE <= 10": {"000"},
        "sku = '007'": {"000"},
        "new": {"000"},
        "NOT new": {"001"},
        "new IS NULL AND price IS NULL": {"002", "003"},
        "since > '2024-02-01'": {"001"},
        "`Big Brand` = 'It''s'": {"001"},
        "\"big brand\" IN ('Acme', 'z')": {"000"},
        "id LIKE 'photo/00_.png' AND NOT (price BETWEEN 5 AND 20)": {"001"},
    }.items():
        hits = catalog.search(np.ones(model.dim), where=where)
        assert {hit.id for hit in hits} == {f"photo/{name}.png" for name in ids}, where
        assert catalog.count(where) == len(ids)


def test_a_tables_own_columns_become_metadata(tmp_path: Path, model: FakeModel) -> None:
    photos(tmp_path, 2)
    table = tmp_path / "items.csv"
    table.write_text("id,path,label,price,attr:round\nx,000.png,cup,3,0.5\ny,001.png,,4,\n", encoding="utf-8")
    catalog = Catalog.create(tmp_path / "catalog", model)
    assert catalog.add(table).added == 2
    rows = {row["id"]: row for row in catalog.rows()}
    assert (rows["x"]["label"], rows["x"]["price"], rows["x"]["round"]) == ("cup", 3.0, 0.5)
    assert (rows["y"]["label"], rows["y"]["price"], rows["y"]["round"]) == (None, 4.0, None)


def test_metadata_changes_without_the_model(tmp_path: Path, catalog: Catalog) -> None:
    before = catalog.search(np.arange(48.0), k=12)
    again = Catalog.open(tmp_path / "catalog")
    assert again.update({"photo/001.png": {"price": 5, "note": "a"}, "photo/002.png": {"price": 6.5}}) == 2
    assert again.update({"photo/001.png": {"price": 5}}) == 0
    assert again.update({"photo/001.png": {"note": None}}) == 1
    rows = {row["id"]: row for row in again.rows("price > 0")}
    assert {id: (row["price"], row["note"]) for id, row in rows.items()} == {
        "photo/001.png": (5.0, None),
        "photo/002.png": (6.5, None),
    }
    assert [(hit.id, hit.score) for hit in again.search(np.arange(48.0), k=12)] == [
        (hit.id, hit.score) for hit in before
    ]
    assert again.verify().sound
    with pytest.raises(IsthmusError, match="holds numbers"):
        again.update({"photo/001.png": {"price": True}})
    with pytest.raises(IsthmusError, match=r"No row of .* belongs to an image"):
        again.update({"photo/nowhere.png": {"price": 1}})


def test_deleted_items_are_gone(catalog: Catalog) -> None:
    assert catalog.delete(["photo/001.png", "unknown"]) == 1
    assert catalog.delete(where="id IN ('photo/002.png', 'photo/003.png')") == 2
    assert len(catalog.search(np.ones(48), k=50)) == 9
    with pytest.raises(IsthmusError, match="either ids or a filter"):
        catalog.delete()


def test_a_bad_image_is_skipped_and_listed_or_raises(tmp_path: Path, model: FakeModel) -> None:
    folder = photos(tmp_path / "photos", 3)
    (folder / "0.png").write_bytes((folder / "000.png").read_bytes()[:40])
    (folder / "9.jpg").write_bytes(b"")
    catalog = Catalog.create(tmp_path / "catalog", model)
    changes = catalog.add(folder)
    assert changes.added == 3
    assert sorted(bad.id for bad in changes.bad) == ["photo/0.png", "photo/9.jpg"]
    assert all(bad.path in bad.reason for bad in changes.bad)
    other = Catalog.create(tmp_path / "other", model)
    with pytest.raises(IsthmusError, match=r"9\.jpg|0\.png"):
        other.add(folder, on_bad="raise")
    assert len(other) == 3  # what was sound has been written


def test_the_same_content_twice_is_noted_and_embedded_once(tmp_path: Path, model: FakeModel) -> None:
    folder = photos(tmp_path / "photos", 3)
    picture(folder / "copy.png", 1)
    catalog = Catalog.create(tmp_path / "catalog", model)
    changes = catalog.add(folder)
    assert changes.added == 4 and changes.embedded == 3 == len(model.encoded)
    assert changes.same == [("photo/copy.png", "photo/001.png")]
    picture(folder / "later.png", 2)
    changes = catalog.add(folder)
    assert (changes.added, changes.embedded, changes.same) == (1, 0, [("photo/later.png", "photo/002.png")])
    scores = {hit.id: hit.score for hit in catalog.search(folder / "copy.png", domain="photo")}
    assert scores["photo/copy.png"] == scores["photo/001.png"]


def test_one_id_twice_is_an_update(tmp_path: Path, catalog: Catalog) -> None:
    new = picture(tmp_path / "elsewhere.png", 99)
    changes = catalog.add(Manifest([Row("photo/000.png", str(new), "photo", label="cup")]))
    assert (changes.added, changes.updated) == (0, 1)
    assert len(catalog) == 12
    hit = catalog.search(new, domain="photo", k=1)[0]
    assert (hit.id, hit.path, hit.label) == ("photo/000.png", str(new), "cup")


@pytest.mark.parametrize("bad", [np.zeros(48), np.full(48, np.nan), np.ones(47), np.ones((2, 48)), "no such file", {}])
def test_a_query_that_is_none_is_told(catalog: Catalog, bad: object) -> None:
    with pytest.raises(IsthmusError):
        catalog.search(bad)  # type: ignore[arg-type]


def test_other_bad_requests_are_told(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(IsthmusError, match=r"no domain 'drawing'.*sketch and photo"):
        catalog.search(tmp_path / "photos" / "000.png", domain="drawing")
    with pytest.raises(IsthmusError, match="at least 1"):
        catalog.search(np.ones(48), k=0)
    with pytest.raises(IsthmusError, match="no item nowhere"):
        catalog.search(id="nowhere")
    with pytest.raises(IsthmusError, match="no domain 'drawing'"):
        catalog.add(tmp_path / "photos", domain="drawing")
    with pytest.raises(IsthmusError, match=r"No row of .* belongs to an image"):
        catalog.add(tmp_path / "photos", metadata={"x": {"price": 1}})
    with pytest.raises(IsthmusError, match="the catalog itself uses"):
        catalog.add(tmp_path / "photos", metadata={"photo/000.png": {"vector": 1}})
    assert len(catalog) == 12 and catalog.verify().sound


def test_an_empty_catalog_finds_nothing(tmp_path: Path, model: FakeModel) -> None:
    catalog = Catalog.create(tmp_path / "catalog", model)
    assert catalog.search(np.ones(48)) == []
    assert catalog.verify().sound and catalog.info()["items"] == 0
