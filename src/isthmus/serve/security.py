"""What stands before every route: headers, tokens, limits of size and time, and a log that knows nobody."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anyio import move_on_after
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from isthmus.serve.access import Hosts, Tokens
from isthmus.serve.bodies import heavy
from isthmus.serve.errors import ApiError
from isthmus.serve.settings import ServeSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("isthmus.serve.access")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=()",
    "cross-origin-opener-policy": "same-origin",
}
ASKING = frozenset(["GET", "HEAD", "OPTIONS"])
METHODS = ASKING | {"POST", "PATCH", "DELETE", "PUT"}
UPLOADS = frozenset(["/api/search/image", "/api/items"])
JSON_BYTES = 4 << 20  # 50,000 points of a drawing, written out at length
FORM_BYTES = 256 << 10  # around the image of an upload: boundaries, options, a filter


def protect(app: FastAPI, settings: ServeSettings) -> None:
    """Put the guards before an application; to be called once, before it starts.

    From the outside in: the log line and the headers, the check of the host, CORS where configured, tokens, then the
    limits of size and time. Refusals have the headers too.

    Args:
        app: the application.
        settings: tokens, `cors`, `max_bytes`, `request_seconds`, and the names that the Host header may hold (`host`,
            `hosts`).
    """
    app.add_middleware(Gate, settings=settings)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["etag", "retry-after"],
        )
    app.add_middleware(Front, settings=settings)


class Front:
    """Adds headers to every response, refuses strange hosts, writes the log.

    A log line is `GET /api/items 200 3.1 ms`: the template of the route, and neither address nor query nor body.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.hosts = Hosts(settings.host, settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": self.dress(path_of(scope), list(message.get("headers", ())))}
            await send(message)

        try:
            refusal = self.hosts.refusal(values_of(scope, b"host"))
            if refusal is not None:
                await answer(dressed, refusal)
            else:
                await self.app(scope, receive, dressed)
        except ClientDisconnect:
            pass  # nobody is left to be told, and it is no fault of ours
        except Exception:
            if not status:  # told with the headers here; the server's log has the traceback
                await answer(dressed, ApiError(500, "internal", "This is a bug of the service; its log says more."))
            raise
        finally:
            route = getattr(scope.get("route"), "path", "-")
            method = scope["method"] if scope["method"] in METHODS else "?"
            # 499, as nginx says it: the client left before it was answered.
            log.info("%s %s %d %.1f ms", method, route, status or 499, 1000 * (time.perf_counter() - start))

    def dress(self, path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The response's headers with the strict ones, which no route can loosen."""
        api = path.startswith("/api/")
        strict = {
            **HEADERS,
            "cross-origin-resource-policy": "cross-origin" if self.settings.cors and api else "same-origin",
        }
        kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in strict]
        kept += [(name.encode(), value.encode()) for name, value in strict.items()]
        if api and not any(name.lower() == b"cache-control" for name, _ in kept):
            kept.append((b"cache-control", b"no-store"))
        return kept


class Gate:
    """Lets requests in that have the token they need, and stops those that are too large or take too long."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.tokens = Tokens(settings.token, settings.read_token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        form = scope["method"] == "POST" and path_of(scope) in UPLOADS
        limit = self.settings.max_bytes + FORM_BYTES if form else JSON_BYTES
        refusal = self.refusal(scope, limit)
        if refusal is not None:
            await answer(send, refusal)
            return
        exchange = Exchange(receive, send, limit, weigh=not form)
        with move_on_after(self.settings.request_seconds) as time_limit, contextlib.suppress(TooLarge):
            await self.app(scope, exchange.receive, exchange.send)
        if time_limit.cancelled_caught:
            seconds = f"{self.settings.request_seconds:g}"
            exchange.refusal = ApiError(504, "timeout", f"The request was not done within {seconds} s.", _CLOSE)
        if exchange.refusal is not None and not exchange.started:
            await answer(send, exchange.refusal)

    def refusal(self, scope: Scope, limit: int) -> ApiError | None:
        """Why a request is not let in, by its head alone."""
        # Browsers send a form of another site's page without asking; pages that may ask (CORS) are known by origin.
        if scope["method"] not in ASKING and b"cross-site" in values_of(scope, b"sec-fetch-site"):
            origins = {origin.decode("latin-1") for origin in values_of(scope, b"origin")}
            if not origins or origins - set(self.settings.cors):
                return ApiError(403, "forbidden", "Pages of other sites may not use this service.", _CLOSE)
        refusal = self.tokens.refusal(scope["method"], path_of(scope), values_of(scope, b"authorization"))
        if refusal is not None:
            return refusal
        for length in values_of(scope, b"content-length"):
            if not length.isdigit() or len(length) > 18:
                return ApiError(400, "bad_request", "The Content-Length is no number.", _CLOSE)
            if int(length) > limit:
                return _too_large(limit)
        return None


class TooLarge(Exception):
    """Raised to whoever reads a body that is larger than it may be."""


class Exchange:
    """One request's messages: counts the body, and keeps back what a route makes of one that was cut off.

    Args:
        receive: the next message of the client.
        send: a message to the client.
        limit: bytes of the body.
        weigh: whether the body is JSON, which is looked at as a whole before anybody parses it.

    Attributes:
        refusal: what to answer in its place.
        started: whether the response has begun.
    """

    def __init__(self, receive: Receive, send: Send, limit: int, *, weigh: bool) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._body: bytearray | None = bytearray() if weigh else None
        self._read = 0
        self.refusal: ApiError | None = None
        self.started = False

    async def receive(self) -> Message:
        """The next message of the client."""
        if self.refusal is None:
            message = await self._receive()
            self._read += len(message.get("body") or b"")
            if self._read > self._limit:
                self.refusal = _too_large(self._limit)
            elif not self._too_heavy(message):
                return message
        raise TooLarge

    def _too_heavy(self, message: Message) -> bool:
        if self._body is not None and message["type"] == "http.request":
            self._body += message.get("body") or b""
            if not message.get("more_body") and heavy(bytes(self._body)):
                self.refusal = ApiError(400, "bad_request", "The request's JSON has far too many parts.", _CLOSE)
        return self.refusal is not None

    async def send(self, message: Message) -> None:
        """A message to the client."""
        if self.refusal is not None and not self.started:
            return
        self.started = True
        await self._send(message)


async def answer(send: Send, error: ApiError) -> None:
    """Send a refusal as the whole response."""
    body = error.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


_CLOSE = {"connection": "close"}  # the rest of the body is not waited for


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "too_large", f"The request's body has more than {limit:,} bytes.", _CLOSE)


def path_of(scope: Scope) -> str:
    """The path that the routes are looked up by: behind a proxy, what follows the root path."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    rest = path[len(root) :]
    return rest if root and path.startswith(root) and rest[:1] in ("", "/") else path


def values_of(scope: Scope, name: bytes) -> list[bytes]:
    """The values of a request's header, one for each time that it was sent."""
    return [value for key, value in scope["headers"] if key.lower() == name]
