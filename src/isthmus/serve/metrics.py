"""Figures for Prometheus: numbers by route and status, and never an id, a query or an address."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

Scope = Any
METHODS = frozenset(["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"])
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one application, in a registry of its own: two applications in a process don't mix.

    Attributes:
        requests: by method, route template (`none` where no route fits) and status.
        latency: seconds of a request by route template.
        queue: images that wait for the model; set by a function when it is asked for.
        batch: images in a batch.
        model: seconds of a batch.
        search: seconds of a search without the model.
        version: of the catalog.
        items: in the catalog.
        memory: megabytes of vectors in memory.
        superseded: 1 while the catalog is of another model, which could not be loaded yet.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        into = self.registry

        def seconds(name: str, of: str, labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(name, f"Seconds of {of}.", labels, buckets=_SECONDS, registry=into)

        labels = ("method", "route", "status")
        self.requests = Counter("isthmus_requests", "Requests answered.", labels, registry=into)
        self.latency = seconds("isthmus_request_seconds", "a request", ("route",))
        self.queue = Gauge("isthmus_queue_depth", "Images that wait for the model.", registry=into)
        self.batch = Histogram("isthmus_batch_images", "Images in a batch.", buckets=_SIZES, registry=into)
        self.model = seconds("isthmus_model_seconds", "the model for a batch")
        self.search = seconds("isthmus_search_seconds", "a search without the model")
        self.version = Gauge("isthmus_catalog_version", "Version of the catalog's table.", registry=into)
        self.items = Gauge("isthmus_catalog_items", "Items in the catalog.", registry=into)
        self.memory = Gauge("isthmus_memory_megabytes", "Vectors that are kept in memory.", registry=into)
        self.superseded = Gauge("isthmus_superseded", "1: a new model waits that can't be loaded.", registry=into)

    def batch_done(self, size: int, seconds: float) -> None:
        """A batch went through the model."""
        self.batch.observe(size)
        self.model.observe(seconds)

    def unknown(self) -> None:
        """The catalog can't be read: its figures are not a number, rather than old ones."""
        self.version.set(float("nan"))
        self.items.set(float("nan"))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)


class Counting:
    """ASGI middleware, the outermost: counts what was answered, refusals of other middleware too."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            # The template, such as /page/{name}: the path itself may hold what somebody typed.
            route = str(getattr(scope.get("route"), "path", "none"))
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - start)
