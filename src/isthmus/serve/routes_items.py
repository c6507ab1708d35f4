"""`/api/items`: one item and its pictures; with the token, add, change and delete."""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import IntEnum
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel

from isthmus.catalog.columns import SYSTEM
from isthmus.catalog.filters import ids_in
from isthmus.catalog.items import Items
from isthmus.serve.bodies import json_text, read_field
from isthmus.serve.edits import MAX_ID, Change, NewItem, add_image, remove, revise
from isthmus.serve.engine import Engine
from isthmus.serve.errors import ApiError, refusals
from isthmus.serve.routes_search import Metadata, plain
from isthmus.serve.thumbnails import LARGE, SIZES, Picture, Thumbnails
from isthmus.serve.uploads import read_image

PLACES = 4_096
NEW_ITEM = json_text("NewItem")
Id = Annotated[str, Query(min_length=1, max_length=MAX_ID, description="of the item")]
Size = IntEnum("Size", {f"SIDE_{side}": side for side in SIZES})  # type: ignore[misc]
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture"},
    304: {"description": "As the client has it"},
    **refusals(404, 410),
}


class Item(BaseModel):
    """One item."""

    id: str
    domain: str
    label: str | None
    metadata: Metadata
    thumbnail: str
    image: str


class Added(BaseModel):
    """What an upload did; `added` is false where an item of that id was there."""

    id: str
    added: bool
    version: int


class Changed(BaseModel):
    """An item has new metadata."""

    id: str
    version: int


class Deleted(BaseModel):
    """How many items were deleted: 1, or 0 where there was none."""

    deleted: int
    version: int


class Places:
    """Id -> where the image is, kept while the table stays as it is: a page asks for many pictures at once."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self._version = -1
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, id: str) -> Picture:
        """The image of an item; ApiError 404 where there is none of that id."""
        version = self.items.version
        with self._lock:
            if version != self._version:
                self._kept.clear()
                self._version = version
            picture = self._kept.get(id)
        if picture is None:
            row = _row(self.items.read(["path", "hash"], ids_in([id])))
            picture = Picture(row["path"], row["hash"])
            with self._lock:
                # Another thread may have seen the next version in between: what was read before it is not kept.
                if version == self._version:
                    self._kept[id] = picture
                    if len(self._kept) > PLACES:
                        self._kept.popitem(last=False)
        return picture


def router(engine: Engine) -> APIRouter:
    """Items: read, pictures, add, change, delete."""
    routes = APIRouter(prefix="/api/items", tags=["items"])
    catalog, settings = engine.catalog, engine.settings
    places = Places(catalog.items)
    pictures = Thumbnails(settings.thumbnail_cache_mb << 20)

    @routes.get("", summary="One item", responses=refusals(404))
    async def item(request: Request, id: Id) -> Item:
        row = await engine.read(lambda: _row(catalog.items.fetch([id])[0]))
        address = f"{str(request.scope.get('root_path', '')).rstrip('/')}/api/items"
        name = quote(id, safe="")
        return Item(
            id=row["id"],
            domain=row["domain"],
            label=row["label"],
            metadata={key: plain(value) for key, value in row.items() if key not in SYSTEM and value is not None},
            thumbnail=f"{address}/thumbnail?id={name}&size=160",
            image=f"{address}/image?id={name}",
        )

    @routes.get("/thumbnail", summary="A small picture", response_class=Response, responses=JPEG)
    async def thumbnail(request: Request, id: Id, size: Size = Size(160)) -> Response:
        return await picture_of(request, id, int(size))

    @routes.get("/image", summary="A picture of at most 1600 pixels a side", response_class=Response, responses=JPEG)
    async def image(request: Request, id: Id) -> Response:
        return await picture_of(request, id, LARGE)

    async def picture_of(request: Request, id: str, side: int) -> Response:
        picture = await engine.read(lambda: places.find(id))
        tag = picture.etag(side)
        headers = {"ETag": tag, "Cache-Control": "private, max-age=86400"}
        asked = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
        if tag in asked or "*" in asked:
            return Response(status_code=304, headers=headers)
        return Response(await engine.read(lambda: pictures.get(picture, side)), 200, headers, "image/jpeg")

    @routes.post("", status_code=201, summary="Add an image, or replace that of an item", responses=refusals(409, 415))
    async def add(
        image: Annotated[UploadFile, File(description="PNG, JPEG, WebP, GIF, BMP or TIFF")],
        item: Annotated[
            str, Form(description="JSON with id, domain, label and metadata, all optional", json_schema_extra=NEW_ITEM)
        ] = "{}",
    ) -> Added:
        said = read_field(NewItem, item)
        data = await image.read()
        await engine.read(lambda: read_image(data, settings))
        id, added, version = await engine.write(lambda: add_image(catalog, settings.uploads, data, said))
        return Added(id=id, added=added, version=version)

    @routes.patch("", summary="Change an item's metadata", responses=refusals(404, 409))
    async def patch(change: Change) -> Changed:
        return Changed(id=change.id, version=await engine.write(lambda: revise(catalog, change)))

    @routes.delete("", summary="Delete an item; its image file stays", responses=refusals(409))
    async def delete(id: Id) -> Deleted:
        count, version = await engine.write(lambda: remove(catalog, id))
        return Deleted(deleted=count, version=version)

    return routes


def _row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        raise ApiError(404, "no_item", "The catalog has no item of that id.")
    return rows[0]
