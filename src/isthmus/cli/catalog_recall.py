"""`isthmus catalog recall`: what the quick search misses, and what it saves, on the catalog's own vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.catalog_history import Json, Place, Storage
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.embed import Vectors
    from isthmus.catalog.store import Catalog


def recall(
    catalog: Place,
    queries: Annotated[int, typer.Option(help="So many of its own items ask.", min=1)] = 200,
    images: Annotated[
        str | None, typer.Option(help="Folder, list or table of images that ask instead.", metavar="QUERIES")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Their domain; the model's query domain.")] = None,
    model: Annotated[str | None, typer.Option(help="The model, where it is no longer in its old place.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits to compare.", min=1)] = 10,
    memory: Annotated[str, typer.Option(help="As served: auto, flat or hnsw; off: the table's own index.")] = "auto",
    wanted: Annotated[float, typer.Option(help="Wanted recall of the graph in memory.")] = 0.98,
    tune: Annotated[
        float | None,
        typer.Option(help="Have the table's own index look as hard as this takes from now on.", metavar="RECALL"),
    ] = None,
    memory_mb: Annotated[int, typer.Option(help="That the vectors in memory may take.", min=1)] = 4096,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """How much of an exact search the quick search finds, and how long both take."""
    from isthmus.catalog.memory import use_memory
    from isthmus.catalog.memory_settings import MemorySettings
    from isthmus.catalog.recall import recall_report
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json

    if memory not in ("auto", "flat", "hnsw", "off"):
        raise IsthmusError(f"--memory is auto, flat, hnsw or off, not {memory!r}.")
    opened = Catalog.open(catalog, model, storage_options=read_options(storage))
    if tune is not None:
        memory, effort = "off", opened.tune(tune)
        if not json:
            short = "" if (effort.recall or 0) >= tune else f", which no effort raises to {tune}"
            print(
                f"The index keeps {effort.open} candidates open and compares {effort.refine} times as many as are "
                f"needed: recall@10 {effort.recall:.4f} on {effort.items} items{short}."
            )
    asking = queries if images is None else _embedded(opened, images, domain)
    note = ""
    if memory == "off":
        report = recall_report(opened, asking, k=k)
    else:
        kept = use_memory(opened, MemorySettings(memory, wanted, memory_mb))  # type: ignore[arg-type]
        try:
            report = recall_report(opened, asking, k=k)
            note = kept.state().note
        finally:
            kept.close()
    if json:
        print_json({**report.to_dict(), "note": note})
        return
    print(
        f"{report.way}: recall@{report.k} {report.recall:.4f} over {report.queries} queries and {report.items} items "
        f"(worst query {report.worst:.2f}; {report.perfect:.0%} of them found everything)"
    )
    print(f"one search: {report.quick_ms:.2f} ms, compared with every item {report.exact_ms:.2f} ms (medians)")
    if note:
        print(note)


def _embedded(catalog: Catalog, images: str, domain: str | None) -> Vectors:
    """Vectors (n, dim) of the images that can be read."""
    from isthmus.catalog.embed import embed
    from isthmus.data.sources import read_source

    name = domain or catalog.facts.domains[0]
    rows = list(read_source(images, name))
    vectors, bad = embed(catalog.model, [row.path for row in rows], domain=name, centring=catalog.facts.centring,
                         workers=2, on_bad="skip")  # fmt: skip
    good = [place for place in range(len(rows)) if place not in bad]
    if not good:
        raise IsthmusError(f"{images} holds no image that can be read; name others with --images.")
    found: Vectors = vectors[good]
    return found
