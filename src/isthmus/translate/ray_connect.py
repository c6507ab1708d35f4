"""To a Ray cluster and back: one sentence where it can't be reached, and none of Ray's own noise."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError, need_extra
from isthmus.translate.pool import environment

if TYPE_CHECKING:
    from isthmus.translate.ray_pool import Cluster

REACH = 5.0  # seconds for a connection to the cluster's port
STORE = 100 * 2**20  # bytes of Ray's shared memory: only names and notes travel
SHORT = 30  # characters of a temporary folder's path: sockets will lie far below it, and theirs are limited
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # RFC 9113: preface and an empty SETTINGS frame
SETTINGS_FRAME = 4
SILENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Under `uv run` Ray would upload the working directory and install packages.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# Ray protects a cluster by a token, for which it would leave a file in the home folder. One that lives and dies with
# this process needs no file.
_token = secrets.token_hex(32)


@contextlib.contextmanager
def connected(address: str, workers: int | None = None) -> Iterator[Cluster]:
    """`reached`, as what translates. `workers`: how many actors; None: as many as fit."""
    if workers == 0:
        raise IsthmusError("--workers 0 leaves Ray nothing to work with: leave it out, or give it a number of workers.")
    with reached(address) as found:
        from isthmus.translate.ray_pool import Cluster

        yield Cluster(found, workers)


@contextlib.contextmanager
def reached(address: str) -> Iterator[str]:
    """A connection to Ray for the length of the block; one that the process has already is used and left alone.

    Args:
        address: `auto` (the cluster of this machine, or of RAY_ADDRESS), `local` (a cluster of this machine alone, for
            the length of the block), `host:port`, or `ray://host:port`.

    Returns:
        The address; of `auto`, what RAY_ADDRESS says.

    Raises:
        IsthmusError: no Ray, a bad address, or nobody there.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    local = address == "local"
    if address not in ("auto", "local") and not re.fullmatch(r"(ray://)?[^/\s]+:\d{1,5}", address):
        raise IsthmusError(f"--ray {address}: it is auto, local, host:port or ray://host:port.")
    with environment({**SILENCE, **(_token_of_its_own() if local else {})}), contextlib.ExitStack() as stack:
        try:
            ray = importlib.import_module("ray")
            importlib.import_module("ray.data")
        except ImportError:
            raise need_extra("ray", "ray[data]") from None
        if not ray.is_initialized():
            options: dict[str, Any] = {}
            if local:
                place = tempfile.gettempdir()
                scratch = tempfile.mkdtemp(prefix="ray-", dir=place if len(place) < SHORT else "/tmp")
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
                options = {"_temp_dir": scratch, "include_dashboard": False, "object_store_memory": STORE}
            elif address != "auto":
                _knock(address)
            stack.enter_context(_mute_reports())
            stack.callback(ray.shutdown)
            _init(ray, address, options)
        yield address


def _init(ray: Any, address: str, options: dict[str, Any]) -> None:
    main = threading.current_thread() is threading.main_thread()
    stop = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(), _deaf_to_core():
            warnings.simplefilter("ignore")
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (Exception, SystemExit) as error:
        text = str(error)
        if "token" in text.lower():
            raise IsthmusError(
                f"The Ray cluster at {address} asks for its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to "
                "the file that holds it."
            ) from error
        if address == "auto":
            raise IsthmusError(
                "No Ray cluster runs on this machine: start one with  ray start --head  or give --ray an address, or "
                "local."
            ) from error
        raise IsthmusError(f"Ray at {address} can't be used: {_first_line(text)}") from error
    finally:
        if main and stop is not None:
            signal.signal(signal.SIGTERM, stop)  # Ray takes it to leave at once


@contextlib.contextmanager
def _deaf_to_core() -> Iterator[None]:
    """Throw away what Ray's C++ core writes to standard error past Python: exceptions tell as much."""
    try:
        before = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


@contextlib.contextmanager
def _mute_reports() -> Iterator[None]:
    """Have Ray not print what its nodes report, such as a worker's death: on standard output, where JSON may go."""
    worker: Any = importlib.import_module("ray._private.worker")
    name = "print_to_stdstream"
    before = getattr(worker, name, None)
    if before is None:
        yield
        return
    setattr(worker, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(worker, name, before)


def _token_of_its_own() -> dict[str, str]:
    return {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token}


def _knock(address: str) -> None:
    """See that something which speaks Ray's protocol answers at `address`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            connection.settimeout(REACH)
            connection.sendall(HELLO)
            answer = b""
            while len(answer) < 9 and (more := connection.recv(9 - len(answer))):
                answer += more
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise IsthmusError(
            f"No Ray cluster answers at {address} ({reason}): check the address, and that the cluster runs."
        ) from error
    if len(answer) < 9 or answer[3] != SETTINGS_FRAME:
        raise IsthmusError(f"What answers at {address} is no Ray cluster: check the port (6379, or 10001 for ray://).")


@contextlib.contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without progress bars and messages on the terminal; its log files go on."""
    data = importlib.import_module("ray.data")
    context = data.DataContext.get_current()
    ours = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        # Rows come one by one, as batches are finished, not when a block of them is full.
        "target_max_block_size": 1,
    }
    before = {name: getattr(context, name) for name in ours}
    terminals = [handler for handler in logging.getLogger("ray.data").handlers if _writes_to_terminal(handler)]
    levels = [handler.level for handler in terminals]
    for handler in terminals:
        handler.setLevel(logging.CRITICAL + 1)
    for name, value in ours.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for handler, level in zip(terminals, levels, strict=True):
            handler.setLevel(level)


def _writes_to_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def explain(error: BaseException, address: str) -> IsthmusError:
    """A failure of Ray's as one sentence."""
    text = str(error)
    missing = re.search(r"No module named '([\w.]+)'", text)
    if missing:
        return IsthmusError(
            f"A node of the Ray cluster at {address} can't import {missing[1]}: install isthmus with its extras on "
            "every node, in the same version."
        )
    return IsthmusError(
        f"Ray at {address} failed ({_first_line(text)}): run the same command again, finished images are kept."
    )


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given").rstrip(".")
