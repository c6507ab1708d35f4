"""What the demo works on: the icons, or PACS and Sketchy from a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isthmus.config import DomainConfig, RunConfig
from isthmus.data.manifest import Manifest, Row
from isthmus.data.training import read_domain
from isthmus.errors import IsthmusError

# In the order in which they are trained; SynCDR last, so that what it adds stands on the screen at the end.
METHODS = {"untrained": "pretrained", "CDS": "cds", "SynCDR": "syncdr"}
ICONS_EXPECT = (
    "Here the translator is nearly perfect: an icon's outline filled in almost is its filled form. On real sketches "
    "and photos expect far less; with --data pacs --root DIR you see how much."
)
REAL_EXPECT = (
    "Real sketches are no edge maps of photos, so the gain is smaller than on the icons; a better translator is worth "
    "more than longer training."
)
REAL_SETTINGS: dict[str, Any] = {
    "model": {"image_size": 96},
    "train": {"epochs": 6, "steps_per_epoch": 25},
    "augment": {},
}


@dataclass
class Corpus:
    """A demo's images and settings.

    Attributes:
        name: of the data.
        query, gallery: the two domains as a run's settings name them.
        test: held-out rows of each, with known relevance.
        to_translate: by domain, the rows that get counterparts: training and validation images.
        example: the query of the search.
        preset, settings: of all runs; `of_method` of one.
        notes: what one should know before looking at scores.
        expect: what to expect on other data.
    """

    name: str
    query: DomainConfig
    gallery: DomainConfig
    test: tuple[Manifest, Manifest]
    to_translate: dict[str, Manifest]
    example: Row
    preset: str
    settings: dict[str, Any]
    of_method: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    expect: str = ""


def corpus(name: str, out: Path, root: Path | None, weights: str, seed: int, limit: int | None) -> Corpus:
    """The corpus of that name; the icons are drawn into `out`."""
    if name == "icons":
        return _icons(out, seed, limit)
    if name not in ("pacs", "sketchy"):
        raise IsthmusError(f"There is no demo on '{name}'; choose icons, pacs or sketchy.")
    if root is None:
        raise IsthmusError(f"The demo on {name} needs its images: name the folder that holds lists/ with --root DIR.")
    return _real(name, root, weights)


def _icons(out: Path, seed: int, limit: int | None) -> Corpus:
    from isthmus.data.icons import FILLED, OUTLINE, write_icons

    folder = out / "icons"
    icons = write_icons(folder, seed=seed, limit=limit)
    table = str(folder / "manifest.parquet")
    test = (icons.select(domain=OUTLINE, split="test"), icons.select(domain=FILLED, split="test"))
    trained = {domain: icons.select(domain=domain, split="train") for domain in (OUTLINE, FILLED)}
    return Corpus(
        "icons",
        DomainConfig(name=OUTLINE, train=table),
        DomainConfig(name=FILLED, train=table),
        test,
        trained,
        test[0][0],
        "tiny",
        {},
        # Without pairs CDS has only its two terms, and from random weights it wants them both.
        {"cds": {"loss": {"instance_weight": 1.0, "matching_weight": 1.0}}},
        [
            f"{len(trained[OUTLINE])} icons as outlines and {len(trained[FILLED])} others filled to train on, none in "
            f"common; {len(test[0])} more in both forms to test with."
        ],
        ICONS_EXPECT,
    )


def _real(name: str, root: Path, weights: str) -> Corpus:
    domains = []
    for domain, half in (("sketch", 1), ("photo", 2)):
        lists = {
            "train": root / "lists" / f"{domain}_train_cls_disjoint{half}.txt",
            "val": root / "lists" / f"{domain}_val.txt",
            "test": root / "lists" / f"{domain}_test.txt",
        }
        for path in lists.values():
            if not path.is_file():
                raise IsthmusError(f"{path} is missing; --root must name the folder of {name} with its lists/.")
        domains.append(DomainConfig(name=domain, root=str(root), **{k: str(v) for k, v in lists.items()}))
    query, gallery = domains
    parts = {(domain.name, split): _read(domain, split) for domain in domains for split in ("train", "val", "test")}
    notes = [
        f"{len(parts['sketch', 'train'])} sketches and {len(parts['photo', 'train'])} photos to train on, of classes "
        "that they do not share; labels are used for the scores only."
    ]
    if name == "sketchy":
        notes.append("Sketchy's photos are ImageNet images: with ImageNet weights no class here is unseen.")
    return Corpus(
        name,
        query,
        gallery,
        (parts["sketch", "test"], parts["photo", "test"]),
        {domain.name: parts[domain.name, "train"] + parts[domain.name, "val"] for domain in domains},
        parts["sketch", "test"][0],
        "default",
        {**REAL_SETTINGS, "model": {**REAL_SETTINGS["model"], "weights": weights}},
        {},
        notes,
        REAL_EXPECT,
    )


def _read(domain: DomainConfig, split: str) -> Manifest:
    manifest = read_domain(domain, split)
    if manifest is None:
        raise IsthmusError(f"The domain '{domain.name}' has no {split} images.")
    return manifest


def run_config(images: Corpus, method: str, folders: list[str], seed: int) -> RunConfig:
    """The settings of one of the demo's runs; `folders` hold the counterparts."""
    layer: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "data": {
            "query": images.query.model_dump(),
            "gallery": images.gallery.model_dump(),
            "synthetic": folders if method == "syncdr" else [],
        },
    }
    return RunConfig.build(images.preset, images.settings, images.of_method.get(method, {}), layer)
