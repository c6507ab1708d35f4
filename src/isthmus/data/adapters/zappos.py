"""UT-Zap50K: photos of shoes with the 30 attributes that go with QMUL's shoes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from isthmus.data.adapters.base import GALLERY, Adapter, Options, Prepared, image_row, missing
from isthmus.data.adapters.reading import need_file
from isthmus.data.files import list_images, show_name
from isthmus.data.manifest import Manifest, Row, some_of
from isthmus.errors import IsthmusError

META = "meta-data-bin.csv"
CATEGORIES = ("Shoes", "Boots", "Sandals", "Slippers")
_CLOSURES = (
    *("Lace.up", "Pull.on", "Buckle", "Ankle.Strap", "Hook.and.Loop", "Zipper", "Slip.On", "Elastic.Gore"),
    *("Ankle.Wrap", "Sling.Back", "Bungee", "Toggle", "Adjustable", "Snap", "Button.Loop", "T.Strap", "Monk.Strap"),
    *("Spat.Strap", "Belt"),
)
_TOES = ("Almond", "Bump.Toe", "Apron.Toe", "Wide.Toe.Box", "Snip.Toe", "Peep.Toe", "Medallion")
ATTRIBUTES = (
    *(f"Category.{name}" for name in CATEGORIES),
    *(f"Closure.{name}" for name in _CLOSURES),
    *(f"ToeStyle.{name}" for name in _TOES),
)
MIN_IMAGES = 3  # as the published identities: products with more than two photos
_CID = re.compile(r"(\d+)\.(\d+)")


def read(options: Options, adapter: Adapter) -> Prepared:
    """The photos of products that have enough of them; a product, the first number of a file's name, is an identity.

    Raises:
        IsthmusError: the images or the table is missing, or a column of the 30 attributes is.
    """
    least = MIN_IMAGES if options.min_images is None else options.min_images
    if least < 1:
        raise IsthmusError(f"--min-images is {least}; an identity needs at least 1.")
    images = _images(options.root, adapter)
    found: list[tuple[Path, str, str]] = []
    strange: list[str] = []
    for path in list_images(images):
        parts = path.relative_to(images).parts
        match = _CID.fullmatch(path.stem)
        if match and parts[0] in CATEGORIES:
            found.append((path, match[1], f"{match[1]}-{match[2]}"))
        elif parts[0] in CATEGORIES:
            strange.append("/".join(parts))
    if not found:
        raise missing(f"The folder {show_name(images)} holds no image named <product>.<colour>.jpg", adapter)
    table = _table(options.root, adapter)
    counts = Counter(product for _, product, _ in found)
    rows: list[Row] = []
    bare: list[str] = []
    for path, product, cid in found:
        if counts[product] < least:
            continue
        known = table.get(cid)
        if known is None:
            bare.append(cid)
        rows.append(image_row(path, options.root, GALLERY, f"zappos-{product}", attributes=known or None))
    if not rows:
        raise IsthmusError(f"No product of {show_name(images)} has {least} images; lower --min-images.")
    if len(bare) == len(rows):
        raise missing(f"{META} has no row for any image ({some_of(bare)})", adapter)
    notes = []
    if few := sum(count < least for count in counts.values()):
        notes.append(f"{len(found) - len(rows)} images of {few} products with fewer than {least} left out")
    if bare:
        notes.append(f"{len(bare)} images are not in {META}, their attributes are unknown: {some_of(bare)}")
    if strange:
        notes.append(f"{len(strange)} files with another name left out: {some_of(strange)}")
    return Prepared(Manifest(rows), source=True, notes=tuple(notes))


def _images(root: Path, adapter: Adapter) -> Path:
    for place in (root, root / "ut-zap50k-images-square", root / "ut-zap50k-images"):
        if any((place / category).is_dir() for category in CATEGORIES):
            return place
    what = "does not exist" if not root.is_dir() else f"holds none of the folders {', '.join(CATEGORIES)}"
    raise missing(f"The folder {show_name(root)} {what}", adapter)


def _table(root: Path, adapter: Adapter) -> dict[str, dict[str, float]]:
    """CID -> attributes; an empty cell is unknown."""
    places = (root, root / "ut-zap50k-data", root.parent / "ut-zap50k-data")
    path = next((place / META for place in places if (place / META).is_file()), root / META)
    need_file(path, adapter)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            # R wrote the header: the same name has dots, spaces or hyphens between its words.
            header = [re.sub(r"[^A-Za-z0-9]+", ".", name.strip()) for name in next(reader, [])]
            lacking = [name for name in ("CID", *ATTRIBUTES) if name not in header]
            if lacking:
                raise missing(f"{show_name(path)} lacks {len(lacking)} columns ({some_of(lacking)})", adapter)
            places_of = {name: header.index(name) for name in ATTRIBUTES}
            cid = header.index("CID")
            table: dict[str, dict[str, float]] = {}
            for cells in reader:
                if len(cells) != len(header):
                    raise IsthmusError(
                        f"Line {reader.line_num} of {show_name(path)} has {len(cells)} fields and the header "
                        f"{len(header)}; extract it anew from {adapter.page}."
                    )
                table[cells[cid].strip()] = {
                    name: _bit(cells[place], name, reader.line_num, path)
                    for name, place in places_of.items()
                    if cells[place]
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IsthmusError(
            f"{show_name(path)} can't be read as a table ({error}); extract it anew from {adapter.page}."
        ) from error
    return table


def _bit(cell: str, name: str, line: int, path: Path) -> float:
    if cell.strip() not in ("0", "1"):
        raise IsthmusError(
            f"Line {line} of {show_name(path)} has '{cell}' as {name}; it is 0 or 1, or empty if unknown."
        )
    return float(cell)


ADAPTERS = (
    Adapter(
        name="zappos",
        title="UT-Zap50K",
        page="https://vision.cs.utexas.edu/projects/finegrained/utzap50k",
        licence="academic, non-commercial use",
        layout="<Category>/<SubCategory>/<Brand>/<product>.<colour>.jpg and meta-data-bin.csv",
        gives="photos of the products that have 3 or more, 30 attributes (4 category, 19 closure, 7 toe style)",
        read=read,
        parts=("ut-zap50k-images-square|Shoes|*/Shoes", "meta-data-bin.csv|*/meta-data-bin.csv"),
        default_splits=0,
        partner="shoes",
        takes=("min_images",),
    ),
)
