"""Bodies, filters and drawings that were made to be slow or odd: refused soon, in one short sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from fastapi.testclient import TestClient
from PIL import Image
from serve_zoo import TOKEN, WRITES, error_of, item_id, make_catalog, noise, png, served, strokes

from isthmus.catalog.columns import parse_texts
from isthmus.catalog.where import compile_where
from isthmus.errors import IsthmusError
from isthmus.serve.bodies import heavy
from isthmus.serve.strokes import Strokes, draw

PNG = png(noise(1))
SOON = 5.0  # seconds; what these tests guard against took 10 of them


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(make_catalog(tmp_path_factory.mktemp("heavy")), raises=False, token=TOKEN) as client:
        yield client


HEAVY = {
    "lists": b"[" + b"[]," * 1_300_000 + b"1]",
    "fields": b"{" + b",".join(b'"k%d":1' % number for number in range(250_000)) + b"}",
    "points": b'{"strokes":{"width":99,"height":99,"lines":[{"width":1,"points":['
    + b"[1,1]," * 600_000
    + b"[1,1]]}]}}",
    "behind a string without an end": b"[" * 70_000 + b'"' + b'\\"' * 1_900_000 + b"\\",
    "behind an escaped quote": b'{"id":"\\\\\\"","x":[' + b"[]," * 100_000 + b"1]}",
}


@pytest.mark.parametrize("name", HEAVY)
def test_json_of_endless_parts_is_refused_unparsed(client: TestClient, name: str) -> None:
    start = time.perf_counter()
    answer = client.post("/api/search", content=HEAVY[name], headers={"Content-Type": "application/json"})
    assert "parts" in error_of(answer, 400, "bad_request") and time.perf_counter() - start < SOON
    part = HEAVY[name][:500_000].decode() if name != "fields" else "{" + '"":1,' * 90_000
    answer = client.post("/api/search/image", files={"image": ("x", PNG)}, data={"options": part})
    assert "parts" in error_of(answer, 400, "bad_request")


def test_what_is_allowed_is_not_too_heavy(client: TestClient) -> None:
    line = [(float(number % 200), 1.5) for number in range(25)]
    drawing = strokes(*[line] * 2_000)
    assert not heavy(json.dumps({"strokes": drawing, "where": {"column": "id", "in": ["x"] * 1_000}}).encode())
    signs = json.dumps({"id": item_id(0), "metadata": {"note": "[{,:" * 2_500, "more": '\\"[' * 3_000}})
    assert not heavy((signs * 12).encode())
    answer = client.post("/api/search", json={"strokes": drawing, "k": 1})
    assert answer.status_code == 200, answer.text


def test_a_filter_lists_a_thousand_values_in_all(client: TestClient) -> None:
    def where(lists: int, values: int) -> Any:
        return {"any": [{"column": "brand", "in": ["Acme"] * values} for _ in range(lists)]}

    assert client.post("/api/search", json={"id": item_id(0), "where": where(4, 250)}).status_code == 200
    answer = client.post("/api/search", json={"id": item_id(0), "where": where(100, 1_000)})
    assert "1000" in error_of(answer, 400, "bad_filter")


def test_sentences_are_short_and_of_one_line(client: TestClient) -> None:
    for body in (
        {"id": item_id(0), "metadata": {"a\nb\x1b[1m" * 50_000: [1]}},
        {"id": item_id(0), "metadata": {}, "x\r\ny" * 100_000: 1},
        {"id": item_id(0), "metadata": {"a": {"b": 1}}},
    ):
        reason = error_of(client.patch("/api/items", json=body, headers=WRITES), 400, "bad_request")
        assert len(reason) < 300 and reason.isprintable()
    assert "number, a text" in reason
    assert "Content-Type" in error_of(client.post("/api/search", content=b"{}"), 400, "bad_request")


def test_a_delete_of_nothing_is_no_new_version(client: TestClient) -> None:
    before = client.get("/api/catalog").json()["version"]
    answer = client.delete("/api/items", params={"id": "nobody"}, headers=WRITES)
    assert answer.json() == {"deleted": 0, "version": before}


def test_a_wrong_method_is_told_which_are_right(client: TestClient) -> None:
    answer = client.put("/api/items", headers=WRITES)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, PATCH, POST"
    assert client.put("/", headers=WRITES).headers["allow"] in ("GET, HEAD", "HEAD, GET")


def test_a_large_drawing_is_not_made_larger_still(monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[int] = []
    new = Image.new

    def noted(mode: str, size: tuple[int, int], *rest: Any) -> Image.Image:
        sides.append(max(size))
        return new(mode, size, *rest)

    monkeypatch.setattr("isthmus.serve.strokes.Image.new", noted)
    drawing = Strokes(**strokes())
    assert draw(drawing, size=256).size == (256, 256) and max(sides) == 1024
    sides.clear()
    # An eraser may go over all of it at each of 50,000 points.
    assert draw(drawing, size=1500).size == (1500, 1500) and max(sides) == 1500


def test_times_beyond_the_years_are_no_times() -> None:
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        with pytest.raises(IsthmusError, match="holds times"):
            compile_where(f"made > '{text}'", {"made": "time"})
        assert parse_texts([text]) == [text]


def test_several_who_add_the_same_id_at_once(client: TestClient) -> None:
    said = {"item": json.dumps({"id": "same", "domain": "photo"})}
    before = client.get("/api/catalog").json()["items"]

    def add(seed: int) -> Any:
        return client.post("/api/items", files={"image": ("x", png(noise(seed)))}, data=said, headers=WRITES)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(add, range(40, 46)))
    assert [answer.status_code for answer in answers] == [201] * 6
    assert sum(answer.json()["added"] for answer in answers) == 1
    assert client.get("/api/catalog").json()["items"] == before + 1
    last = 40 + max(range(6), key=lambda place: answers[place].json()["version"])
    options = {"options": json.dumps({"domain": "photo", "k": 1})}
    [hit] = client.post("/api/search/image", files={"image": png(noise(last))}, data=options).json()["hits"]
    assert hit["id"] == "same" and hit["score"] == pytest.approx(1, abs=1e-6)
    assert client.get("/api/items/thumbnail", params={"id": "same"}).status_code == 200
