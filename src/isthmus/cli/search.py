"""`isthmus search`: images of a catalog that are like a query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.catalog_history import Storage

if TYPE_CHECKING:
    from isthmus.catalog.search import Hit

COLUMNS = 6  # metadata columns on the terminal; JSON holds all


def search(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="The catalog.")],
    queries: Annotated[
        list[str], typer.Argument(metavar="QUERY...", help="Image files, or ids of items to find others like.")
    ],
    k: Annotated[int, typer.Option("-k", "--k", help="Hits for each query.", min=1)] = 10,
    domain: Annotated[str | None, typer.Option(help="Domain of the queries; the model's query domain.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Only such items, for example  \"price < 50 AND brand IN ('Acme', 'Umbra')\".")
    ] = None,
    offset: Annotated[int, typer.Option(help="Pass over the best so many.", min=0)] = 0,
    model: Annotated[str | None, typer.Option(help="The model, where it is no longer in its old place.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write a picture of the hits here.", metavar="FILE.png")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every item, without the index.")] = False,
    matches_only: Annotated[
        bool, typer.Option("--matches-only", help="Only matches by the model's calibrated threshold, perhaps none.")
    ] = False,
    storage: Storage = None,
    json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON and nothing else.")] = False,
) -> None:
    """Search a catalog with images or with its own items."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json, visible

    opened = Catalog.open(catalog, model, storage_options=read_options(storage))
    answers = opened.search_many(
        queries, domain=domain, k=k, where=where, offset=offset, exact=exact, matches_only=matches_only
    )
    if save is not None:
        write_sheet(save, queries, answers, opened)
    if json:
        print_json(
            [
                {"query": query, "hits": [hit.to_dict() for hit in hits]}
                for query, hits in zip(queries, answers, strict=True)
            ]
        )
        return
    for query, hits in zip(queries, answers, strict=True):
        show(query, hits, offset, matches_only=matches_only)
    if save is not None:
        print(f"pictures: {visible(str(save))}")


def show(query: str, hits: list[Hit], offset: int, *, matches_only: bool = False) -> None:
    """One table for a query."""
    from isthmus.cli.common import console, number, table, visible

    if not hits:
        reason = "no match above the threshold" if matches_only else "no item passes the filter"
        print(f"{visible(query)}: {reason}")
        return
    extra = list(dict.fromkeys(name for hit in hits for name in hit.metadata))[:COLUMNS]
    labelled = any(hit.label for hit in hits)
    calibrated = any(hit.match is not None for hit in hits)
    rows = [
        [
            hit.id,
            str(offset + place),
            number(hit.score),
            *([number(hit.probability), {True: "yes", False: "no", None: ""}[hit.match]] if calibrated else []),
            *([hit.label or ""] if labelled else []),
            *(cell(hit.metadata.get(name)) for name in extra),
        ]
        for place, hit in enumerate(hits, start=1)
    ]
    columns = [
        "id",
        "rank",
        "cosine",
        *(["probability", "match"] if calibrated else []),
        *(["label"] if labelled else []),
        *extra,
    ]
    console().print(table(query, columns, rows))
    if calibrated and not offset and not any(hit.match for hit in hits):
        print(f"{visible(query)}: no match above the threshold; the hits are only the nearest.")


def cell(value: Any) -> str:
    """A metadata value for a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def write_sheet(path: Path, queries: list[str], answers: list[list[Hit]], catalog: Any) -> None:
    """A picture: each query with its hits beside it."""
    import io

    from isthmus.catalog.view import hit_sheets
    from isthmus.errors import IsthmusError
    from isthmus.io import atomic_write_bytes

    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise IsthmusError(f"{path} is no picture by its name; end it in .png, .jpg or .webp.")
    ids = [query for query in queries if not Path(query).is_file()]
    paths = {row["id"]: row["path"] for row in catalog.items.fetch(ids)[0]}
    rows = [(paths.get(query, query), hits) for query, hits in zip(queries, answers, strict=True)]
    buffer = io.BytesIO()
    kind = {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")
    hit_sheets(rows).save(buffer, format=kind)
    atomic_write_bytes(path, buffer.getvalue())
