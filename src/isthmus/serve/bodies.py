"""JSON from strangers: weighed before it is parsed, so that no body keeps the service from its other requests."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from isthmus.serve.errors import ApiError, from_validation

M = TypeVar("M", bound=BaseModel)
# The largest drawing has 50,000 points of two numbers, and 2,000 lines of three fields.
MOST = {b"[": 60_000, b"{": 10_000, b",": 200_000, b":": 20_000}
# One that is never closed goes to the end: every quote begins a match, so that nothing is gone through twice.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)


def json_text(model: str) -> dict[str, Any]:
    """For the description of a form's field: a text that is JSON of this model."""
    return {"contentMediaType": "application/json", "contentSchema": {"$ref": f"#/components/schemas/{model}"}}


def heavy(text: bytes) -> bool:
    """Whether JSON has so many lists, objects or fields that reading it would take seconds; strings don't count.

    Example:
        >>> heavy(b'{"points": [[1, 2]]}'), heavy(b"[" + b"[]," * 100_000 + b"0]")
        (False, True)
    """
    if all(text.count(sign) <= most for sign, most in MOST.items()):
        return False
    bare = _STRING.sub(b"", text)
    return any(bare.count(sign) > most for sign, most in MOST.items())


def read_field(model: type[M], text: str) -> M:
    """A form's field of JSON as a model.

    Raises:
        ApiError: 400 `bad_request` or `bad_filter`.
    """
    if heavy(text.encode("utf-8", "replace")):
        raise ApiError(400, "bad_request", "The field's JSON has far too many parts.")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False, include_input=False)) from None
