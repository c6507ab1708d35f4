"""The page's files as they are served: types, ETags, nothing else on the disk, nobody else asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from isthmus.serve import routes_page
from isthmus.serve.errors import ApiError
from isthmus.serve.security import protect
from isthmus.serve.settings import ServeSettings
from isthmus.serve.strokes import Line, Strokes, draw

PAGE = Path(routes_page.__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json"}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """The page's routes alone, behind the guards: they need no engine."""
    app = FastAPI()
    engine: Any = None
    app.include_router(routes_page.router(engine))

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return Response(error.body(), error.status)

    protect(app, ServeSettings())
    return app


def test_files_have_their_types_and_etags(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://localhost")
    for name in [""] + [f"page/{path.name}" for path in PAGE.iterdir()]:
        answer = client.get(f"/{name}")
        path = PAGE / (Path(name).name or "index.html")
        assert answer.status_code == 200 and answer.content == path.read_bytes()
        assert answer.headers["content-type"].startswith(TYPES[path.suffix])
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        again = client.get(f"/{name}", headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == answer.headers["etag"]
        assert client.head(f"/{name}").status_code == 200
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["routes_page.py", "../routes_page.py", "%2e%2e/routes_page.py", "..%2froutes_page.py", "/etc/passwd", "",
     "app.js/", "%00", "./app.js%00", "..\\routes_page.py", "__pycache__"],
)  # fmt: skip
def test_nothing_else_on_the_disk_is_reached(app: FastAPI, name: str) -> None:
    answer = TestClient(app, base_url="http://localhost").get(f"/page/{name}", follow_redirects=False)
    assert answer.status_code in (404, 307) and b"import" not in answer.content


def test_files_are_small_and_ask_nobody_else() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") < 250, path
        assert not [link for link in re.findall(r"https?://[\w.]+", text) if link != "http://www.w3.org"], path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    ids = re.findall(r'\bid="([\w-]+)"', html)
    assert len(ids) == len(set(ids))
    asked = {name for path in PAGE.glob("*.js") for name in re.findall(r'\$\("([\w-]+)"\)', path.read_text())}
    assert asked <= set(ids), asked - set(ids)


def test_example_sketches_are_drawings() -> None:
    examples = json.loads((PAGE / "examples.json").read_text())
    assert {"shoe", "chair", "house", "cat", "guitar"} <= {sketch["name"] for sketch in examples["sketches"]}
    for sketch in examples["sketches"]:
        points = [list(zip(flat[::2], flat[1::2], strict=True)) for flat in sketch["lines"]]
        assert all(0 < value < 512 for flat in sketch["lines"] for value in flat)
        lines = [Line(points=line, width=float(examples["width"])) for line in points]
        assert draw(Strokes(width=512, height=512, lines=lines)).getextrema()[0] == (0, 255)
