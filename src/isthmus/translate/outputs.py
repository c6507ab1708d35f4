"""Where a counterpart lies, and what its file says about where it came from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, PngImagePlugin

from isthmus.io import atomic_write_bytes

IMAGES, FAILED = "images", "failed"
PROVENANCE = "isthmus"  # keyword of the PNG text chunk
LONGEST = 120  # of a name's part in characters: file systems allow 255 bytes


def relative_name(id: str) -> str:
    """A path without suffix for an image id: readable, safe on every file system, and different for different ids.

    Example:
        >>> relative_name("photo/dog/a 1.jpg")
        'photo/dog/a 1.jpg'
        >>> relative_name("photo/../é?.jpg")
        'photo/%2E./%C3%A9%3F.jpg'
    """
    parts = []
    for part in id.split("/"):
        name = quote(part, safe=" ()+,;=@!$&'[]{}", errors="surrogatepass") or "%"
        if name.startswith("."):  # hidden, or a way out of the folder
            name = "%2E" + name[1:]
        if len(name) > LONGEST or name != name.rstrip(" ."):
            digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
            name = f"{name[:LONGEST].rstrip(' .')}%{digest[:12]}"
        parts.append(name)
    return "/".join(parts)


def image_path(out: Path, id: str) -> Path:
    """The counterpart of image `id`."""
    return out / IMAGES / f"{relative_name(id)}.png"


def failure_path(out: Path, id: str) -> Path:
    """The note that image `id` could not be translated."""
    return out / FAILED / f"{relative_name(id)}.json"


def png_bytes(image: Image.Image, provenance: Mapping[str, Any]) -> bytes:
    """`image` as PNG with its provenance in a text chunk; equal input gives equal bytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text(PROVENANCE, json.dumps(dict(provenance), sort_keys=True, ensure_ascii=True))
    stream = io.BytesIO()
    # Level 6 takes three times as long on shaded pictures to save a few per cent.
    image.save(stream, format="PNG", pnginfo=info, compress_level=3)
    return stream.getvalue()


def write_counterpart(out: Path, id: str, image: Image.Image, provenance: Mapping[str, Any]) -> int:
    """Write a counterpart, whole or not at all, and take back an earlier note of failure; returns its bytes."""
    data = png_bytes(image, provenance)
    atomic_write_bytes(image_path(out, id), data)
    failure_path(out, id).unlink(missing_ok=True)
    return len(data)


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """What the PNG at `path` says about where it came from; None when there is no such file or it says nothing.

    Example:
        >>> read_provenance("nothing/here.png") is None
        True
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(PROVENANCE)
        value = json.loads(text) if isinstance(text, str) else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return value if isinstance(value, dict) else None
