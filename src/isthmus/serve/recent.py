"""The last searches, so that a mark (right, wrong) can be told what was searched for."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

SIDE = 512  # a network sees less than that
BYTES = 64 << 20


@dataclass(frozen=True)
class Asked:
    """One search.

    Attributes:
        image: the query as the bytes of a PNG (drawings) or JPEG file, None where it was an item.
        id: of the item that was the query, else None.
        domain: the query was searched as of this domain.
        drawn: whether it was drawn on the page.
        hits: ids of what was shown.
    """

    image: bytes | None
    id: str | None
    domain: str
    drawn: bool
    hits: frozenset[str]


class Recent:
    """Search id -> what was asked, of the last searches, in bounded memory; for use by several threads."""

    def __init__(self, limit: int = BYTES) -> None:
        self._limit, self._held = limit, 0
        self._kept: OrderedDict[str, Asked] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, search: str, asked: Asked) -> None:
        """Keep a search; the oldest go where there are too many."""
        with self._lock:
            self._kept[search] = asked
            self._held += _size(asked)
            while self._held > self._limit and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._held -= _size(old)

    def get(self, search: str) -> Asked | None:
        """What was asked, or None where it is unknown or too long ago."""
        with self._lock:
            return self._kept.get(search)

    def __len__(self) -> int:
        return len(self._kept)


def pack(image: Image.Image, *, drawn: bool) -> bytes:
    """A query as a small file: at most 512 pixels a side."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, **({"format": "PNG"} if drawn else {"format": "JPEG", "quality": 92}))
    return buffer.getvalue()


def _size(asked: Asked) -> int:
    return 500 + len(asked.image or b"") + sum(60 + len(id) for id in asked.hits)
