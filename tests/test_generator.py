"""The generator of data-free retrieval: true sizes, honest seeds, all weights at work, and no giant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.models.generator import SIZES, ClassNorm, Generator


def made(noise: int = 16, size: int = 32, width: int = 8, classes: int = 0, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return Generator(noise, size, width, classes)


def noise(count: int, width: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_the_true_one(size: int) -> None:
    generator = made(size=size)
    images = generator(noise(3))
    assert images.shape == (3, 3, size, size) and images.dtype == torch.float32
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert 3 <= generator.sides[0] <= 4


def test_images_begin_with_the_contrast_of_photographs() -> None:
    for width, size in ((16, 32), (64, 64)):
        images = made(width=width, size=size)(noise(16))
        assert 0.12 < float(images.std()) < 0.35 and float(images.mean()) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("classes", [0, 5])
def test_gradients_reach_all_weights(classes: int) -> None:
    generator = made(size=40, classes=classes)
    codes = torch.arange(5).repeat(2) if classes else None
    images = generator(noise(10), codes)
    (images * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    for name, weight in generator.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name
    if classes:
        used = made(size=32, classes=classes)
        used(noise(4), torch.tensor([1, 1, 3, 3])).sum().backward()
        assert used.codes is not None and used.codes.weight.grad is not None
        assert used.codes.weight.grad.abs().sum(1).gt(0).tolist() == [False, True, False, True, False]


def test_a_seed_is_a_generator_and_two_are_two() -> None:
    z = noise(4)
    first, again, other = made(seed=1)(z), made(seed=1)(z), made(seed=2)(z)
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-2)


def test_different_noise_and_classes_make_different_images() -> None:
    images = made(noise=64, width=16)(noise(6, 64))
    apart = torch.cdist(images.flatten(1), images.flatten(1)) / images[0].numel() ** 0.5
    assert float((apart + torch.eye(6)).min()) > 0.05
    conditional = made(classes=4, width=16)
    for seed in range(20):  # stored statistics that are those of its maps
        conditional(noise(8, seed=seed), torch.arange(4).repeat(2))
    conditional.eval()
    z = noise(1).expand(4, -1)
    images = conditional(z, torch.arange(4))
    apart = torch.cdist(images.flatten(1), images.flatten(1)) / images[0].numel() ** 0.5
    assert float((apart + torch.eye(4)).min()) > 0.05
    assert torch.equal(conditional(z, torch.full((4,), 2))[0], conditional(z, torch.full((4,), 2))[3])


def test_evaluation_mode_knows_no_batch() -> None:
    generator = made()
    generator(noise(32))
    generator.eval()
    z = noise(5, seed=4)
    torch.testing.assert_close(generator(z)[1:2], generator(z[1:2]), rtol=0, atol=1e-5)


def test_a_norm_of_classes_is_a_norm_and_a_line_for_each_class() -> None:
    torch.manual_seed(0)
    norm, x, codes = ClassNorm(3, 2), torch.randn(4, 3, 5, 5), torch.tensor([0, 1, 1, 0])
    out = norm(x, codes)
    assert norm.affine is not None
    for c in range(3):
        values = x[:, c].double()
        for i, code in enumerate(codes.tolist()):
            gain, shift = float(norm.affine.weight[code, c]), float(norm.affine.weight[code, 3 + c])
            wanted = (values[i] - values.mean()) / (values.var(correction=0) + 1e-5).sqrt() * gain + shift
            torch.testing.assert_close(out[i, c].double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [32, 64, 200, 224])
def test_a_generator_is_no_giant(size: int) -> None:
    def millions(*settings: int) -> float:
        return sum(weight.numel() for weight in Generator(*settings).parameters()) / 1e6

    assert millions(1000, size, 128, 125) < 3 < 62
    assert 0.3 < millions(256, size, 64) < 0.5 and 0.8 < millions(256, size, 128) < 1


def test_the_printed_sizes_are_true() -> None:
    rows = [line.split("|")[1:-1] for line in (Generator.__doc__ or "").splitlines() if "0." in line and "|" in line]
    rows += [line.split("|")[1:-1] for line in (Generator.__doc__ or "").splitlines() if "| 1,000" in line]
    assert len(rows) == 2
    for width_of_z, *counts in rows:
        for width, count in zip((64, 96, 128), counts, strict=True):
            generator = Generator(int(width_of_z.replace(",", "")), 64, width)
            assert sum(w.numel() for w in generator.parameters()) / 1e6 == pytest.approx(float(count), abs=0.005)


def test_it_can_learn_an_image() -> None:
    torch.manual_seed(0)
    generator, z = Generator(8, 32, 16), noise(4, 8)
    wanted = torch.zeros(4, 3, 32, 32)
    wanted[:2, :, 8:24, 8:24] = 1.0
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    for _ in range(40):
        loss = (generator(z) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.02


def test_under_autocast_images_are_float32() -> None:
    generator = made(classes=3)
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(noise(4), torch.tensor([0, 1, 2, 0]))
    assert images.dtype == torch.float32 and bool(images.isfinite().all())


@pytest.mark.parametrize("size", [24, 30, 36, 232, 0])
def test_a_size_that_is_none_is_told(size: int) -> None:
    with pytest.raises(IsthmusError, match=rf"^Images of {size} pixels .* data_free.image_size .* from 32 to 224\.$"):
        Generator(8, size, 8)


def test_other_misuse_is_told() -> None:
    with pytest.raises(IsthmusError, match=r"width 6 .* data_free.width to a multiple of 4\.$"):
        Generator(8, 32, 6)
    with pytest.raises(ValueError, match="0 classes"):
        made()(noise(1), torch.tensor([0]))
    with pytest.raises(ValueError, match="3 classes"):
        made(classes=3)(noise(2))
