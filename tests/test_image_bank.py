"""The bank of generated images: its limit, what it gives up, its draws, its pictures, and a stop in between."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.methods.image_bank import ABSENT, GAP, PAPER, ImageBank
from isthmus.methods.jitter import Jitter
from isthmus.train.checkpoint import load_checkpoint, save_checkpoint

SIZE = 8


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bank_of(pairs: int, **settings: Any) -> ImageBank:
    """A bank with room for so many pairs exactly."""
    limit = pairs * (2 * 3 * SIZE * SIZE + 32) / 2**20
    bank = ImageBank(limit, SIZE, **settings)
    assert bank.capacity == pairs
    return bank


def numbered(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Photos whose red is their number, sketches with it in the blue, both over 255."""
    photos = torch.rand(count, 3, SIZE, SIZE, generator=dice(first))
    sketches = torch.rand(count, 3, SIZE, SIZE, generator=dice(first + 1))
    numbers = torch.arange(first, first + count)[:, None, None] / 255
    photos[:, 0], sketches[:, 2] = numbers, numbers
    return photos, sketches


def numbers_in(bank: ImageBank) -> list[int]:
    batch = bank.draw(len(bank), dice())
    photos, sketches = (batch.photos[:, 0, 0, 0] * 255).round(), (batch.sketches[:, 2, 0, 0] * 255).round()
    assert torch.equal(photos, sketches)
    assert torch.equal(batch.photo_codes, photos.long() % 5) and torch.equal(batch.sketch_codes, photos.long() % 3)
    torch.testing.assert_close(batch.confidence[:, 0], photos / 300)
    return sorted(photos.long().tolist())


def add(bank: ImageBank, first: int, count: int) -> None:
    number = torch.arange(first, first + count)
    sure = torch.stack([number / 300, number / 400], dim=1)
    bank.add(*numbered(first, count), number % 5, sketch_codes=number % 3, confidence=sure)


def test_pairs_stay_pairs_and_bytes_are_near() -> None:
    bank = bank_of(20)
    photos, sketches = numbered(0, 6)
    bank.add(photos, sketches, torch.arange(6))
    batch = bank.draw(6, dice())
    assert batch.photos.dtype == torch.float32 and batch.photos.shape == (6, 3, SIZE, SIZE)
    order = batch.photo_codes
    assert sorted(order.tolist()) == list(range(6)) and torch.equal(order, batch.sketch_codes)
    torch.testing.assert_close(batch.photos, photos[order], rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(batch.sketches, sketches[order], rtol=0, atol=0.5 / 255 + 1e-6)
    assert bool(batch.confidence.isnan().all())
    exact = (batch.photos * 255).round() / 255
    torch.testing.assert_close(batch.photos, exact, rtol=0, atol=1e-6)


def test_a_full_bank_gives_up_its_oldest() -> None:
    bank = bank_of(10)
    for first, count in ((0, 4), (4, 4), (8, 5), (13, 10), (23, 3)):
        add(bank, first, count)
        last = first + count
        assert len(bank) == min(10, last) and bank.seen == last
        assert numbers_in(bank) == list(range(max(0, last - 10), last))


def slow_reservoir(capacity: int, count: int, seed: int) -> list[int]:
    """Algorithm R, one after the other, from the same draws."""
    kept: list[int] = []
    generator = dice(seed)
    for number in range(count):
        drawn = int(torch.rand(1, generator=generator, dtype=torch.float64) * (number + 1))
        if len(kept) < capacity:
            kept.append(number)
        elif drawn < capacity:
            kept[drawn] = number
    return sorted(kept)


@pytest.mark.parametrize("step", [1, 7, 20])
def test_a_reservoir_is_algorithm_r_however_the_pairs_come(step: int) -> None:
    bank = bank_of(20, replace="reservoir", seed=3)
    for first in range(0, 140, step):
        add(bank, first, step)
    assert numbers_in(bank) == slow_reservoir(20, 140, 3)


def test_a_reservoir_is_an_even_sample() -> None:
    counts = torch.zeros(60)
    for seed in range(300):
        bank = bank_of(6, replace="reservoir", seed=seed)
        for first in range(0, 60, 6):
            bank._born.fill_(-1) if first == 0 else None
            slots, rows = bank._places(6)
            bank._born[slots] = first + rows
            bank.seen += 6
        counts += torch.bincount(bank._born, minlength=60)
    for part in counts.reshape(3, 20).sum(1).tolist():  # early, middle and late: 600 of 1,800 each
        assert abs(part - 600) < 5 * math.sqrt(1800 * 2 / 9)


def test_the_limit_is_kept() -> None:
    for limit, size in ((1, 32), (3.5, 64), (0.3, 96)):
        bank = ImageBank(limit, size)
        tensors = (bank._images, bank._codes, bank._confidence, bank._born)
        held = sum(part.numel() * part.element_size() for part in tensors)
        assert limit * 2**20 * 0.8 < held <= limit * 2**20
        assert bank._images.dtype == torch.uint8


def test_a_limit_below_a_batch_is_told_with_one_that_does() -> None:
    with pytest.raises(IsthmusError, match=r"^data_free\.bank_mb = 1 has room for 42 .* 64 px .* 256; .* to 7 or more"):
        ImageBank(1, 64, batch=256)
    assert ImageBank(7, 64, batch=256).capacity >= 256
    for limit in (0, 0.001, -3):
        with pytest.raises(IsthmusError, match="room for"):
            ImageBank(limit, 224)
    bank = bank_of(4)
    with pytest.raises(IsthmusError, match="a batch has 5"):
        add(bank, 0, 5)
    assert len(bank) == 0


def test_images_that_are_none_are_told() -> None:
    bank = bank_of(4)
    photos, sketches = numbered(0, 2)
    for broken in (math.nan, math.inf):
        spoilt = sketches.clone()
        spoilt[1, 2, 3, 3] = broken
        with pytest.raises(IsthmusError, match="NaN or an infinity; lower"):
            bank.add(photos, spoilt)
    assert len(bank) == 0
    with pytest.raises(ValueError, match="a bank of 8"):
        bank.add(photos, sketches[:1])
    with pytest.raises(ValueError, match="nothing"):
        bank.draw(1, dice())


def test_draws_come_from_the_seed_and_none_twice() -> None:
    bank = bank_of(12)
    add(bank, 0, 12)
    first, again, other = bank.draw(8, dice(1)), bank.draw(8, dice(1)), bank.draw(8, dice(2))
    assert torch.equal(first.photos, again.photos) and not torch.equal(first.photos, other.photos)
    numbers = (first.photos[:, 0, 0, 0] * 255).round().tolist()
    assert len(set(numbers)) == 8
    many = (bank.draw(30, dice(1)).photos[:, 0, 0, 0] * 255).round().long()
    assert torch.bincount(many, minlength=12).tolist().count(2) == 6  # 12 + 12 + 6: all twice, six thrice
    generator = dice(1)
    assert not torch.equal(bank.draw(8, generator).photos, bank.draw(8, generator).photos)


def test_a_bank_jitters_photo_and_sketch_each_for_itself() -> None:
    bank = bank_of(10)
    same = torch.rand(10, 3, SIZE, SIZE, generator=dice(7))
    bank.add(same, same)
    plain = bank.draw(10, dice(1), Jitter())
    assert torch.equal(plain.photos, plain.sketches)
    assert torch.equal(plain.photos, bank.draw(10, dice(1)).photos)
    batch, again = (bank.draw(10, dice(1), Jitter(2, True, 0.2, 0.2)) for _ in range(2))
    assert torch.equal(batch.photos, again.photos) and torch.equal(batch.sketches, again.sketches)
    assert bool((batch.photos - batch.sketches).flatten(1).abs().amax(1).gt(0.01).all())
    assert float(batch.photos.min()) >= 0 and float(batch.photos.max()) <= 1


def test_coverage() -> None:
    bank = bank_of(10)
    nothing = bank.coverage(3)
    assert nothing.counts.tolist() == [[0, 0, 0], [0, 0, 0]] and bool(nothing.confidence.isnan().all())
    photos, sketches = numbered(0, 5)
    sure = torch.tensor([[0.5, 0.1], [0.7, 0.2], [math.nan, 0.3], [0.9, 0.4], [0.2, 0.5]])
    bank.add(photos, sketches, torch.tensor([0, 0, 0, 2, -1]), sketch_codes=torch.tensor([1, 1, 2, 2, 7]),
             confidence=sure)  # fmt: skip
    counts, means = bank.coverage(3)
    assert counts.tolist() == [[3, 0, 1], [0, 2, 2]]
    wanted = torch.tensor([[0.6, math.nan, 0.9], [math.nan, 0.15, 0.35]])
    torch.testing.assert_close(means, wanted, equal_nan=True, rtol=0, atol=1e-6)


def test_grid_shows_the_newest_of_each_class() -> None:
    bank = bank_of(10)
    add(bank, 0, 9)
    add(bank, 9, 5)  # 4 to 13 are left
    for side, channel, modulus in (("photo", 0, 5), ("sketch", 2, 3)):
        picture = bank.grid([1, 2, 9], 3, side)  # type: ignore[arg-type]
        assert picture.shape == (3 * SIZE + 2 * GAP, 3 * SIZE + 2 * GAP, 3) and picture.dtype == torch.uint8
        for row, code in enumerate((1, 2, 9)):
            newest = [number for number in range(13, 3, -1) if number % modulus == code][:3]
            for column in range(3):
                top, left = row * (SIZE + GAP), column * (SIZE + GAP)
                cell = picture[top : top + SIZE, left : left + SIZE]
                if column < len(newest):
                    assert set(cell[..., channel].flatten().tolist()) == {newest[column]}
                else:
                    assert bool((cell == ABSENT).all())
        assert bool((picture[SIZE : SIZE + GAP] == PAPER).all())
    assert torch.equal(bank.grid([1], 1, "photo"), bank.grid([1, 2], 2, "photo")[:SIZE, :SIZE])


@pytest.mark.parametrize("replace", ["oldest", "reservoir"])
@pytest.mark.parametrize("before", [6, 17])
def test_a_stop_in_between_changes_nothing(replace: Any, before: int, tmp_path: Path) -> None:
    order = list(range(0, 40))
    random.Random(before).shuffle(order)
    whole, first, second = (bank_of(10, replace=replace, seed=9) for _ in range(3))
    for bank in (whole, first):
        for number in order[:before]:
            add(bank, number, 1)
    save_checkpoint(tmp_path / "c.pt", {"bank": first.state()})
    add(first, 50, 4)  # what comes later must not be in what was kept
    second.restore(load_checkpoint(tmp_path / "c.pt")["bank"])
    for bank in (whole, second):
        for number in order[before:]:
            add(bank, number, 1)
    one, two = whole.state(), second.state()
    for name, value in one.items():
        assert torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name], name
    a, b = whole.draw(7, dice(3), Jitter(1, True)), second.draw(7, dice(3), Jitter(1, True))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_checkpoint_is_as_large_as_what_it_holds(tmp_path: Path) -> None:
    bank = ImageBank(20, 64)
    bank.add(torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 64))
    save_checkpoint(tmp_path / "c.pt", bank.state())
    assert (tmp_path / "c.pt").stat().st_size < 4 * bank.pair_bytes + 20_000


def test_a_bank_of_another_size_is_told() -> None:
    bank = bank_of(10)
    add(bank, 0, 8)
    add(bank, 8, 8)
    with pytest.raises(IsthmusError, match=r"holds 10 pairs of 8 px, this one has room for 4 of 8 px; resume with"):
        bank_of(4).restore(bank.state())
    with pytest.raises(IsthmusError, match="resume with the settings"):
        ImageBank(1, 16).restore(bank.state())
