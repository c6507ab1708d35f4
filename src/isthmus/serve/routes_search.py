"""`/api/search`: by a drawing, by an item, by an uploaded image."""

from __future__ import annotations

import datetime as dt
import math
import secrets
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Request, UploadFile
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic.config import JsonDict

from isthmus.catalog.filters import Condition, ids_in
from isthmus.catalog.matches import NOT_CALIBRATED, no_match
from isthmus.catalog.search import Hit
from isthmus.models.drawn_look import as_usual
from isthmus.serve.bodies import json_text, read_field
from isthmus.serve.choice import Choice, choose
from isthmus.serve.engine import Engine
from isthmus.serve.errors import ApiError, refusals
from isthmus.serve.filters import Filter, condition_of, served_columns
from isthmus.serve.recent import Asked, pack
from isthmus.serve.strokes import Strokes, draw_as_trained
from isthmus.serve.uploads import read_image

MAX_ID = 4_096


class Options(BaseModel):
    """What all searches take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: StrictInt = Field(24, ge=1, description="how many hits")
    offset: StrictInt = Field(0, ge=0, description="how many of the best to pass over")
    domain: StrictStr | None = Field(None, max_length=200, description="of the query; an item has its own")
    where: Filter | None = None
    exact: StrictBool = Field(False, description="compare with every item, without the index")
    matches_only: StrictBool = Field(False, description="of these hits only matches by the model's threshold")


OPTIONS = json_text("Options")


def _only(one: str, other: str) -> JsonDict:
    """JSON schema: one field is there, the other isn't, or is null."""
    return {"required": [one], "properties": {one: {"not": {"type": "null"}}, other: {"type": "null"}}}


class Search(Options):
    """A search by a drawing or by an item of the catalog: exactly one of `strokes` and `id`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only("strokes", "id"), _only("id", "strokes")]})

    strokes: Strokes | None = None
    id: StrictStr | None = Field(None, min_length=1, max_length=MAX_ID)


Metadata = dict[str, bool | float | str | None]  # times are ISO texts in UTC


class Found(BaseModel):
    """One hit."""

    id: str
    score: float
    domain: str
    label: str | None
    metadata: Metadata
    thumbnail: str
    image: str
    probability: float | None = Field(None, ge=0, le=1, description="of a match; left out without a calibration")
    match: bool | None = Field(None, description="whether the score reaches the model's threshold; likewise")


class Chosen(BaseModel):
    """How the domain was chosen."""

    by: Literal["strokes", "request", "classifier", "item", "default"]
    probability: float | None = Field(ge=0, le=1)
    sure: bool


class Seconds(BaseModel):
    """Where the time went."""

    model: float
    search: float


class Results(BaseModel):
    """The answer to a search."""

    search: str
    hits: list[Found]
    k: int
    offset: int
    more: bool
    domain: str
    chosen: Chosen
    version: int
    seconds: Seconds
    no_match: bool | None = Field(None, description="first page, calibrated model: whether nothing is a match")


def router(engine: Engine) -> APIRouter:
    """The searches."""
    routes = APIRouter(prefix="/api", tags=["search"])
    facts = engine.catalog.facts

    # What is left out where the model is not calibrated is not there, rather than null.
    @routes.post(
        "/search",
        summary="Search by a drawing or by an item",
        responses=refusals(404),
        response_model_exclude_unset=True,
    )
    async def search(asked: Search, request: Request) -> Results:
        if (asked.strokes is None) == (asked.id is None):
            raise ApiError(400, "bad_request", "Send one query: either strokes or id.")
        where = await prepare(asked)
        if asked.id is not None:
            # Its own domain, whatever the request says: its vector is stored.
            domain = await engine.read(lambda: domain_of(engine, str(asked.id)))
            return await answer(request, asked, asked.id, Choice(domain, "item"), where, drawn=False)
        drawing = asked.strokes
        assert drawing is not None
        image = await engine.read(lambda: draw_as_trained(drawing, engine.look, engine.drawn_side))
        by = Choice(facts.domains[0], "strokes") if asked.domain is None else Choice(asked.domain, "request")
        return await answer(request, asked, image, by, where, drawn=True)

    @routes.post(
        "/search/image", summary="Search by an image", responses=refusals(415), response_model_exclude_unset=True
    )
    async def search_image(
        request: Request,
        image: Annotated[UploadFile, File(description="PNG, JPEG, WebP, GIF, BMP or TIFF")],
        options: Annotated[
            str, Form(description="JSON with k, offset, domain, where, exact, matches_only", json_schema_extra=OPTIONS)
        ] = "{}",
    ) -> Results:
        asked = read_field(Options, options)
        where = await prepare(asked)
        data = await image.read()

        def look() -> tuple[Image.Image, Choice]:
            picture = read_image(data, engine.settings)
            choice = choose(picture, asked.domain, engine.chooser, facts.domains)
            # A drawing in white on black is the same drawing; a photograph at night is not.
            if choice.domain != facts.domains[0]:
                return picture, choice
            return as_usual(picture, dark=engine.look is not None and engine.look.dark), choice

        picture, choice = await engine.read(look)
        return await answer(request, asked, picture, choice, where, drawn=False)

    async def prepare(asked: Options) -> Condition | None:
        limits = engine.settings
        if asked.k > limits.max_k or asked.offset > limits.max_offset:
            reason = f"k is at most {limits.max_k} and offset at most {limits.max_offset:,}."
            raise ApiError(400, "bad_request", reason)
        if asked.domain is not None and asked.domain not in facts.domains:
            raise ApiError(400, "bad_request", f"The model's domains are {' and '.join(facts.domains)}; send one.")
        if asked.matches_only and engine.catalog.calibration is None:
            raise ApiError(400, "bad_request", NOT_CALIBRATED)
        if asked.where is None:
            return None
        columns = served_columns(await engine.read(lambda: engine.catalog.columns))
        return condition_of(asked.where, columns)

    async def answer(
        request: Request,
        asked: Options,
        query: Image.Image | str,
        choice: Choice,
        where: Condition | None,
        *,
        drawn: bool,
    ) -> Results:
        found = await engine.search(
            query,
            is_id=isinstance(query, str),
            domain=choice.domain,
            k=asked.k,
            offset=asked.offset,
            where=where,
            exact=asked.exact,
            matches_only=asked.matches_only,
        )
        search = secrets.token_urlsafe(12)
        if engine.settings.feedback is not None:
            ids = frozenset(hit.id for hit in found.hits)

            def keep() -> None:
                picture = pack(query, drawn=drawn) if isinstance(query, Image.Image) else None
                id = query if isinstance(query, str) else None
                engine.recent.put(search, Asked(picture, id, choice.domain, drawn, ids))

            await engine.read(keep)
        base = str(request.scope.get("root_path", "")).rstrip("/")
        return Results(
            search=search,
            hits=[hit_of(hit, base) for hit in found.hits],
            k=asked.k,
            offset=asked.offset,
            more=found.more,
            domain=choice.domain,
            chosen=Chosen(by=choice.by, probability=choice.probability, sure=choice.sure),
            version=found.version,
            seconds=Seconds(model=found.model_seconds, search=found.search_seconds),
            **no_match(found.hits, asked.offset, engine.catalog.calibration),
        )

    return routes


def domain_of(engine: Engine, id: str) -> str:
    """The domain of an item; ApiError 404 where there is none of that id."""
    try:
        id.encode()
    except UnicodeEncodeError:
        rows = []
    else:
        rows = engine.catalog.items.read(["domain"], ids_in([id]))
    if not rows:
        raise ApiError(404, "no_item", "The catalog has no item of that id.")
    return str(rows[0]["domain"])


def hit_of(hit: Hit, base: str = "") -> Found:
    """A hit as JSON has it; `base` comes before its addresses, where a proxy serves us beneath a path."""
    address = quote(hit.id, safe="")
    return Found(
        id=hit.id,
        score=hit.score,
        domain=hit.domain,
        label=hit.label,
        metadata={name: plain(value) for name, value in hit.metadata.items()},
        thumbnail=f"{base}/api/items/thumbnail?id={address}&size=160",
        image=f"{base}/api/items/image?id={address}",
        **({} if hit.match is None else {"probability": hit.probability, "match": hit.match}),
    )


def plain(value: Any) -> Any:
    """A metadata value as JSON has it: times as ISO texts in UTC, nothing that isn't finite."""
    if isinstance(value, dt.datetime):
        return value.isoformat() + "Z"
    return None if isinstance(value, float) and not math.isfinite(value) else value
