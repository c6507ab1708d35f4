"""`isthmus serve`: a catalog as an HTTP API and a page to draw on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.catalog_history import Storage
from isthmus.errors import IsthmusError, need_extra

if TYPE_CHECKING:
    import socket

    from isthmus.serve.settings import ServeSettings


def serve(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="The catalog.")],
    model: Annotated[str | None, typer.Option(help="The model, where it is no longer in its old place.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1: only this machine.")] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen, 8765; 0 takes a free one.", min=0)] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token to write; or ISTHMUS_TOKEN.", metavar="FILE")
    ] = None,
    read_token_file: Annotated[
        Path | None, typer.Option(help="File with the token to read; or ISTHMUS_READ_TOKEN.", metavar="FILE")
    ] = None,
    feedback: Annotated[Path | None, typer.Option(help="Folder to keep marks (right, wrong) in; else off.")] = None,
    settings: Annotated[Path | None, typer.Option(help="YAML file with settings.", metavar="FILE.yaml")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as queue=128; may be repeated.", metavar="K=V")
    ] = None,
    storage: Storage = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Listen beyond this machine without a token: everybody may search.")
    ] = False,
) -> None:
    """Serve a catalog: searches over HTTP, and a page to draw on."""
    from isthmus.cli.common import parse_settings
    from isthmus.process import wait_awake

    wait_awake()
    named: dict[str, Any] = {"host": host, "port": port, "feedback": feedback}
    named |= {"token": _token(token_file), "read_token": _token(read_token_file)}
    given = {name: value for name, value in named.items() if value is not None}
    try:
        from isthmus.serve.settings import ServeSettings
    except ImportError as error:
        raise need_extra("serve", error.name or "fastapi") from error
    chosen = ServeSettings.build(_file(settings), given, parse_settings(set_ or ()))
    refuse_open_doors(chosen, open_)
    with _listen(chosen) as listening:
        run(catalog, model, chosen, listening, storage)


def refuse_open_doors(settings: ServeSettings, open_: bool) -> None:
    """Raise where everybody who can reach this machine could search, and nobody said that they may."""
    if not settings.loopback and settings.token is None and settings.read_token is None and not open_:
        raise IsthmusError(
            f"Listening on {settings.host} lets others in: set a token (--read-token-file or --token-file), or say "
            "that everybody may search (--open)."
        )


def run(
    catalog: str, model: str | None, settings: ServeSettings, listening: socket.socket, storage: list[str] | None = None
) -> None:
    """Load, say where it listens, answer until SIGINT or SIGTERM, finish what was accepted."""
    import gc
    import logging
    import signal

    try:
        import uvicorn

        from isthmus.serve.engine import Engine
        from isthmus.serve.following import Following
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "isthmus":
            raise
        raise need_extra("serve", error.name or "fastapi") from error
    import torch

    from isthmus.catalog.storage import is_remote, read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import visible
    from isthmus.models.hub import local

    model = str(local(model)) if model is not None else None
    if settings.threads:
        torch.set_num_threads(settings.threads)
    opened = Catalog.open(catalog, model, storage_options=read_options(storage))
    if is_remote(catalog) and settings.token is not None and settings.uploads is None:
        print("Images can't be added over HTTP: say where to keep them (--set uploads=FOLDER).", file=sys.stderr)
    engine = Engine(opened, settings, model=model)
    engine.warm()
    gc.freeze()  # what is loaded by now stays: a collection need not walk through it while somebody waits
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    server = uvicorn.Server(
        uvicorn.Config(
            Following(engine),
            log_config=None,
            access_log=False,  # it would write addresses and queries
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=1024,  # connections that never finish their headers would be without end
            lifespan="on",
            timeout_graceful_shutdown=max(1, round(settings.request_seconds)),
        )
    )
    name, port = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    print(f"{visible(catalog)}: {len(opened)} items at http://{shown}:{port}/", flush=True)
    # The server stops in peace at these and then raises them once more, which would end us with an error.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise IsthmusError("The service could not start; the log above says why.")
    print("stopped", flush=True)


def _listen(settings: ServeSettings) -> socket.socket:
    import errno
    import socket

    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Without the protocol asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for the client's word.
        listening = socket.socket(family, kind, proto or socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise IsthmusError(f"There is no address {settings.host!r} to listen on ({error}); check --host.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise IsthmusError(f"Something listens on port {settings.port} already; choose another --port.") from None
        reason = error.strerror or str(error)
        raise IsthmusError(
            f"Can't listen on {settings.host}:{settings.port} ({reason}); check --host, --port."
        ) from None
    return listening


def _token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise IsthmusError(f"The token file {file} can't be read ({reason}); check the path.") from None
    if not token:
        raise IsthmusError(f"The token file {file} is empty; write the token into it.")
    return token


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise IsthmusError(f"The settings file {path} can't be read ({reason}); check the path.") from None
    except yaml.YAMLError as error:
        raise IsthmusError(
            f"The settings file {path} is no valid YAML ({' '.join(str(error).split())[:200]})."
        ) from None
    if values is not None and not (isinstance(values, dict) and all(isinstance(name, str) for name in values)):
        raise IsthmusError(f"The settings file {path} holds no settings; write lines like  queue: 128")
    return values or {}
