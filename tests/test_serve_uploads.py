"""Uploads: sound images come out as the decoder makes them, everything else is a refusal that says why."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from isthmus.data.images import load_image
from isthmus.serve.errors import ApiError
from isthmus.serve.settings import ServeSettings
from isthmus.serve.uploads import format_of, read_image

SETTINGS = ServeSettings(max_bytes=100_000, max_pixels=20_000)
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


@functools.cache
def file(form: str, size: tuple[int, int] = (40, 30), seed: int = 0, **options: Any) -> bytes:
    """A file of random colours."""
    image = Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def refusal(data: bytes, limits: ServeSettings = SETTINGS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_image(data, limits)
    error = caught.value
    assert error.reason.endswith((".", "!")) and "\n" not in error.reason and len(error.reason) < 500, error.reason
    assert (error.status, error.code) in {(400, "bad_image"), (413, "too_large"), (415, "bad_type")}
    return error


@pytest.mark.parametrize("form", FORMATS)
def test_each_accepted_format_is_decoded_as_everywhere(form: str) -> None:
    data = file(form)
    image = read_image(data, SETTINGS)
    assert (image.mode, image.size, image.info) == ("RGB", (40, 30), {})
    assert image.tobytes() == load_image(data).tobytes()
    found = format_of(data)
    assert found is not None and (found.name, found.suffix) == (form, FORMATS[form])


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert read_image(buffer.getvalue(), SETTINGS).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "SVG"),
        (b"<!DOCTYPE html><html><body><img src=x onerror=alert(1)></body></html>", "markup"),
        (b"%PDF-1.7\n1 0 obj\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no accepted"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "no accepted"),
        (b"P6 2 2 255\n" + bytes(12), "no accepted"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "no accepted"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "no accepted"),
        (b"PK\x03\x04" + bytes(40), "no accepted"),
        (b"\0\0\1\0\1\0\x10\x10" + bytes(40), "no accepted"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "no accepted"),
        (b"II+\0\x08\0\0\0" + bytes(40), "no accepted"),
        (b"GIF8", "no accepted"),
        (b" " + file("PNG"), "no accepted"),
    ],
)
def test_other_types_are_refused_by_their_content(data: bytes, says: str) -> None:
    error = refusal(data)
    assert error.code == "bad_type" and says in error.reason and "PNG, JPEG" in error.reason


def test_bytes_are_counted_first() -> None:
    data = file("BMP", (200, 200))
    assert refusal(data).code == "too_large"
    assert refusal(b"<svg/>" + bytes(100_000)).code == "too_large"
    assert refusal(b"").code == "bad_image"


def test_the_pixel_limit_is_exact() -> None:
    data = file("PNG", (100, 200), compress_level=1)
    assert read_image(data, SETTINGS).size == (100, 200)
    assert refusal(data, ServeSettings(max_pixels=19_999)).code == "too_large"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, rows: int) -> bytes:
    body = zlib.compress(bytes(rows), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int, int], body: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; tags are (number, type, value)."""
    entries = b"".join(
        struct.pack("<HHI", number, kind, 1) + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for number, kind, value in sorted(tags)
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + body


def grey(width: int, height: int, compression: int = 1, *more: tuple[int, int, int]) -> bytes:
    base = ((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (277, 3, 1))
    return tiff(*base, *more, body=bytes(200))


BOMBS = {
    "png": png_claiming(30_000, 30_000, 90_000),
    "png, beyond Pillow's limit": png_claiming(2**31 - 1, 2**31 - 1, 10),
    "gif": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\x01\0\0;",
    "gif, whose frame is larger than its screen": b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\x3f\xff\x3f\0\x08\x01\0\0;",
    "webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\x3e\0" * 2,
    "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 9**5, 9**5, 1, 24, *[0] * 6),
    "tiff": grey(60_000, 60_000, 1, (273, 4, 200), (278, 4, 60_000), (279, 4, 10)),
    "tiff of one tile": grey(10, 10, 8, (322, 4, 40_000), (323, 4, 40_000), (324, 4, 200), (325, 4, 10)),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: Any, **__: Any) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("isthmus.serve.uploads.load_image", decoded)
    error = refusal(BOMBS[name], ServeSettings(max_pixels=4_000_000))
    # A header may also be too wrong to be read; what matters is that nothing was decoded.
    assert error.code == "too_large" or (name == "webp" and error.code == "bad_image"), error.reason


def test_a_jpeg_of_endless_passes_is_refused() -> None:
    data = file("JPEG", (100, 100), progressive=True)
    assert read_image(data, SETTINGS).size == (100, 100)
    last = data.rindex(b"\xff\xda")
    many = data[:-2] + data[last:-2] * 60 + data[-2:]
    assert refusal(many, ServeSettings(max_pixels=20_000)).code == "too_large"


def test_compressed_text_does_not_unfold() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * 3_000_000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=info)
    assert refusal(buffer.getvalue()).code == "bad_image"


def test_a_rare_compression_is_refused() -> None:
    data = grey(10, 10, 34925, (273, 4, 200), (278, 4, 10), (279, 4, 10))
    assert refusal(data).code in ("bad_type", "bad_image")


@settings(max_examples=120, deadline=None)
@given(form=st.sampled_from(sorted(FORMATS)), share=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2))
def test_a_file_cut_short_is_refused_or_whole(form: str, share: float, seed: int) -> None:
    data = file(form, seed=seed)
    whole = load_image(data).tobytes()
    try:
        image = read_image(data[: int(share * len(data))], SETTINGS)
    except ApiError as error:
        assert error.code in ("bad_image", "bad_type")
    else:  # only what lies behind the last pixel may be lacking
        assert image.tobytes() == whole


@pytest.mark.parametrize("form", FORMATS)
def test_half_a_file_is_refused(form: str) -> None:
    data = file(form)
    assert refusal(data[: len(data) // 2]).code == "bad_image"


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"]
    ),
    rest=st.binary(max_size=300),
)
def test_random_bytes_never_do_more_than_be_refused(start: bytes, rest: bytes) -> None:
    try:
        image = read_image(start + rest, SETTINGS)
    except ApiError as error:
        assert error.status in (400, 413, 415) and error.reason
    else:
        assert image.mode == "RGB" and image.size[0] * image.size[1] <= SETTINGS.max_pixels


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(sorted(FORMATS)),
    hits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_file_never_does_more_than_be_refused(form: str, hits: list[tuple[float, int]]) -> None:
    data = bytearray(file(form))
    for place, value in hits:
        data[int(place * place * len(data))] = value  # the header is hit more often than the pixels
    try:
        image = read_image(bytes(data), SETTINGS)
    except ApiError as error:
        assert error.status in (400, 413, 415)
    else:
        assert image.mode == "RGB" and image.size[0] * image.size[1] <= SETTINGS.max_pixels
