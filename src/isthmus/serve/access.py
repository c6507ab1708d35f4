"""Who may do what: tokens compared in constant time, and the names that this machine goes by."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Literal

from isthmus.serve.errors import ApiError

# POST, because a query is long; nothing that others see is changed by them.
QUESTIONS = frozenset(["/api/search", "/api/search/image", "/api/feedback"])
HEALTH = frozenset(["/api/health/live", "/api/health/ready"])
GUARDED = frozenset(["api", "metrics", "openapi.json", "docs", "redoc"])


class Tokens:
    """The tokens of a service; a token is compared by its hash, so that neither length nor time says anything.

    Args:
        write: needed to write, None where nothing may be written; it reads as well.
        read: needed to read, None where anybody may.
    """

    def __init__(self, write: str | None, read: str | None) -> None:
        self.write, self.read = _digest(write), _digest(read)

    def refusal(self, method: str, path: str, authorization: list[bytes]) -> ApiError | None:
        """Why a request may not come in, or None.

        Args:
            method: of the request.
            path: likewise, decoded.
            authorization: values of its Authorization headers.
        """
        need = needs(method, path)
        if need is None:
            return None
        given = _digest(_bearer(authorization))
        may_write, may_read = _same(given, self.write), _same(given, self.read)
        if need == "write" and not may_write:
            if self.write is None:
                return ApiError(403, "forbidden", "Writing is off: the service was started without a token.")
            if may_read:
                return ApiError(403, "forbidden", "This token is for reading; writing needs the other one.")
            return _no_token("Writing needs a token")
        if need == "read" and self.read is not None and not (may_read or may_write):
            return _no_token("Reading needs a token")
        return None


def needs(method: str, path: str) -> Literal["read", "write"] | None:
    """The token that a request needs: the page itself and the health checks need none.

    Example:
        >>> needs("GET", "/"), needs("POST", "/api/search"), needs("POST", "/api/items"), needs("PUT", "/api/new")
        (None, 'read', 'write', 'write')
    """
    first = next((part for part in path.split("/") if part), "")
    if first.lower() not in GUARDED or path in HEALTH:
        return None
    return "read" if method in ("GET", "HEAD", "OPTIONS") or path in QUESTIONS else "write"


class Hosts:
    """The names that a service goes by in the Host header.

    A stranger's page may have its own name point to this machine; its browser then believes that the service belongs to
    the page. The name in the Host header gives that away.

    Args:
        host: where the service listens.
        hosts: further names, without a port; `*` lets every name pass.
    """

    def __init__(self, host: str, hosts: Iterable[str] = ()) -> None:
        self.names = {_bare(name) for name in hosts}
        # Who listens everywhere goes by names that only the network knows.
        self.any = "*" in self.names or (not self.names and _bare(host) in ("0.0.0.0", "::"))
        self.names.add(_bare(host))

    def refusal(self, given: list[bytes]) -> ApiError | None:
        """Why a request with these Host headers may not come in, or None."""
        if self.any or is_local(given):
            return None
        if name_of(given) in self.names:
            return None
        reason = "The Host header names another machine; use the service's own name, or add that name to its hosts."
        return ApiError(403, "forbidden", reason)


def is_local(hosts: list[bytes]) -> bool:
    """Whether the one Host header names this machine's loopback, with any port.

    Example:
        >>> is_local([b"localhost:8765"]), is_local([b"[::1]"]), is_local([b"shop.example"])
        (True, True, False)
    """
    name = name_of(hosts)
    if name is None or name == "localhost":
        return name is not None
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def name_of(hosts: list[bytes]) -> str | None:
    """The name in the one Host header, in small letters, without port and brackets; None where it is none.

    Example:
        >>> name_of([b"Shop.Example:443"]), name_of([b"[::1]:80"]), name_of([b"a:b"]), name_of([])
        ('shop.example', '::1', None, None)
    """
    host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
    name, mark, port = host.rpartition(":")
    if not mark or "]" in port:
        name, port = host, ""
    if mark and port and not (port.isascii() and port.isdigit()):
        return None
    if name.startswith("[") != name.endswith("]") or (":" in name and not name.startswith("[")):
        return None
    return _bare(name) or None


def _bare(name: str) -> str:
    return name.strip("[]").lower()


def _no_token(what: str) -> ApiError:
    return ApiError(401, "no_token", f"{what}: send  Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})


def _bearer(values: list[bytes]) -> str | None:
    scheme, _, token = values[0].decode("latin-1").partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _digest(token: str | None) -> bytes | None:
    return None if token is None else hashlib.sha256(token.encode()).digest()


def _same(given: bytes | None, wanted: bytes | None) -> bool:
    equal = hmac.compare_digest(given or bytes(32), wanted or bytes(32))
    return equal and given is not None and wanted is not None
