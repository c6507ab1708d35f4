"""`isthmus data`: published data sets, and pairs of one's own, as manifests and splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from isthmus.data.adapters import Adapter, Prepared
    from isthmus.data.manifest import Manifest

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data sets as manifests and splits: list, prepare, verify."
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One data set; default: all of them.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Also say what is missing beneath DIR, a data set's folder.", metavar="DIR")
    ] = None,
    json: Json = False,
) -> None:
    """What `isthmus data prepare` knows: where to get it, its licence, what is written, what is missing."""
    from isthmus.cli.common import print_json, visible
    from isthmus.data.adapters import ADAPTERS, find
    from isthmus.data.adapters.verify import missing_parts

    chosen = [find(name)] if name is not None else list(ADAPTERS.values())
    lacks = {adapter.name: missing_parts(adapter, root) for adapter in chosen} if root is not None else {}
    if json:
        print_json([_facts(a) | ({"missing": lacks[a.name]} if a.name in lacks else {}) for a in chosen])
        return
    for adapter in chosen:
        print(f"{adapter.name:<11}  {adapter.title} ({adapter.licence})")
        facts = [("page", adapter.page), ("layout", adapter.layout), ("gives", adapter.gives)]
        if adapter.name in lacks:
            facts.append(("missing", ", ".join(lacks[adapter.name]) or "nothing"))
        for word, text in facts:
            print(f"{'':<11}  {word}: {visible(text)}")
    print("Next:  isthmus data prepare NAME --root DIR")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set of `isthmus data list`.")],
    root: Annotated[Path, typer.Option(help="The data set's folder, as extracted.", metavar="DIR")],
    quick: Annotated[bool, typer.Option("--quick", help="Decode no image; find missing and empty files only.")] = False,
    json: Json = False,
) -> None:
    """Count a data set's images against the publication and read each; exit code 2 where something does not fit."""
    from isthmus.cli.common import console, print_json, table, visible
    from isthmus.data.adapters import find
    from isthmus.data.adapters.verify import verify as look

    adapter = find(name)
    found = look(adapter, root, decode=not quick)
    if json:
        counts = [vars(count) for count in found.counts]
        print_json({"name": name, "root": str(root), "ok": found.ok, "counts": counts, "problems": found.problems})
    else:
        lines = [
            (c.domain, str(c.images), str(c.published or "not known"), str(c.classes or "–")) for c in found.counts
        ]
        title = f"{adapter.title} in {visible(str(root))}"
        console().print(table(title, ("domain", "images", "published", "classes"), lines))
        for problem in found.problems:
            print(f"problem: {visible(problem)}")
        print(f"Next:  isthmus data prepare {name} --root DIR" if found.ok else f"Get it from {adapter.page}")
    if not found.ok:
        raise typer.Exit(2)


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
    query: Annotated[
        str | None, typer.Option(help="Folder of the sketches, beneath DIR; of sets of classes: the query domain.")
    ] = None,
    gallery: Annotated[
        str | None, typer.Option(help="Folder of the photos, beneath DIR; of sets of classes: the gallery domain.")
    ] = None,
    min_images: Annotated[int | None, typer.Option(help="zappos: images a product needs; default 3.")] = None,
    lists: Annotated[Path | None, typer.Option(help="Folder of SynCDR's file lists.", metavar="DIR")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="class-disjoint, partial, open-set, full, zero-shot or generalised-zero-shot."),
    ] = None,
    class_split: Annotated[int | None, typer.Option(help="sketchy: zero-shot class split 1 or 2; default 2.")] = None,
    unseen: Annotated[
        Path | None, typer.Option(help="Zero-shot: a text file with a test class a line.", metavar="FILE")
    ] = None,
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
        lists=lists,
        protocol=protocol,
        class_split=class_split,
        unseen=unseen,
    )
    prepared = read(name, options)
    folder = out if out is not None else Path("prepared") / name
    given = {key: value for key, value in vars(options).items() if key != "root" and value is not None}
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
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
    classes: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        if row.label is not None:
            classes.setdefault(row.domain, {}).setdefault(row.split or "unsplit", set()).add(row.label)
    labelled = {name: {split: len(those) for split, those in sorted(found.items())} for name, found in classes.items()}
    return {
        **({"classes": labelled} if labelled else {}),
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
        for name, found in counts.get("classes", {}).items():
            of_split = ", ".join(f"{count} {split}" for split, count in found.items())
            identities += f"{'; ' if identities else ''}{name}: {of_split}"
        images = ", ".join(f"{count} {domain}" for domain, count in counts["images"].items())
        lines.append((file, images, identities, str(counts["attributes"] or "–")))
    title = f"{adapter.title} in {folder}"
    what = "classes" if adapter.family else "identities"
    console().print(table(title, ("table", "images", what, "attributes"), lines))
    for name in prepared.texts:
        print(f"also written: {visible(name)}")
    for note in prepared.notes:
        print(f"note: {visible(note)}")
    print("Next:")
    for line in following:
        print(f"  {visible(line)}")
