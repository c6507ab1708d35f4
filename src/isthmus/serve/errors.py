"""What goes wrong over HTTP: a status, a code for programs and one sentence for people."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from isthmus.errors import IsthmusError

log = logging.getLogger("isthmus.serve")
_PLACE = re.compile(r"(?:^|[\s'\"(=])(?:/[^\s/]|[A-Za-z]:\\|\w+://)")


class ApiError(Exception):
    """A refusal that the client is told: `{"error": {"code": code, "reason": reason}}` with this status.

    Attributes:
        status: of the response, 400 or more.
        code: a short word for programs, such as `bad_filter`.
        reason: one sentence for people, without anything secret.
        headers: further headers of the response.

    Example:
        >>> ApiError(404, "no_item", "The catalog has no such item.").body()
        b'{"error": {"code": "no_item", "reason": "The catalog has no such item."}}'
    """

    def __init__(self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason = status, code, reason
        self.headers: dict[str, str] = dict(headers or {})

    def body(self) -> bytes:
        """The response's body. Half a surrogate pair, which JSON may hold and UTF-8 may not, becomes a `?`."""
        reason = self.reason.encode("utf-8", "replace").decode()
        return json.dumps({"error": {"code": self.code, "reason": reason}}, ensure_ascii=False).encode()


class Reason(BaseModel):
    """What went wrong: `code` is for programs, `reason` one sentence for people."""

    code: str
    reason: str


class Refusal(BaseModel):
    """Every answer of 400 and above."""

    error: Reason


MEANINGS = {
    400: "The request is wrong: `bad_request`, `bad_filter` or `bad_image`",
    401: "A token is needed, or this one is wrong: `no_token`",
    403: "Not allowed, with whatever token: `forbidden`",
    404: "There is none: `no_item` or `not_found`",
    405: "Not asked with that method: `method_not_allowed`",
    409: "Something else changed at the same time, or there is no room: `conflict`",
    410: "The image file is gone or another by now: `image_gone`",
    413: "Too many bytes, pixels or parts: `too_large`",
    415: "No accepted image format: `bad_type`",
    429: "Too much is waiting; come again after the seconds in Retry-After: `busy`",
    503: "The service is stopping, or its catalog can't be read: `not_ready`",
    504: "It was not done in time: `timeout`",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may refuse, for its description; any may say that the request is strange, or that there is a hurry.

    Example:
        >>> sorted(refusals(404))
        [400, 401, 403, 404, 413, 429, 503, 504]
    """
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, 401, 403, 413, 429, 503, 504, *statuses}):
        described[status] = {"model": Refusal, "description": MEANINGS[status]}
    after = {"schema": {"type": "integer", "minimum": 0}, "description": "seconds"}
    described[429]["headers"] = {"Retry-After": after}
    return described


def busy(what: str, seconds: int = 1) -> ApiError:
    """429: more is waiting than may wait; try again after `seconds`."""
    return ApiError(429, "busy", f"{what}; try again in {seconds} s.", {"Retry-After": str(seconds)})


def from_isthmus(error: IsthmusError, place: str) -> ApiError:
    """What the catalog refused, for a client who must not learn where things are on the server's disk.

    Args:
        error: what was raised.
        place: of the catalog.

    Returns:
        409 `conflict` where another process wrote at the same time or put in another model, 503 `not_ready` where the
        sentence is about the catalog or a file of the server (it goes to the log instead), else 400 `bad_request` with
        the sentence.
    """
    text = str(error)
    if "at the same time" in text and place in text:
        reason = "Another process changed the catalog at the same time; send the same again, nothing is lost."
        return ApiError(409, "conflict", reason)
    if "of another model since" in text:
        reason = "The catalog is of another model by now, so nothing was written; the service has to be started anew."
        return ApiError(409, "conflict", reason)
    if place in text or _PLACE.search(text):
        log.error("%s", text)
        return ApiError(503, "not_ready", "The catalog can't do that at the moment; the server's log says why.")
    return ApiError(400, "bad_request", text)


def sentence_of_errors(errors: Sequence[Any]) -> str:
    """The first thing that pydantic found wrong, and where; what was sent is not repeated.

    Example:
        >>> sentence_of_errors([{"loc": ("body", "k"), "msg": "Input should be greater than 0"}])
        'k: Input should be greater than 0.'
    """
    first = errors[0]
    place: list[str] = []
    for piece in first["loc"]:
        text = _shown(str(piece))
        # A union names the sort beside the field of the same name; "body" says nothing.
        if text != "body" and (not place or place[-1] != text) and "[" not in text:
            place.append(text)
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    if "UploadFile" in said:
        said = "send a file, with a name"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{'.'.join(place)}: {said}{more}." if place else f"{said[:1].upper()}{said[1:]}{more}."


def _shown(name: str) -> str:
    # The name of a field may be the client's own: of any length, with line breaks.
    return "".join(sign if sign.isprintable() else "?" for sign in name[:80])


def from_validation(errors: Sequence[Any]) -> ApiError:
    """What pydantic found wrong in a request: 400, `bad_filter` where it is about the filter, else `bad_request`."""
    about_filter = bool(errors) and "where" in errors[0]["loc"]
    return ApiError(400, "bad_filter" if about_filter else "bad_request", sentence_of_errors(errors))
