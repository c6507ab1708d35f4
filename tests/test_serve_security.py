"""The guards before the routes, on an application of their own, spoken to as a server does: message by message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from fastapi import FastAPI, File, Request, UploadFile
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from isthmus.serve.access import is_local, needs
from isthmus.serve.security import CSP, FORM_BYTES, JSON_BYTES, protect
from isthmus.serve.settings import ServeSettings

LOCAL = "http://127.0.0.1:8765"
WRITE, READ = "w" * 40, "r" * 40


def build(**settings: Any) -> FastAPI:
    """Routes of every sort behind the guards."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.state.done = []

    @app.get("/")
    async def page() -> dict[str, str]:
        return {"page": "yes"}

    @app.get("/api/items/{name}")
    async def item(name: str) -> dict[str, str]:
        return {"name": name}

    @app.get("/api/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/metrics")
    async def metrics() -> str:
        return "1"

    @app.post("/api/search")
    async def search(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.post("/api/items")
    async def add(image: UploadFile = File()) -> dict[str, int]:
        size = len(await image.read())
        app.state.done.append(size)
        return {"bytes": size}

    @app.patch("/api/items")
    async def change(values: dict[str, Any]) -> dict[str, Any]:
        app.state.done.append(values)
        return values

    @app.get("/api/slow")
    async def slow() -> None:
        await asyncio.sleep(20)

    @app.get("/api/halting")
    async def halting() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            await asyncio.sleep(20)

        return StreamingResponse(parts())

    @app.get("/api/bug")
    async def bug() -> None:
        raise RuntimeError("secret of a customer")

    @app.get("/api/loose")
    async def loose() -> Any:
        headers = {"Content-Security-Policy": "default-src *", "Cache-Control": "private, max-age=86400"}
        return StreamingResponse(iter([b"x"]), headers=headers)

    protect(app, ServeSettings(**settings))
    return app


@contextlib.contextmanager
def client_of(app: FastAPI, base: str = LOCAL) -> Iterator[TestClient]:
    with TestClient(app, base_url=base, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(build(token=WRITE)) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refused(answer: Any, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    strict(answer)
    error = answer.json()["error"]
    assert set(error) == {"code", "reason"} and error["code"] == code
    return str(error["reason"])


def strict(answer: Any) -> None:
    assert answer.headers.get_list("content-security-policy") == [CSP]
    assert "unsafe" not in CSP and "frame-ancestors 'none'" in CSP and "default-src 'none'" in CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert (
        "camera=()" in answer.headers["permissions-policy"] and "bluetooth" not in answer.headers["permissions-policy"]
    )
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


async def speak(
    app: FastAPI, method: str, path: str, body: list[bytes] | None = None, headers: dict[str, str] | None = None
) -> list[Any]:
    """One request as a server hands it over; a body of None never comes. Returns the messages of the response."""
    sent: list[Any] = []
    waiting = list(body or [])

    async def receive() -> Any:
        if body is None:
            await asyncio.sleep(20)
        if not waiting:
            return {"type": "http.disconnect"}
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "localhost", **(headers or {})}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 1),
        "client": ("203.0.113.9", 5), "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


def told(messages: list[Any]) -> tuple[int, str, dict[str, str]]:
    """Status, code and headers of a refusal."""
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    assert headers["content-security-policy"] == CSP
    return messages[0]["status"], json.loads(messages[1]["body"])["error"]["code"], headers


@pytest.mark.parametrize("path", ["/", "/api/items/x", "/api/health/live", "/nothing", "/api/loose", "/api/bug"])
def test_every_response_has_the_strict_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    strict(answer)
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_what_the_api_says_is_not_kept_by_caches_unless_a_route_says_so(client: TestClient) -> None:
    assert client.get("/api/items/x").headers["cache-control"] == "no-store"
    assert client.get("/api/loose").headers["cache-control"] == "private, max-age=86400"
    assert "cache-control" not in client.get("/").headers


def test_a_bug_is_told_without_what_it_was_about(client: TestClient) -> None:
    reason = refused(client.get("/api/bug"), 500, "internal")
    assert "secret" not in reason


UPLOAD = {"files": {"image": ("x.png", b"123")}}


def test_writing_needs_the_token(client: TestClient) -> None:
    for headers in (
        {}, bearer("wrong"), bearer(WRITE[:-1]), bearer(WRITE + "w"), {"Authorization": WRITE}, bearer(""),
        {"Authorization": f"Basic {WRITE}"}, bearer("\u00fc" * 40),
    ):  # fmt: skip
        encoded = {name: value.encode() for name, value in headers.items()}
        answer = client.post("/api/items", headers=encoded, **UPLOAD)
        assert WRITE not in refused(answer, 401, "no_token")
        assert answer.headers["www-authenticate"] == "Bearer"
        refused(client.patch("/api/items", headers=encoded, json={}), 401, "no_token")
    assert client.app.state.done == []  # type: ignore[attr-defined]
    assert client.post("/api/items", headers=bearer(WRITE), **UPLOAD).json() == {"bytes": 3}
    assert client.patch("/api/items", headers={"Authorization": f"bearer  {WRITE}"}, json={}).json() == {}
    # Asking needs none.
    assert client.post("/api/search", content=b"{}").json() == {"bytes": 2}
    assert client.get("/api/items/x").status_code == 200


def test_two_tokens_at_once_are_none(client: TestClient) -> None:
    both = [("Authorization", f"Bearer {WRITE}"), ("Authorization", "Bearer x")]
    refused(client.patch("/api/items", headers=both, json={}), 401, "no_token")


def test_without_a_token_nothing_is_written() -> None:
    with client_of(build()) as client:
        for headers in ({}, bearer(""), bearer("None")):
            refused(client.patch("/api/items", headers=headers, json={}), 403, "forbidden")


def test_a_token_to_read() -> None:
    with client_of(build(token=WRITE, read_token=READ)) as client:
        for path in ("/api/items/x", "/metrics", "/openapi.json", "/api/nothing"):
            refused(client.get(path), 401, "no_token")
            refused(client.get(path, headers=bearer("wrong")), 401, "no_token")
        refused(client.post("/api/search", content=b"{}"), 401, "no_token")
        for token in (READ, WRITE):
            assert client.get("/api/items/x", headers=bearer(token)).status_code == 200
            assert client.get("/metrics", headers=bearer(token)).status_code == 200
            assert client.post("/api/search", headers=bearer(token), content=b"{}").status_code == 200
        refused(client.patch("/api/items", headers=bearer(READ), json={}), 403, "forbidden")
        assert client.patch("/api/items", headers=bearer(WRITE), json={}).status_code == 200
        # The page has to load before it can ask for the token, and a balancer has none.
        assert client.get("/").status_code == client.get("/api/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/api/items", "//api/items", "/api//x", "/API/items", "/api", "/metrics/"])
def test_no_spelling_of_a_path_gets_around_the_token(path: str) -> None:
    assert needs("GET", path) == "read" and needs("DELETE", path) == needs("PURGE", path) == "write"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8765", "127.9.9.9", "[::1]:8765", "[::1]"])
def test_names_of_this_machine(host: str) -> None:
    assert is_local([host.encode()])


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.2", "", ":80",
     "localhost:x", "localhost:80:80", "[::1", "[::1]x", "0.0.0.0", "127.0.0.1@evil.example"],
)  # fmt: skip
def test_names_of_other_machines(host: str) -> None:
    assert not is_local([host.encode()])
    assert not is_local([]) and not is_local([b"localhost", b"localhost"])


def test_another_name_in_the_host_header_is_refused() -> None:
    rebound = {"Host": "evil.example:8765"}
    for host in ("127.0.0.1", "::1", "localhost", "192.168.0.7"):
        with client_of(build(host=host, token=WRITE)) as client:
            refused(client.get("/", headers=rebound), 403, "forbidden")
            refused(client.get("/api/items/x", headers=rebound | bearer(WRITE)), 403, "forbidden")
            assert client.get("/").status_code == client.get("/", headers={"Host": "localhost"}).status_code == 200
            shown = f"[{host}]" if ":" in host else host
            assert client.get("/", headers={"Host": f"{shown}:8765"}).status_code == 200
    with client_of(build(host="0.0.0.0")) as client:  # what it is called there only the network knows
        assert client.get("/", headers=rebound).status_code == 200


def test_names_that_a_service_goes_by() -> None:
    with client_of(build(hosts=("Shop.example", "fd00::7"), host="0.0.0.0")) as client:
        for name in ("shop.example", "SHOP.EXAMPLE:443", "[fd00::7]:80", "localhost", "127.0.0.1:1"):
            assert client.get("/", headers={"Host": name}).status_code == 200, name
        for name in ("evil.example", "shop.example.evil.example", "fd00::7", "shop.example:x", "a@shop.example", ""):
            refused(client.get("/", headers={"Host": name}), 403, "forbidden")
    with client_of(build(hosts=("*",))) as client:
        assert client.get("/", headers={"Host": "any.example"}).status_code == 200
    for wrong in ("https://shop.example", "shop.example:80", "", "*.example", "a b", "a/b"):
        with pytest.raises(ValueError, match="no host's name"):
            ServeSettings(hosts=(wrong,))


def test_pages_of_other_sites_may_not_ask() -> None:
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    with client_of(build(token=WRITE)) as client:
        for headers in (foreign, {"Sec-Fetch-Site": "cross-site"}, foreign | {"Origin": "null"} | bearer(WRITE)):
            refused(client.post("/api/search", headers=headers, content=b"{}"), 403, "forbidden")
            refused(client.post("/api/items", headers=headers, **UPLOAD), 403, "forbidden")
        assert client.get("/", headers=foreign).status_code == 200  # a link to the page
        for site in ("same-origin", "same-site", "none"):
            assert client.post("/api/search", headers={"Sec-Fetch-Site": site}, content=b"{}").status_code == 200
    with client_of(build(token=WRITE, cors=("https://shop.example",))) as client:
        known = foreign | {"Origin": "https://shop.example"}
        assert client.post("/api/search", headers=known, content=b"{}").status_code == 200
        refused(client.post("/api/search", headers=foreign, content=b"{}"), 403, "forbidden")


def test_a_body_that_is_announced_too_large_is_refused_unread() -> None:
    app = build(token=WRITE, max_bytes=2048)
    for path, limit in (("/api/search", JSON_BYTES), ("/api/search/image", 2048 + FORM_BYTES)):
        messages = asyncio.run(speak(app, "POST", path, None, {"content-length": str(limit + 1)}))
        status, code, headers = told(messages)
        assert (status, code, headers["connection"]) == (413, "too_large", "close")
    for length in ("-1", "1e3", "9" * 30, "٣"):
        status, code, _ = told(asyncio.run(speak(app, "POST", "/api/search", [b""], {"content-length": length})))
        assert (status, code) == (400, "bad_request")


def test_a_body_is_counted_while_it_comes() -> None:
    app = build(token=WRITE, max_bytes=2048)
    part = bytes(1 << 20)
    messages = asyncio.run(speak(app, "POST", "/api/search", [part] * 4))
    assert messages[0]["status"] == 200 and json.loads(messages[1]["body"]) == {"bytes": 4 << 20}
    taken: list[int] = []

    class Parts(list[bytes]):
        def pop(self, place: Any = 0) -> bytes:
            taken.append(1)
            return super().pop(place)

    status, code, _ = told(asyncio.run(speak(app, "POST", "/api/search", Parts([part] * 60))))
    assert (status, code) == (413, "too_large")
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n' + bytes(FORM_BYTES + 2048)
    kind = {"content-type": "multipart/form-data; boundary=b", "authorization": f"Bearer {WRITE}"}
    # The form's reader turns whatever goes wrong into a 400 of its own; the client is told the true reason.
    status, code, _ = told(asyncio.run(speak(app, "POST", "/api/items", [form, b"\r\n--b--\r\n"], kind)))
    assert (status, code) == (413, "too_large") and app.state.done == []


def test_a_request_takes_no_longer_than_it_may() -> None:
    app = build(token=WRITE, request_seconds=0.05)
    for method, path, body in (("GET", "/api/slow", [b""]), ("POST", "/api/search", None)):
        status, code, _ = told(asyncio.run(speak(app, method, path, body)))
        assert (status, code) == (504, "timeout")
    messages = asyncio.run(speak(app, "GET", "/api/halting", [b""]))
    assert messages[0]["status"] == 200 and not any(m["type"] == "http.response.start" for m in messages[1:])


def test_cors_is_off_unless_configured() -> None:
    ask = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PATCH",
           "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    with client_of(build(token=WRITE)) as client:
        assert client.options("/api/items", headers=ask).status_code == 405
        answer = client.get("/api/items/x", headers={"Origin": "https://shop.example"})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    with client_of(build(token=WRITE, read_token=READ, cors=("https://shop.example",))) as client:
        answer = client.options("/api/items", headers=ask)
        strict(answer)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-credentials" not in answer.headers
        other = client.options("/api/items", headers=ask | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        # A page of the shop has to be able to read why it was refused.
        answer = client.get("/api/items/x", headers={"Origin": "https://shop.example"})
        refused(answer, 401, "no_token")
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


def test_the_log_says_what_was_done_and_not_by_whom(caplog: pytest.LogCaptureFixture) -> None:
    app = build(token=WRITE)
    with caplog.at_level(logging.INFO, "isthmus.serve.access"), client_of(app) as client:
        client.get("/api/items/anna-meier?q=private", headers={"User-Agent": "someone"})
        client.get("/private/secret.png")
        client.post("/api/search", content=b"private")
        client.request("BREW", "/api/items/x")
        client.patch("/api/items", json={})
    lines = [record.getMessage() for record in caplog.records if record.name == "isthmus.serve.access"]
    said = [re.sub(r" \d+\.\d ms$", "", line) for line in lines]
    assert said == ["GET /api/items/{name} 200", "GET - 404", "POST /api/search 200", "? - 401", "PATCH - 401"]
    text = " ".join(lines)
    assert not re.search("anna|private|secret|someone|203.0.113|testclient", text)


def test_a_client_that_left_is_logged_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "isthmus.serve.access"):
        assert asyncio.run(speak(build(), "POST", "/api/search", [])) == []
    assert caplog.records[-1].getMessage().startswith("POST /api/search 499 ")


def test_other_protocols_are_closed() -> None:
    with client_of(build()) as client, pytest.raises(Exception) as caught, client.websocket_connect("/api/live"):
        pass
    assert type(caught.value).__name__ == "WebSocketDisconnect"
