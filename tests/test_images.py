"""The decoder gives the right pixels for every kind of file, or one sentence about it."""

from __future__ import annotations

import io
import os
import pickle
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import images_zoo as zoo
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from isthmus.data.images import ImageError, decode_image, load_image


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int], within: int = 0) -> None:
    """Fails unless the pixel at `place` is `colour`, to `within` in each channel."""
    assert image.mode == "RGB"
    pixel = image.getpixel(place)
    assert np.abs(np.subtract(pixel, colour)).max() <= within, f"{pixel} at {place}, expected {colour}"


def in_memory(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = load_image(zoo.transparent(tmp_path))
    near(image, (5, 5), zoo.RED)
    near(image, (50, 5), zoo.WHITE)
    near(image, (50, 63), (127, 127, 127))  # black at alpha 128: 255 - 128


@pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa"])
def test_other_alpha_modes_lie_on_white(mode: str) -> None:
    if mode in ("La", "LA"):
        source = Image.new("LA", (2, 1), (0, 0))
        source.putpixel((0, 0), (0, 255))
    else:
        source = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
        source.putpixel((0, 0), (0, 0, 0, 255))
    image = load_image(source if source.mode == mode else source.convert(mode))
    near(image, (0, 0), zoo.BLACK)
    near(image, (1, 0), zoo.WHITE)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = load_image(zoo.palette(tmp_path))
    near(image, (5, 5), zoo.RED)
    near(image, (50, 5), zoo.WHITE)


def test_palette_with_many_alphas() -> None:
    source = Image.new("P", (3, 1))
    source.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0])
    source.putdata([0, 1, 2])
    image = load_image(in_memory(source, transparency=bytes([0, 51, 255])))
    near(image, (0, 0), zoo.WHITE)
    near(image, (1, 0), (204, 204, 204))
    near(image, (2, 0), zoo.RED)


def test_transparent_colour_of_grey_and_rgb_png() -> None:
    grey = Image.new("L", (2, 1), 0)
    grey.putpixel((1, 0), 90)
    near(load_image(in_memory(grey, transparency=0)), (0, 0), zoo.WHITE)
    near(load_image(in_memory(grey, transparency=0)), (1, 0), (90, 90, 90))
    colour = Image.new("RGB", (2, 1), (1, 2, 3))
    colour.putpixel((1, 0), (1, 2, 4))
    near(load_image(in_memory(colour, transparency=(1, 2, 3))), (0, 0), zoo.WHITE)
    near(load_image(in_memory(colour, transparency=(1, 2, 3))), (1, 0), (1, 2, 4))


def test_transparent_colour_of_16_bit_png() -> None:
    source = Image.fromarray(np.array([[0, 32768]], np.uint16))
    image = load_image(in_memory(source, transparency=0))
    near(image, (0, 0), zoo.WHITE)
    near(image, (1, 0), (128, 128, 128))


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    image = load_image(zoo.grey_16_bit(tmp_path))
    near(image, (5, 5), (128, 128, 128))
    near(image, (60, 5), zoo.WHITE)


def test_dark_16_bit_grey_is_not_taken_for_8_bit() -> None:
    near(load_image(in_memory(Image.fromarray(np.full((4, 4), 200, np.uint16)))), (0, 0), (1, 1, 1))
    near(load_image(b"P5 1 1 65535\n" + bytes([0, 200])), (0, 0), (1, 1, 1))  # Pillow opens it as 32-bit integers


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_tiff_of_either_byte_order(order: str) -> None:
    values = np.array([[0, 25700, 65535]], order)
    source = Image.frombytes("I;16" if order == "<u2" else "I;16B", (3, 1), values.tobytes())
    image = load_image(in_memory(source, "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(3)] == [zoo.BLACK, (100, 100, 100), zoo.WHITE]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),  # 8 bits in a wide mode
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),  # 16 bits
        (np.array([[-1000, 0, 1000]], np.int32), [0, 128, 255]),  # neither: stretched
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),
        (np.array([[0, 51.4, 255]], np.float32), [0, 51, 255]),
        (np.array([[-2, 0, 2]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.2, 1]], np.float32), [51, 51, 255]),
    ],
)
def test_wide_greys_from_memory(values: np.ndarray, expected: list[int]) -> None:
    image = load_image(Image.fromarray(values))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == expected


def test_cmyk_red_is_red(tmp_path: Path) -> None:
    path = zoo.cmyk(tmp_path)
    assert Image.open(path).mode == "CMYK" and Image.open(path).info["adobe"] == 100
    near(load_image(path), (30, 30), zoo.RED, within=3)


def test_cmyk_black_channel() -> None:
    near(load_image(in_memory(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "TIFF")), (0, 0), zoo.BLACK)
    near(load_image(in_memory(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "TIFF")), (0, 0), zoo.WHITE)


def test_lab_and_one_bit() -> None:
    near(load_image(Image.new("LAB", (4, 4), (255, 128, 128))), (0, 0), zoo.WHITE, within=3)
    near(load_image(Image.new("1", (4, 4), 1)), (0, 0), zoo.WHITE)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    decoded = decode_image(in_memory(frames[0], form, save_all=True, append_images=frames[1:], duration=20))
    near(decoded.image, (8, 8), zoo.RED, within=4)
    assert decoded.animated


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    decoded = decode_image(zoo.rotated(tmp_path, orientation))
    expected = zoo.upright((64, 32) if orientation < 5 else (32, 64))
    assert decoded.image.size == decoded.size == expected.size
    assert np.abs(np.asarray(decoded.image, int) - np.asarray(expected, int)).max() <= 3
    with Image.open(zoo.rotated(tmp_path, orientation)) as stored:
        assert np.array_equal(np.asarray(decoded.image), np.asarray(ImageOps.exif_transpose(stored)))
    assert decoded.rotated == (orientation != 1)
    again = load_image(decoded.image)
    assert np.array_equal(np.asarray(again), np.asarray(decoded.image))


def test_damaged_exif_does_not_lose_the_image() -> None:
    data = in_memory(zoo.scene(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xffgarbage")
    assert load_image(data).size == (64, 64)


@pytest.mark.parametrize(("name", "make"), zoo.BROKEN.items())
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".bmp", ".tif", ".ppm", ".jp2"])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95])
def test_no_truncated_file_gives_half_an_image(tmp_path: Path, suffix: str, keep: float) -> None:
    with pytest.raises(ImageError, match="truncated"):
        load_image(zoo.truncated(tmp_path, suffix, keep))


def test_truncated_is_refused_though_another_library_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="incomplete"):
        load_image(zoo.truncated(tmp_path))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    path = zoo.bomb(tmp_path)
    assert path.stat().st_size < 200_000
    load_image(zoo.plain(tmp_path))  # the first image pays for Pillow's imports
    start = time.process_time()
    with pytest.raises(ImageError, match="claims 400,000,000 pixels, over the limit of 100,000,000"):
        load_image(path)
    assert time.process_time() - start < 0.2  # decoding it takes more than a second


def test_pixel_limit_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zoo.plain(tmp_path)
    with pytest.raises(ImageError, match=r"64 x 64 pixels.*limit of 4,095"):
        load_image(path, max_pixels=64 * 64 - 1)
    assert load_image(path, max_pixels=64 * 64).size == (64, 64)
    with pytest.raises(ImageError, match="limit"):
        load_image(Image.new("L", (10, 10)), max_pixels=99)
    # Pillow's own limit lies at twice this number, and gives way to a higher one of ours.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="limit"):
            load_image(path, max_pixels=1000)
        assert load_image(path, max_pixels=5000).size == (64, 64)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"none\.png does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="0 bytes"):
        load_image(b"")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="no ordinary file"):
        load_image(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="can't be read"):
        load_image("a\0b.png")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = zoo.plain(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"plain\.png may not be read"):
        load_image(path)


def test_eps_is_not_opened() -> None:
    with pytest.raises(ImageError, match="not an image in a known format"):
        load_image(in_memory(zoo.scene(), "EPS"))
