"""The search page: a handful of files of the package, read once; no request ever names a path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from isthmus.serve.errors import ApiError

if TYPE_CHECKING:
    from isthmus.serve.engine import Engine

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    body: bytes
    media: str
    etag: str


def assets() -> dict[str, Asset]:
    """The page's files by name.

    Example:
        >>> assets()["index.html"].media
        'text/html; charset=utf-8'
    """
    found: dict[str, Asset] = {}
    for entry in files("isthmus.serve").joinpath("page").iterdir():
        media = MEDIA.get("." + entry.name.rpartition(".")[2])
        if media is not None and entry.is_file():
            body = entry.read_bytes()
            found[entry.name] = Asset(body, media, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


def router(engine: Engine) -> APIRouter:
    """`/` and `/page/NAME`; a name is looked up among the files that were read at the start."""
    routes = APIRouter(include_in_schema=False)
    known = assets()

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _answer(known["index.html"], request)

    @routes.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def asset(name: str, request: Request) -> Response:
        if name not in known:
            raise ApiError(404, "not_found", "The page has no such file.")
        return _answer(known[name], request)

    return routes


def _answer(asset: Asset, request: Request) -> Response:
    # Asked again each time, and mostly answered by 304: a new release is seen at once.
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache"}
    asked = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.etag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media, headers=headers)
