"""Sources, reduced decoding, folders and handles of the decoder."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import images_zoo as zoo
import numpy as np
import pytest
from PIL import Image

from isthmus.data.images import ImageError, content_hash, decode_image, list_images, load_image, show_name
from isthmus.errors import IsthmusError


def test_all_sources_give_the_same_pixels(tmp_path: Path) -> None:
    path = zoo.plain(tmp_path, "a.jpg")
    expected = np.asarray(Image.open(path).convert("RGB"))
    with path.open("rb") as file:
        assert np.array_equal(load_image(file), expected)
        assert not file.closed
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert np.array_equal(load_image(source), expected)


def test_the_result_is_independent_of_the_source() -> None:
    source = Image.new("RGB", (4, 4), "red")
    source.info["note"] = "mine"
    result = load_image(source)
    result.putpixel((0, 0), (0, 0, 255))
    assert source.getpixel((0, 0)) == (255, 0, 0) and source.info == {"note": "mine"}


def test_min_side_decodes_jpeg_smaller_but_never_below(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((400, 240)).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    full = load_image(tmp_path / "a.jpg")
    for side, expected in ((30, (50, 30)), (31, (100, 60)), (100, (200, 120)), (121, (400, 240)), (500, (400, 240))):
        decoded = decode_image(tmp_path / "a.jpg", min_side=side)
        assert decoded.image.size == expected and decoded.size == (400, 240)
        assert min(decoded.image.size) >= min(side, 240)
        difference = np.asarray(full.resize(expected, Image.Resampling.BOX), int) - np.asarray(decoded.image, int)
        assert np.abs(difference).max() <= 6
    full.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", min_side=30).size == (400, 240)


def test_min_side_with_rotation_and_truncation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    zoo.scene(256).resize((256, 128)).save(tmp_path / "a.jpg", exif=exif)
    decoded = decode_image(tmp_path / "a.jpg", min_side=32)
    assert decoded.image.size == (32, 64) and decoded.size == (128, 256)
    with pytest.raises(IsthmusError, match="truncated"):
        load_image(zoo.truncated(tmp_path), min_side=16)
    opened = Image.open(tmp_path / "a.jpg")
    load_image(opened, min_side=32)
    assert opened.size == (256, 128)


def test_threads_decode_side_by_side(tmp_path: Path) -> None:
    sound, broken = zoo.build(tmp_path)

    def outcome(path: Path) -> bytes | str:
        try:
            return load_image(path).tobytes()
        except IsthmusError as error:
            return str(error)

    paths = (sound + broken) * 8
    expected = [outcome(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, paths)) == expected


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_no_file_stays_open(tmp_path: Path) -> None:
    sound, broken = zoo.build(tmp_path)
    gc.disable()  # a leaked handle must not be saved by a lucky collection
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            for path in sound + broken:
                with contextlib.suppress(IsthmusError):
                    load_image(path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        gc.enable()


def test_content_hash(tmp_path: Path) -> None:
    path = zoo.plain(tmp_path)
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(IsthmusError, match="does not exist"):
        content_hash(tmp_path / "none.png")


def test_list_images_is_sorted_recursive_and_leaves_out_the_hidden(tmp_path: Path) -> None:
    wanted = ["B.JPG", "a.png", "a/z.webp", "b/c/d.jpeg", "b/x y.tif"]
    for name in [*wanted, ".hidden.png", "b/.cache/e.png", "notes.txt", "a/._z.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    found = list_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == sorted(wanted)


def test_list_images_follows_links_once_and_shows_dead_ones(tmp_path: Path) -> None:
    zoo.plain(tmp_path / "store", "a.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "linked").symlink_to(tmp_path / "store")
    (data / "loop").symlink_to(data)
    (data / "dead.png").symlink_to(tmp_path / "gone.png")
    assert [path.relative_to(data).as_posix() for path in list_images(data)] == ["dead.png", "linked/a.png"]


def test_list_images_of_no_folder(tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match="does not exist"):
        list_images(tmp_path / "none")
    with pytest.raises(IsthmusError, match="is a file, not a folder"):
        list_images(zoo.plain(tmp_path))


def test_odd_names_load_and_are_shown_on_one_line(tmp_path: Path) -> None:
    paths = zoo.odd_names(tmp_path)
    assert all(load_image(path).size == (64, 64) for path in paths)
    (tmp_path / "two\nlines.png").write_bytes(b"junk")
    with pytest.raises(ImageError, match=r"two\\nlines") as caught:
        load_image(tmp_path / "two\nlines.png")
    assert "\n" not in str(caught.value)
    assert show_name("ü 猫.png") == "ü 猫.png"
