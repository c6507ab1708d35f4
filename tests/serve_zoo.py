"""What the tests of the service share: a tiny catalog with every kind of column, a model without weights, a client."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from catalog_tools import FakeModel, photos
from fastapi.testclient import TestClient
from PIL import Image

import isthmus.ops  # noqa: F401  brings torch, which takes seconds that no search's deadline should see
from isthmus.catalog.store import Catalog
from isthmus.serve.app import create_app
from isthmus.serve.engine import Engine
from isthmus.serve.settings import ServeSettings

ITEMS = 24
TOKEN = "a-token-to-write-with"
READ_TOKEN = "a-token-to-read-with"
WRITES = {"Authorization": f"Bearer {TOKEN}"}
READS = {"Authorization": f"Bearer {READ_TOKEN}"}
BRANDS = ("Acme", "Umbra", "O'Neil & Söhne", None)


def item_id(number: int) -> str:
    """Id of the item of that number: `photo/000.png`, ..."""
    return f"photo/{number:03}.png"


def metadata(number: int) -> dict[str, Any]:
    """Metadata of an item: a number, a text, a flag and a time, each missing here and there."""
    return {
        "price": None if number % 7 == 3 else 5.0 * number - 10,
        "brand": BRANDS[number % len(BRANDS)],
        "new": None if number % 5 == 4 else number % 2 == 0,
        "made": None if number % 6 == 5 else dt.datetime(2026, 1 + number % 12, 1 + number, 12, 30),
    }


def make_catalog(folder: Path, *, model: FakeModel | None = None, items: int = ITEMS) -> Catalog:
    """A new catalog of `items` pictures of 8 x 8 in `folder/catalog`, the pictures in `folder/photos`.

    The gallery is `photo`, the query domain `sketch`, which the model sees mirrored.
    """
    catalog = Catalog.create(folder / "catalog", model or FakeModel())
    rows = {item_id(number): metadata(number) for number in range(items)}
    catalog.add(photos(folder / "photos", items), metadata=rows, workers=0)
    return catalog


@contextlib.contextmanager
def served(catalog: Catalog, *, raises: bool = True, **settings: Any) -> Iterator[TestClient]:
    """A client of the whole application; the engine is `client.app.state.engine`.

    `raises`: what the application didn't expect is raised in the test; else it is the 500 that a client would see.
    """
    engine = Engine(catalog, ServeSettings(**settings))
    app = create_app(engine)
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=raises) as client:
        yield client


def png(image: Image.Image, format: str = "PNG") -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def query_of(catalog: Catalog, number: int, domain: str = "photo") -> Image.Image:
    """An image whose nearest item is `number` when it is searched as of this domain."""
    row = next(row for row in catalog.rows() if row["id"] == item_id(number))
    with Image.open(row["path"]) as image:
        opened = image.convert("RGB")
    return opened if domain == "photo" else opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def noise(seed: int, size: tuple[int, int] = (16, 12)) -> Image.Image:
    """A picture of random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def strokes(*lines: list[tuple[float, float]], size: tuple[int, int] = (200, 200), width: float = 4) -> dict[str, Any]:
    """A drawing as the page sends it; a cross where no lines are given."""
    chosen = lines or ([(20, 20), (180, 180)], [(180, 20), (20, 180)])
    drawn = [{"points": [list(point) for point in line], "width": width, "erase": False} for line in chosen]
    return {"width": size[0], "height": size[1], "lines": drawn}


def error_of(answer: Any, status: int, code: str) -> str:
    """The answer is this refusal, in the one form that refusals have; returns its sentence."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "reason"}, body
    assert body["error"]["code"] == code, body
    reason = body["error"]["reason"]
    assert reason and "\n" not in reason and "Traceback" not in reason, reason
    return str(reason)


class Slow(FakeModel):
    """A model that waits at a gate before each batch, and remembers the batches; `gate` is e.g. an event's `wait`."""

    def __init__(self, gate: Callable[[], Any]) -> None:
        super().__init__()
        self.gate, self.batches = gate, []  # type: ignore[var-annotated]

    def encode(self, images: Any, *, domain: str, **more: Any) -> Any:
        self.batches.append((domain, len(images)))
        self.gate()
        return super().encode(images, domain=domain, **more)
