"""Network input that is higher than wide: settings, preprocessing, random views, and a run through every verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_zoo import World, answer_of, make_world, refused, unharmed, works
from PIL import Image
from training_zoo import INK, NO_NORM, PAINT, rows_of

from isthmus.config import AugmentConfig, RunConfig
from isthmus.config.sizes import compact, show, sides
from isthmus.data.images import load_image
from isthmus.data.loading import ImageSource, test_batches
from isthmus.data.transforms import Preprocessing, augment
from isthmus.errors import IsthmusError
from isthmus.methods.cut import Cut
from isthmus.models.backbones import preprocessing_of
from isthmus.models.encoder import Architecture, Model

test_batches.__test__ = False  # type: ignore[attr-defined]  # a function of Isthmus, no test
HALF = (0.5, 0.5, 0.5)
TALL = Preprocessing((48, 20), (56, 23), HALF, HALF)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def windows(pixels: np.ndarray[Any, Any], height: int, width: int) -> set[bytes]:
    """Every crop of that size."""
    rows, columns = pixels.shape[1] - height + 1, pixels.shape[2] - width + 1
    return {pixels[:, y : y + height, x : x + width].tobytes() for y in range(rows) for x in range(columns)}


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("384x128", (384, 128)), ("96 x 112", (96, 112)), ("[384, 128]", (384, 128)), ([384, 128], (384, 128)),
        ((384, 128), (384, 128)), ("384,128", (384, 128)), (128, 128), ("128", 128), (128.0, 128), ("64x64", 64),
        ([64, 64], 64),
    ],
)  # fmt: skip
def test_a_size_is_a_side_or_height_by_width(tmp_path: Path, given: object, size: object) -> None:
    if isinstance(given, str) and given.startswith("["):
        given = json.loads(given)
    config = RunConfig.build("default", {"model.image_size": given})
    assert config.model.image_size == size and type(config.model.image_size) is type(size)
    config.save(tmp_path / "run.yaml")
    again = RunConfig.load(tmp_path / "run.yaml")
    assert again == config and again.fingerprint() == config.fingerprint()
    if isinstance(size, int):
        assert f"image_size: {size}\n" in (tmp_path / "run.yaml").read_text(encoding="utf-8")


def test_words_for_sizes() -> None:
    assert (sides(8), sides((8, 9))) == ((8, 8), (8, 9))
    assert (show(128), show([384, 128]), show((7, 7))) == ("128", "384 x 128", "7")
    assert compact("12×13") == (12, 13)


@pytest.mark.parametrize("bad", ["384x", "x128", "-64", "64x-64", "tall", [1, 2, 3], [], [64, "a"], 64.5, True, None])
def test_what_is_no_size(bad: object) -> None:
    with pytest.raises(IsthmusError, match=r"model\.image_size = .*height x width such as 384x128\.$"):
        RunConfig.build("default", {"model.image_size": bad})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model.image_size": "384x8"}, r"model\.image_size = '384x8': each side .* 16 pixels"),
        ({"model.image_size": 8}, r"model\.image_size = 8: each side"),
        ({"augment.resize": "380x200", "model.image_size": "384x128"}, r"augment\.resize is smaller"),
        ({"augment.resize": "400x120", "model.image_size": "384x128"}, r"augment\.resize is smaller"),
        ({"augment.resize": 400, "model.image_size": "384x128"}, r"augment\.resize = 400 is square.*384 x 128 is not"),
        ({"augment.resize": "0x9"}, r"augment\.resize = '0x9'"),
        ({"method": "cut", "model.image_size": "64x32"}, r"model\.image_size = 64 x 32 is not square, as cut needs"),
        ({"method": "fastcut", "augment.resize": "300x290"}, r"augment\.resize = 300 x 290 is not square.*fastcut"),
        ({"method": "cut", "model.gallery_filter": "grey"}, r"cut .*doesn't use model\.gallery_filter"),
        ({"augment.pad": -1}, r"augment\.pad = -1"),
        ({"augment.erase": 1.5}, r"augment\.erase = 1\.5"),
    ],
)
def test_sizes_that_do_not_fit(values: dict[str, Any], says: str) -> None:
    with pytest.raises(IsthmusError, match=says) as error:
        RunConfig.build("default", values)
    assert "\n" not in str(error.value)


def test_the_command_line_refuses_them_in_one_sentence(tmp_path: Path) -> None:
    world = World(tmp_path)
    with unharmed(tmp_path):
        refused(*world.train("--set", "model.image_size=384x8"), says=("model.image_size = '384x8'", "16"))
        refused(*world.train("--set", "augment.resize=[400, 100]", "--set", "model.image_size=384x128"),
                says=("augment.resize is smaller",))  # fmt: skip
        refused(*world.train("--set", "model.gallery_filter=sobel"), says=("'sobel'", "'edges'"))


def test_preprocessing_squashes_and_crops_each_side_for_itself() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    plain = np.asarray(image.resize((23, 56), Image.Resampling.BILINEAR, reducing_gap=2.0))  # Pillow: width first
    assert torch.equal(TALL.pixels(image), torch.from_numpy(plain.copy()).permute(2, 0, 1))
    view = TALL(image)
    assert view.shape == (3, 48, 20) and torch.equal(view, torch.from_numpy(plain[4:52, 1:21].copy()).permute(2, 0, 1))
    assert TALL.blank(2).shape == (2, 3, 48, 20) and TALL.min_side == 56
    # A sky above the ground stays above it, and all of the width is seen.
    halves = Image.new("RGB", (40, 40), "blue")
    halves.paste("green", (0, 20, 40, 40))
    seen = TALL(halves)
    assert bool((seen[2, :20] == 255).all()) and bool((seen[1, 28:] == 128).all())


@pytest.mark.parametrize(("size", "resize"), [((48, 20), (40, 23)), ((48, 20), (56, 19)), (0, 4), ((4, 4, 4), 8)])
def test_preprocessing_that_cannot_be(size: Any, resize: Any) -> None:
    with pytest.raises(ValueError, match=r"size|resize"):
        Preprocessing(size, resize, HALF, HALF)


def test_backbones_take_the_size() -> None:
    with torch.device("meta"):
        from isthmus.models.backbones import create_backbone

        vit = create_backbone("test_vit", "random", (64, 32))
    assert vit.patch_embed.grid_size == (4, 2)  # type: ignore[union-attr]
    found = preprocessing_of(vit, (384, 128), None)
    assert (found.size, found.resize) == ((384, 128), (439, 147))  # 8/7 of each side, rounded up
    model = Model.create(Architecture("test_vit", 8, (64, 32)), (INK, PAINT), weights="random")
    assert model.encode([Image.new("RGB", (9, 9), "red")], domain=INK).shape == (1, 8)


def test_random_views_of_a_tall_input() -> None:
    pixels = noise(56, 23)
    allowed = windows(pixels.numpy(), 48, 20) | windows(pixels.flip(-1).numpy(), 48, 20)
    seen = {augment(pixels, (48, 20), AugmentConfig(), "bilinear", seed).numpy().tobytes() for seed in range(150)}
    assert seen <= allowed and len(seen) > 40
    busy = AugmentConfig(crop=0.4, rotate=10, pad=3, erase=0.5, brightness=0.2)
    for seed in range(30):
        view = augment(pixels, (48, 20), busy, "bicubic", seed)
        assert view.shape == (3, 48, 20) and view.dtype == torch.uint8
        assert torch.equal(view, augment(pixels, (48, 20), busy, "bicubic", seed))


@pytest.mark.parametrize("change", [AugmentConfig(), AugmentConfig(crop=0.5, pad=4, erase=0.7, rotate=15, grey=0.5)])
def test_a_pair_of_equal_sides_is_a_side(change: AugmentConfig) -> None:
    pixels = noise(28, 28, 1)
    for seed in range(20):
        one, other = (augment(pixels, size, change, "bilinear", seed) for size in (24, (24, 24)))
        assert torch.equal(one, other)
    image = Image.fromarray(noise(50, 30).permute(1, 2, 0).numpy())
    assert Preprocessing((24, 24), [28, 28], HALF, HALF) == Preprocessing(24, 28, HALF, HALF)  # type: ignore[arg-type]
    assert torch.equal(Preprocessing((24, 24), (28, 28), HALF, HALF)(image), Preprocessing(24, 28, HALF, HALF)(image))


def test_padding_continues_the_border() -> None:
    pixels = noise(24, 18, 2)
    wide = np.pad(pixels.numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
    seen = {
        augment(pixels, (24, 18), AugmentConfig(pad=3, flip=False), "bilinear", s).numpy().tobytes() for s in range(200)
    }
    assert seen <= windows(wide, 24, 18) and len(seen) > 35  # of 49
    paper = torch.full((3, 24, 18), 255, dtype=torch.uint8)
    assert all(bool((augment(paper, (24, 18), AugmentConfig(pad=5), "bilinear", s) == 255).all()) for s in range(10))


def test_erasing_takes_one_rectangle_of_the_mean_colour() -> None:
    pixels = noise(40, 30, 3)
    before = pixels.clone()
    erased = 0
    for seed in range(200):
        plain, view = (
            augment(pixels, (36, 27), AugmentConfig(erase=share), "bilinear", seed).numpy() for share in (0.0, 0.5)
        )
        changed = (plain != view).any(0)
        if not changed.any():
            continue
        erased += 1
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        inside = view[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mean = np.round(plain.reshape(3, -1).astype(np.float64).mean(1))
        assert (np.abs(inside - mean[:, None, None]) <= 1).all()  # the mean in float32 may round the other way
        share, ratio = inside[0].size / (36 * 27), inside.shape[1] / inside.shape[2]
        assert 0.01 < share < 0.43 and 0.2 < ratio < 5  # sides are whole pixels
    assert 70 < erased < 130
    assert torch.equal(pixels, before)  # the cached image is not changed


def test_batches_of_a_tall_input(tmp_path: Path) -> None:
    rows = rows_of(PAINT, tmp_path, range(5))
    (views, kept, _), (last, _, _) = test_batches(ImageSource(TALL), rows, 3, 0)
    assert (views.shape, last.shape, kept) == ((3, 3, 48, 20), (2, 3, 48, 20), [0, 1, 2])
    assert torch.equal(views[1], TALL(load_image(rows[1].path)))


def test_int_and_pair_make_the_same_model(tmp_path: Path) -> None:
    folders = []
    for number, size in enumerate((32, (32, 32))):
        torch.manual_seed(0)
        model = Model.create(Architecture(NO_NORM, 8, size), (INK, PAINT), weights="random", resize=size)
        model.save(tmp_path / str(number))
        folders.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()})
    assert folders[0] == folders[1]


def test_square_models_are_described_as_they_always_were(tmp_path: Path) -> None:
    """What is hashed into a fingerprint: a new key would orphan every catalog there is."""
    model = Model.create(Architecture(NO_NORM, 8, 32), (INK, PAINT), weights="random")
    model.save(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in ("architecture", "preprocessing", "domains", "centring", "format")} == {
        "format": 1,
        "architecture": {"backbone": NO_NORM, "dim": 8, "image_size": 32, "domain_norm": False},
        "preprocessing": {
            "size": 32, "resize": 37, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic",
        },
        "domains": [INK, PAINT],
        "centring": True,
    }  # fmt: skip
    assert Model.load(tmp_path).fingerprint == model.fingerprint == written["fingerprint"]


def test_cut_stays_as_it_was() -> None:
    config = RunConfig.build("tiny", {"method": "cut", "model.image_size": [64, 64], "augment.resize": "72x72"})

    class Names:
        names = (INK, PAINT)

    model = Cut.build(config, Names())  # type: ignore[arg-type]
    assert (model.side, model.preprocessing.size, model.preprocessing.resize) == (64, 64, 72)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run of CDS on 48 x 24 pixels, with the photos drawn, and its catalog."""
    world = make_world(tmp_path_factory.mktemp("tall"))
    settings = ("model.image_size=48x24", "model.gallery_filter=edges", "augment.pad=2", "augment.erase=0.5")
    works(*world.train(*[x for one in settings for x in ("--set", one)], "--set", "model.centring=false"))
    works("index", world.folder / "runs" / "cds", world.folder / "photo", "--out", world.folder / "catalog",
          "--workers", 0)  # fmt: skip
    return world


def test_a_run_is_planned_trained_and_kept(ready: World) -> None:
    run = ready.folder / "runs" / "cds"
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"]["image_size"] == [48, 24] and config["preprocessing"]["filters"] == ["none", "edges"]
    assert config["preprocessing"]["size"] == [48, 24] and config["preprocessing"]["resize"] == [55, 28]
    assert "48 x 24 px, photo images as edges" in (run / "model" / "README.md").read_text(encoding="utf-8")
    model = Model.load(run)
    assert model.fingerprint == config["fingerprint"] and model.architecture.image_size == (48, 24)
    assert model.preprocessing == Preprocessing(
        (48, 24), (55, 28), model.preprocessing.mean, model.preprocessing.std, "bicubic", ("none", "edges")
    )
    model.save(ready.folder / "copy")
    assert (ready.folder / "copy" / "config.json").read_bytes() == (run / "model" / "config.json").read_bytes()
    plan = answer_of(*ready.train("--set", "model.image_size=48x24", "--plan", out=ready.folder / "none"))
    assert plan["units"] == 2


def test_index_search_and_evaluate_see_what_training_saw(ready: World) -> None:
    model = Model.load(ready.folder / "runs" / "cds")
    photos = {
        path.relative_to(ready.folder / "photo").as_posix(): path for path in (ready.folder / "photo").rglob("*.png")
    }
    query = ready.folder / "sketch" / "test" / "cat" / "0.png"
    found = answer_of("search", ready.folder / "catalog", query, "--domain", "sketch", "-k", len(photos),
                      "--model", ready.folder / "runs" / "cds")  # fmt: skip
    scores = {hit["path"]: hit["score"] for hit in found[0]["hits"]}
    assert len(scores) == len(photos)

    def vector(path: Path, name: str, domain: int) -> torch.Tensor:
        pixels = model.preprocessing.pixels(load_image(path), name)[:, 3:51, 2:26]
        return model.embed(pixels[None], domain)[0]

    asked = vector(query, "none", 0)
    for path, score in scores.items():
        assert score == pytest.approx(float(asked @ vector(Path(path), "edges", 1)), abs=2e-5)
        assert score != pytest.approx(float(asked @ vector(Path(path), "none", 1)), abs=2e-5)
    tests = [ready.domain(name, ready.folder / name / "test") for name in ("sketch", "photo")]
    report = answer_of(
        "evaluate", ready.folder / "runs" / "cds", "--query-domain", tests[0], "--gallery-domain", tests[1]
    )
    first = next(side for side in report["evaluation"]["sides"] if side["direction"] == "sketch->photo")
    files = [sorted((ready.folder / name / "test").rglob("*.png")) for name in ("sketch", "photo")]
    asks = torch.stack([vector(path, "none", 0) for path in files[0]])
    answers = torch.stack([vector(path, "edges", 1) for path in files[1]])
    best = (asks @ answers.T).argmax(1)
    right = [files[0][i].parent.name == files[1][int(j)].parent.name for i, j in enumerate(best)]
    assert first["scores"]["Prec@1"] == pytest.approx(sum(right) / len(right))
