"""The networks of CUT against a plain implementation that shares no code with them."""

from __future__ import annotations

import cut_reference as plain
import pytest
import torch
from cut_zoo import LAYERS, enlarge, weights
from torch import nn

from isthmus.models.cut_networks import (
    Discriminator,
    Downsample,
    Generator,
    PatchHead,
    Upsample,
    draw_places,
    mirror_places,
)

WIDTH, BLOCKS = 4, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def generator(blocks: int = BLOCKS) -> Generator:
    made = enlarge(Generator(WIDTH, blocks)).double()
    assert isinstance(made, Generator)
    return made


def images(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (6, 5)])
def test_sampling_filters(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    down, up = Downsample(3).double()(x), Upsample(3).double()(x)
    assert down.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2)) and up.shape[2:] == (2 * size[0], 2 * size[1])
    torch.testing.assert_close(down, plain.halve(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(up, plain.double(x), atol=1e-12, rtol=0)
    # A flat image stays as it is, at the borders too; a chequered one is grey, not one of its two colours.
    flat = torch.full((1, 1, *size), 0.7)
    for layer in (Downsample(1), Upsample(1)):
        torch.testing.assert_close(layer(flat), torch.full_like(layer(flat), 0.7))
    chequered = ((torch.arange(size[0])[:, None] + torch.arange(size[1])[None]) % 2).float()[None, None]
    torch.testing.assert_close(Downsample(1)(chequered), torch.full_like(down[:1, :1], 0.5).float())
    assert not list(Downsample(2).parameters()) and not Downsample(2).state_dict() and not Upsample(2).state_dict()


def test_generator_and_each_of_its_layers() -> None:
    network, x = generator(), images()
    maps = plain.generator_maps(x, weights(network), BLOCKS)
    assert len(maps) == len(network.layers)
    torch.testing.assert_close(network(x), maps[-1], atol=1e-10, rtol=0)
    assert maps[-1].shape == x.shape and float(maps[-1].abs().max()) <= 1 and float(maps[-1].std()) > 0.1
    inner = x
    for number, layer in enumerate(network.layers):
        inner = layer(inner.clone())
        torch.testing.assert_close(inner, maps[number], atol=1e-10, rtol=0, msg=lambda text, n=number: f"{n}: {text}")
        if number < 12 + BLOCKS:
            assert network.map_sides(number, 32, 48) == tuple(inner.shape[2:]), number
            assert network.channels(number) == inner.shape[1], number


def test_the_papers_layers() -> None:
    """Their names in the paper's settings, at its size: padded image, two convolutions, first and fifth block."""
    network = Generator(64, 9)
    sides = [(*network.map_sides(number, 256, 256), network.channels(number)) for number in LAYERS]
    assert sides == [(262, 262, 3), (256, 256, 128), (128, 128, 256), (64, 64, 256), (64, 64, 256)]
    kinds = [type(network.layers[number]).__name__ for number in LAYERS]
    assert kinds == ["ReflectionPad2d", "Conv2d", "Conv2d", "ResidualBlock", "ResidualBlock"]
    assert sum(p.numel() for p in network.parameters()) == 11_378_179  # as the public code's resnet_9blocks
    assert sum(p.numel() for p in Discriminator(64).parameters()) == 2_764_737  # its PatchGAN with three layers


@pytest.mark.parametrize("wanted", [LAYERS, (0,), (2, 3, 5, 9, 13), (16,)])
def test_patches_on_the_way(wanted: tuple[int, ...]) -> None:
    network, x = generator(), images()
    places = draw_places(network, wanted, (32, 48), 20, torch.Generator().manual_seed(1))
    maps = plain.generator_maps(x, weights(network), BLOCKS)
    made, found = network.with_patches(x, wanted, places)
    assert made is not None
    torch.testing.assert_close(made, network(x))
    stopped, again = network.with_patches(x, wanted, places, decode=False)
    assert stopped is None and len(found) == len(again) == len(wanted)
    for number, at, part, other in zip(wanted, places, found, again, strict=True):
        assert part.shape == (2, 20, network.channels(number)) and torch.equal(part, other)
        torch.testing.assert_close(part, plain.patches(maps[number], at), atol=1e-10, rtol=0)


def test_encoding_alone_runs_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    network = generator()
    ran: list[int] = []
    for number, layer in enumerate(network.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    network.with_patches(images(), (4, 8), [torch.arange(3)] * 2, decode=False)
    assert ran == list(range(9))


def test_places_are_drawn_without_repeats_over_the_whole_map() -> None:
    network = generator()
    size = (16, 24)
    places = draw_places(network, LAYERS, size, 256, torch.Generator().manual_seed(3))
    sides = [network.map_sides(number, *size) for number in LAYERS]
    assert [len(part) for part in places] == [256, 256, 96, 24, 24]  # small maps give all their places
    for part, (tall, wide) in zip(places, sides, strict=True):
        assert len(part.unique()) == len(part) and int(part.min()) >= 0 and int(part.max()) < tall * wide
    assert sorted(places[3].tolist()) == list(range(24)) and not torch.equal(places[3], places[4])
    # Every place is as likely as any other.
    draw = torch.Generator().manual_seed(4)
    counts = torch.stack(
        [torch.bincount(draw_places(network, (12,), size, 6, draw)[0], minlength=24) for _ in range(800)]
    ).sum(dim=0)
    assert int(counts.sum()) == 4800 and int(counts.min()) > 140 and int(counts.max()) < 260
    again = draw_places(network, LAYERS, size, 256, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(places, again, strict=True))


def test_mirrored_places_show_the_same_content() -> None:
    network = generator()
    size = (32, 48)
    places = draw_places(network, LAYERS, size, 30, torch.Generator().manual_seed(5))
    mirrored = mirror_places(network, LAYERS, size, places)
    for number, at, other in zip(LAYERS, places, mirrored, strict=True):
        x = torch.randn(1, 2, *network.map_sides(number, *size))
        assert torch.equal(plain.patches(x.flip(3), other), plain.patches(x, at))
    back = mirror_places(network, LAYERS, size, mirrored)
    assert all(torch.equal(a, b) for a, b in zip(places, back, strict=True))


def test_head() -> None:
    head = enlarge(PatchHead([3, 8], 6))
    parts = [torch.randn(2, 5, 3), torch.randn(2, 7, 8)]
    expected = plain.project([part.double() for part in parts], weights(head))
    for found, part in zip(head(parts), expected, strict=True):
        torch.testing.assert_close(found.double(), part, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:2]))
    with torch.autocast("cpu", torch.bfloat16):
        half = head(parts)
    assert all(part.dtype == torch.float32 for part in half)
    torch.testing.assert_close(half[0].norm(dim=-1), torch.ones(2, 5))  # unit length in float32, not in bfloat16


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (64, 64)])
def test_discriminator(size: tuple[int, int]) -> None:
    judge = enlarge(Discriminator(WIDTH)).double()
    x = images(2, *size)
    scores = judge(x)
    assert scores.shape == (2, 1, size[0] // 8 - 2, size[1] // 8 - 2)
    torch.testing.assert_close(scores, plain.discriminate(x, weights(judge)), atol=1e-10, rtol=0)
    # An image's scores are its own: others of the batch don't change them.
    torch.testing.assert_close(judge(x[1:]), scores[1:])


def test_fresh_weights_are_xaviers_with_gain_0_02() -> None:
    for network in (Generator(16, 2), Discriminator(16), PatchHead([64], 256)):
        for part in network.modules():
            if not isinstance(part, nn.Conv2d | nn.Linear):
                continue
            area = part.weight[0, 0].numel() if part.weight.ndim == 4 else 1
            fans = (part.weight.shape[0] + part.weight.shape[1]) * area
            assert part.bias is not None and not part.bias.any()
            if part.weight.numel() > 1000:
                assert float(part.weight.std()) == pytest.approx(0.02 * (2 / fans) ** 0.5, rel=0.1)
                assert abs(float(part.weight.mean())) < 0.2 * float(part.weight.std())
