"""Pictures of items for the page: made anew from the pixels, so that nothing else of a file ever leaves the server."""

from __future__ import annotations

import hashlib
import io
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from isthmus.data.images import ImageError, load_image
from isthmus.serve.errors import ApiError

SIZES = (96, 160, 320)
LARGE = 1600
MOST_BYTES = 512 << 20  # of a file that is read for a picture
QUALITY = 85
_ENTRY = 400  # bytes that an entry costs beside its picture
Stamp = tuple[int, int, int]
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Picture:
    """The image of an item, as the catalog has it.

    Attributes:
        path: of the file; from the catalog, never from a request.
        content: SHA-256 of its bytes when it was added, in hexadecimal.
    """

    path: str
    content: str

    def etag(self, side: int) -> str:
        """Changes with the content and the size, and with nothing else.

        Example:
            >>> Picture("/photos/a.png", "ab" * 32).etag(96)
            '"abababababababababababababababab-96"'
        """
        return f'"{self.content[:32]}-{side}"'


class Thumbnails:
    """JPEGs of items; the small ones are kept in bounded memory, the last used longest. For use by several threads.

    Args:
        limit: bytes to keep at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._kept: OrderedDict[Key, tuple[Stamp, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._large = threading.BoundedSemaphore(2)  # a decoded photo takes a hundred times its file

    def get(self, picture: Picture, side: int) -> bytes:
        """A JPEG of at most `side` pixels a side; smaller images are not enlarged.

        Args:
            picture: of an item.
            side: longest side in pixels.

        Raises:
            ApiError: 410 `image_gone` where the file is gone, can't be read, or holds other bytes than were indexed.
        """
        stamp = _stamp(picture)
        key = (picture.content, picture.path, side)
        with self._lock:
            kept = self._kept.get(key)
            # The same file with the same times: as when it was last found to be what was indexed.
            if kept is not None and kept[0] == stamp:
                self._kept.move_to_end(key)
                return kept[1]
        with self._large:
            data = render(read(picture), side)
        if side <= max(SIZES):
            self._keep(key, stamp, data)
        return data

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, key: Key, stamp: Stamp, data: bytes) -> None:
        if len(data) + _ENTRY > self.limit:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._kept[key] = (stamp, data)
            self.held += len(data) + _ENTRY - (0 if old is None else len(old[1]) + _ENTRY)
            while self.held > self.limit:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.held -= len(dropped) + _ENTRY


def read(picture: Picture) -> bytes:
    """The bytes of an item's file, which are those that were indexed, or ApiError 410."""
    try:
        data = Path(picture.path).read_bytes()
    except (OSError, ValueError):
        raise _gone() from None
    # Decoded are the very bytes that were compared: the file may be replaced at any moment.
    if hashlib.sha256(data).hexdigest() != picture.content:
        raise ApiError(410, "image_gone", "The image of this item has changed since it was indexed; index it again.")
    return data


def render(data: bytes, side: int) -> bytes:
    """The bytes of an image file as a JPEG of at most `side` pixels a side, without metadata.

    Raises:
        ApiError: 410 `image_gone` where they can't be decoded.
    """
    try:
        image = load_image(data, min_side=side)
    except ImageError:
        raise _gone() from None
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _stamp(picture: Picture) -> Stamp:
    try:
        status = Path(picture.path).stat()
    except (OSError, ValueError):
        raise _gone() from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:  # reading a pipe would wait for ever
        raise _gone()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _gone() -> ApiError:
    return ApiError(410, "image_gone", "The image of this item is gone or can't be read; synchronise the catalog.")
