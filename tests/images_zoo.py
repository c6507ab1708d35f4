"""Every odd kind of image file, made on the spot for tests; each function returns the path it wrote."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)
ODD_NAMES = ("a name with spaces.png", "two\nlines.png", "Katze-\u00fc-\u732b-\U0001f408.png", "it's [red] #1 100%.png")


def scene(side: int = 64, seed: int = 0) -> Image.Image:
    """Coloured noise in blocks: different for each seed, nothing that compresses to nothing."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.NEAREST)


def plain(folder: Path, name: str = "plain.png", seed: int = 0, side: int = 64) -> Path:
    """A sound image in the format of its suffix."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(side, seed).save(path)
    return path


def transparent(folder: Path) -> Path:
    """RGBA PNG, 64x64: left half opaque red, right half transparent, bottom row half-transparent black."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 32, 64))
    image.paste((0, 0, 0, 128), (0, 63, 64, 64))
    return _save(image, folder / "transparent.png")


def grey_16_bit(folder: Path) -> Path:
    """16-bit grey PNG, 64x64: 32768 (mid grey) on the left, 65535 (white) on the right."""
    values = np.full((64, 64), 32768, np.uint16)
    values[:, 32:] = 65535
    return _save(Image.fromarray(values), folder / "grey16.png")


def cmyk(folder: Path) -> Path:
    """CMYK JPEG (Adobe's inverted kind, as all of them are), 64x64: red."""
    return _save(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), folder / "cmyk.jpg", quality=95)


def palette(folder: Path) -> Path:
    """Palette PNG, 64x64, one palette entry transparent: red with a transparent right half."""
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (32, 0, 64, 64))
    return _save(image, folder / "palette.png", transparency=0)


def animated(folder: Path) -> Path:
    """GIF, 64x64, three frames: red, green, blue."""
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    return _save(frames[0], folder / "animated.gif", save_all=True, append_images=frames[1:], duration=50)


def rotated(folder: Path, orientation: int = 6) -> Path:
    """JPEG stored as 64x32 with an EXIF orientation; upright (see `upright`) it is white with a red top left corner."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transposition that undoes each orientation
    picture = upright((64, 32) if orientation < 5 else (32, 64))
    stored = picture.transpose(Image.Transpose(back[orientation])) if orientation != 1 else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(stored, folder / f"rotated{orientation}.jpg", exif=exif, quality=95, subsampling=0)


def upright(size: tuple[int, int]) -> Image.Image:
    """What `rotated` shows when it is read rightly."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, 16, 16))
    return image


def truncated(folder: Path, suffix: str = ".jpg", keep: float = 0.6) -> Path:
    """The first part of a noisy image's file."""
    path = folder / f"truncated{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    _save(Image.fromarray(noise), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def zero_bytes(folder: Path) -> Path:
    """A file of no bytes."""
    path = folder / "zero.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def text_as_png(folder: Path) -> Path:
    """A text named as an image."""
    path = folder / "text.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<html>404 not found</html>\n" * 40)
    return path


def bomb(folder: Path, side: int = 20_000) -> Path:
    """A genuine, complete 1-bit PNG of side x side pixels: 50 kB on the disk, 400 million pixels."""
    path = folder / "bomb.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.compress(row * (side % 100))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data + packer.flush()), _chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def odd_names(folder: Path) -> list[Path]:
    """Sound images whose names hold spaces, a line break, other scripts and signs."""
    return [plain(folder, name, seed=seed) for seed, name in enumerate(ODD_NAMES, start=100)]


SOUND: dict[str, Callable[[Path], Path]] = {
    "plain": plain,
    "transparent": transparent,
    "grey_16_bit": grey_16_bit,
    "cmyk": cmyk,
    "palette": palette,
    "animated": animated,
    "rotated": rotated,
}
BROKEN: dict[str, Callable[[Path], Path]] = {
    "truncated_jpeg": truncated,
    "truncated_png": lambda folder: truncated(folder, ".png"),
    "zero_bytes": zero_bytes,
    "text_as_png": text_as_png,
    "bomb": bomb,
}


def build(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the whole zoo; returns (the files that must load, the files that must be refused)."""
    sound = [make(folder) for make in SOUND.values()] + odd_names(folder)
    return sound, [make(folder) for make in BROKEN.values()]


def _save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
