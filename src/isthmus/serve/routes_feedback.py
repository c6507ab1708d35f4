"""`/api/feedback`: a hit is marked right or wrong; there only where it is switched on."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from isthmus.catalog.filters import ids_in
from isthmus.serve.edits import MAX_ID
from isthmus.serve.engine import Engine
from isthmus.serve.errors import ApiError, refusals
from isthmus.serve.feedback import Feedback, Full, Mark, Side


class Said(BaseModel):
    """One hit of a search is right or wrong; the last word counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    search: StrictStr = Field(max_length=100, description="of the search, from its results")
    item: StrictStr = Field(max_length=MAX_ID, description="id of the hit")
    right: StrictBool


class Nothing(BaseModel):
    """An empty answer."""


def router(engine: Engine) -> APIRouter:
    """The one route, or none."""
    routes = APIRouter(prefix="/api", tags=["feedback"])
    if engine.settings.feedback is None:
        return routes
    store = Feedback(engine.settings.feedback)

    @routes.post("/feedback", status_code=201, summary="Mark a hit as right or wrong", responses=refusals(404, 409))
    async def feedback(said: Said) -> Nothing:
        await engine.read(lambda: keep(engine, store, said))
        return Nothing()

    return routes


def keep(engine: Engine, store: Feedback, said: Said) -> None:
    """Store a mark of a hit that was shown.

    Raises:
        ApiError: 404 `not_found` where the search is too long ago, 404 `no_item`, 400 where the item was no hit, 409
            `conflict` where there is no more room.
    """
    asked = engine.recent.get(said.search)
    if asked is None:
        raise ApiError(404, "not_found", "That search is not remembered any more; search again and mark the hit then.")
    if said.item not in asked.hits:
        raise ApiError(400, "bad_request", "The item was not among the hits of that search.")
    wanted = [said.item] if asked.id is None else [said.item, asked.id]
    rows = {row["id"]: row for row in engine.catalog.items.read(["id", "path", "hash", "domain"], ids_in(wanted))}
    if any(id not in rows for id in wanted):
        raise ApiError(404, "no_item", "The item has been deleted since.")
    sides = [Side(id, rows[id]["path"], rows[id]["hash"], rows[id]["domain"]) for id in wanted]
    query = sides[-1] if asked.image is None else store.query(asked.image, asked.domain)
    try:
        store.keep(Mark(query, sides[0], said.right, engine.catalog.facts.fingerprint), asked.image)
    except Full:
        raise ApiError(
            409, "conflict", "There is no more room for marks; export them and empty their folder."
        ) from None
