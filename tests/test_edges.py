"""The numerics of `edges`: filters against plain formulas, drawings of shapes whose borders are known, icons."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from isthmus.data.icons import draw_icon, icon_pairs
from isthmus.errors import IsthmusError
from isthmus.translate.base import Samples, choose
from isthmus.translate.edges import EdgeSettings, EdgeTranslator
from isthmus.translate.fill import enclosed, fill_silhouette, nesting, ray_votes
from isthmus.translate.ink import Placement, ink_lines, outline
from isthmus.translate.lines import Look, along_flow, difference_of_gaussians, draw, ridges, tangent_flow
from isthmus.translate.look import survey
from isthmus.translate.saliency import guided_filter, lab, saliency

Mask = NDArray[np.bool_]


def disc(size: int = 128, radius: int = 40, centre: tuple[int, int] = (64, 64)) -> Mask:
    y, x = np.mgrid[0:size, 0:size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def photo(mask: Mask) -> NDArray[np.uint8]:
    return np.where(mask[..., None], (200, 60, 40), (90, 150, 90)).astype(np.uint8)


def test_difference_of_gaussians_is_the_formula() -> None:
    grey = np.random.default_rng(0).random((20, 24)).astype(np.float32)
    padded = np.pad(grey.astype(np.float64), 20, mode="edge")
    y, x = np.mgrid[-20:21, -20:21]

    def blurred(sigma: float, i: int, j: int) -> float:
        reach = int(3 * sigma + 0.5)
        kernel = np.exp(-(y**2 + x**2) / (2 * sigma**2)) * (np.maximum(abs(y), abs(x)) <= reach)
        return float((padded[i : i + 41, j : j + 41] * kernel).sum() / kernel.sum())

    result = difference_of_gaussians(grey, 1.5, weight=0.9)
    for i, j in ((0, 0), (10, 12), (19, 23), (5, 17)):
        assert result[i, j] == pytest.approx(blurred(1.5, i, j) - 0.9 * blurred(2.4, i, j), abs=1e-5)


def test_lab_of_known_colours() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255], [119, 119, 119]]], dtype=np.uint8)
    expected = [(0, 0, 0), (100, 0, 0), (53.24, 80.09, 67.20), (32.30, 79.19, -107.86), (50.03, 0, 0)]
    assert np.abs(lab(colours)[0] - expected).max() < 1.0


def test_guided_filter_keeps_edges_and_removes_noise() -> None:
    rng = np.random.default_rng(0)
    step = np.where(np.arange(64) < 32, 0.0, 1.0).astype(np.float32)[None].repeat(64, 0)
    noisy = (step + rng.normal(0, 0.05, step.shape)).astype(np.float32)
    smooth = guided_filter(noisy, noisy, 4, 0.02)
    flat = np.abs(np.arange(64) - 31.5) > 6
    assert (smooth - step)[:, flat].std() < 0.4 * (noisy - step)[:, flat].std()
    assert (smooth[:, 33] - smooth[:, 30]).mean() > 0.8


def test_tangents_run_along_edges_and_flow_closes_gaps() -> None:
    image = (disc().astype(np.float32) * 50).astype(np.float32)
    strength, tx, ty, coherence = tangent_flow([ndimage.gaussian_filter(image, 1)], 2.0)
    y, x = np.nonzero(strength > 0.5 * strength.max())
    radial = np.stack([y - 64, x - 64]) / np.hypot(y - 64, x - 64)
    assert np.abs(ty[y, x] * radial[0] + tx[y, x] * radial[1]).max() < 0.15
    assert coherence[y, x].min() > 0.8
    line = np.zeros((32, 64), dtype=np.float32)
    line[16] = 1
    line[16, 30:33] = 0
    along = along_flow(line, np.ones_like(line), np.zeros_like(line), 8)
    assert along[16, 31] > 0.4 and along[10].max() == 0


def test_ridges_are_one_pixel_wide() -> None:
    y = np.arange(40, dtype=np.float32)[:, None].repeat(50, 1)
    strength = np.exp(-((y - 20) ** 2) / 8)
    found = ridges(strength, np.ones_like(strength), np.zeros_like(strength))
    assert (found.sum(0) == 1).all() and found[20].all()


def test_a_shape_gives_one_closed_contour_at_its_border() -> None:
    square = np.zeros((128, 128), dtype=bool)
    square[40:90, 36:92] = True
    for shape in (square, disc(radius=30)):
        ink = draw(photo(shape), Look(ink=20)) < 128
        border = shape & ~ndimage.binary_erosion(shape)
        assert ndimage.distance_transform_edt(~border)[ink].max() < 4
        assert ndimage.distance_transform_edt(~ink)[border].max() < 4
        filled = ndimage.binary_fill_holes(ink)
        assert (filled & shape).sum() > 0.97 * shape.sum()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_stays_blank(level: int) -> None:
    plain = np.full((64, 96, 3), level, dtype=np.uint8)
    assert (draw(plain, Look()) == 255).all()
    noise = np.random.default_rng(0).integers(0, 4, plain.shape)
    assert (draw(np.clip(plain.astype(int) + noise, 0, 255).astype(np.uint8), Look()) == 255).all()


def test_texture_behind_the_object_is_left_out() -> None:
    rng = np.random.default_rng(1)
    picture = photo(disc(256, 60, (128, 128))).astype(float)
    picture[~disc(256, 60, (128, 128))] += rng.normal(0, 18, (256 * 256, 1))[: (~disc(256, 60, (128, 128))).sum()]
    ink = draw(np.clip(picture, 0, 255).astype(np.uint8), Look(ink=3)) < 128
    near = ndimage.binary_dilation(disc(256, 60, (128, 128)), iterations=12)
    assert ink[near].sum() > 4 * ink[~near].sum()


def test_saliency_finds_the_object_also_at_the_border() -> None:
    for centre in ((64, 64), (100, 64)):
        shape = disc(radius=34, centre=centre)
        found = saliency(lab(photo(shape)))
        assert found[shape].mean() > 3 * found[~shape].mean()
    assert saliency(lab(np.full((40, 60, 3), 90, dtype=np.uint8))).max() == 0


def test_strokes_have_the_width_asked_for_and_fit_the_sheet() -> None:
    thin = np.zeros((200, 200), dtype=bool)
    thin[80, 60:120] = True
    for width in (1.5, 2.5, 6.0):
        drawn = 1 - ink_lines(thin, width)[:, 70:110].astype(float) / 255
        assert drawn.sum(0).mean() == pytest.approx(width, abs=0.4)
    thin[80:140, 60] = True
    ink = ink_lines(thin, 2.5, Placement(fit=0.8)) < 128
    _, columns = np.nonzero(ink)
    assert (np.ptp(columns) + 1) / 200 == pytest.approx(0.8, abs=0.03)
    assert columns.min() + columns.max() == pytest.approx(199, abs=3)
    assert not ink[0].any() and not ink[:, 0].any()
    assert (ink_lines(thin, 2.5, Placement(wobble=0.02, seed=1)) != ink_lines(thin, 2.5)).any()


def test_nesting_and_enclosure() -> None:
    ring = disc(radius=50) & ~disc(radius=46)
    inner = disc(radius=20) & ~disc(radius=16)
    depth = nesting(ring | inner)
    assert [int(depth[64, x]) for x in (0, 16, 30, 46, 64)] == [0, 1, 2, 3, 4]
    assert nesting(np.zeros((5, 5), dtype=bool)).max() == 0
    open_ring = ring.copy()
    open_ring[60:68, 64:] = False
    assert nesting(open_ring).max() == 1
    assert (enclosed(open_ring) & disc(radius=46)).sum() > 0.9 * disc(radius=46).sum()
    assert not enclosed(open_ring)[~disc(radius=54)].any()
    votes = ray_votes(ring)
    assert votes[64, 64] == 1 and votes[2, 2] < 0.5


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def test_icons_translate_into_each_other() -> None:
    fill, drawn, plain = [], [], []
    for _, filled_glyph, outline_glyph in icon_pairs()[::12]:
        filled = np.asarray(draw_icon(filled_glyph, 64)) < 128
        lines = np.asarray(draw_icon(outline_glyph, 64)) < 128
        fill.append(iou(fill_silhouette(lines) < 128, filled))
        drawn.append(iou(outline(filled, 4.7) < 128, lines))
        plain.append(iou(lines, filled))
    # Measured on all pairs: .85 and .74; an icon and its counterpart as they are: .55.
    assert np.mean(fill) > 0.82 and np.mean(drawn) > 0.70 and np.mean(plain) < 0.60


def icons(style: int) -> list[Image.Image]:
    return [draw_icon(pair[style], 64).convert("RGB") for pair in icon_pairs()[::60]]


def test_direction_and_look_are_chosen_from_the_data() -> None:
    photos = [Image.fromarray(photo(disc(radius=r))) for r in range(20, 50, 3)]
    sketches = [Image.fromarray(draw(photo(disc(radius=r)), Look(stroke=0.02))) for r in range(20, 50, 3)]
    for source, target, direction in (
        (photos, sketches, "lines"),
        (sketches, photos, "shade"),
        (icons(1), icons(2), "outline"),
        (icons(2), icons(1), "fill"),
        (photos, [], "lines"),
        (sketches, [], "shade"),
    ):
        choice = choose("edges", {}, Samples(source, target, "there"))
        assert choice.settings["direction"] == direction and direction in choice.notes[0]
        assert choose("edges", choice.settings, Samples()).settings == choice.settings
    look = survey(sketches)
    assert look.kind == "lines" and look.stroke == pytest.approx(0.02, abs=0.004)
    assert survey(icons(1)).thick > survey(icons(2)).thick
    with pytest.raises(IsthmusError, match="neither domain is line drawings"):
        choose("edges", {}, Samples(photos, photos))
    with pytest.raises(IsthmusError, match="direction"):
        choose("edges", {}, Samples())


@pytest.mark.parametrize("direction", ["lines", "shade", "fill", "outline"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (640, 400), (33, 32)])
def test_any_size_and_only_the_seed_matters(direction: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    translator = EdgeTranslator(EdgeSettings.model_validate({"direction": direction, "fit": 0.8}))
    first, second = translator.translate([image, image], [1, 2], [None, None])
    assert first is not None and second is not None
    assert max(first.size) == min(256, max(size))
    (again,) = translator.translate([image], [1], ["cat"])
    assert again is not None and again.tobytes() == first.tobytes()
