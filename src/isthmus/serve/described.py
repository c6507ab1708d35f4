"""The description of the API (OpenAPI): what the framework can't know of tokens, refusals and JSON inside of forms."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from isthmus.serve.access import needs
from isthmus.serve.edits import NewItem
from isthmus.serve.routes_search import Options
from isthmus.serve.settings import ServeSettings

PLACE = "#/components/schemas/{model}"
IN_FORMS: tuple[type[BaseModel], ...] = (NewItem, Options)


def describe(app: FastAPI, settings: ServeSettings) -> None:
    """Complete the description that an application gives of itself; it is made at the first request for it.

    Args:
        app: the application.
        settings: say whether reading needs a token.
    """
    make = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = make()
            parts = found.setdefault("components", {})
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            schemas = parts.setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):  # ours are 400 and speak in one sentence
                schemas.pop(name, None)
            for model in IN_FORMS:
                schema = model.model_json_schema(ref_template=PLACE)
                schemas.update({**schema.pop("$defs", {}), **schemas, model.__name__: schema})
            for name in ("Search", "Options"):
                fields = schemas[name]["properties"]
                fields["k"]["maximum"], fields["offset"]["maximum"] = settings.max_k, settings.max_offset
            for path, calls in found["paths"].items():
                for method, call in calls.items():
                    call["responses"].pop("422", None)
                    need = needs(method.upper(), path)
                    token: list[dict[str, list[str]]] = [{"token": []}] if need is not None else [{}]
                    call["security"] = [*token, {}] if need == "read" and settings.read_token is None else token
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
