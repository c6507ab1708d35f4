"""`isthmus data`: published data sets, and pairs of one's own, as manifests and splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from isthmus.data.adapters import Adapter, Prepared
    from isthmus.data.manifest import Manifest

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sets as manifests and splits: list them, prepare one."
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """What `isthmus data prepare` knows: where to get it, what is written."""
    from isthmus.cli.common import print_json
    from isthmus.data.adapters import ADAPTERS

    if json:
        print_json([_facts(adapter) for adapter in ADAPTERS.values()])
        return
    for adapter in ADAPTERS.values():
        print(f"{adapter.name:<8}  {adapter.title} ({adapter.licence})")
        for word, text in (("page", adapter.page), ("layout", adapter.layout), ("gives", adapter.gives)):
            print(f"{'':<8}  {word}: {text}")
    print("Next:  isthmus data prepare NAME --root DIR")


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `isthmus data list`.")],
    root: Annotated[Path, typer.Option(help="The data set's folder, as extracted.", metavar="DIR")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: prepared/NAME.", metavar="DIR")] = None,
    splits: Annotated[
        int | None, typer.Option(help="How many train/test splits; default: the data set's own number.", metavar="N")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random splits.")] = 0,
    attributes: Annotated[str, typer.Option(help="market: paper or code, which 8 attributes.")] = "paper",
    test_share: Annotated[
        float | None, typer.Option(help="Share of the identities to test on, where splits are random.")
    ] = None,
    unmatched: Annotated[
        str, typer.Option(help="Identities that only one domain has: refuse, or skip and count them.")
    ] = "refuse",
    query: Annotated[str | None, typer.Option(help="pairs and faces: folder of the sketches, beneath DIR.")] = None,
    gallery: Annotated[str | None, typer.Option(help="pairs and faces: folder of the photos, beneath DIR.")] = None,
    min_images: Annotated[int | None, typer.Option(help="zappos: images a product needs; default 3.")] = None,
    json: Json = False,
) -> None:
    """Write a data set's manifest and splits as Parquet tables; images stay where they are."""
    from isthmus.cli.common import print_json
    from isthmus.data.adapters import Options, find, write
    from isthmus.data.adapters import prepare as read
    from isthmus.data.adapters.base import commands

    adapter = find(name)
    options = Options(
        root=root,
        splits=splits,
        seed=seed,
        attributes=attributes,
        test_share=test_share,
        unmatched=unmatched,
        query=query,
        gallery=gallery,
        min_images=min_images,
    )
    prepared = read(name, options)
    folder = out if out is not None else Path("prepared") / name
    asked = {key: value for key, value in vars(options).items() if key != "root" and value is not None}
    write(prepared, folder, {"name": name, "title": adapter.title, "page": adapter.page, "root": str(root), **asked})
    following = commands(prepared, adapter, folder)
    if json:
        tables = {file: _counts(rows) for file, rows in prepared.files().items()}
        further = {"texts": list(prepared.texts), "notes": list(prepared.notes), "next": following}
        print_json({"name": name, "out": str(folder), "tables": tables, **further})
        return
    _show(prepared, adapter, folder, following)


def _facts(adapter: Adapter) -> dict[str, Any]:
    names = ("name", "title", "page", "licence", "layout", "gives", "default_splits", "takes")
    return {name: getattr(adapter, name) for name in names}


def _counts(rows: Manifest) -> dict[str, Any]:
    domains = {domain: len(rows.select(domain=domain)) for domain in rows.domains}
    people: dict[str, set[str]] = {}
    for row in rows:
        if row.identity is not None:
            people.setdefault(row.split or "unsplit", set()).add(row.identity)
    return {
        "images": domains,
        "identities": {split: len(those) for split, those in sorted(people.items(), reverse=True)},
        "attributes": len({name for row in rows for name in row.attributes or ()}),
        "with_attributes": {domain: sum(bool(r.attributes) for r in rows.select(domain=domain)) for domain in domains},
    }


def _show(prepared: Prepared, adapter: Adapter, folder: Path, following: list[str]) -> None:
    from isthmus.cli.common import console, table, visible

    lines = []
    for file, rows in prepared.files().items():
        counts = _counts(rows)
        identities = ", ".join(f"{count} {split}" for split, count in counts["identities"].items())
        images = ", ".join(f"{count} {domain}" for domain, count in counts["images"].items())
        lines.append((file, images, identities, str(counts["attributes"] or "–")))
    title = f"{adapter.title} in {folder}"
    console().print(table(title, ("table", "images", "identities", "attributes"), lines))
    for name in prepared.texts:
        print(f"also written: {visible(name)}")
    for note in prepared.notes:
        print(f"note: {visible(note)}")
    print("Next:")
    for line in following:
        print(f"  {visible(line)}")
