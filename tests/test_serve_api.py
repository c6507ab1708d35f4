"""The API over the tiny catalog: searches, statistics, health, metrics, and every error in one form."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_tools import FakeModel
from fastapi.testclient import TestClient
from serve_zoo import ITEMS, error_of, item_id, make_catalog, metadata, noise, png, query_of, served, strokes

from isthmus.catalog.store import Catalog
from isthmus.errors import IsthmusError
from isthmus.serve.errors import from_isthmus
from isthmus.serve.settings import ServeSettings
from isthmus.serve.strokes import Strokes, draw

IMAGE = {"image": ("x.png", png(noise(1)), "image/png")}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def client(catalog: Catalog) -> Iterator[TestClient]:
    with served(catalog) as client:
        yield client


def search(client: TestClient, **body: Any) -> Any:
    answer = client.post("/api/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_image(client: TestClient, image: bytes, **options: Any) -> Any:
    answer = client.post("/api/search/image", files={"image": ("x", image)}, data={"options": json.dumps(options)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_search_by_image_is_the_catalogs(client: TestClient, catalog: Catalog) -> None:
    image = noise(5)
    answer = by_image(client, png(image), k=7, domain="photo")
    wanted = catalog.search(image, domain="photo", k=7)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
    assert answer["domain"] == "photo" and answer["chosen"] == {"by": "request", "probability": None, "sure": True}
    assert answer["version"] == catalog.items.version and answer["more"] and answer["k"] == 7
    assert answer["seconds"]["model"] > 0 and answer["seconds"]["search"] > 0


def test_a_domain_that_nobody_names(client: TestClient, catalog: Catalog) -> None:
    # Without a classifier it is the query domain, and that is said to be a guess.
    answer = by_image(client, png(query_of(catalog, 3, "sketch")))
    assert answer["hits"][0]["id"] == item_id(3) and answer["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    assert answer["domain"] == "sketch" and answer["chosen"] == {"by": "default", "probability": None, "sure": False}


def test_a_drawing(client: TestClient, catalog: Catalog) -> None:
    drawing = strokes()
    answer = search(client, strokes=drawing, k=5)
    wanted = catalog.search(draw(Strokes(**drawing), size=256), k=5)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted]
    assert answer["domain"] == "sketch" and answer["chosen"]["by"] == "strokes" and answer["chosen"]["sure"]
    assert search(client, strokes=drawing, domain="photo")["chosen"]["by"] == "request"


def test_more_like_an_item(client: TestClient, catalog: Catalog) -> None:
    answer = search(client, id=item_id(2), k=200)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in catalog.search(id=item_id(2), k=200)]
    assert len(answer["hits"]) == ITEMS - 1 and not answer["more"]
    assert answer["domain"] == "photo" and answer["chosen"]["by"] == "item" and answer["seconds"]["model"] == 0


def test_pages_join_without_a_gap(client: TestClient) -> None:
    whole = [hit["id"] for hit in search(client, id=item_id(0), k=200)["hits"]]
    pages = [search(client, id=item_id(0), k=10, offset=offset) for offset in (0, 10, 20, 30)]
    assert [hit["id"] for page in pages for hit in page["hits"]] == whole
    assert [page["more"] for page in pages] == [True, True, False, False]


def test_hits_carry_metadata_and_addresses(client: TestClient) -> None:
    hits = {hit["id"]: hit for hit in search(client, id=item_id(0), k=200)["hits"]}
    for number in range(1, ITEMS):
        want = {name: value for name, value in metadata(number).items() if value is not None}
        want |= {"made": want["made"].isoformat() + "Z"} if "made" in want else {}
        hit = hits[item_id(number)]
        assert hit["metadata"] == want and hit["domain"] == "photo" and hit["label"] is None
        assert hit["thumbnail"] == f"/api/items/thumbnail?id=photo%2F{number:03}.png&size=160"
        assert hit["image"] == f"/api/items/image?id=photo%2F{number:03}.png"
        assert "path" not in hit


def test_a_filter(client: TestClient, catalog: Catalog) -> None:
    where = {"all": [{"column": "price", "is": "<", "value": 40}, {"not": {"column": "brand", "in": ["Acme"]}}]}
    answer = search(client, id=item_id(0), k=200, where=where)
    wanted = catalog.search(id=item_id(0), k=200, where="price < 40 AND NOT brand IN ('Acme')")
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in wanted] and answer["hits"]
    again = by_image(client, png(noise(3)), k=200, where=where, exact=True)
    assert {hit["id"] for hit in again["hits"]} == {hit["id"] for hit in answer["hits"]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"strokes": strokes(), "id": "x"},
        {"id": "x", "k": 0},
        {"id": "x", "k": 201},
        {"id": "x", "k": "3"},
        {"id": "x", "k": 1.5},
        {"id": "x", "offset": -1},
        {"id": "x", "offset": 10_001},
        {"id": "x", "offset": 10**30},
        {"id": ""},
        {"id": 3},
        {"id": "x", "domain": "oil painting"},
        {"id": "x", "exact": "yes"},
        {"id": "x", "url": "http://localhost/"},
        {"strokes": {"width": 100, "height": 100, "lines": []}},
        {"strokes": {"width": 100, "height": 100, "lines": [{"points": [], "width": 1}]}},
        {"strokes": {"width": 1, "height": 100, "lines": [{"points": [[1, 1]], "width": 1}]}},
        {"strokes": strokes([(1, 1)], size=(100, 100)) | {"path": "/etc/passwd"}},
        [],
        None,
        3,
        "id",
    ],
)
def test_a_bad_request_is_told(client: TestClient, body: Any) -> None:
    error_of(client.post("/api/search", json=body), 400, "bad_request")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"id": "x", "k": NaN}',
        '{"id": "x", "k": 1e999}',
        '{"id": "x", "k": ' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"id": ' * 100_000,
        '{"strokes": {"width": 100, "height": 100, "lines": [{"points": [[NaN, 1]], "width": 1, "erase": false}]}}',
        '{"strokes": {"width": 100, "height": 100, "lines": [{"points": [[1, 1]], "width": 1e999, "erase": false}]}}',
        "\ufeff{}",
    ],
)
def test_json_that_is_none_is_told(client: TestClient, text: str) -> None:
    answer = client.post("/api/search", content=text.encode(), headers={"Content-Type": "application/json"})
    error_of(answer, 400, "bad_request")
    options = client.post("/api/search/image", files=IMAGE, data={"options": text or "{"})
    error_of(options, 400, "bad_request")


def test_bytes_that_are_no_text(client: TestClient) -> None:
    for body in (b"\xff\xfe", b'{"id": "\xff"}'):
        answer = client.post("/api/search", content=body, headers={"Content-Type": "application/json"})
        error_of(answer, 400, "bad_request")


@pytest.mark.parametrize("id", ["nobody", "../../etc/passwd", "' OR 1=1 --", "a\0b", "\ud800", "x" * 4000, "photo/0%"])
def test_an_item_that_is_not_there(client: TestClient, id: str) -> None:
    answer = client.post("/api/search", content=json.dumps({"id": id}), headers={"Content-Type": "application/json"})
    # Half a surrogate pair is no text at all.
    error_of(answer, *((400, "bad_request") if id == "\ud800" else (404, "no_item")))


def test_a_search_of_an_image_needs_one(client: TestClient) -> None:
    error_of(client.post("/api/search/image", files={"image": ("x", b"<svg/>")}), 415, "bad_type")
    error_of(client.post("/api/search/image", files={"image": ("x", b"")}), 400, "bad_image")
    error_of(client.post("/api/search/image", data={"image": "text"}), 400, "bad_request")
    error_of(client.post("/api/search/image", data={"options": "{}"}), 400, "bad_request")
    error_of(client.post("/api/search/image", json={}), 400, "bad_request")
    for options in ({"k": 1000}, {"strokes": strokes()}, {"domain": ""}):
        error_of(
            client.post("/api/search/image", files=IMAGE, data={"options": json.dumps(options)}), 400, "bad_request"
        )
    bad_filter = {"where": {"column": "path", "like": "%"}}
    error_of(client.post("/api/search/image", files=IMAGE, data={"options": json.dumps(bad_filter)}), 400, "bad_filter")


def test_an_image_that_has_no_direction(tmp_path: Path) -> None:
    class Blind(FakeModel):
        def one(self, image: Any, domain: str) -> Any:
            vector = super().one(image, domain)
            return vector * 0 if image.getpixel((0, 0)) == (0, 0, 0) else vector

    with served(make_catalog(tmp_path, model=Blind(), items=2)) as client:
        black = png(noise(1).point(lambda value: 0))
        error_of(
            client.post("/api/search/image", files={"image": ("x", black)}, data={"options": '{"domain": "photo"}'}),
            400,
            "bad_image",
        )
        assert by_image(client, png(noise(2)))["hits"]


def test_other_addresses_and_methods(client: TestClient) -> None:
    for address in ("/api/nothing", "/docs", "/redoc", "/openapi.json", "/api/catalog/", "/api/%00", "/wp-login.php"):
        error_of(client.get(address, follow_redirects=False), 404, "not_found")
    error_of(client.get("/api/search"), 405, "method_not_allowed")
    assert client.get("/api/search").headers["allow"] == "POST"


def test_the_catalogs_statistics(client: TestClient, catalog: Catalog) -> None:
    answer = client.get("/api/catalog").json()
    assert answer["items"] == ITEMS and answer["version"] == catalog.items.version
    assert answer["domains"] == ["sketch", "photo"] and answer["item_domain"] == "photo"
    assert answer["model"] == catalog.facts.fingerprint and not answer["domain_choice"]
    assert answer["limits"] == {"bytes": 10 << 20, "pixels": 40_000_000, "k": 200, "offset": 10_000}
    assert not answer["write"] and not answer["feedback"]
    rows = [metadata(number) for number in range(ITEMS)]
    columns = {column["name"]: column for column in answer["columns"]}
    assert {name: column["kind"] for name, column in columns.items()} == {
        "price": "number", "brand": "text", "new": "flag", "made": "time",
    }  # fmt: skip
    prices = [row["price"] for row in rows if row["price"] is not None]
    assert (columns["price"]["min"], columns["price"]["max"]) == (min(prices), max(prices))
    made = sorted(row["made"] for row in rows if row["made"] is not None)
    assert (columns["made"]["min"], columns["made"]["max"]) == tuple(m.isoformat() + "Z" for m in (made[0], made[-1]))
    brands = [row["brand"] for row in rows]
    assert columns["brand"]["values"] == [{"value": b, "count": 6} for b in ("Acme", "O'Neil & Söhne", "Umbra")]
    assert {pair["value"]: pair["count"] for pair in columns["new"]["values"]} == {
        wanted: sum(row["new"] is wanted for row in rows) for wanted in (True, False)
    }
    assert brands.count("Acme") == 6 and "values" not in columns["price"]


def test_statistics_follow_the_table(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path, items=4)
    with served(catalog, token="t" * 8, feedback=tmp_path / "marks") as client:
        first = client.get("/api/catalog").json()
        assert first["write"] and first["feedback"]
        catalog.update({item_id(number): {"note": f"n{number}", "price": 1000.0} for number in range(4)})
        second = client.get("/api/catalog").json()
        assert second["version"] > first["version"]
        columns = {column["name"]: column for column in second["columns"]}
        assert columns["price"]["max"] == 1000 and len(columns["note"]["values"]) == 4
        catalog.delete([item_id(number) for number in range(4)])
        empty = client.get("/api/catalog").json()
        columns = {column["name"]: column for column in empty["columns"]}
        assert empty["items"] == 0 and columns["price"]["min"] is None and columns["brand"]["values"] == []
        assert by_image(client, png(noise(1)))["hits"] == []
        assert client.get("/api/health/ready").status_code == 200


def test_text_with_many_values_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.serve import routes_catalog

    monkeypatch.setattr(routes_catalog, "MOST_VALUES", 2)
    columns = {column["name"]: column for column in routes_catalog.describe(make_catalog(tmp_path, items=4).items)}
    assert "values" not in columns["brand"] and len(columns["new"]["values"]) == 2


def test_long_texts_are_not_listed(tmp_path: Path) -> None:
    from isthmus.serve.routes_catalog import describe

    catalog = make_catalog(tmp_path, items=2)
    catalog.update({item_id(0): {"story": "x" * 201}, item_id(1): {"story": "y"}})
    columns = {column["name"]: column for column in describe(catalog.items)}
    assert "values" not in columns["story"] and "values" in columns["brand"]


def test_a_corrupted_table_is_told_and_never_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = make_catalog(tmp_path, items=4)
    with served(catalog) as client:
        assert client.get("/api/health/ready").json() == {"status": "ready"}
        for file in (tmp_path / "catalog" / "items.lance" / "data").iterdir():
            file.write_bytes(bytes(file.stat().st_size))
        with caplog.at_level(logging.ERROR):
            reasons = [
                error_of(client.get("/api/health/ready"), 503, "not_ready"),
                error_of(client.post("/api/search", json={"id": item_id(0)}), 503, "not_ready"),
                error_of(client.post("/api/search/image", files=IMAGE), 503, "not_ready"),
            ]
        assert client.get("/api/health/live").json() == {"status": "live"}
        assert str(tmp_path) not in "".join(reasons) and str(tmp_path) in caplog.text
        assert client.get("/metrics").status_code == 200


def test_metrics_count_and_tell_nobody(catalog: Catalog) -> None:
    with served(catalog, read_token="r" * 8) as client:
        error_of(client.get("/api/catalog"), 401, "no_token")
        client.headers["Authorization"] = "Bearer " + "r" * 8
        search(client, id=item_id(1), where={"column": "brand", "is": "=", "value": "Umbra"})
        by_image(client, png(noise(1)))
        client.get("/api/secret-path?q=secret-query")
        client.request("BREW", "/api/catalog")
        text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['isthmus_requests_total{method="POST",route="/api/search",status="200"}'] == "1.0"
    assert lines['isthmus_requests_total{method="POST",route="/api/search/image",status="200"}'] == "1.0"
    assert lines['isthmus_requests_total{method="GET",route="none",status="401"}'] == "1.0"
    assert lines['isthmus_requests_total{method="GET",route="none",status="404"}'] == "1.0"
    assert lines["isthmus_batch_images_count"] == "1.0" and lines["isthmus_model_seconds_count"] == "1.0"
    assert lines["isthmus_search_seconds_count"] == "2.0" and lines["isthmus_queue_depth"] == "0.0"
    assert float(lines["isthmus_catalog_items"]) == ITEMS
    assert float(lines["isthmus_catalog_version"]) == catalog.items.version
    for secret in ("secret", "Umbra", "photo", ".png", "BREW", "testclient"):
        assert secret not in text


def test_what_nobody_expected_is_a_500_without_a_traceback(catalog: Catalog, caplog: pytest.LogCaptureFixture) -> None:
    with served(catalog, raises=False) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(catalog), "search", lambda *a, **b: 1 / 0)
        answer = client.post("/api/search", json={"id": item_id(0)})
        assert error_of(answer, 500, "internal") and "division" not in answer.text
        assert 'status="500"' in client.get("/metrics").text


def test_searches_are_remembered_only_for_marks(catalog: Catalog, tmp_path: Path) -> None:
    with served(catalog) as client:
        search(client, id=item_id(0))
        assert len(client.app.state.engine.recent) == 0  # type: ignore[attr-defined]
    with served(catalog, feedback=tmp_path / "marks") as client:
        recent = client.app.state.engine.recent  # type: ignore[attr-defined]
        asked = recent.get(search(client, id=item_id(0), k=3)["search"])
        assert asked is not None and asked.id == item_id(0) and asked.image is None and len(asked.hits) == 3
        asked = recent.get(search(client, strokes=strokes())["search"])
        assert asked.drawn and asked.domain == "sketch" and asked.image.startswith(b"\x89PNG")
        asked = recent.get(by_image(client, png(noise(1, (900, 600))), domain="photo")["search"])
        assert not asked.drawn and asked.image.startswith(b"\xff\xd8\xff")
        recent._limit = 2000
        for _ in range(5):
            last = search(client, id=item_id(0), k=1)["search"]
        assert recent.get(last) is not None and len(recent) < 5


def test_the_description_names_every_call(client: TestClient) -> None:
    described = client.get("/api/openapi.json").json()
    assert {"/api/search", "/api/search/image", "/api/catalog", "/api/health/live"} <= set(described["paths"])
    names = described["components"]["schemas"]
    assert {"Search", "Strokes", "Results", "IsNode"} <= set(names)
    assert not any("/work" in str(value) for value in names.values())


def test_what_the_catalog_says_of_the_disk_stays_here() -> None:
    for text in (
        "The catalog /srv/c is damaged (x)",
        "/home/me/a.png is gone",
        "no such file 's3://b/c'",
        r"There is C:\x",
    ):
        error = from_isthmus(IsthmusError(text), "/srv/c")
        assert error.status == 503 and "/" not in error.reason.replace("'s", "")
    assert from_isthmus(IsthmusError("The metadata column 'a' holds numbers."), "/srv/c").status == 400
    busy = IsthmusError("Another process changed the catalog /srv/c at the same time; run it again.")
    assert from_isthmus(busy, "/srv/c").code == "conflict"


def test_settings_are_checked_and_tokens_never_repeated() -> None:
    built = ServeSettings.build({"port": 1, "queue": 3}, {"port": 2}, environment={"ISTHMUS_TOKEN": "from-env"})
    assert (built.port, built.queue, built.token, built.read_token) == (2, 3, "from-env", None)
    assert ServeSettings.build({"token": "mine"}, environment={"ISTHMUS_TOKEN": "env"}).token == "mine"
    assert "from-env" not in repr(built)
    for values, says in (
        ({"quue": 1}, "quue"),
        ({"queue": 0}, "queue"),
        ({"deadline": float("inf")}, "deadline"),
        ({"cors": ["*"]}, "cors"),
        ({"cors": ["https://shop.example/path"]}, "cors"),
        ({"token": "two words"}, "ISTHMUS_TOKEN"),
        ({"read_token": ""}, "read_token"),
    ):
        with pytest.raises(IsthmusError, match=says) as error:
            ServeSettings.build(values, environment={})
        assert "two words" not in str(error.value)
    hosts = {"127.0.0.1": True, "localhost": True, "::1": True, "127.9.9.9": True, "0.0.0.0": False, "::": False}
    hosts |= {"shop.example": False, "192.168.0.1": False}
    assert {host: ServeSettings(host=host).loopback for host in hosts} == hosts
