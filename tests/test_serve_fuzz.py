"""Strangers at the door: requests made from the API's own description, odd uploads and bodies made to be slow.

Whatever comes, the answer is one that the description names, in its form; never a 500, and soon.
"""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve_zoo import ITEMS, READS, WRITES, error_of, item_id, make_catalog, noise, png, served

from isthmus.catalog.store import Catalog
from isthmus.serve.uploads import GIF_PARTS, PARTS, count_parts

LIMITS: dict[str, Any] = {"token": "a-token-to-write-with", "max_bytes": 300_000, "max_pixels": 250_000}
quick = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def client(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    marks = tmp_path_factory.mktemp("marks")
    with served(catalog, raises=False, feedback=marks / "marks", **LIMITS) as client:
        yield client


@pytest.fixture(scope="module")
def locked(catalog: Catalog) -> Iterator[TestClient]:
    with served(catalog, raises=False, read_token="a-token-to-read-with", **LIMITS) as client:
        yield client


# --- requests from the description


def likely(described: dict[str, Any]) -> dict[str, Any]:
    """The description with JSON where a form holds it as text, and with columns and domains that mostly exist."""
    known = json.loads(json.dumps(described))
    schemas = known["components"]["schemas"]
    for name, body in schemas.items():
        for field, value in body.get("properties", {}).items():
            if "contentSchema" in value:
                body["properties"][field] = value["contentSchema"]
            elif field == "column":
                body["properties"][field] = {"enum": ["price", "brand", "new", "made", "id", "PRICE", "nothing"]}
            elif field == "domain" and name in ("Search", "Options", "NewItem"):
                body["properties"][field] = {"enum": ["photo", "sketch", None, "no domain"]}
    search = schemas["Search"]
    del search["oneOf"]
    schemas["Search"] = {"anyOf": [only(search, "strokes", "id"), only(search, "id", "strokes")]}
    return dict(known)


def only(search: dict[str, Any], one: str, other: str) -> dict[str, Any]:
    """A search by one of two things."""
    fields = {name: field for name, field in search["properties"].items() if name != other}
    sure = {"type": "string", "minLength": 1} if one == "id" else {"$ref": "#/components/schemas/Strokes"}
    return {**search, "required": [one], "properties": {**fields, one: sure}}


IMAGES = [
    png(noise(1)),
    png(noise(2), "JPEG"),
    png(noise(3).convert("CMYK"), "JPEG"),
    png(noise(4).convert("P"), "GIF"),
    png(Image.new("I;16", (9, 7), 40_000)),
    png(noise(5))[:60],
    b"",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
]


def whole(value: Any) -> Any:
    """JSON with 24 in place of 24.0, as JavaScript writes it; the service takes no fractions for whole numbers."""
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def ask(client: TestClient, case: Any, headers: dict[str, str], chance: random.Random) -> Any:
    """Send a generated request; the files in it are mostly images, and the ids mostly those of items."""
    kwargs = case.as_transport_kwargs()
    kwargs = {name: kwargs[name] for name in ("method", "url", "params", "json", "data", "headers") if name in kwargs}
    for place in (kwargs.get("params"), kwargs.get("json")):
        if isinstance(place, dict) and "id" in place and chance.random() < 0.7:
            place["id"] = item_id(chance.randrange(ITEMS))
    path = case.formatted_path
    given = {name: value for name, value in dict(kwargs.get("headers") or {}).items() if name.lower() != "host"}
    body = case.body if isinstance(case.body, dict) else None
    sent: dict[str, Any] = {"params": kwargs.get("params"), "headers": {**given, **headers}}
    if case.media_type == "multipart/form-data":
        sent["headers"] = {name: value for name, value in sent["headers"].items() if name.lower() != "content-type"}
        fields = {name: value for name, value in (body or {}).items() if name != "image"}
        sent["data"] = {n: v if isinstance(v, str) else json.dumps(v) for n, v in fields.items()}
        if body is not None and "image" in body:
            sent["files"] = {"image": ("x", chance.choice(IMAGES))}
    elif "json" in kwargs:
        sent["content"] = json.dumps(whole(kwargs["json"]))
        sent["headers"]["Content-Type"] = "application/json"
    elif "data" in kwargs:
        sent["content"] = kwargs["data"]
    return client.request(kwargs["method"], path, **sent)


def fuzz(client: TestClient, operation: Any, examples: int) -> set[tuple[bool, int]]:
    """Send generated requests of one call and check the answers; whether there was a token, and what came of it."""
    seen: set[tuple[bool, int]] = set()
    chance = random.Random(operation.label)
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

    @settings(max_examples=examples, phases=[Phase.generate], **quick)
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        token = chance.random() < 0.8
        answer = ask(client, case, WRITES if token else {}, chance)
        seen.add((token, answer.status_code))
        answer.request.read()
        case.validate_response(answer, checks=checks)
        assert answer.headers["x-content-type-options"] == "nosniff"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
    return seen


def test_requests_from_the_description(client: TestClient) -> None:
    schema = schemathesis.openapi.from_dict(likely(client.get("/api/openapi.json").json()))
    operations = [found.ok() for found in schema.get_all_operations()]
    seen = {one.label: fuzz(client, one, 16 if one.body else 8) for one in operations}
    assert len(seen) == 12, seen
    for name, statuses in seen.items():
        if name in ("POST /api/items", "PATCH /api/items", "DELETE /api/items"):
            assert {status for token, status in statuses if not token} == {401}, (name, statuses)
        else:
            assert not {status for _, status in statuses} & {401, 403}, (name, statuses)
        if name != "POST /api/feedback":  # it was not at the door that all ended
            assert {(True, 200), (True, 201)} & statuses, (name, statuses)


def test_every_call_asks_for_the_token_that_it_says(client: TestClient, locked: TestClient) -> None:
    for door, reads in ((client, []), (locked, [{"token": []}])):
        described = door.get("/api/openapi.json", headers=READS).json()
        assert "HTTPValidationError" not in described["components"]["schemas"]
        for path, calls in described["paths"].items():
            for method, call in calls.items():
                assert "422" not in call["responses"] and {"400", "413", "429", "503"} <= set(call["responses"])
                answer = door.request(method, path)
                if call["security"] == [{"token": []}]:
                    error_of(answer, 401, "no_token")
                elif path.startswith("/api/health"):
                    assert call["security"] == [{}] and answer.status_code == 200
                else:
                    assert not reads and call["security"] == [{"token": []}, {}] and answer.status_code != 401


# --- uploads


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gif(blocks: int) -> bytes:
    data = png(noise(1).convert("P"), "GIF")
    start = 13 + 3 * (2 << (data[10] & 7))
    return data[:start] + b"\x21\xfe\x01a\0" * blocks + data[start:]


def tiff_of_strips(count: int, order: str = "<") -> bytes:
    """A grey picture of one pixel a row, each row a strip of its own."""
    short, long = (256, 4, 1), (257, 4, count)
    tags = [short, long, (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 4, 1)]
    first = 8 + 2 + 12 * 9 + 4
    entries = b"".join(
        struct.pack(order + "HHI", number, kind, 1)
        + struct.pack(order + ("I" if kind == 4 else "HH"), *([value] if kind == 4 else [value, 0]))
        for number, kind, value in tags
    )
    entries += struct.pack(order + "HHII", 273, 4, count, first) + struct.pack(
        order + "HHII", 279, 4, count, first + 4 * count
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 9) + entries + bytes(4)
    return head + struct.pack(order + "I", 8) * count + struct.pack(order + "I", 1) * count


PNG, JPEG = png(noise(1)), png(noise(1), "JPEG")
SLOW: dict[str, Callable[[], bytes]] = {
    "a JPEG of fill bytes": lambda: JPEG[:2] + b"\xff" * 260_000 + JPEG[2:],
    "a JPEG with junk between": lambda: JPEG[:2] + b"\xff\xe5\0\2" + bytes(260_000) + JPEG[2:],
    "a JPEG of empty segments": lambda: JPEG[:2] + b"\xff\xe5\0\2" * 65_000 + JPEG[2:],
    "a PNG of empty texts": lambda: PNG[:33] + chunk(b"tEXt") * (PARTS + 1) + PNG[33:],
    "a PNG of empty data": lambda: PNG[:33] + chunk(b"IDAT") * (PARTS + 1) + PNG[33:],
    "a TIFF of strips": lambda: tiff_of_strips(PARTS + 1),
    "a TIFF of strips, the other way round": lambda: tiff_of_strips(PARTS + 1, ">"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_file_of_endless_parts_is_refused_before_it_is_opened(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("isthmus.serve.uploads.Image.open", opened)
    answer = client.post("/api/search/image", files={"image": ("x", SLOW[name]())})
    assert "parts" in error_of(answer, 413, "too_large")


def test_parts_of_usual_files_are_few() -> None:
    large = noise(9, (300, 200))
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        assert count_parts(png(large.convert("P") if form == "GIF" else large, form), form) < 3_000, form
    frames = io.BytesIO()
    large.convert("P").save(frames, "GIF", save_all=True, append_images=[noise(8, (300, 200)).convert("P")] * 3)
    assert count_parts(frames.getvalue(), "GIF") < 3_000
    assert count_parts(gif(GIF_PARTS), "GIF") > GIF_PARTS and count_parts(gif(9), "GIF") < 100


def rotated(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    noise(turn, (30, 20)).save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: png(noise(1, (40, 30))),
    "JPEG": lambda: png(noise(1, (40, 30)), "JPEG"),
    "CMYK": lambda: png(noise(1, (40, 30)).convert("CMYK"), "JPEG"),
    "16 bit": lambda: png(Image.new("I;16", (40, 30), 40_000)),
    "transparent": lambda: png(noise(1, (40, 30)).convert("RGBA")),
    "palette": lambda: png(noise(1, (40, 30)).convert("P"), "GIF"),
    "WebP": lambda: png(noise(1, (40, 30)), "WEBP"),
    "TIFF": lambda: png(noise(1, (40, 30)), "TIFF"),
    "CMYK TIFF": lambda: png(noise(1, (40, 30)).convert("CMYK"), "TIFF"),
    "BMP": lambda: png(noise(1, (40, 30)), "BMP"),
    "upside down": lambda: rotated(3),
    "on its side": lambda: rotated(6),
    "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://localhost/'/></svg>",
    "HTML": lambda: b"<!doctype html><script>alert(1)</script>",
    "nothing": lambda: b"",
    "huge": lambda: b"\x89PNG\r\n\x1a\n" + bytes(310_000),
    "bomb": lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND"),
}  # fmt: skip
SOUND = ("PNG", "JPEG", "CMYK", "16 bit", "transparent", "palette", "WebP", "TIFF", "CMYK TIFF", "BMP", "upside down",
         "on its side")  # fmt: skip
REFUSED = {400: "bad_image", 413: "too_large", 415: "bad_type"}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_file_is_searched_with_or_refused(client: TestClient, name: str) -> None:
    answer = client.post("/api/search/image", files={"image": ("../../etc/passwd\r\nX: y", KINDS[name](), "text/html")})
    if name in SOUND:
        assert answer.status_code == 200 and len(answer.json()["hits"]) > 9, answer.text
    else:
        error_of(answer, answer.status_code, REFUSED[answer.status_code])


def test_a_picture_lying_on_its_side_is_found_upright(client: TestClient) -> None:
    with Image.open(io.BytesIO(rotated(6))) as image:
        upright = png(image.transpose(Image.Transpose.ROTATE_270).convert("RGB"))
    asked = [client.post("/api/search/image", files={"image": ("x", data)}).json() for data in (rotated(6), upright)]
    assert [hit["id"] for hit in asked[0]["hits"]] == [hit["id"] for hit in asked[1]["hits"]]


@settings(max_examples=60, phases=[Phase.generate], **quick)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    keep=st.floats(0, 1),
    hits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    tail=st.binary(max_size=20),
)
def test_damaged_uploads_are_answered(
    client: TestClient, kind: str, keep: float, hits: list[tuple[float, int]], tail: bytes
) -> None:
    data = bytearray(KINDS[kind]())
    for place, value in hits if data else ():
        data[int(place * place * len(data))] = value
    sent = bytes(data[: int(keep * len(data))]) + tail
    answer = client.post("/api/search/image", files={"image": ("x", sent)}, data={"options": '{"k": 1}'})
    if answer.status_code != 200:
        error_of(answer, answer.status_code, REFUSED[answer.status_code])


FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n' + PNG + b"\r\n--b--\r\n"


INSERTED = (b"", b"--b", b"\r\n", b"\0", b'"', b"--b--", b"\r\n--b\r\n\r\n", b"; filename*=utf-8''%ff", b"\xff" * 9)
FORM_KINDS = (
    "multipart/form-data",
    'multipart/form-data; boundary="b',
    "multipart/form-data; boundary=" + "b" * 300,
    "multipart/mixed; boundary=b",
    "application/x-www-form-urlencoded",
    "text/plain",
)


@settings(max_examples=60, phases=[Phase.generate], **quick)
@given(
    start=st.integers(0, len(FORM)),
    drop=st.integers(0, 40),
    insert=st.sampled_from(INSERTED),
    kind=st.sampled_from([*["multipart/form-data; boundary=b"] * 6, *FORM_KINDS]),
)
def test_a_malformed_form_is_a_bad_request(client: TestClient, start: int, drop: int, insert: bytes, kind: str) -> None:
    body = FORM[:start] + insert + FORM[start + drop :]
    answer = client.post("/api/search/image", content=body, headers={"Content-Type": kind})
    if answer.status_code != 200:
        allowed = {400: ("bad_request", "bad_image"), 415: ("bad_type",)}
        assert answer.json()["error"]["code"] in allowed[answer.status_code], answer.text
