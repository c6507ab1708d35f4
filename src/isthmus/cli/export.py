"""`isthmus export`: a model's networks for ONNX Runtime or OpenVINO."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from isthmus.data.manifest import Manifest, Row
    from isthmus.models.encoder import Model

MOST = 2000  # validation images of each domain for the change in mAP
FAR = 0.95  # mean cosine below which an int8 export is spoken of


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run or model folder, or hf://owner/name.")],
    format: Annotated[str, typer.Option(help="onnx or openvino (float32), or int8 (ONNX).", metavar="FORMAT")],
    out: Annotated[Path, typer.Option(help="Folder to write.", metavar="FOLDER")],
    query_domain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=PATH", help="Images to check and calibrate on (NAME=TRAIN,val=VAL); those of the run."
        ),
    ] = None,
    gallery_domain: Annotated[
        str | None, typer.Option(metavar="NAME=PATH", help="The same of the gallery domain.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder that paths in the lists and tables given here start from.")
    ] = None,
    images: Annotated[int, typer.Option(help="Images of each domain that vectors are compared on.", min=1)] = 64,
    calibration: Annotated[
        int, typer.Option(help="Training images of each domain that int8 is calibrated on.", min=1)
    ] = 128,
    layout: Annotated[str, typer.Option(help="Of the network's uint8 images: nchw or nhwc.")] = "nchw",
    workers: Annotated[int, typer.Option(help="Threads that decode.", min=0)] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Write a model for ONNX Runtime or OpenVINO, after comparing its vectors on real images.

    The folder is loaded like any model. Vectors are compared, and mAP measured, on the run's validation images; int8 is
    calibrated on its training images. Test images are never read.
    """
    from isthmus.cli.common import print_json
    from isthmus.errors import IsthmusError
    from isthmus.export.run import check_wishes, drawn, export_model
    from isthmus.models.encoder import load
    from isthmus.models.hub import local

    place = Path(local(run))
    model = load(place)
    check_wishes(model, out, format, layout)
    train, val = rows_of_both(place, model, (query_domain, gallery_domain), root)
    compared = [drawn(part or other, images) for part, other in zip(val, train, strict=True)]
    for name, rows in zip(model.domains, compared, strict=True):
        if not rows:
            raise IsthmusError(
                f"{run} names no images of '{name}' to compare vectors on: add  --query-domain and --gallery-domain "
                "NAME=PATH."
            )
    done = export_model(
        model,
        out,
        format,  # type: ignore[arg-type]
        (compared[0], compared[1]),
        calibration=(drawn(train[0], calibration), drawn(train[1], calibration)),
        validation=to_measure(val),
        layout=layout,  # type: ignore[arg-type]
        workers=workers,
    )
    if json:
        print_json(done.to_dict())
        return
    parity = done.parity
    print(
        f"{out}: {format}, model {done.fingerprint}"
        + ("" if done.fingerprint == done.source else f" (made from {done.source})")
    )
    print(
        f"Compared on {parity.images[0]} and {parity.images[1]} images: vectors differ by at most "
        f"{parity.largest:.1e}, mean cosine {parity.cosine:.6f}, least {parity.least_cosine:.6f}."
    )
    if done.scores is not None:
        print(
            f"mAP@all on validation images: {done.scores['model']:.4f} -> {done.scores['export']:.4f} "
            f"({done.scores['change']:+.4f})"
        )
    if parity.cosine < FAR:
        print(
            f"isthmus: the mean cosine {parity.cosine:.3f} is low: this network loses much in int8; look at its mAP "
            "before you use it.",
            file=sys.stderr,
        )


def rows_of_both(
    place: Path, model: Model, given: tuple[str | None, str | None], root: str | None
) -> tuple[list[list[Row]], list[list[Row]]]:
    """Training and validation images of both domains, each from the command line or the run's settings.

    Raises:
        IsthmusError: a domain of another name, or images that can't be read.
    """
    from isthmus.config import DomainConfig, RunConfig
    from isthmus.data.training import read_domain
    from isthmus.errors import IsthmusError

    settings = place / "config.yaml"
    own: tuple[DomainConfig | None, DomainConfig | None] = (None, None)
    if None in given and settings.is_file():
        data = RunConfig.load(settings).data
        own = data.query, data.gallery
    train: list[list[Row]] = []
    val: list[list[Row]] = []
    for name, text, theirs in zip(model.domains, given, own, strict=True):
        domain = DomainConfig.parse(text, root=root) if text else theirs
        if domain is not None and domain.name != name:
            raise IsthmusError(f"The model's domain is '{name}', not '{domain.name}'; write  {name}=PATH.")
        for split, rows in (("train", train), ("val", val)):
            found: Manifest | None = None if domain is None else read_domain(domain, split)
            rows.append([] if found is None else list(found.select(domain=name, real=True)))
    return train, val


def to_measure(val: list[list[Row]]) -> tuple[Manifest, Manifest] | None:
    """Validation images for mAP, at most `MOST` a domain; None where there are none, or nothing in common."""
    from isthmus.data.manifest import Manifest
    from isthmus.export.run import drawn

    query, gallery = (Manifest(drawn(rows, MOST)) for rows in val)
    shared = any(
        {getattr(row, key) for row in query} & {getattr(row, key) for row in gallery} - {None}
        for key in ("label", "identity")
    )
    return (query, gallery) if shared else None
