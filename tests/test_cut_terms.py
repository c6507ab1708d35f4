"""The losses of CUT and FastCUT: each by itself, and what each term is for."""

from __future__ import annotations

import math
import random
from pathlib import Path

import cut_reference as plain
import pytest
import torch
from cut_zoo import cut_method, cut_settings
from PIL import Image, ImageDraw
from torch import Tensor
from training_zoo import world

from isthmus.losses import least_squares_gan, patch_nce
from isthmus.train.build import build_optimizer

RATE = 0.05  # of the plain descent in the whole steps: large, so that an update in between can't go unseen
NAMES = ("ink", "paint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("cut"), 6)


def unit(*shape: int) -> Tensor:
    x = torch.randn(*shape, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def test_patch_nce_and_its_gradient() -> None:
    torch.manual_seed(0)
    queries, keys = unit(3, 7, 5).requires_grad_(), unit(3, 7, 5).requires_grad_()
    loss, expected = patch_nce(queries, keys, 0.2), plain.patch_loss(queries, keys.detach(), 0.2)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, [queries], retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, [queries])[0])
    assert torch.autograd.grad(loss, [keys], allow_unused=True) == (None,)  # the source's patches are constants
    # Negatives come from the same image only: another order of the images changes nothing.
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(patch_nce(queries[order], keys[order], 0.2), loss)
    torch.testing.assert_close(patch_nce(queries[:1], keys[:1], 0.2), plain.patch_loss(queries[:1], keys[:1], 0.2))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_patch_nce_is_the_published_one_but_for_its_diagonal(temperature: float) -> None:
    """The public code adds exp(-10 / T) to each sum of exponentials, which are at least exp(-1 / T)."""
    torch.manual_seed(1)
    queries, keys = unit(2, 9, 4), unit(2, 9, 4)
    ours = float(patch_nce(queries, keys, temperature))
    published = float(plain.published_patch_loss(queries, keys, temperature))
    assert published == pytest.approx(ours, abs=math.exp(-9 / temperature) + 1e-12)
    if temperature > 0.1:
        assert published > ours + 1e-12  # and there it is


def test_least_squares() -> None:
    torch.manual_seed(2)
    scores = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    for real in (True, False):
        torch.testing.assert_close(least_squares_gan(scores, real=real), plain.squares(scores, float(real)))
    assert least_squares_gan(torch.ones(2, 2), real=True) == 0 and least_squares_gan(torch.zeros(3), real=False) == 0


def blobs(folder: Path, seed: int, back: tuple[int, int, int], front: tuple[int, int, int]) -> None:
    """Images of a few shapes in two colours."""
    folder.mkdir()
    for number in range(24):
        dice = random.Random(seed + number)
        image = Image.new("RGB", (40, 40), back)
        pen = ImageDraw.Draw(image)
        for _ in range(3):
            x, y, side = dice.randint(0, 30), dice.randint(0, 30), dice.randint(6, 14)
            dice.choice((pen.rectangle, pen.ellipse))((x, y, x + side, y + side), fill=front)
        image.save(folder / f"{number:02}.png")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """After 80 steps: how well translations show the shapes of their sources, and how target images change."""
    folder = tmp_path_factory.mktemp("blobs")
    blobs(folder / "ink", 0, (60, 60, 60), (230, 230, 230))
    blobs(folder / "paint", 5000, (240, 210, 80), (40, 40, 160))
    figures = {}
    for name, changes in (("both", {}), ("no-patches", {"cut__nce_weight": 0.0}), ("no-gan", {"cut__gan_weight": 0.0})):
        config = cut_settings(
            folder, seed=1, cut__width=8, cut__discriminator_width=8, cut__blocks=2, cut__layers=(0, 4, 8, 12),
            cut__patches=64, cut__patch_dim=32, cut__direction="query-to-gallery", train__batch_size=4,
            train__steps_per_epoch=80, train__lr=2e-3, train__betas=(0.5, 0.999), **changes,
        )  # fmt: skip
        method = cut_method(config, fresh=True)
        parts = method.model.modules()
        optimizers = {part: build_optimizer(config.train, module) for part, module in parts.items()}
        for plan in method.epoch(0):
            for part, terms in method.updates(method.load(plan)):
                optimizers[part].zero_grad()
                torch.stack(list(terms.values())).sum().backward()
                optimizers[part].step()
        views = [torch.stack([method.source.test_view(row) for row in rows]) for rows in method.data.train]
        source, target = (method.model.preprocessing.normalise(part) for part in views)
        with torch.no_grad():
            made, kept = (method.model.generator(0)(part) for part in (source, target))
        shapes = (source.mean(dim=1, keepdim=True) > 0).float().expand(-1, 3, -1, -1).flatten(2)
        correlation = [
            abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1]))
            for a, b in zip(shapes.flatten(0, 1), made.flatten(2).flatten(0, 1), strict=True)
        ]
        figures[name] = {"content": sum(correlation) / len(correlation), "change": float((kept - target).abs().mean())}
    return figures


def test_patch_terms_keep_the_content(learned: dict[str, dict[str, float]]) -> None:
    assert learned["no-gan"]["content"] > 0.5
    assert learned["no-gan"]["content"] > learned["no-patches"]["content"] + 0.15


def test_target_images_change_less_with_the_identity_term(learned: dict[str, dict[str, float]]) -> None:
    assert learned["both"]["change"] < 0.75 * learned["no-patches"]["change"]
