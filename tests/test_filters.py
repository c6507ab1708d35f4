"""Filters of a domain's images: what they draw, that the right domain gets them everywhere, that models keep them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import ihda_zoo
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage
from training_zoo import INK, NO_NORM, PAINT, draw, rows_of, settings, world

from isthmus.config import AugmentConfig
from isthmus.data import filters
from isthmus.data.filters import draw_edges, resized
from isthmus.data.images import load_image
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.models.backbones import create_backbone, preprocessing_of
from isthmus.models.encoder import Architecture, Model
from isthmus.train.trainer import Trainer

HALF = (0.5, 0.5, 0.5)
DRAWN = Preprocessing(24, 28, HALF, HALF, filters=("none", "edges"))
BILINEAR = Image.Resampling.BILINEAR


def picture(seed: int = 0, height: int = 9, width: int = 7) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def slow_edges(image: Image.Image) -> np.ndarray[Any, Any]:
    """The drawing (h, w) by the sentence that defines it, a pixel at a time."""
    pixels = np.asarray(image).astype(int)
    height, width, _ = pixels.shape
    out = np.zeros((height, width))
    for y, x in itertools.product(range(height), range(width)):
        left = []
        for channel in range(3):
            around = [
                pixels[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1), channel]
                for dy, dx in itertools.product((-1, 0, 1), repeat=2)
                if (dy, dx) != (0, 0)
            ]
            left.append(255 - min(max(8 * pixels[y, x, channel] - sum(around), 0), 255))
        out[y, x] = 0.299 * left[0] + 0.587 * left[1] + 0.114 * left[2]
    return out


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
@budget(max_examples=25, deadline=None)
def test_edges_are_what_they_say(seed: int, height: int, width: int) -> None:
    image = picture(seed, height, width)
    image = Image.blend(image, Image.new("RGB", image.size, "grey"), 0.8)  # so that few values are clipped
    drawn = np.asarray(draw_edges(image))
    assert drawn.shape == (height, width, 3) and (drawn == drawn[..., :1]).all()
    np.testing.assert_allclose(drawn[..., 0], slow_edges(image), atol=0.51)


def test_edges_as_libraries_draw_them() -> None:
    image = load_image(Image.fromarray(ndimage.zoom(np.asarray(picture(3, 12, 10)), (4, 4, 1), order=1)))
    ours = np.asarray(draw_edges(image))[..., 0]
    public = Image.fromarray(255 - np.asarray(image.filter(ImageFilter.FIND_EDGES))).convert("L")
    np.testing.assert_array_equal(ours[1:-1, 1:-1], np.asarray(public)[1:-1, 1:-1])
    assert (np.asarray(public)[0] != ours[0]).mean() > 0.5  # there Pillow leaves the photo
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 8
    ink = [ndimage.convolve(np.asarray(image)[..., c].astype(float), kernel, mode="nearest") for c in range(3)]
    paper = [255 - np.clip(plane, 0, 255) for plane in ink]
    np.testing.assert_allclose(ours, 0.299 * paper[0] + 0.587 * paper[1] + 0.114 * paper[2], atol=0.51)


def test_edges_are_dark_lines_on_white() -> None:
    shape = Image.new("RGB", (60, 60), "white")
    ImageDraw.Draw(shape).rectangle((15, 15, 44, 44), fill="navy")
    drawn = np.asarray(draw_edges(shape))[..., 0]
    ring = np.zeros((60, 60), bool)
    ring[14:46, 14:46] = True
    ring[15:45, 15:45] = False
    assert (drawn[ring] < 80).mean() > 0.95 and (drawn[~ring] == 255).all()
    assert (np.asarray(draw_edges(Image.new("RGB", (5, 4), "maroon"))) == 255).all()  # no frame either


def test_the_drawing_does_not_depend_on_the_camera() -> None:
    """Drawn at the network's size, a large photo has lines as dark as a small one; drawn before, they fade."""
    small = draw(7, PAINT, 96)
    large = small.resize((960, 960), Image.Resampling.BICUBIC)
    ink = [
        255 - np.asarray(resized(image, (96, 96), BILINEAR, "edges"))[..., 0].astype(int) for image in (small, large)
    ]
    faded = 255 - np.asarray(draw_edges(large).resize((96, 96), BILINEAR))[..., 0].astype(int)
    assert ink[1].sum() > 0.5 * ink[0].sum() and faded.sum() < 0.2 * ink[0].sum()


def test_grey_is_luminance_in_three_channels() -> None:
    image = Image.fromarray(ndimage.zoom(np.asarray(picture(5)), (9, 9, 1), order=1))
    grey = np.asarray(resized(image, (20, 30), BILINEAR, "grey"))
    assert grey.shape == (30, 20, 3) and (grey == grey[..., :1]).all()
    coloured = np.asarray(image.resize((20, 30), BILINEAR, reducing_gap=2.0)).astype(float)
    np.testing.assert_allclose(grey[..., 0], coloured @ [0.299, 0.587, 0.114], atol=2)
    plain = np.asarray(resized(image, (20, 30), BILINEAR))
    assert np.array_equal(plain, coloured) and not (plain == plain[..., :1]).all()


@pytest.mark.parametrize("name", ["gray", "", "edge"])
def test_unknown_filters(name: str) -> None:
    says = r"^There is no filter '.*'; choose none, grey or edges\.$"
    with pytest.raises(IsthmusError, match=says):
        resized(picture(), (8, 8), BILINEAR, name)
    with pytest.raises(IsthmusError, match=says):
        Preprocessing(24, 28, HALF, HALF, filters=("none", name))


def test_a_source_filters_by_domain_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = rows_of(PAINT, tmp_path, [4])[0]
    sketch = Row("ink/4", photo.path, INK)  # the same file in both domains
    shop = Row("shop/4", photo.path, "shop")
    drawings: list[int] = []
    source = ImageSource(DRAWN, 10, DRAWN.filters_of([INK, PAINT, "shop"]))
    plain, drawn = (DRAWN.pixels(load_image(photo.path), name) for name in ("none", "edges"))
    monkeypatch.setattr(filters, "draw_edges", lambda image: (drawings.append(1), draw_edges(image))[1])
    for _ in range(3):
        for row in (sketch, photo, shop):
            assert torch.equal(source.pixels(row), plain if row is sketch else drawn)
    assert drawings == [1]  # the cache holds what the filter made
    assert not torch.equal(source.pixels(sketch), source.pixels(photo))
    still = AugmentConfig(flip=False)
    same = ImageSource(Preprocessing(28, 28, HALF, HALF, filters=("none", "edges")), 1, {INK: "none", PAINT: "edges"})
    assert torch.equal(same.train_view(photo, still, 1), same.test_view(photo))
    assert not torch.equal(same.train_view(sketch, still, 1), same.train_view(photo, still, 1))


def test_a_source_that_does_not_know_whose_filter_it_is(tmp_path: Path) -> None:
    photo = rows_of(PAINT, tmp_path, [4])[0]
    with pytest.raises(IsthmusError, match="filters of their own"):
        ImageSource(DRAWN)
    with pytest.raises(IsthmusError, match=r"of domain 'paint', not of ink and photo"):
        ImageSource(DRAWN, 0, DRAWN.filters_of([INK, "photo"])).pixels(photo)
    both = Preprocessing(24, 28, HALF, HALF, filters=("grey", "grey"))
    assert bool((ImageSource(both).pixels(photo)[0] == ImageSource(both).pixels(photo)[2]).all())
    assert DRAWN.filters_of(["a", "b", "b", "a", "c"]) == {"a": "none", "b": "edges", "c": "edges"}


def test_training_filters_each_domain_its_own_way(tmp_path: Path) -> None:
    config = settings(world(tmp_path, 8, val=2), model__query_filter="grey", model__gallery_filter="edges")
    trainer = Trainer(config, tmp_path / "run")
    want = {INK: "grey", PAINT: "edges"}
    rows = trainer.data.rows()
    assert {row.source_id is None for row in rows} == {True, False}  # counterparts take the filter of their look
    for row in rows:
        view = trainer.model.preprocessing.pixels(load_image(row.path), want[row.domain])
        assert torch.equal(trainer.source.pixels(row), view), row
        assert torch.equal(trainer.source.test_view(row), trainer.model.preprocessing.crop(view))
    seen: list[torch.Tensor] = []
    real = trainer.source.pixels
    trainer.source.pixels = lambda row: (seen.append(real(row)), seen[-1])[1]  # type: ignore[method-assign]
    trainer.method.load(next(iter(trainer.method.epoch(0))))
    assert seen and all(bool((pixels[0] == pixels[1]).all()) for pixels in seen)  # nothing coloured reaches a step


def test_the_source_is_filtered_as_the_gallery(tmp_path: Path) -> None:
    folder = ihda_zoo.world(tmp_path, 4, 4)
    changes = {"model__image_size": "48x24", "model__gallery_filter": "edges"}
    trainer = Trainer(ihda_zoo.settings(folder, **changes), tmp_path / "run")
    assert {row.domain for row in trainer.data.rows()} == {INK, PAINT, ihda_zoo.SHOP}
    for row in trainer.data.rows():
        view = trainer.model.preprocessing.pixels(load_image(row.path), "none" if row.domain == INK else "edges")
        assert torch.equal(trainer.source.pixels(row), view) and view.shape == (3, 55, 28)


def fresh(**options: Any) -> Model:
    torch.manual_seed(0)
    return Model.create(Architecture(NO_NORM, 8, 32), (INK, PAINT), weights="random", **options)


def test_models_encode_with_their_filters_and_keep_them(tmp_path: Path) -> None:
    plain, drawn = fresh(), fresh(filters=("none", "edges"))
    paths = [row.path for row in rows_of(PAINT, tmp_path / "images", range(3))]
    np.testing.assert_array_equal(plain.encode(paths, domain=INK), drawn.encode(paths, domain=INK))
    views = torch.stack([drawn.preprocessing.crop(drawn.preprocessing.pixels(load_image(p), "edges")) for p in paths])
    np.testing.assert_allclose(drawn.encode(paths, domain=PAINT), drawn.embed(views, 1).numpy(), atol=1e-6)
    assert np.abs(plain.encode(paths, domain=PAINT) - drawn.encode(paths, domain=PAINT)).max() > 1e-2
    prints = {fresh(filters=pair).fingerprint for pair in itertools.product(filters.FILTERS, repeat=2)}
    assert len(prints) == 9 and plain.fingerprint == fresh(filters=("none", "none")).fingerprint
    drawn.save(tmp_path / "model")
    again = Model.load(tmp_path / "model")
    assert again.preprocessing == drawn.preprocessing and again.fingerprint == drawn.fingerprint


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("filters", ["none", "sobel"], "no filter 'sobel'"),
        ("filters", ["edges"], "config.json is incomplete"),
        ("size", [32, 40], "config.json is incomplete"),
        ("size", "wide", "config.json is incomplete"),
    ],
)
def test_damaged_descriptions(tmp_path: Path, key: str, value: object, says: str) -> None:
    fresh(filters=("none", "edges")).save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    config["preprocessing"][key] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(IsthmusError, match=says):
        Model.load(tmp_path / "model")


@torch.inference_mode()
def test_edges_bring_shoes_closer_to_their_sketches(shared_data: Path) -> None:
    """115 pairs, frozen ImageNet features at 96 px, centred: sketch -> photo R@10."""
    shoes = shared_data / "data" / "qmul_shoes" / "test"
    photos = sorted((shoes / "images").glob("*.jpg"))
    sketches = [shoes / "sketches" / f"{path.stem}.png" for path in photos]
    network = create_backbone("mobilenetv2_100", str(shared_data / "weights" / "mobilenetv2_100.safetensors"))
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocessing = preprocessing_of(network, 96, None)

    def features(paths: list[Path], name: str) -> torch.Tensor:
        views = torch.stack([preprocessing.crop(preprocessing.pixels(load_image(path), name)) for path in paths])
        inputs = preprocessing.normalise(views).contiguous(memory_format=torch.channels_last)
        vectors = torch.nn.functional.normalize(torch.cat([network(part) for part in inputs.split(32)]), dim=1)
        return torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)

    asks = features(sketches, "none")
    found = {}
    for name in ("none", "edges"):
        similarity = asks @ features(photos, name).T
        found[name] = float(((similarity > similarity.diag()[:, None]).sum(1) < 10).float().mean())
    assert found["edges"] > found["none"] + 0.1, found
