"""`isthmus index`: a folder of images into a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.changes import Changes
    from isthmus.catalog.store import Catalog
    from isthmus.data.manifest import Manifest

SHOWN = 10  # bad images on the terminal; JSON holds all


def index(
    model: Annotated[str, typer.Argument(metavar="RUN", help="The run or model folder.")],
    photos: Annotated[
        str, typer.Argument(metavar="PHOTOS", help="Folder, list or table (its further columns become metadata).")
    ],
    out: Annotated[
        str, typer.Option(help="The catalog: a new folder, or one to add to; also s3://bucket/name.", metavar="CATALOG")
    ],
    domain: Annotated[str | None, typer.Option(help="Domain of the images; the model's gallery domain.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="CSV or Parquet with a column id or path; the others become metadata.")
    ] = None,
    sync: Annotated[bool, typer.Option("--sync", help="Also remove items whose image is gone from PHOTOS.")] = False,
    on_bad: Annotated[str, typer.Option(help="Unreadable images: skip (and list) or raise.")] = "skip",
    workers: Annotated[int, typer.Option(help="Threads that read and decode.", min=0)] = 2,
    thorough: Annotated[bool, typer.Option("--thorough", help="Read also files of unchanged size and time.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Estimate time, memory and disk, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Embed images and store them in a catalog; run it again to go on or to add what is new."""
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json

    policy = how(on_bad)
    if sync and not Path(photos).is_dir():
        raise IsthmusError(f"--sync compares with a folder, and {photos} is none; leave --sync out or name the folder.")
    catalog = Catalog.open(out, model) if Catalog.exists(out) else None
    if plan:
        estimate = planned(catalog, model, photos, domain, workers)
        print_json(estimate.to_dict()) if json else print(estimate.text())
        return
    if catalog is None:
        # A mistake in the images or their metadata should not leave an empty catalog behind.
        check_metadata(metadata, ready(model, photos, domain)[0], photos)
        catalog = Catalog.create(out, model, domain=domain)
    options: dict[str, Any] = {
        "metadata": metadata, "domain": domain, "on_bad": policy, "workers": workers, "thorough": thorough,
    }  # fmt: skip
    write(catalog, photos, options, sync=sync, json=json)


def how(on_bad: str) -> Literal["skip", "raise"]:
    """The policy for unreadable images."""
    if on_bad == "skip":
        return "skip"
    if on_bad == "raise":
        return "raise"
    raise IsthmusError(f"--on-bad is skip or raise, not '{on_bad}'.")


def ready(model: str, photos: str, domain: str | None) -> Any:
    """The images, read with the domains of the model."""
    from isthmus.catalog.embed import check_domain
    from isthmus.catalog.owner import load_model
    from isthmus.data.sources import read_source

    loaded, _ = load_model(model)
    check_domain(domain or loaded.domains[1], loaded.domains)
    return read_source(photos, domain or loaded.domains[1]), loaded


def check_metadata(metadata: str | None, manifest: Manifest, photos: str) -> None:
    """Raise where the table can't be used, or speaks of none of the images."""
    from isthmus.catalog.metadata import Metadata
    from isthmus.data.manifest import absolute

    if metadata is not None:
        table = Metadata.read(metadata)
        for row in manifest:
            table.find(row.id, row.path, absolute(photos))
        table.require_match(row.id for row in manifest)


def planned(catalog: Catalog | None, model: str, photos: str, domain: str | None, workers: int) -> Any:
    """The plan of embedding what is not in the catalog yet."""
    from isthmus.catalog.embed import plan_embedding
    from isthmus.catalog.ingest import read_images, rows_to_embed

    if catalog is None:
        manifest, loaded = ready(model, photos, domain)
        return plan_embedding(loaded, manifest.rows, workers=workers)
    rows = rows_to_embed(catalog.items, read_images(photos, catalog.facts, domain))
    return plan_embedding(
        catalog.model, rows, already=len(catalog), index_above=catalog.facts.index_above, workers=workers
    )


def write(catalog: Catalog, photos: str, options: dict[str, Any], *, sync: bool, json: bool) -> None:
    """Add or synchronise, and say what was done; an interruption says what is kept."""
    import sys

    from isthmus.cli.common import print_json

    try:
        changes = catalog.sync(photos, **options) if sync else catalog.add(photos, **options)
    except KeyboardInterrupt:
        print(
            f"isthmus: interrupted; {len(catalog)} items are in {catalog.path}, and the same command goes on.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    if json:
        print_json({**changes.to_dict(), "items": len(catalog), "catalog": catalog.path})
    else:
        show(changes, catalog)


def show(changes: Changes, catalog: Catalog) -> None:
    """What was done: counts on standard output, what was left out on standard error."""
    import sys

    from isthmus.cli.common import visible
    from isthmus.progress import clock

    words = ("added", "updated", "refreshed", "moved", "removed", "unchanged")
    counted = ", ".join(f"{number} {word}" for word in words if (number := getattr(changes, word))) or "nothing to do"
    embedded = f"; {changes.embedded} embedded in {clock(changes.seconds)}" if changes.embedded else ""
    print(f"{visible(catalog.path)}: {counted}{embedded}; {len(catalog)} items")
    if changes.index:
        print(f"({changes.index})")
    notes = [f"left out: {visible(bad.reason)}" for bad in changes.bad[:SHOWN]]
    if len(changes.bad) > SHOWN:
        notes.append(f"... and {len(changes.bad) - SHOWN} more; --json lists all")
    if changes.bad:
        notes.append(f"{len(changes.bad)} images were left out")
    if changes.same:
        first, second = changes.same[0]
        notes.append(f"{len(changes.same)} images have the content of another, such as {first} = {second}")
    if changes.unmatched:
        notes.append(f"{changes.unmatched} rows of the metadata belong to no image")
    for note in notes:
        print(f"isthmus: {visible(note)}", file=sys.stderr)
