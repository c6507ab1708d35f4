"""Sketchy, TU-Berlin and QuickDraw, each extended with photos: sketches and photos whose test classes are new."""

from __future__ import annotations

from isthmus.data.adapters.base import Adapter
from isthmus.data.adapters.classes import reader
from isthmus.data.adapters.layouts import Domain, Family
from isthmus.data.adapters.protocols import PROTOCOLS

ALL = ("zero-shot", "generalised-zero-shot", *(name for name in PROTOCOLS if "zero-shot" not in name))
TAKES = ("query", "gallery", "protocol", "class_split", "unseen")
GIVES = "sketches and photos with labels and splits, zero-shot or by another --protocol; classes-00.csv"
# The 21 of the 125 classes that are not among ImageNet's 1,000: Yelamarthi et al., "A Zero-Shot Framework for
# Sketch-based Image Retrieval", ECCV 2018.
NOT_IN_IMAGENET = (
    "bat", "cabin", "cow", "dolphin", "door", "giraffe", "helicopter", "mouse", "pear", "raccoon", "rhinoceros", "saw",
    "scissors", "seagull", "skyscraper", "songbird", "sword", "tree", "wheelchair", "windmill", "window",
)  # fmt: skip
SHARE = (0.1, 0.2)
TX = "tx_000000000000"


def _tops(kind: str) -> tuple[str, ...]:
    return tuple(f"{top}{kind}/{TX}" for top in ("256x256/", "", "rendered_256x256/256x256/", "Sketchy/256x256/"))


SKETCHY = Family(
    domains=(
        Domain("sketch", (_tops("sketch"),), 75_471),
        Domain("photo", (_tops("photo"), ("EXTEND_image_sketchy", "EXTEND_image_sketchy_ready")), 73_002),
    ),
    classes=125,
    protocols=ALL,
    unseen={1: (25, ()), 2: (21, NOT_IN_IMAGENET)},
    share=SHARE,
    drawn_after=True,
)
TUBERLIN = Family(
    domains=(
        Domain("sketch", (("png", "png_ready"),), 20_000),
        Domain("photo", (("ImageResized", "ImageResized_ready"),), 204_489),
    ),
    classes=250,
    protocols=ALL,
    unseen={1: (30, ())},
    eligible=400,
    share=SHARE,
)
QUICKDRAW = Family(
    domains=(
        Domain("sketch", (("sketches", "QuickDraw_sketches_final"),), 330_000),
        Domain("photo", (("images", "QuickDraw_images_final"),)),
    ),
    classes=110,
    protocols=ALL,
    unseen={1: (30, ())},
    share=SHARE,
)

ADAPTERS = (
    Adapter(
        name="sketchy",
        title="Sketchy, extended",
        page="https://sketchy.eye.gatech.edu (sketches and photos) and qliu24/SAKE on GitHub (further photos)",
        licence="non-commercial research; photos from ImageNet and the web",
        layout=f"256x256/{{photo,sketch}}/{TX}/<class>/ and EXTEND_image_sketchy/<class>/",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=SKETCHY,
    ),
    Adapter(
        name="tuberlin",
        title="TU-Berlin, extended",
        page="https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch (sketches) and qliu24/SAKE on GitHub "
        "(photos)",
        licence="sketches CC BY 4.0; photos from the web, research only",
        layout="png/<class name>/N.png and ImageResized/<classname>/*.JPEG",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=TUBERLIN,
    ),
    Adapter(
        name="quickdraw",
        title="QuickDraw, extended",
        page="http://datasets.cvc.uab.es/QuickDraw (see also sounakdey/doodle2search on GitHub)",
        licence="sketches CC BY 4.0; photos from the web, research only",
        layout="sketches/<class>/*.png and images/<class>/*.jpg",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=QUICKDRAW,
    ),
)
