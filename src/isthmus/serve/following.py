"""The service goes over to a catalog's new model by itself: nobody has to restart it after `catalog reembed`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.serve.app import create_app
from isthmus.serve.engine import Engine

log = logging.getLogger("isthmus.serve")
Scope = Any


class Following:
    """ASGI application over an engine, and over the one that takes its place when another model has the catalog.

    The new model is loaded and warmed beside the old one, which answers meanwhile. Then new requests go to the new one;
    the old one ends when it has answered what it was asked. Where the new one can't be had (its folder is not on this
    machine), the old goes on with what there was, says so in the log and in `isthmus_superseded`, and tries again.

    Args:
        engine: the first.

    Attributes:
        engine: the present one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._app = create_app(engine)
        self._asked: dict[Engine, int] = {engine: 0}
        self._watch: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._said = ""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        engine, app = self.engine, self._app
        self._asked[engine] += 1
        try:
            await app(scope, receive, send)
        finally:
            self._asked[engine] -= 1

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._watch = asyncio.get_running_loop().create_task(self._follow())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch
        await asyncio.gather(self.engine.close(), *self._leaving)
        await send({"type": "lifespan.shutdown.complete"})

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.engine.settings.follow)
            try:
                # In a thread of its own: loading a model takes seconds that no search should wait for.
                newer = await loop.run_in_executor(None, self._newer)
            except IsthmusError as error:
                if str(error) != self._said:  # once, not every few seconds
                    log.warning("The catalog is of another model by now, and that one can't be had: %s", error)
                self._said = str(error)
                continue
            except Exception as error:  # whatever it is, the service goes on, and looks again
                log.error("Looking for a newer catalog failed.", exc_info=error)
                continue
            if newer is not None:
                self._go_over(newer)

    def _newer(self) -> Engine | None:
        old = self.engine
        superseded = old.catalog.superseded
        old.metrics.superseded.set(superseded)
        if not superseded:
            return None
        engine = Engine(old.catalog.reopened(), old.settings, before=old)
        engine.warm()
        return engine

    def _go_over(self, newer: Engine) -> None:
        old, app = self.engine, create_app(newer)
        self._asked[newer] = 0
        self.engine, self._app = newer, app
        newer.metrics.superseded.set(0)
        log.info("The catalog is of another model by now: searches go to version %d.", newer.catalog.items.version)
        task = asyncio.get_running_loop().create_task(self._leave(old))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, old: Engine) -> None:
        while self._asked[old]:
            await asyncio.sleep(0.05)
        del self._asked[old]
        await old.close()
