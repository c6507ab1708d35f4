"""Small folders of classes in several domains, in the layouts that the data sets are published in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters_zoo import put

from isthmus.data.manifest import Manifest

OFFICE = ("Alarm_Clock", "Backpack", "Bed", "Bike", "Bottle", "Bucket")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "004.Groove_billed_Ani", "005.Crested_Auklet")
SEEN = ("cat", "dog", "ant", "car_(sedan)", "hot-air_balloon")
UNSEEN = ("bat", "door")


def make_classes(root: Path, folders: Mapping[str, int], classes: Sequence[str], suffix: str = ".jpg") -> None:
    """So many images a class in each folder; the files are made in another order each time."""
    paths = [
        root / folder / name / f"{number:05d}{suffix}"
        for folder, count in folders.items()
        for name in classes
        for number in range(1, count + 1)
    ]
    random.shuffle(paths)
    put(*paths)


def make_lists(
    folder: Path, domains: Sequence[str], classes: Sequence[str], count: int, top: str = "/home/someone/data/set"
) -> None:
    """SynCDR's lists of 50/20/30 %: absolute paths of another machine, and numbers that mean other classes in each."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(classes) // 2
    shuffled = sorted(classes, key=lambda name: name[::-1])
    halves = {"train_cls_disjoint1": shuffled[:half], "train_cls_disjoint2": shuffled[half:]}
    cuts = {"train": (1, count // 2), "val": (count // 2 + 1, count * 7 // 10), "test": (count * 7 // 10 + 1, count)}
    for domain in domains:
        for split, (first, last) in (cuts | dict.fromkeys(halves, cuts["train"])).items():
            names = halves.get(split, classes)
            lines = [
                f"{top}/{domain}/{name}/{number:05d}.jpg {label}"
                for label, name in enumerate(names)
                for number in range(first, last + 1)
            ]
            (folder / f"{domain}_{split}.txt").write_text("\n".join(lines) + "\n")


def make_sketchy(root: Path, classes: Sequence[str] = (*SEEN, *UNSEEN), photos: int = 6, extended: int = 4) -> None:
    """Each photo with two sketches drawn after it, and further photos without."""
    top = root / "256x256"
    for name in classes:
        for number in range(photos):
            stem = f"n0{len(name)}_{number}"
            put(top / "photo" / "tx_000000000000" / name / f"{stem}.jpg")
            put(*(top / "sketch" / "tx_000000000000" / name / f"{stem}-{k}.png" for k in (1, 2)))
        put(*(root / "EXTEND_image_sketchy" / name / f"ext_{name}_{k}.jpg" for k in range(extended)))


def classes_of(table: Manifest, domain: str, split: str) -> set[str]:
    """The labels of one domain's split."""
    return {str(row.label) for row in table.select(domain=domain, split=split)}


def sizes(table: Manifest, domain: str) -> tuple[int, int, int]:
    """How many images train, validate and test."""
    first, second, third = (len(table.select(domain=domain, split=split)) for split in ("train", "val", "test"))
    return first, second, third
