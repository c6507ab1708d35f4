"""Rows out of Ray Data, whoever makes them: begun anew where it did not get going, and through a client as well."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from isthmus.translate.ray_connect import explain

STARTS = 3  # of Ray Data, before a failure to start is one
Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Share:
    """How many actors there are, and what each takes of the cluster."""

    actors: int
    cpus: int
    gpus: float

    def say(self, address: str) -> None:
        """One line on standard error: who will do the work, and whether they have to wait for it."""
        import ray

        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        kind = "GPU" if self.gpus else "CPU"
        each = self.gpus or self.cpus
        free = float(ray.available_resources().get(kind, 0))
        text = f"Ray at {address}: {self.actors} workers with {each:g} {kind} each, {nodes} nodes"
        if free < each:
            text += f"; waiting for a free {kind}, others have them all"
        print(text, file=sys.stderr, flush=True)


def stream(address: str, make: Callable[..., Rows], *arguments: Any) -> Generator[dict[str, Any], None, None]:
    """The rows of `make(*arguments)`, which runs here, or on the cluster where this process is only a client of it.

    Args:
        address: of the cluster, for messages.
        make: a function of a module; everything travels to the cluster.

    Raises:
        IsthmusError: Ray failed.
    """
    import ray

    # Ray Data doesn't work through a client.
    if ray.util.client.ray.is_connected():
        return begun_anew(lambda: _through_client(make, *arguments), address)
    return begun_anew(lambda: make(*arguments), address)


def begun_anew(make: Callable[[], Rows], address: str) -> Generator[dict[str, Any], None, None]:
    """What `make` gives, begun anew where Ray Data did not get going.

    Drivers of one cluster share actors of Ray Data's by name, and those that start at once race to create them:
    whoever loses fails with an error that is none of the work's, and finds them there the next time.
    """
    import ray

    for start in range(STARTS):
        begun = False
        try:
            for row in make():
                begun = True
                yield row
            return
        except (ray.exceptions.RayError, ValueError) as error:
            # A name that is taken, or not there yet, is a ValueError of Ray's.
            if begun or not isinstance(error, ValueError) or start == STARTS - 1:
                raise explain(error, address) from error
            time.sleep(2.0**start)


class Foreman:
    """An actor that stands on the cluster in a client's place."""

    def __init__(self, make: Callable[..., Rows], *arguments: Any) -> None:
        self.rows = make(*arguments)

    def next(self) -> dict[str, Any] | None:
        """The next row, or None after the last."""
        return next(self.rows, None)


def _through_client(make: Callable[..., Rows], *arguments: Any) -> Rows:
    """`make` on the cluster itself, for a driver that is only a client of it."""
    import ray

    foreman = ray.remote(num_cpus=0)(Foreman).remote(make, *arguments)
    try:
        while (row := ray.get(foreman.next.remote())) is not None:
            yield row
    finally:
        with contextlib.suppress(Exception):  # where it is gone already
            ray.kill(foreman)
