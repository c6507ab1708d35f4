"""All settings of the service: from a YAML file, from `--set`, tokens from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from isthmus.config.sections import sentence_of
from isthmus.errors import IsthmusError

TOKENS = {"token": "ISTHMUS_TOKEN", "read_token": "ISTHMUS_READ_TOKEN"}


class ServeSettings(BaseModel):
    """Settings of `isthmus serve`; unknown names are refused.

    Attributes:
        host: where to listen.
        port: likewise; 0 takes a free one.
        hosts: names that this service goes by beside `host` and those of loopback, such as `shop.example`, without a
            port; other names in the Host header are refused. `*`: any, and so does 0.0.0.0 where no name is given.
        token: needed to write; without one nothing can be written.
        read_token: needed to read too, where it is set. The write token reads as well.
        cors: origins such as `https://shop.example` whose pages may use the API.
        max_bytes: of a request's body.
        max_pixels: of an image that is sent.
        max_k: hits of one search.
        max_offset: hits that a search may pass over.
        request_seconds: a whole request may take.
        queue: searches that may wait; more get 429.
        batch: images that go through the model together, at most.
        batch_wait: seconds to wait for company while searches come in crowds; a lone search never waits.
        deadline: seconds after which a search that is not done gets 504.
        thumbnail_cache_mb: memory for thumbnails.
        feedback: a folder to keep marks in (right, wrong); without one they are off.
        uploads: folder for images that are added over HTTP; without one, a folder beside the catalog.
        threads: that the model computes with; 0: as torch chooses.
        precision: that the model computes in; bfloat16 is quicker where the processor has it.
        memory: how the vectors are kept in memory for quick search: auto (compare with every one, or a graph where they
            are many), flat, hnsw (extra `fast`), off (search in the table).
        memory_mb: that these vectors may take; a larger catalog is searched in its table.
        recall: wanted recall@10 of the graph.
        follow: seconds between looks for a catalog that another model has taken over (`catalog reembed`).

    Example:
        >>> ServeSettings(port=9000).max_k
        200
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    port: int = Field(8765, ge=0, le=65535)
    hosts: tuple[str, ...] = ()
    token: str | None = Field(None, repr=False)
    read_token: str | None = Field(None, repr=False)
    cors: tuple[str, ...] = ()
    max_bytes: int = Field(10 << 20, ge=1024)
    max_pixels: int = Field(40_000_000, ge=1)
    max_k: int = Field(200, ge=1, le=10_000)
    max_offset: int = Field(10_000, ge=0, le=1_000_000)
    request_seconds: float = Field(30.0, gt=0, allow_inf_nan=False)
    queue: int = Field(64, ge=1)
    batch: int = Field(16, ge=1, le=1024)
    batch_wait: float = Field(0.004, ge=0, le=1)
    deadline: float = Field(10.0, gt=0, allow_inf_nan=False)
    thumbnail_cache_mb: int = Field(64, ge=0)
    feedback: Path | None = None
    uploads: Path | None = None
    threads: int = Field(0, ge=0, le=1024)
    precision: Literal["float32", "bfloat16"] = "float32"
    memory: Literal["auto", "flat", "hnsw", "off"] = "auto"
    memory_mb: int = Field(4096, ge=1)
    recall: float = Field(0.98, gt=0, le=1)
    follow: float = Field(5.0, ge=0.01, le=3600)

    @field_validator("token", "read_token")
    @classmethod
    def _usable(cls, token: str | None) -> str | None:
        if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("a token is printable ASCII without spaces, and not empty")
        return token

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for name in hosts:
            if name != "*" and not re.fullmatch(r"[\w.-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?", name, re.ASCII):
                raise ValueError(f"{name!r} is no host's name; write one like shop.example, without scheme and port")
        return hosts

    @field_validator("cors")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, mark, rest = origin.partition("://")
            if scheme not in ("http", "https") or not mark or not rest or any(sign in rest for sign in "/*?#@ "):
                raise ValueError(f"{origin!r} is no origin; write one like https://shop.example")
        return origins

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @classmethod
    def build(cls, *layers: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> ServeSettings:
        """Settings from layers of values: a later layer overrides an earlier one, and any the environment's tokens.

        Args:
            layers: name -> value.
            environment: the process's own if None.

        Raises:
            IsthmusError: an unknown name or a value that is none; a token is never repeated in the sentence.
        """
        found = os.environ if environment is None else environment
        values: dict[str, Any] = {name: found[key] for name, key in TOKENS.items() if found.get(key)}
        for layer in layers:
            values.update(layer)
        try:
            return cls(**values)
        except ValidationError as error:
            if bad := [name for name in TOKENS if any(item["loc"][:1] == (name,) for item in error.errors())]:
                raise IsthmusError(
                    f"The setting '{bad[0]}' (or {TOKENS[bad[0]]}) is no token: use printable ASCII without spaces."
                ) from None
            raise IsthmusError(sentence_of(error)) from None
