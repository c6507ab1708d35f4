"""Small folders in the layouts that the data sets are published in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from isthmus import IsthmusError
from isthmus.data.adapters import Options, prepare

PKU_STYLES = {"a": 46, "b": 20, "c": 79, "d": 33, "e": 22}
MARKET_FIELDS = (
    "age", "backpack", "bag", "handbag", "downblack", "clothes", "down", "up", "hair", "hat", "gender", "upblack",
)  # fmt: skip
ZAPPOS_HEADER = (
    "CID", "Category.Shoes", "Category.Boots", "Category.Sandals", "Category.Slippers", "SubCategory.Heels",
    *(f"Closure.{name}" for name in (
        "Lace.up", "Pull.on", "Buckle", "Ankle.Strap", "Hook.and.Loop", "Zipper", "Slip.On", "Elastic.Gore",
        "Ankle.Wrap", "Sling.Back", "Bungee", "Toggle", "Adjustable", "Snap", "Button.Loop", "T.Strap", "Monk.Strap",
        "Spat.Strap", "Belt",
    )),
    "Gender.Men", "ToeStyle.Capped Toe",
    *(f"ToeStyle.{name}" for name in (
        "Almond", "Bump Toe", "Apron Toe", "Wide Toe Box", "Snip Toe", "Peep Toe", "Medallion")),
)  # fmt: skip


@cache
def picture(kind: str) -> bytes:
    """A picture of a few bytes; adapters look at names only."""
    buffer = BytesIO()
    Image.new("RGB", (4, 4), "white").save(buffer, "JPEG" if kind == ".jpg" else "PNG")
    return buffer.getvalue()


def put(*paths: Path) -> None:
    """Write a picture at each path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(path.suffix))


def make_pku(root: Path, styles: Mapping[str, int] = PKU_STYLES) -> dict[int, str]:
    """Two photos and a sketch a person, the styles dealt out in turn; returns person -> style."""
    left = dict(styles)
    style_of: dict[int, str] = {}
    person = 0
    while any(left.values()):
        for name in left:
            if left[name]:
                left[name] -= 1
                person += 1
                style_of[person] = name
    for number in style_of:
        put(root / "sketch" / f"{number}.jpg", *(root / "photo" / f"{number}_{cam}_{3 * cam}.jpg" for cam in (1, 5)))
    notes = root / "styleAnnotation"
    notes.mkdir()
    for name, count in styles.items():
        lines = [str(number) for number, style in style_of.items() if style == name]
        (notes / f"{name}_{count}.txt").write_text("\r\n".join(lines) + "\r\n")
    return style_of


def make_market(root: Path, *, without: Sequence[str] = ()) -> None:
    """People 2 and 7 to train on, 1 and 3 to test on, a distractor and two junk images."""
    train = [root / "bounding_box_train" / f"{p}_c{c}s1_000{c}51_01.jpg" for p in ("0002", "0007") for c in (1, 2)]
    query = [root / "query" / f"{p}_c1s1_000151_00.jpg" for p in ("0001", "0003")]
    names = ("0001_c2s1_000151_01", "0003_c3s1_000151_01", "0000_c1s1_000151_01", "-1_c1s1_000401_03")
    put(*train, *query, *(root / "bounding_box_test" / f"{name}.jpg" for name in (*names, "-1_c2s1_000401_03")))

    def half(people: Sequence[str], **values: Sequence[int]) -> dict[str, Any]:
        fields = {name: values.get(name, [1] * len(people)) for name in MARKET_FIELDS if name not in without}
        return {**fields, "image_index": np.array(people, dtype=object)}

    content = {
        "train": half(["0002", "0007"], gender=[1, 2], hat=[1, 2], age=[1, 3], handbag=[2, 1], hair=[2, 0]),
        "test": half(["0001", "0003"], backpack=[2, 1], clothes=[2, 1]),
    }
    savemat(root / "market_attribute.mat", {"market_attribute": content})


def make_qmul(
    root: Path,
    name: str = "shoes",
    *,
    train: int = 12,
    test: int = 5,
    attributes: int = 21,
    shuffled_test: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Numbered pairs with attributes and triplets; returns the labels of photos and sketches by number."""
    draw = np.random.default_rng(seed)
    photos = (draw.random((train + test, attributes)) < 0.4).astype(np.uint8)
    sketches = np.where(draw.random(photos.shape) < 0.1, 1 - photos, photos).astype(np.uint8)
    stored = sketches.copy()
    if shuffled_test:
        stored[train:] = np.roll(sketches[train:], 1, axis=0)
    parts: dict[str, Any] = {}
    for part, numbers in (("train", range(1, train + 1)), ("test", range(train + 1, train + test + 1))):
        images, drawings = [f"{n}.jpg" for n in numbers], [f"{n}.png" for n in numbers]
        put(*(root / part / "images" / file for file in images), *(root / part / "sketches" / f for f in drawings))
        # Three votes a triplet in training, one in the test, as published.
        times = 3 if part == "train" else 1
        triplets = [[[k, (k + 1) % len(images)], [(k + 1) % len(images), (k + 2) % len(images)]] * times
                    for k in range(len(images))]  # fmt: skip
        parts[part] = {"images": images, "sketches": drawings, "triplets": triplets}
    annotation = root / "annotation"
    annotation.mkdir()
    key = "label" if name == "shoes" else "labels"
    savemat(annotation / "image_label.mat", {key: photos})
    savemat(annotation / "sketch_label.mat", {key: stored})
    (annotation / f"{name}_annotation.json").write_text(json.dumps(parts))
    return photos, sketches


def make_v2(root: Path, photos: int = 8, *, prefix: str = "", sketches: int = 3, listed: Sequence[str] = ()) -> None:
    """`photo/` and `sketch/` with several sketches a photo; a photo's name may itself end in a number."""
    for number in range(1, photos + 1):
        name = f"11350{number:02d}" if number % 2 else f"shoe_{number}"
        put(root / f"{prefix}photo" / f"{name}.png")
        put(*(root / f"{prefix}sketch" / f"{name}_{k}.png" for k in range(1, sketches + 1)))
    if listed:
        (root / "photo_test.txt").write_text("\n".join(listed) + "\n")


def make_zappos(root: Path, header: Sequence[str] = ZAPPOS_HEADER) -> None:
    """Product 100 with three photos, 101 with two, 102 with three of which one is in no table."""
    files = {
        "Shoes/Oxfords/Bostonian": ("100.1", "100.2", "100.30"),
        "Boots/Ankle/Neil M.": ("101.1", "101.2"),
        "Sandals/Flat/T.U.K.": ("102.7", "102.8", "102.9"),
    }
    rows = [",".join(header)]
    for folder, names in files.items():
        put(*(root / "ut-zap50k-images-square" / folder / f"{name}.jpg" for name in names))
        for name in names:
            yes = {
                f"Category.{folder.split('/')[0]}",
                "Closure.Lace.up" if name == "100.1" else "",
                "ToeStyle.Bump Toe",
            }
            cells = [name.replace(".", "-") if column == "CID" else str(int(column in yes)) for column in header]
            if name == "100.2" and "Closure.Belt" in header:
                cells[header.index("Closure.Belt")] = ""
            if name != "102.9":
                rows.append(",".join(cells))
    (root / "ut-zap50k-data").mkdir()
    (root / "ut-zap50k-data" / "meta-data-bin.csv").write_text("\n".join(rows) + "\n")


def make_faces(root: Path, names: Iterable[tuple[str, str]]) -> None:
    """(photo, sketch) names in `photos/` and `sketches/`."""
    for photo, sketch in names:
        put(root / "photos" / photo, root / "sketches" / sketch)


def make_celeba(root: Path, images: int = 6) -> None:
    """Two images a person, the first person to train on, then one to validate, the rest to test."""
    names = [f"{number:06d}.jpg" for number in range(1, images + 1)]
    put(*(root / "img_align_celeba" / name for name in names))
    attributes = ["5_o_Clock_Shadow", "Bald", "Male"]
    lines = [f"{name}  {'1' if k % 2 else '-1'} -1  1" for k, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(images), " ".join(attributes) + " ", *lines]) + "\n")
    people = [f"{name} {2880 + k // 2}" for k, name in enumerate(names)]
    (root / "identity_CelebA.txt").write_text("\n".join(people) + "\n")
    partition = [f"{name} {min(k // 2, 2)}" for k, name in enumerate(names)]
    (root / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")


def unprepared(name: str, root: Path, *says: object, **options: Any) -> None:
    """The data set is refused with one sentence that holds every text of `says`."""
    with pytest.raises(IsthmusError) as error:
        prepare(name, Options(root, **options))
    for text in says:
        assert str(text) in str(error.value), (str(text), str(error.value))
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
