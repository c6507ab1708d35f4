"""Items over HTTP: pictures made anew, uploads that can't touch the disk by name, changes of one item and no other."""

from __future__ import annotations

import datetime as dt
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from catalog_tools import FakeModel
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from serve_zoo import TOKEN, WRITES, error_of, item_id, make_catalog, noise, png, served

from isthmus.catalog.store import Catalog
from isthmus.serve.edits import values_of
from isthmus.serve.errors import ApiError
from isthmus.serve.thumbnails import Picture, Thumbnails


class World:
    """A catalog of 12 items that may be changed, and a client with the token."""

    def __init__(self, folder: Path, client: TestClient) -> None:
        self.folder, self.client = folder, client
        self.catalog: Catalog = client.app.state.engine.catalog  # type: ignore[attr-defined]

    def add(self, image: bytes, item: Any = None, headers: Any = None) -> Any:
        data = {} if item is None else {"item": item if isinstance(item, str) else json.dumps(item)}
        files = {"image": ("../../../etc/passwd.png", image)}
        return self.client.post("/api/items", files=files, data=data, headers=WRITES if headers is None else headers)

    def patch(self, id: str, /, **metadata: Any) -> Any:
        return self.client.patch("/api/items", json={"id": id, "metadata": metadata}, headers=WRITES)

    def delete(self, id: str) -> Any:
        return self.client.delete("/api/items", params={"id": id}, headers=WRITES)

    def get(self, id: str) -> Any:
        return self.client.get("/api/items", params={"id": id})

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("items")
    with served(make_catalog(folder, items=12), token=TOKEN, max_pixels=100_000) as client:
        yield World(folder, client)


def test_an_item_is_told_without_where_it_lies(world: World) -> None:
    found = world.get(item_id(0)).json()
    assert found == {
        "id": "photo/000.png", "domain": "photo", "label": None,
        "metadata": {"price": -10.0, "brand": "Acme", "new": True, "made": "2026-01-01T12:30:00Z"},
        "thumbnail": "/api/items/thumbnail?id=photo%2F000.png&size=160",
        "image": "/api/items/image?id=photo%2F000.png",
    }  # fmt: skip
    assert str(world.folder) not in json.dumps(found)


@pytest.mark.parametrize(
    "id", ["nothing", "../000.png", "/etc/passwd", "photo/000.png' OR 1=1 --", "%", "\0", "ü" * 50, "000.png"]
)
def test_an_unknown_id_is_no_item(world: World, id: str) -> None:
    for address in ("", "/thumbnail", "/image"):
        error_of(world.client.get(f"/api/items{address}", params={"id": id}), 404, "no_item")
    assert world.delete(id).json()["deleted"] == 0
    error_of(world.patch(id, price=1), 404, "no_item")


def test_what_is_asked_wrongly_is_a_bad_request(world: World) -> None:
    small = "/api/items/thumbnail?id=photo/000.png&size="
    for address in ("/api/items", "/api/items?id=", "/api/items?id=" + "x" * 5000, small + "161", small + "x"):
        error_of(world.client.get(address), 400, "bad_request")


def opened(answer: Any) -> Image.Image:
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    return Image.open(io.BytesIO(answer.content))


def test_pictures_are_made_anew_in_the_size_that_was_asked_for(world: World) -> None:
    exif = Image.Exif()
    exif[0x010E] = "the photographer's address"
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), (200, 30, 30)).save(
        buffer, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"icc" * 9
    )
    assert world.add(buffer.getvalue(), {"id": "turned"}).status_code == 201
    for address, size in (("thumbnail", (80, 160)), ("thumbnail&size=96", (48, 96)), ("thumbnail&size=320", (160, 320)),
                          ("image", (200, 400))):  # fmt: skip
        name, _, more = address.partition("&")
        answer = world.client.get(f"/api/items/{name}?id=turned&{more}")
        picture = opened(answer)
        assert picture.size == size and not picture.getexif()
        assert not {"comment", "icc_profile", "exif"} & set(picture.info)
        for secret in (b"photographer", b"a comment", b"icc", b"Exif"):
            assert secret not in answer.content
        assert answer.headers["x-content-type-options"] == "nosniff"
    wide = png(Image.new("RGB", (3200, 20)))
    assert world.add(wide, {"id": "wide"}).status_code == 201
    assert opened(world.client.get("/api/items/image?id=wide")).size == (1600, 10)
    assert opened(world.client.get("/api/items/thumbnail?id=photo/000.png&size=320")).size == (8, 8)


def test_pictures_are_kept_by_the_browser_until_the_content_is_another(world: World) -> None:
    assert world.add(png(noise(1)), {"id": "tag"}).status_code == 201
    address = "/api/items/thumbnail?id=tag"
    first = world.client.get(address)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, max-age=86400"
    for said in (tag, f'"x", W/{tag}', "*"):
        again = world.client.get(address, headers={"If-None-Match": said})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert world.client.get(address + "&size=96", headers={"If-None-Match": tag}).status_code == 200
    assert world.add(png(noise(2)), {"id": "tag"}).json()["added"] is False
    changed = world.client.get(address, headers={"If-None-Match": tag})
    assert changed.status_code == 200 and changed.content != first.content and changed.headers["etag"] != tag


def test_an_image_that_changed_or_is_gone_is_not_shown(world: World) -> None:
    path = Path(next(row["path"] for row in world.catalog.rows() if row["id"] == item_id(5)))
    before = path.read_bytes()
    for address in ("thumbnail", "image"):
        address = f"/api/items/{address}?id={item_id(5)}"
        assert world.client.get(address).status_code == 200
        path.write_bytes(png(noise(3)))
        reason = error_of(world.client.get(address), 410, "image_gone")
        assert str(world.folder) not in reason
        path.unlink()
        error_of(world.client.get(address), 410, "image_gone")
        path.mkdir()
        error_of(world.client.get(address), 410, "image_gone")
        path.rmdir()
        path.write_bytes(before)
        assert world.client.get(address).status_code == 200


def test_memory_for_thumbnails_is_bounded(tmp_path: Path) -> None:
    import hashlib

    pictures = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(noise(number, (100, 100))))
        pictures.append(Picture(str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    one = len(Thumbnails(0).get(pictures[0], 96))
    kept = Thumbnails(3 * one + 3000)
    threads = [threading.Thread(target=lambda: [kept.get(p, 96) for p in pictures * 3]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(kept) <= 4 and kept.held <= kept.limit
    assert kept.held == sum(len(data) + 400 for _, data in kept._kept.values())
    kept.get(pictures[0], 1600)
    assert not any(side == 1600 for _, _, side in kept._kept)
    # What is kept is not made again.
    data = kept.get(pictures[0], 96)
    assert kept.get(pictures[0], 96) is data
    nothing = Thumbnails(0)
    nothing.get(pictures[0], 96)
    assert len(nothing) == nothing.held == 0


def test_an_upload_is_found_by_what_it_shows_and_lies_under_its_hash(world: World) -> None:
    import hashlib

    image = noise(10)
    data = png(image)
    said: dict[str, Any] = {"price": 7, "brand": "Söhne", "new": False, "colour": "red"}
    said["made"] = "2026-05-01T14:00:00+02:00"
    before = world.files()
    answer = world.add(data, {"label": "shoe", "metadata": said})
    content = hashlib.sha256(data).hexdigest()
    assert answer.status_code == 201
    said = answer.json()
    assert said["id"] == f"photo/{content}" and said["added"] is True
    assert said["version"] == world.catalog.items.version
    new = {path for path in world.files() - before if not path.startswith("catalog")}
    assert new == {f"uploads/{content[:2]}/{content}.png"}
    assert (world.folder / new.pop()).read_bytes() == data
    found = world.get(said["id"]).json()
    assert found["label"] == "shoe"
    assert found["metadata"] == {
        "price": 7.0, "brand": "Söhne", "new": False, "made": "2026-05-01T12:00:00Z", "colour": "red",
    }  # fmt: skip
    hits = world.client.post(
        "/api/search/image", files={"image": data}, data={"options": json.dumps({"k": 1, "domain": "photo"})}
    ).json()["hits"]
    assert hits[0]["id"] == said["id"] and hits[0]["score"] > 0.9999
    again = world.add(data, {"label": "shoe"})
    assert (again.status_code, again.json()["added"]) == (201, False)
    assert world.get(said["id"]).json()["metadata"] == found["metadata"]
    assert world.delete(said["id"]).json()["deleted"] == 1
    error_of(world.get(said["id"]), 404, "no_item")


def test_ids_are_never_paths(world: World) -> None:
    before = {path for path in world.files() if not path.startswith("catalog")}
    outside = set(world.folder.parent.iterdir())
    for id in ("../../escape", "/tmp/absolute.png", "C:\\x"):
        assert world.add(png(noise(11)), {"id": id}).json()["id"] == id
        assert world.get(id).json()["id"] == id
        assert world.client.get("/api/items/image", params={"id": id}).status_code == 200
        assert world.delete(id).json()["deleted"] == 1
    new = {path for path in world.files() if not path.startswith("catalog")} - before
    assert len(new) == 1 and next(iter(new)).startswith("uploads/")
    assert set(world.folder.parent.iterdir()) == outside


@pytest.mark.parametrize(
    ("image", "item", "status", "code"),
    [
        (b"<svg/>", {}, 415, "bad_type"),
        (b"", {}, 400, "bad_image"),
        (png(noise(1))[:60], {}, 400, "bad_image"),
        (png(Image.new("1", (1000, 1000))), {}, 413, "too_large"),
        (png(noise(1)), "{", 400, "bad_request"),
        (png(noise(1)), "[]", 400, "bad_request"),
        (png(noise(1)), {"path": "/etc/passwd"}, 400, "bad_request"),
        (png(noise(1)), {"id": ""}, 400, "bad_request"),
        (png(noise(1)), {"id": "a\nb"}, 400, "bad_request"),
        (png(noise(1)), {"id": 5}, 400, "bad_request"),
        (png(noise(1)), '{"id": "\\ud800"}', 400, "bad_request"),
        (png(noise(1)), {"domain": "painting"}, 400, "bad_request"),
        (png(noise(1)), {"metadata": {"price": "much"}}, 400, "bad_request"),
        (png(noise(1)), {"metadata": {"path": "/etc/passwd"}}, 400, "bad_request"),
    ],
)
def test_a_refused_upload_leaves_nothing(world: World, image: bytes, item: Any, status: int, code: str) -> None:
    files, count = world.files(), len(world.catalog)
    error_of(world.add(image, item), status, code)
    assert world.files() == files and len(world.catalog) == count


def test_a_form_without_an_image_is_a_bad_request(world: World) -> None:
    error_of(world.client.post("/api/items", data={"item": "{}"}, headers=WRITES), 400, "bad_request")
    error_of(world.client.post("/api/items", json={"image": "x"}, headers=WRITES), 400, "bad_request")
    error_of(world.client.post("/api/items", data={"image": "no file"}, headers=WRITES), 400, "bad_request")


def test_changes_need_the_token(world: World) -> None:
    version = world.catalog.items.version
    error_of(world.add(png(noise(1)), headers={}), 401, "no_token")
    error_of(world.client.patch("/api/items", json={"id": item_id(1), "metadata": {}}), 401, "no_token")
    error_of(world.client.delete("/api/items", params={"id": item_id(1)}), 401, "no_token")
    assert world.catalog.items.version == version


def test_a_change_is_of_one_item_and_of_what_it_names(world: World) -> None:
    # Catalog.update also takes an id without its first folder, and a path; a request means one item.
    world.add(png(noise(20)), {"id": "001.png", "metadata": {"price": 1}})
    assert world.patch("001.png", price=2).status_code == 200
    assert world.get("001.png").json()["metadata"] == {"price": 2.0}
    before = world.get(item_id(1)).json()["metadata"]
    assert before["price"] == -5
    answer = world.patch(item_id(1), price=99, brand=None)
    assert answer.json() == {"id": item_id(1), "version": world.catalog.items.version}
    after = world.get(item_id(1)).json()["metadata"]
    assert after == {name: value for name, value in (before | {"price": 99.0}).items() if name != "brand"}
    version = world.catalog.items.version
    assert world.patch(item_id(1), price=99).json()["version"] == version  # nothing new, no new version
    assert world.patch(item_id(1), never_there=None).json()["version"] == version
    assert "never_there" not in world.catalog.columns
    assert world.patch(item_id(1), added_later="yes").status_code == 200
    assert world.catalog.columns["added_later"] == "text"
    assert world.get(item_id(2)).json()["metadata"].get("added_later") is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"price": "5"}, {"price": True}, {"brand": 5}, {"new": 1}, {"new": "true"}, {"made": "yesterday"},
        {"made": "0001-01-01T00:00:00+23:00"}, {"made": 5}, {"made": "2026-13-01"}, {"Price": 5}, {"price": 2**60},
        {"brand": "x" * 10_001}, {"path": "x"}, {"hash": "x"}, {"id": "x"}, {"vector": "x"}, {"CRC": 1}, {"label": "x"},
        {"file": "x"}, {"identity": "x"}, {"attr:x": 1}, {"_rowid": 1}, {"a`b": 1}, {"": 1}, {"x" * 81: 1},
        {"9": 1}, {"Size": 1, "size": 1}, {"new one": "x", "New One": "y"}, {"price": [1]}, {"price": {"a": 1}},
        {f"c{n}": n for n in range(101)},
    ],
)  # fmt: skip
def test_wrong_metadata_changes_nothing(world: World, metadata: dict[str, Any]) -> None:
    version = world.catalog.items.version
    error_of(world.patch(item_id(3), **metadata), 400, "bad_request")
    assert world.catalog.items.version == version


def test_numbers_that_are_none(world: World) -> None:
    for text in ("1e999", "NaN", "-Infinity"):
        body = f'{{"id": "{item_id(3)}", "metadata": {{"price": {text}}}}}'
        answer = world.client.patch("/api/items", content=body, headers=WRITES | {"Content-Type": "application/json"})
        error_of(answer, 400, "bad_request")


names = st.one_of(st.sampled_from(["price", "brand", "new", "made", "Price", "id"]), st.text(max_size=12))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.datetimes().map(str))


@settings(max_examples=80, deadline=None)
@given(metadata=st.dictionaries(names, scalars, max_size=4))
def test_whatever_is_sent_as_metadata_fits_its_column_or_is_refused(metadata: dict[str, Any]) -> None:
    columns: Any = {"price": "number", "brand": "text", "new": "flag", "made": "time"}
    kinds = {"number": float, "text": str, "flag": bool, "time": dt.datetime}
    try:
        values = values_of(metadata, columns)
    except ApiError as error:
        assert (error.status, error.code) == (400, "bad_request") and "\n" not in error.reason
    else:
        assert set(values) == set(metadata)
        for name, value in values.items():
            assert value is None or name not in columns or type(value) is kinds[columns[name]]


def test_a_catalog_elsewhere_needs_a_folder_for_uploads(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, items=2)
    with served(catalog, token=TOKEN, uploads=tmp_path / "kept" / "here") as client:
        world = World(tmp_path, client)
        assert world.add(png(noise(1))).status_code == 201
        assert len(list((tmp_path / "kept" / "here").rglob("*.png"))) == 1 and not (tmp_path / "uploads").exists()
    with served(catalog, token=TOKEN) as client:
        client.app.state.engine.catalog.path = "s3://bucket/catalog"  # type: ignore[attr-defined]
        error_of(World(tmp_path, client).add(png(noise(2))), 403, "forbidden")


def test_an_image_that_the_model_makes_nothing_of_is_a_bad_image(tmp_path: Path) -> None:
    class Blind(FakeModel):
        def one(self, image: Image.Image, domain: str) -> np.ndarray[Any, Any]:
            found = super().one(image, domain)
            return found * 0 if image.getpixel((0, 0)) == (255, 255, 255) else found

    with served(make_catalog(tmp_path, items=2, model=Blind()), token=TOKEN) as client:
        world = World(tmp_path, client)
        error_of(world.add(png(Image.new("RGB", (9, 9), "white"))), 400, "bad_image")
        assert not list((tmp_path / "uploads").rglob("*.png")) and len(world.catalog) == 2


def test_uploads_of_several_clients_at_once_are_all_there(world: World) -> None:
    answers: list[Any] = []

    def work(number: int) -> None:
        answers.append(world.add(png(noise(100 + number)), {"id": f"crowd/{number}"}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert sorted(row["id"] for row in world.catalog.rows("id LIKE 'crowd/%'")) == [f"crowd/{n}" for n in range(4)]
