"""What the tests of the page share: the service in a thread, a pen, a look at what is shown and sent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

CHROMIUM = Path("/usr/bin/chromium")
# Files come by the clipboard or by a drag; the browser lets a test make the event itself.
GIVE = """([bytes, type, kind]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "x", { type }));
    const init = { bubbles: true, cancelable: true };
    const event = kind === "drop"
      ? new DragEvent(kind, { ...init, dataTransfer: data })
      : new ClipboardEvent(kind, { ...init, clipboardData: data });
    document.body.dispatchEvent(event);
}"""
# A finger draws a line while the palm lies on the canvas.
TOUCH = """() => {
    const canvas = document.getElementById("canvas"), box = canvas.getBoundingClientRect();
    const send = (type, x, y, id) => canvas.dispatchEvent(new PointerEvent(type, {
      pointerType: "touch", pointerId: id, button: 0, buttons: 1, bubbles: true,
      clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
    canvas.setPointerCapture = () => {};
    send("pointerdown", 0.2, 0.2, 7);
    send("pointerdown", 0.9, 0.9, 8);
    send("pointermove", 0.7, 0.7, 7);
    send("pointerup", 0.7, 0.7, 7);
}"""


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a free port of this machine; yields its address."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(20)


def stroke(page: Any, *points: tuple[float, float]) -> None:
    """Draw with the mouse; points as shares of the canvas."""
    box = page.locator("#canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def says(page: Any, text: str, where: str = "#status") -> None:
    page.locator(where, has_text=text).wait_for()


def until(page: Any, expression: str, seconds: float = 8.0) -> None:
    """Wait until JavaScript is true. The browser's own waiting evaluates it anew in the page, which its CSP forbids."""
    limit = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < limit, expression
        page.wait_for_timeout(20)


def titles(page: Any) -> list[str]:
    return page.locator(".hit .title").all_inner_texts()


def searches(page: Any) -> list[dict[str, Any]]:
    """The bodies of the searches that the page sends from now on."""
    bodies: list[dict[str, Any]] = []
    page.on("request", lambda asked: bodies.append(asked.post_data_json) if asked.url.endswith("/api/search") else None)
    return bodies
