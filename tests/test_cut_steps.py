"""Whole steps of CUT and FastCUT: the values of all terms and the gradients of all weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cut_reference as plain
import pytest
import torch
from cut_zoo import LAYERS, cut_method, cut_settings, weights
from torch import Tensor, nn
from training_zoo import world

from isthmus.methods import cut as method_module
from isthmus.methods.cut import Cut, _Direction
from isthmus.models.cut import Translation

RATE = 0.05  # of the plain descent in the whole steps: large, so that an update in between can't go unseen
NAMES = ("ink", "paint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("cut"), 6)


class Recorded:
    """One step of the method by plain descent, with all that the plain computation has to know."""

    def __init__(self, method: Cut, monkeypatch: pytest.MonkeyPatch, draw: tuple[int, int, int]) -> None:
        self.method = method
        self.places: list[list[Tensor]] = []
        drawn = method_module.draw_places

        def draw_places(*arguments: Any) -> list[Tensor]:
            self.places.append(drawn(*arguments))
            return list(self.places[-1])

        monkeypatch.setattr(method_module, "draw_places", draw_places)
        self.batch = method.load(method.epoch(0)[0])._replace(draw=draw)
        parts = method.model.modules()
        self.before = {name: self.split(part) for name, part in parts.items()}
        self.values: dict[str, float] = {}
        self.gradients: dict[str, list[Tensor]] = {}
        self.order: list[str] = []
        for name, terms in method.updates(self.batch):
            self.order.append(name)
            self.values |= {term: float(value) for term, value in terms.items()}
            for part in parts.values():
                part.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            touched = [other for other, part in parts.items() if any(p.grad is not None for p in part.parameters())]
            assert touched == [name]  # the other part's gradients are left alone
            assert all(p.requires_grad for p in parts["discriminator"].parameters())
            self.gradients[name] = [torch.zeros_like(p) if p.grad is None else p.grad for p in parts[name].parameters()]
            with torch.no_grad():
                for p, gradient in zip(parts[name].parameters(), self.gradients[name], strict=True):
                    p -= RATE * gradient

    def split(self, part: nn.Module) -> list[list[Tensor]]:
        """Weights of each network in it: generator and head of each direction, or its discriminator."""
        found: list[list[Tensor]] = []
        for member in part.members.values():  # type: ignore[union-attr, operator]
            networks = (member.generator, member.head) if isinstance(member, Translation) else (member,)
            found += [weights(network) for network in networks]
        return found


def expected(recorded: Recorded, mirrored: bool) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """Values and gradients of the same step by the plain implementation."""
    settings = recorded.method.config.cut
    images = [part.double() / 127.5 - 1 for part in recorded.batch.images]
    translations, judges = recorded.before["generator"], recorded.before["discriminator"]
    steps = []
    for number, side in enumerate(recorded.method.model.sides):
        network, head = translations[2 * number : 2 * number + 2]
        steps.append(
            plain.Step(
                network, head, judges[number], images[side], images[1 - side], places=recorded.places[number],
                layers=LAYERS, blocks=settings.blocks, mirrored=mirrored, temperature=settings.temperature,
            )
        )  # fmt: skip
    to = [NAMES[1 - side] for side in recorded.method.model.sides]
    terms: dict[str, Tensor] = {}
    gradients: dict[str, list[Tensor]] = {}
    flat = [p for part in judges for p in part]
    renewed = judges
    if settings.gan_weight:
        terms |= {f"discriminator/{name}": step.discriminator_loss() for name, step in zip(to, steps, strict=True)}
        found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), flat)
        gradients["discriminator"] = list(found)
        moved = iter([p.detach() - RATE * gradient for p, gradient in zip(flat, found, strict=True)])
        renewed = [[next(moved) for _ in part] for part in judges]
    made: dict[str, Tensor] = {}
    share = 0.5 if settings.identity else 1.0
    for name, step, judge in zip(to, steps, renewed, strict=True):
        if settings.gan_weight:
            made[f"adversarial/{name}"] = settings.gan_weight * step.adversarial(judge)
        if settings.nce_weight:
            made[f"patches/{name}"] = settings.nce_weight * share * step.contrast(step.source)
            if settings.identity:
                made[f"identity/{name}"] = settings.nce_weight * share * step.contrast(step.target)
    leaves = [p for part in translations for p in part]
    found = torch.autograd.grad(torch.stack(list(made.values())).sum(), leaves, allow_unused=True)
    gradients["generator"] = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True)]
    return {name: float(value) for name, value in (terms | made).items()}, gradients


FAST = {"method": "fastcut", "cut__identity": False, "cut__nce_weight": 10.0, "cut__flip_equivariance": True}


def draw_that(mirrors: bool, method: Cut) -> tuple[int, int, int]:
    images = [torch.zeros(1, 3, 32, 32)] * 2
    return next(
        (0, 0, n) for n in range(50) if _Direction(method, method.model.sides[0], images, (0, 0, n)).mirrored == mirrors
    )


@pytest.mark.parametrize(
    ("changes", "mirrored"),
    [
        ({}, False),
        ({"cut__gan_weight": 0.7, "cut__nce_weight": 2.5, "cut__temperature": 0.2}, False),
        (FAST, False),
        (FAST, True),
        (FAST | {"cut__identity": True}, True),
        ({"cut__nce_weight": 0.0, "cut__direction": "query-to-gallery"}, False),
        ({"cut__gan_weight": 0.0, "cut__direction": "gallery-to-query"}, False),
        ({"cut__identity": False, "cut__direction": "gallery-to-query"}, False),
    ],
    ids=["cut", "weights", "fastcut", "mirrored", "mirrored-identity", "no-patches", "no-gan", "no-identity"],
)
def test_a_step_has_the_plain_values_and_gradients(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], mirrored: bool
) -> None:
    method = cut_method(cut_settings(folder, cut__patches=6, **changes))
    recorded = Recorded(method, monkeypatch, draw_that(mirrored, method))
    values, gradients = expected(recorded, mirrored)
    assert list(recorded.values) == list(values) and recorded.order == list(gradients)
    for name, value in values.items():
        assert recorded.values[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
    for part, wanted in gradients.items():
        found = recorded.gradients[part]
        scale = float(torch.cat([g.flatten() for g in wanted]).norm())
        assert scale > 1e-2
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert float((a.double() - b).norm()) <= 5e-5 * scale, (part, number)
            # Each weight by itself too, so that a small layer can't hide behind a large one; a bias before a norm has
            # no gradient but rounding's.
            if float(b.norm()) > 1e-4 * scale:
                assert float((a.double() - b).norm()) <= 1e-3 * float(b.norm()), (part, number)


def test_half_of_the_steps_are_mirrored_both_directions_alike(folder: Path) -> None:
    method = cut_method(cut_settings(folder, **FAST))
    images = [torch.zeros(1, 3, 32, 32)] * 2
    seen = [[_Direction(method, side, images, (0, 0, step)).mirrored for step in range(200)] for side in (0, 1)]
    assert seen[0] == seen[1] and 70 < sum(seen[0]) < 130
    plain_cut = cut_method(cut_settings(folder))
    assert not any(_Direction(plain_cut, 0, images, (0, 0, step)).mirrored for step in range(20))


def test_places_are_new_in_each_step_and_direction(folder: Path) -> None:
    method = cut_method(cut_settings(folder))
    images = [torch.zeros(1, 3, 32, 32)] * 2

    def places(side: int, *draw: int) -> list[list[int]]:
        step = _Direction(method, side, images, draw)  # type: ignore[arg-type]
        return [part.tolist() for part in step.places]

    assert places(0, 0, 0, 0) == places(0, 0, 0, 0)
    others = [places(0, 0, 0, 0), places(1, 0, 0, 0), places(0, 1, 0, 0), places(0, 0, 1, 0), places(0, 0, 0, 1)]
    assert all(a != b for i, a in enumerate(others) for b in others[:i])
