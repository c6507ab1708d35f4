"""QMUL's Shoes and Chairs v1: pairs of a sketch and a photo, binary attributes of both, and human triplets."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.data.adapters.base import (
    GALLERY,
    QUERY,
    Adapter,
    Options,
    Prepared,
    image_row,
    missing,
    refuse_leak,
    with_splits,
)
from isthmus.data.adapters.choosing import order
from isthmus.data.adapters.reading import need_file, need_folder, read_mat
from isthmus.data.files import show_name
from isthmus.data.manifest import Manifest, Row, some_of
from isthmus.errors import IsthmusError
from isthmus.io import read_json

if TYPE_CHECKING:
    import numpy as np

PARTS = ("train", "test")
PUBLISHED = {"shoes": (304, 115), "chairs": (200, 97)}
# The labels of a sketch and its photo differ by .30 of what strangers' do where rows are in step, by 1.02 where not.
IN_STEP = 0.75
TRIPLETS = ("query_id", "nearer_id", "farther_id", "split", "votes", "annotators")


@dataclass(frozen=True)
class Pair:
    """One sketch and its photo; `position` counts within its part, from 0, as the triplets do."""

    identity: str
    part: str
    position: int
    sketch: Row
    photo: Row


def read(options: Options, adapter: Adapter) -> Prepared:
    """Shoes and Chairs v1: the official split first, then seeded re-splits of all pairs with the same sizes.

    Raises:
        IsthmusError: a file or folder of the layout is missing, an image the annotation names is, or an annotation has
            another shape than the images.
    """
    root = options.root / adapter.name
    root = root if root.is_dir() else need_folder(options.root, adapter)
    for part in PARTS:
        for kind in ("images", "sketches"):
            need_folder(root / part / kind, adapter)
    annotation = _annotation(root, adapter)
    pairs = _pairs(root, annotation, adapter)
    photo_labels = _labels(root / "annotation" / "image_label.mat", len(pairs), adapter)
    sketch_labels = _labels(root / "annotation" / "sketch_label.mat", len(pairs), adapter)
    if photo_labels.shape != sketch_labels.shape:
        raise IsthmusError(
            f"image_label.mat has {photo_labels.shape[1]} attributes and sketch_label.mat {sketch_labels.shape[1]} in "
            f"{show_name(root / 'annotation')}; extract both anew from {adapter.page}."
        )
    notes: list[str] = []
    sizes = tuple(sum(pair.part == part for pair in pairs) for part in PARTS)
    if sizes != PUBLISHED[adapter.name]:
        notes.append(
            "{} training and {} test pairs; the publication has {} and {}".format(*sizes, *PUBLISHED[adapter.name])
        )
    out_of_step = _out_of_step(pairs, photo_labels, sketch_labels, notes)
    rows: list[Row] = []
    for number, pair in enumerate(pairs):
        sketch = None if pair.part in out_of_step else _named(sketch_labels[number], adapter.name)
        rows.append(replace(pair.sketch, attributes=sketch))
        rows.append(replace(pair.photo, attributes=_named(photo_labels[number], adapter.name)))
    refuse_leak(rows)
    official = Manifest(rows)
    identities = [pair.identity for pair in pairs]
    count = adapter.default_splits if options.splits is None else options.splits
    more = [with_splits(rows, order(identities, adapter.name, options.seed, k)[: sizes[1]]) for k in range(1, count)]
    triplets = _triplets(pairs, annotation, root, adapter, notes)
    return Prepared(official, (official, *more), texts={"triplets.csv": triplets}, notes=tuple(notes))


def _annotation(root: Path, adapter: Adapter) -> dict[str, dict[str, list[Any]]]:
    path = need_file(root / "annotation" / f"{adapter.name}_annotation.json", adapter)
    content = read_json(path)
    annotation: dict[str, dict[str, list[Any]]] = {}
    for part in PARTS:
        half = content.get(part) if isinstance(content, dict) else None
        for key in ("images", "sketches", "triplets"):
            if not isinstance(half, dict) or not isinstance(half.get(key), list):
                raise missing(f"{show_name(path)} has no list '{key}' in '{part}'", adapter)
            annotation.setdefault(part, {})[key] = half[key]
        lengths = {key: len(annotation[part][key]) for key in ("images", "sketches", "triplets")}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{count} {key}" for key, count in lengths.items())
            raise missing(f"{show_name(path)} lists {said} in '{part}', which should be as many", adapter)
    return annotation


def _pairs(root: Path, annotation: dict[str, dict[str, list[Any]]], adapter: Adapter) -> list[Pair]:
    stems = Counter(Path(str(name)).stem for part in PARTS for name in annotation[part]["images"])
    twice = any(count > 1 for count in stems.values())
    pairs: list[Pair] = []
    absent: list[str] = []
    for part in PARTS:
        names = zip(annotation[part]["images"], annotation[part]["sketches"], strict=True)
        for position, (image, sketch) in enumerate(names):
            number = Path(str(image)).stem
            identity = f"{adapter.name}-{part}-{number}" if twice else f"{adapter.name}-{number}"
            files = (root / part / "sketches" / str(sketch), root / part / "images" / str(image))
            absent += [str(file.relative_to(root)) for file in files if not file.is_file()]
            pairs.append(
                Pair(
                    identity,
                    part,
                    position,
                    image_row(files[0], root, QUERY, identity, split=part),
                    image_row(files[1], root, GALLERY, identity, split=part),
                )
            )
    if absent:
        raise missing(
            f"{len(absent)} of the {2 * len(pairs)} images that the annotation names are not in {show_name(root)} "
            f"({some_of(absent)})",
            adapter,
        )
    return pairs


def _labels(path: Path, pairs: int, adapter: Adapter) -> np.ndarray[Any, Any]:
    # The shoes call it label, the chairs labels.
    found = read_mat(path, ("label", "labels"), adapter)
    if found.ndim != 2 or found.shape[0] != pairs or found.dtype.kind not in "uifb":
        raise IsthmusError(
            f"{show_name(path)} holds {'x'.join(map(str, found.shape))} values of type {found.dtype}; {pairs} rows of "
            f"numbers are needed, one a pair: extract it anew from {adapter.page}."
        )
    if not ((found == 0) | (found == 1)).all():
        raise IsthmusError(f"{show_name(path)} holds values other than 0 and 1; extract it anew from {adapter.page}.")
    return found.astype(float)


def _out_of_step(
    pairs: Sequence[Pair], photos: np.ndarray[Any, Any], sketches: np.ndarray[Any, Any], notes: list[str]
) -> set[str]:
    """The parts whose sketch labels do not belong to the sketches: there they agree with the photos' only by chance."""
    import numpy as np

    wrong = set()
    for part in PARTS:
        here = [number for number, pair in enumerate(pairs) if pair.part == part]
        difference = np.abs(sketches[here][:, None, :] - photos[here][None, :, :]).mean(axis=2)  # (pairs, pairs)
        own, any_two = float(np.diagonal(difference).mean()), float(difference.mean())
        if len(here) > 1 and own > IN_STEP * any_two:
            wrong.add(part)
            notes.append(
                f"the {len(here)} {part} rows of sketch_label.mat differ from their own photos' as much as from any "
                f"photo's ({own:.2f} and {any_two:.2f} of the attributes): they are in another order than the "
                "sketches, so the attributes of these sketches are left unknown"
            )
    return wrong


def _named(values: np.ndarray[Any, Any], name: str) -> dict[str, float]:
    # The files name no attribute, so a column is called after its number.
    return {f"{name.removesuffix('s')}{k:02d}": float(value) for k, value in enumerate(values, start=1)}


def _triplets(
    pairs: Sequence[Pair],
    annotation: dict[str, dict[str, list[Any]]],
    root: Path,
    adapter: Adapter,
    notes: list[str],
) -> str:
    """The human triplets as CSV; where annotators differ the majority's, a tie is left out."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(TRIPLETS)
    ties = 0
    for part in PARTS:
        own = [pair for pair in pairs if pair.part == part]
        for pair, said in zip(own, annotation[part]["triplets"], strict=True):
            try:
                votes = Counter((own[_index(near)].photo.id, own[_index(far)].photo.id) for near, far in said)
            except (TypeError, ValueError, IndexError):
                raise IsthmusError(
                    f"A triplet of sketch {show_name(pair.sketch.id)} in {adapter.name}_annotation.json is no pair of "
                    f"numbers of photos from 0 to {len(own) - 1}; extract it anew from {adapter.page}."
                ) from None
            for near, far in sorted(votes):
                yes, no = votes[near, far], votes[far, near]
                ties += yes == no and near < far
                if yes > no:
                    writer.writerow((pair.sketch.id, near, far, part, yes, yes + no))
    if ties:
        notes.append(f"{ties} triplets left out: the annotators were evenly divided")
    return buffer.getvalue()


def _index(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _release(name: str, gives: str, partner: str) -> Adapter:
    return Adapter(
        name=name,
        title=f"QMUL {name.capitalize()} v1",
        page="https://sketchx.eecs.qmul.ac.uk/downloads",
        licence="research only",
        layout=f"train/ and test/ with images/N.jpg and sketches/N.png, annotation/ with image_label.mat, "
        f"sketch_label.mat and {name}_annotation.json",
        gives=gives,
        read=read,
        parts=("train/images", "train/sketches", "test/images", "test/sketches", "annotation"),
        counts=dict.fromkeys((QUERY, GALLERY), {"shoes": 419, "chairs": 297}[name]),
        partner=partner,
    )


ADAPTERS = (
    _release(
        "shoes", "the official split of 304/115 pairs, 21 attributes, triplets.csv; further splits are seeded", "zappos"
    ),
    _release("chairs", "the official split of 200/97 pairs, attributes, triplets.csv; further splits are seeded", ""),
)
