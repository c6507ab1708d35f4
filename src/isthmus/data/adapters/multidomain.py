"""Office-Home, DomainNet, CUB with paintings, and PACS: the same classes photographed, drawn and painted."""

from __future__ import annotations

from collections.abc import Sequence

from isthmus.data.adapters.base import Adapter, Options
from isthmus.data.adapters.choosing import order
from isthmus.data.adapters.classes import reader
from isthmus.data.adapters.file_lists import images_of_list
from isthmus.data.adapters.layouts import Domain, Family, inner_folders
from isthmus.data.manifest import Row, some_of
from isthmus.errors import IsthmusError

CLASSED = ("class-disjoint", "partial", "open-set", "full")
TAKES = ("query", "gallery", "protocol", "lists", "unmatched")
GIVES = "query and gallery domain with labels and splits, class-disjoint or by another --protocol; classes-00.csv"
VAL_SHARE = 0.1


def _pacs_lists(
    options: Options, domain: Domain, rows: Sequence[Row], adapter: Adapter
) -> tuple[dict[str, str], list[str]] | None:
    """PACS's own lists. Its test list is the whole domain, train and crossval together: for leaving a domain out.

    Here the crossval images, the only ones kept from training, are tested on, and a tenth of the training images of
    each class validates.
    """
    name = domain.name
    tops = [options.root, *inner_folders(options.root)]
    places = [top / sub for top in tops for sub in (".", "kfold", "splits", "pacs_label")]
    place = next((p for p in places if (p / f"{name}_train_kfold.txt").is_file()), None)
    if place is None:
        return None
    train, gone = images_of_list(place / f"{name}_train_kfold.txt", rows, adapter)
    test, more = images_of_list(place / f"{name}_crossval_kfold.txt", rows, adapter)
    if both := sorted({*train} & {*test}):
        raise IsthmusError(
            f"{len(both)} images of '{name}' are in the train and the crossval list ({some_of(both)}); get the lists "
            f"anew from {adapter.page}."
        )
    splits = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    for label in {row.label for row in rows}:
        own = [row.id for row in rows if row.label == label and splits.get(row.id) == "train"]
        for id in order(own, adapter.name, options.seed, "val")[: min(round(len(own) * VAL_SHARE), len(own) - 1)]:
            splits[id] = "val"
    absent = [*gone, *more]
    notes = [f"{name}: {len(absent)} listed images are not on the disk: {some_of(absent)}"] if absent else []
    return splits, [*notes, f"{name}: the crossval list is tested on, a tenth of the train list validates"]


def _domain(
    name: str, folder: str, images: int, splits: tuple[int, int, int] | None = None, cleaned: int | None = None
) -> Domain:
    return Domain(name, ((folder,),), images, folder if splits else "", splits, cleaned=cleaned)


OFFICE_HOME = Family(
    domains=(
        _domain("art", "Art", images=2427, splits=(1226, 465, 736)),
        Domain("real", (("Real World", "Real", "Real_World", "RealWorld"),), 4357, "Real", (2196, 846, 1315)),
        _domain("clipart", "Clipart", images=4365, splits=(2200, 846, 1319)),
        _domain("product", "Product", images=4439, splits=(2238, 860, 1341)),
    ),
    classes=65,
    protocols=CLASSED,
    halves=(32, 33),
)
DOMAINNET = Family(
    domains=(
        _domain("sketch", "sketch", images=70386, splits=(12261, 4893, 7428), cleaned=69128),
        _domain("painting", "painting", images=75759, splits=(15719, 6273, 9510), cleaned=72266),
        _domain("clipart", "clipart", images=48833, splits=(9316, 3715, 5672), cleaned=48129),
        _domain("real", "real", images=175327, cleaned=172947),
        _domain("infograph", "infograph", images=53201, cleaned=51605),
        _domain("quickdraw", "quickdraw", images=172500),
    ),
    classes=345,
    protocols=CLASSED,
    halves=(63, 63),
)
CUB = Family(
    domains=(
        Domain("painting", (("cub200_drawing", "CUB-200-Painting", "Painting"),), 3047, "Painting", (1460, 558, 991)),
        Domain("real", (("CUB_200_2011/images", "images", "Real"),), 11788, "Real", (5499, 2206, 3327), ("photo",)),
    ),
    classes=200,
    protocols=CLASSED,
    halves=(93, 94),
)
PACS = Family(
    domains=(
        Domain("sketch", (("sketch",),), 3929, "sketch"),
        Domain("photo", (("photo",),), 1670, "photo"),
        Domain("art_painting", (("art_painting",),), 2048, "art_painting", None, ("art",)),
        Domain("cartoon", (("cartoon",),), 2344, "cartoon"),
    ),
    classes=7,
    protocols=CLASSED,
)

ADAPTERS = (
    Adapter(
        name="office-home",
        title="Office-Home",
        page="https://www.hemanthdv.org/officeHomeDataset.html (images) and samarth4149/SynCDR on GitHub (lists)",
        licence="non-commercial research and education",
        layout="{Art,Clipart,Product,Real World}/<Class>/*.jpg",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=OFFICE_HOME,
    ),
    Adapter(
        name="domainnet",
        title="DomainNet",
        page="https://ai.bu.edu/M3SDA (images) and samarth4149/SynCDR on GitHub (lists)",
        licence="research only, fair use of pictures from the web",
        layout="<domain>/<class>/*.jpg with the domains clipart, infograph, painting, quickdraw, real, sketch",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=DOMAINNET,
    ),
    Adapter(
        name="cub",
        title="CUB-200-2011 with CUB-200-Paintings",
        page="https://www.vision.caltech.edu/datasets/cub_200_2011 (photos), thuml/PAN on GitHub (paintings) and "
        "samarth4149/SynCDR on GitHub (lists)",
        licence="non-commercial research and education",
        layout="CUB_200_2011/images/001.Name/*.jpg and cub200_drawing/001.Name/*.jpg",
        gives=GIVES,
        read=reader(),
        takes=TAKES,
        family=CUB,
    ),
    Adapter(
        name="pacs",
        title="PACS",
        page="https://domaingeneralization.github.io",
        licence="research only",
        layout="{photo,art_painting,cartoon,sketch}/<class>/*, perhaps <domain>_{train,crossval}_kfold.txt",
        gives=GIVES,
        read=reader(_pacs_lists),
        takes=TAKES,
        family=PACS,
    ),
)
