"""`/api/catalog`, health and metrics: what there is, and whether it is well."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Literal

import pyarrow.compute as pc
from fastapi import APIRouter, Response
from pydantic import BaseModel

from isthmus.catalog.columns import Kind, matrix
from isthmus.catalog.items import Items
from isthmus.serve.engine import STOPPING, Engine
from isthmus.serve.errors import ApiError, refusals
from isthmus.serve.routes_search import plain

MOST_VALUES = 50
LONGEST = 200  # characters; a column of descriptions is nothing to choose from


class Count(BaseModel):
    """How many items have a value."""

    value: bool | str
    count: int


class Column(BaseModel):
    """A column to filter by: `values` of a flag or of few short texts, `min` and `max` of a number or a time."""

    name: str
    kind: Kind
    values: list[Count] | None = None
    min: float | str | None = None
    max: float | str | None = None


class Limits(BaseModel):
    """What a request may ask for at most."""

    bytes: int
    pixels: int
    k: int
    offset: int


class About(BaseModel):
    """The catalog and the service."""

    items: int
    version: int
    model: str
    domains: list[str]
    item_domain: str
    columns: list[Column]
    limits: Limits
    write: bool
    feedback: bool
    domain_choice: bool


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"]


class Ready(BaseModel):
    """Searches can be answered."""

    status: Literal["ready"]


class Statistics:
    """What the columns hold, counted once for each version of the table."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self._kept: tuple[int, list[dict[str, Any]]] | None = None

    def columns(self) -> tuple[int, list[dict[str, Any]]]:
        """The version, and for each column its name, its kind and its values or its range."""
        version = self.items.version
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, describe(self.items))
        return self._kept


def describe(items: Items) -> list[dict[str, Any]]:
    """For each column that a person would filter by: `name`, `kind`, and what it holds.

    That is `values` (flags, and text of at most 50 short ones) or `min` and `max` (numbers, times; null for none).
    Domain and label are left out where they part nothing.
    """
    kinds: dict[str, Kind] = {"domain": "text", "label": "text", **items.kinds()}
    counts: dict[str, Counter[Any]] = {name: Counter() for name, kind in kinds.items() if kind in ("text", "flag")}
    ranges: dict[str, list[Any]] = {name: [] for name, kind in kinds.items() if kind in ("number", "time")}
    many: set[str] = set()
    for batch in items.scan(list(kinds)):
        for name in counts.keys() - many:
            for pair in pc.value_counts(batch.column(name)).to_pylist():
                if pair["values"] is not None:
                    counts[name][pair["values"]] += pair["counts"]
            if len(counts[name]) > MOST_VALUES or any(len(str(value)) > LONGEST for value in counts[name]):
                many.add(name)
        for name, seen in ranges.items():
            bounds = pc.min_max(batch.column(name)).as_py()
            seen.extend(value for value in bounds.values() if value is not None)
    result: list[dict[str, Any]] = []
    for name, kind in kinds.items():
        column: dict[str, Any] = {"name": name, "kind": kind}
        if name in ranges:
            column["min"] = plain(min(ranges[name], default=None))
            column["max"] = plain(max(ranges[name], default=None))
        elif name not in many:
            ordered = sorted(counts[name].items(), key=lambda pair: (-pair[1], pair[0]))
            column["values"] = [{"value": value, "count": count} for value, count in ordered]
        if name not in ("domain", "label") or len(column.get("values", "many")) > 1:
            result.append(column)
    return result


def router(engine: Engine) -> APIRouter:
    """What the page asks first, and what whoever runs the service asks."""
    routes = APIRouter()
    catalog, settings = engine.catalog, engine.settings
    statistics = Statistics(catalog.items)
    # Many pages opened at once count once, and those that wait for it hold no thread that others need.
    counting = asyncio.Lock()

    @routes.get(
        "/api/catalog",
        tags=["catalog"],
        summary="What the catalog holds, and what may be asked of it",
        response_model=About,
        response_model_exclude_unset=True,
        responses=refusals(),
    )
    async def about() -> dict[str, Any]:
        def count() -> tuple[int, int, list[dict[str, Any]]]:
            version, columns = statistics.columns()
            return catalog.items.count(), version, columns

        async with counting:
            items, version, columns = await engine.read(count)
        return {
            "items": items,
            "version": version,
            "model": catalog.facts.fingerprint,
            "domains": list(catalog.facts.domains),
            "item_domain": catalog.facts.domain,
            "columns": columns,
            "limits": {
                "bytes": settings.max_bytes,
                "pixels": settings.max_pixels,
                "k": settings.max_k,
                "offset": settings.max_offset,
            },
            "write": settings.token is not None,
            "feedback": settings.feedback is not None,
            "domain_choice": engine.chooser is not None,
        }

    @routes.get("/api/health/live", tags=["health"], summary="Whether the process answers", responses=refusals())
    async def live() -> Live:
        return Live(status="live")

    @routes.get("/api/health/ready", tags=["health"], summary="Whether searches can be answered", responses=refusals())
    async def ready() -> Ready:
        if engine.closing:
            raise ApiError(503, "not_ready", STOPPING)

        def look() -> None:
            # One row with its checksum: a table whose files are gone still knows how many items it had.
            names = ["id", "hash", "crc", "vector"]
            first = next(iter(catalog.items.scan(names, rows=1)), None)
            if first is not None and first.num_rows:
                one = first.slice(0, 1)
                vectors = matrix(one.column("vector"), catalog.facts.dim)
                catalog.items.check(one.drop_columns(["vector"]).to_pylist(), vectors)

        await engine.read(look)
        return Ready(status="ready")

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        def count() -> None:
            engine.metrics.version.set(catalog.items.version)
            engine.metrics.items.set(catalog.items.count())
            if engine.memory is not None:
                engine.metrics.memory.set(engine.memory.state().megabytes)

        try:
            await engine.read(count)
        except ApiError:  # the other figures are worth most just then
            engine.metrics.unknown()
        return Response(engine.metrics.text(), media_type=engine.metrics.content_type)

    return routes
