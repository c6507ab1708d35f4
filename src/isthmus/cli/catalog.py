"""`isthmus catalog`: what a catalog is, and changes to it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from isthmus.cli import catalog_history, catalog_recall
from isthmus.cli.catalog_history import Json, Place, Storage
from isthmus.errors import IsthmusError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at a catalog, check it and change it.")

Images = Annotated[str, typer.Argument(metavar="PHOTOS", help="Folder, list or table of images.")]
ModelPath = Annotated[str | None, typer.Option(help="The model, where it is no longer in its old place.")]
DomainName = Annotated[str | None, typer.Option(help="Domain of the images; the catalog's.")]
Table = Annotated[str | None, typer.Option(help="CSV or Parquet with a column id or path; the others become metadata.")]
OnBad = Annotated[str, typer.Option(help="Unreadable images: skip (and list) or raise.")]
Workers = Annotated[int, typer.Option(help="Threads that read and decode.", min=0)]
Thorough = Annotated[bool, typer.Option("--thorough", help="Read also files of unchanged size and time.")]


@app.command()
def info(catalog: Place, storage: Storage = None, json: Json = False) -> None:
    """Size, model, metadata columns and index; needs no model."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json, visible
    from isthmus.plan import size

    facts = Catalog.open(catalog, storage_options=read_options(storage)).info()
    if json:
        print_json(facts)
        return
    shown: dict[str, Any] = {
        **facts,
        "domains": " and ".join(facts["domains"]),
        "metadata": ", ".join(f"{name} ({kind})" for name, kind in facts["metadata"].items()) or "none",
        "bytes": "unknown" if facts["bytes"] is None else size(facts["bytes"]),
        "model_path": facts["model_path"] or "unknown",
        "centring": {None: "as the model", True: "yes", False: "no"}[facts["centring"]],
    }
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name.replace('_', ' '):<{width}}  {visible(str(value))}")


@app.command()
def add(
    catalog: Place,
    photos: Annotated[str | None, typer.Argument(metavar="[PHOTOS]", help="Folder, list or table of images.")] = None,
    metadata: Table = None,
    domain: DomainName = None,
    model: ModelPath = None,
    on_bad: OnBad = "skip",
    workers: Workers = 2,
    thorough: Thorough = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Add images; without PHOTOS, only the metadata of items that are there (needs no model)."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json
    from isthmus.cli.index import how, write

    opened = Catalog.open(catalog, model, storage_options=read_options(storage))
    if photos is None:
        if metadata is None:
            raise IsthmusError("Say what to add: images (PHOTOS), --metadata TABLE, or both.")
        changed = opened.update(metadata)
        print_json({"changed": changed}) if json else print(f"{changed} items have new metadata")
        return
    options = {"metadata": metadata, "domain": domain, "on_bad": how(on_bad), "workers": workers, "thorough": thorough}
    write(opened, photos, options, sync=False, json=json)


@app.command()
def sync(
    catalog: Place,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder to be equal to.")],
    metadata: Table = None,
    domain: DomainName = None,
    model: ModelPath = None,
    on_bad: OnBad = "skip",
    workers: Workers = 2,
    thorough: Thorough = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Make the catalog equal to a folder: add, replace, move and remove by content."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.index import how, write

    options = {"metadata": metadata, "domain": domain, "on_bad": how(on_bad), "workers": workers, "thorough": thorough}
    opened = Catalog.open(catalog, model, storage_options=read_options(storage))
    write(opened, folder, options, sync=True, json=json)


@app.command()
def delete(
    catalog: Place,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Items to delete.")] = None,
    where: Annotated[str | None, typer.Option(help="Delete what passes this filter.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Delete items by id or by a filter; the image files stay."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json

    opened = Catalog.open(catalog, storage_options=read_options(storage))
    count = opened.delete(ids or None, where=where)
    left = len(opened)
    print_json({"deleted": count, "items": left}) if json else print(f"{count} items deleted, {left} left")


@app.command()
def verify(
    catalog: Place,
    files: Annotated[bool, typer.Option("--files", help="Also look for image files that are gone or changed.")] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Read the whole catalog and report damage; exit code 2 where there is any."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json, visible

    report = Catalog.open(catalog, storage_options=read_options(storage)).verify(files=files)
    if json:
        print_json(report.to_dict())
    else:
        print(f"{report.rows} items read: {'sound' if report.sound else 'damaged'}")
        for problem in report.problems:
            print(visible(problem))
        for what, found in (("is gone", report.files_missing), ("has changed", report.files_changed)):
            for path in found:
                print(f"{visible(path)} {what}")
    if not report.sound:
        raise typer.Exit(2)


for verb in (
    catalog_history.versions,
    catalog_history.rollback,
    catalog_history.compact,
    catalog_history.reembed,
    catalog_recall.recall,
):
    app.command()(verb)
