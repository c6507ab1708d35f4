"""The application: routes over one engine, and every error as JSON."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from isthmus import __version__
from isthmus.errors import IsthmusError
from isthmus.serve import routes_catalog, routes_feedback, routes_items, routes_page, routes_search
from isthmus.serve.described import describe
from isthmus.serve.engine import Engine
from isthmus.serve.errors import ApiError, from_isthmus, from_validation
from isthmus.serve.metrics import Counting
from isthmus.serve.security import path_of, protect

log = logging.getLogger("isthmus.serve")
CODES = {
    400: "bad_request",
    401: "no_token",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "bad_type",
    422: "bad_request",
}
REASONS = {
    404: "There is nothing at this address; /api/openapi.json lists what there is.",
    405: "This address is not asked with that method; /api/openapi.json lists what there is.",
}


def create_app(engine: Engine) -> FastAPI:
    """The application over an engine, which it closes when it stops.

    Example:
        >>> app = create_app(Engine(Catalog.open("catalog"), ServeSettings()))              # doctest: +SKIP
        >>> uvicorn.run(app)                                                                # doctest: +SKIP
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.close()

    app = FastAPI(
        title="Isthmus",
        version=__version__,
        description="Cross-domain image retrieval: a drawing finds the photograph.",
        lifespan=lifespan,
        redirect_slashes=False,
        # Their pages load scripts from elsewhere; the description itself is enough for tools.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.engine = engine
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(Exception)(_unexpected)

    @app.exception_handler(IsthmusError)
    async def refused(request: Request, error: IsthmusError) -> Response:
        return _answer(from_isthmus(error, engine.catalog.path))

    for module in (routes_search, routes_catalog, routes_items, routes_feedback, routes_page):
        app.include_router(module.router(engine))
    describe(app, engine.settings)
    protect(app, engine.settings)
    app.add_middleware(Counting, metrics=engine.metrics)  # the last is the outermost: it counts refusals too
    return app


def _answer(error: ApiError) -> Response:
    return Response(error.body(), error.status, {**error.headers}, "application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answer(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = 400 if error.status_code == 422 else error.status_code
    reason = REASONS.get(status, str(error.detail))
    code = CODES.get(status, "bad_request" if status < 500 else "internal")
    headers = dict(error.headers or {})
    calls = request.app.openapi()["paths"].get(path_of(request.scope), {})
    if status == 405 and calls:  # the framework names those of the first route at this address only
        headers["Allow"] = ", ".join(sorted(map(str.upper, calls)))
    return _answer(ApiError(status, code, reason, headers))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if errors and tuple(errors[0]["loc"]) == ("body",) and isinstance(errors[0].get("input"), bytes):
        return _answer(ApiError(400, "bad_request", "Send JSON, and say so: Content-Type: application/json."))
    return _answer(from_validation(errors))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("A request failed in an unexpected way.", exc_info=error)
    return _answer(ApiError(500, "internal", "This is a bug of the service; its log says more."))
