"""Images from strangers: what they claim to be is looked at before anything is decoded, and every refusal is told."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image, UnidentifiedImageError

from isthmus.data.images import ImageError, load_image
from isthmus.serve.errors import ApiError
from isthmus.serve.settings import ServeSettings

ACCEPTED = "PNG, JPEG, WebP, GIF, BMP or TIFF"
SCANS = 20  # a progressive JPEG has about 10; each costs a pass over the image and next to no bytes
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_STRIPS, _TILES = 273, 324  # where in the file they are
PARTS = 20_000  # each is a round of the decoder; a photo's file has some hundreds, a GIF one for each 255 bytes
GIF_PARTS = 100_000
# The others are rare, and their decoders take memory as the file says.
_TIFF = frozenset(
    ("raw", "packbits", "jpeg", "tiff_jpeg", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "tiff_ccitt")
)


@dataclass(frozen=True)
class Format:
    """What a file is by its first bytes.

    Attributes:
        name: Pillow's name.
        suffix: for a file of it.
    """

    name: str
    suffix: str


def format_of(data: bytes) -> Format | None:
    """The format that the first bytes say; None for anything that isn't accepted.

    Example:
        >>> format_of(b"GIF89a").suffix, format_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
        ('.gif', None)
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format("PNG", ".png")
    if data.startswith(b"\xff\xd8\xff"):
        return Format("JPEG", ".jpg")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Format("WEBP", ".webp")
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Format("GIF", ".gif")
    if data.startswith((b"II*\0", b"MM\0*")):
        return Format("TIFF", ".tif")
    return Format("BMP", ".bmp") if data.startswith(b"BM") else None


def read_image(data: bytes, settings: ServeSettings) -> Image.Image:
    """Decode an uploaded image, as the catalog's images are decoded.

    Args:
        data: the bytes of the file; its name and what the client calls it are never looked at.
        settings: `max_bytes` and `max_pixels`.

    Returns:
        8-bit RGB, upright, without metadata; of an animation the first frame.

    Raises:
        ApiError: 413 `too_large` (bytes, or pixels by the header), 415 `bad_type`, 400 `bad_image` (empty, damaged or
            cut short).

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (3, 2)).save(buffer, "PNG")
        >>> read_image(buffer.getvalue(), ServeSettings()).size
        (3, 2)
    """
    if len(data) > settings.max_bytes:
        raise ApiError(413, "too_large", f"The image has {len(data):,} bytes; {settings.max_bytes:,} is the limit.")
    if not data:
        raise ApiError(400, "bad_image", "The image is empty (0 bytes); send the whole file.")
    known = format_of(data)
    if known is None:
        raise ApiError(415, "bad_type", f"The file is {_looks_like(data)}; send {ACCEPTED}.")
    if count_parts(data, known.name) > (GIF_PARTS if known.name == "GIF" else PARTS):
        raise ApiError(413, "too_large", f"The {known.name} is made of far too many parts; save it again.")
    pixels = _claim(data, known, settings.max_pixels)
    if known.name == "JPEG" and data.count(b"\xff\xda") * pixels > SCANS * settings.max_pixels:
        raise ApiError(413, "too_large", "The JPEG is stored in far too many passes; save it again, not progressive.")
    try:
        return load_image(data, max_pixels=settings.max_pixels)
    except ImageError as error:
        raise ApiError(400, "bad_image", _sentence(str(error))) from None


def _claim(data: bytes, known: Format, most: int) -> int:
    """The pixels that the header claims, within the limit."""
    try:
        with Image.open(io.BytesIO(data), formats=[known.name]) as image:
            sides = [image.size]
            if known.name == "TIFF":
                # A tile is decoded whole, however small the image is that is cut from it.
                tags = getattr(image, "tag_v2", {})
                sides.append((int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0))))
                if image.info.get("compression", "raw") not in _TIFF:
                    raise ApiError(415, "bad_type", f"The TIFF is compressed in a rare way; send {ACCEPTED}.")
    except ApiError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, met before ours could be
        count = re.search(r"\d+", str(error))
        sides = [(int(count[0]) if count else most + 1, 1)]
    except UnidentifiedImageError:
        raise ApiError(
            400, "bad_image", f"The file begins like a {known.name} and is none, or its start is damaged; send it anew."
        ) from None
    except Exception:  # a header meets its parser with whatever that trips over
        raise ApiError(400, "bad_image", f"The header of the {known.name} is damaged; send the file anew.") from None
    claimed = max(width * height for width, height in sides)
    if claimed > most:
        raise ApiError(413, "too_large", f"The image claims {claimed:,} pixels; {most:,} is the limit, send less.")
    return claimed


def count_parts(data: bytes, name: str) -> int:
    """Parts of a PNG, a TIFF's pixels, a JPEG's head or a GIF's first frame that a decoder goes through one by one.

    Counting stops soon beyond the limits, and where the file makes no sense: its decoder will say so.

    Example:
        >>> count_parts(b"\xff\xd8" + b"\xff" * 50_000, "JPEG") > PARTS
        True
    """
    if name == "TIFF":
        return _strips(data)
    place, parts, size = {"PNG": 8, "JPEG": 2, "GIF": 13}.get(name, len(data)), 0, len(data)
    if name == "GIF" and size > 10 and data[10] & 0x80:
        place += 3 << ((data[10] & 7) + 1)  # the colours
    while place + 4 <= size and parts <= GIF_PARTS:
        parts += 1
        if name == "PNG":
            place += 12 + int.from_bytes(data[place : place + 4], "big")
        elif name == "JPEG":
            mark = data[place + 1]
            if data[place] != 0xFF or mark == 0xFF:  # what lies between segments is read byte by byte
                place += 1
            elif mark == 0xDA:
                break
            elif mark == 0 or mark == 1 or 0xD0 <= mark <= 0xD9:
                place += 2
            else:
                place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        elif data[place] == 0x21:  # an extension: blocks, the last of them empty
            place += 2
            while place < size and data[place] and parts <= GIF_PARTS:
                parts, place = parts + 1, place + 1 + data[place]
            place += 1
        elif data[place] == 0x2C:
            # The end of the first picture is looked for, to know whether there is another.
            place += 10 + (3 << ((data[place + 9] & 7) + 1) if place + 9 < size and data[place + 9] & 0x80 else 0) + 1
            while place < size and data[place] and parts <= GIF_PARTS:
                parts, place = parts + 1, place + 1 + data[place]
            break
        else:
            place += 1
    return parts


def _strips(data: bytes) -> int:
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    place = int.from_bytes(data[4:8], order)
    entries = [
        data[at : at + 12]
        for at in range(place + 2, place + 2 + 12 * int.from_bytes(data[place : place + 2], order), 12)
    ]
    counted = [entry[4:8] for entry in entries if int.from_bytes(entry[:2], order) in (_STRIPS, _TILES)]
    return max((int.from_bytes(count, order) for count in counted), default=0)


def _looks_like(data: bytes) -> str:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
    if head.startswith(b"%pdf"):
        return "a PDF, which is never opened here"
    if b"<svg" in head:
        return "an SVG, which is never opened here"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<script", b"<head", b"<body")):
        return "a document with markup and no image"
    return "of no accepted image format"


def _sentence(text: str) -> str:
    # The decoder speaks of files in general; here it is always this one.
    text = text.replace("the image given as bytes", "The image").replace("fetch it again or remove it", "send it anew")
    return " ".join(text.split())[:400]
