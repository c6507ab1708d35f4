"""Reading images: augmentation by seed alone, a bounded cache, order and errors of prefetching, screening, batches."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from images_zoo import truncated
from training_zoo import INK, PAINT, rows_of, settings, world

from isthmus.config import AugmentConfig
from isthmus.data import loading
from isthmus.data.images import ImageError
from isthmus.data.loading import ImageSource, prefetch, test_batches
from isthmus.data.manifest import Row
from isthmus.data.samplers import epoch_batches, local_part
from isthmus.data.screening import screen
from isthmus.data.training import read_training_data
from isthmus.data.transforms import Preprocessing, augment
from isthmus.errors import IsthmusError

test_batches.__test__ = False  # type: ignore[attr-defined]  # a function of Isthmus, no test
PLAIN = Preprocessing(24, 28, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
BUSY = AugmentConfig(crop=0.5, flip=True, brightness=0.3, contrast=0.3, saturation=0.3, grey=0.3, rotate=20.0)


def noise(seed: int = 0, side: int = 28) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, side, side), dtype=np.uint8))


@pytest.mark.parametrize("change", [AugmentConfig(), BUSY])
def test_augmentation_depends_on_the_seed_alone(change: AugmentConfig) -> None:
    pixels = noise()
    before = pixels.clone()
    first = [augment(pixels, 24, change, "bilinear", seed) for seed in range(40)]
    torch.manual_seed(5)
    np.random.default_rng(5)
    again = [augment(pixels, 24, change, "bilinear", seed) for seed in reversed(range(40))]
    assert all(torch.equal(x, y) for x, y in zip(first, reversed(again), strict=True))
    assert torch.equal(pixels, before)  # the cached image is not changed
    assert all(view.shape == (3, 24, 24) and view.dtype == torch.uint8 for view in first)
    assert len({view.numpy().tobytes() for view in first}) > 20


def test_plain_augmentation_is_a_crop_perhaps_flipped() -> None:
    pixels = noise(1)
    crops = {pixels[:, y : y + 24, x : x + 24].numpy().tobytes() for y in range(5) for x in range(5)}
    mirror = pixels.flip(-1)
    flipped = {mirror[:, y : y + 24, x : x + 24].numpy().tobytes() for y in range(5) for x in range(5)}
    seen = {augment(pixels, 24, AugmentConfig(), "bilinear", seed).numpy().tobytes() for seed in range(200)}
    assert seen <= crops | flipped and seen & crops and seen & flipped and len(seen) > 40


def test_view_depends_on_the_row_and_the_draw(tmp_path: Path) -> None:
    a, b = rows_of(INK, tmp_path, range(2))
    source = ImageSource(PLAIN, 10)
    draws = ((a, "x", 1), (a, "x", 2), (b, "x", 1), (a, "y", 1))
    views = [source.train_view(row, BUSY, name, number) for row, name, number in draws]
    assert torch.equal(views[0], source.train_view(a, BUSY, "x", 1))
    assert not any(torch.equal(views[0], other) for other in views[1:])


def test_cache_keeps_what_fits_and_gives_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(INK, tmp_path, range(4))
    large = Preprocessing(400, 400, (0.5,) * 3, (0.5,) * 3)  # 480 kB an image: two fit into one megabyte
    decoded: list[str] = []
    real = loading.load_image
    monkeypatch.setattr(loading, "load_image", lambda path, **k: (decoded.append(str(path)), real(path, **k))[1])
    source = ImageSource(large, 1)
    first = [source.pixels(row).clone() for row in rows]
    again = [source.pixels(row) for row in rows]
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert [decoded.count(row.path) for row in rows] == [1, 1, 2, 2]
    assert source._room >= 0
    none = ImageSource(large, 0)
    assert torch.equal(none.pixels(rows[0]), first[0]) and not none._cache


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_prefetch_keeps_the_order(threads: int) -> None:
    def slow(x: int) -> int:
        time.sleep(0.002 * (x % 3))
        return x * x

    assert list(prefetch(range(20), slow, threads)) == [x * x for x in range(20)]


@pytest.mark.parametrize("threads", [0, 2])
def test_prefetch_raises_where_the_work_did(threads: int) -> None:
    def work(x: int) -> int:
        if x == 5:
            raise ImageError("the fifth")
        return x

    seen = []
    with pytest.raises(ImageError, match="the fifth"):
        for value in prefetch(range(10), work, threads):
            seen.append(value)
    assert seen == [0, 1, 2, 3, 4]


def test_prefetch_works_ahead_but_not_without_bound_and_stops_when_left() -> None:
    started: list[int] = []
    before = threading.active_count()
    stream = prefetch(range(1000), lambda x: (started.append(x), x)[1], 2, ahead=3)
    assert next(stream) == 0
    time.sleep(0.05)
    assert 1 < len(started) <= 5
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before and len(started) <= 5


@pytest.mark.parametrize("threads", [0, 2])
def test_test_batches_skip_and_say_what_is_bad(tmp_path: Path, threads: int) -> None:
    rows = rows_of(INK, tmp_path / "good", range(5))
    bad = truncated(tmp_path / "bad", ".png")
    rows.insert(2, Row("ink/bad.png", str(bad), INK))
    found = list(test_batches(ImageSource(PLAIN), rows, 2, threads, on_bad="skip"))
    assert [kept for _, kept, _ in found] == [[0, 1], [3], [4, 5]]
    assert [len(views) for views, _, _ in found] == [2, 1, 2]
    assert [len(errors) for _, _, errors in found] == [0, 1, 0] and str(bad) in str(found[1][2][0])
    with pytest.raises(ImageError):
        list(test_batches(ImageSource(PLAIN), rows, 2, threads))


def test_screening_raises_or_leaves_out(tmp_path: Path) -> None:
    folder = world(tmp_path, 6)
    broken = [folder / INK / "0001.png", folder / "to_ink" / "images" / "1002.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    config = settings(folder).data
    data = read_training_data(config, synthetic=True, seed=0)
    source = ImageSource(PLAIN, 10)
    with pytest.raises(IsthmusError, match=r"2 of 24 images can't be read, the first: .*on_bad_image=skip"):
        screen(data, source, threads=1, on_bad="raise")
    said = screen(data, source, threads=1, on_bad="skip")
    assert len(said) == 2 and all(any(str(path) in line for line in said) for path in broken)
    left = {row.path for row in data.manifest()}
    assert len(left) == 22 and not left & {str(path) for path in broken}
    assert f"{PAINT}/1002.png" not in data.counterparts
    assert any("2 unreadable images are left out" in note for note in data.notes)


def test_screening_of_a_domain_with_nothing_left(tmp_path: Path) -> None:
    folder = world(tmp_path, 3)
    for path in sorted((folder / INK).iterdir())[:2]:
        path.write_bytes(b"")
    data = read_training_data(settings(folder, data__holdout=0.0).data, synthetic=True, seed=0)
    with pytest.raises(IsthmusError, match="'ink' has 1 readable training images"):
        screen(data, ImageSource(PLAIN, 10), threads=0, on_bad="skip")


@budget(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(0, 3))
def test_epoch_batches(count: int, size: int, steps: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(count, size, steps, seed=seed, epoch=epoch, name="A")
    assert batches == epoch_batches(count, size, steps, seed=seed, epoch=epoch, name="A")
    assert len(batches) == steps
    size = min(size, count)
    per_shuffle = count // size
    for batch in batches:
        assert len(batch) == size == len(set(batch)) and set(batch) <= set(range(count))
    for start in range(0, steps, per_shuffle):  # within a shuffle no image comes twice
        used = [position for batch in batches[start : start + per_shuffle] for position in batch]
        assert len(used) == len(set(used))
    longer = epoch_batches(count, size, steps + 3, seed=seed, epoch=epoch, name="A")
    assert longer[:steps] == batches


@budget(max_examples=50, deadline=None)
@given(st.integers(40, 90), st.integers(2, 32))
def test_epochs_seeds_and_sets_are_shuffled_apart(count: int, size: int) -> None:
    def order(**change: int | str) -> list[list[int]]:
        return epoch_batches(count, size, 3, **({"seed": 0, "epoch": 0, "name": "A"} | change))  # type: ignore[arg-type]

    base = order()
    if size > 4:
        assert base != order(seed=1) and base != order(epoch=1) and base != order(name="B")


@budget(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(1, 8))
def test_parts_of_a_batch_are_equal_and_disjoint(size: int, world_size: int) -> None:
    parts = [local_part(list(range(size)), rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    joined = [position for part in parts for position in part]
    assert joined == list(range(len(joined))) and size - len(joined) < world_size
