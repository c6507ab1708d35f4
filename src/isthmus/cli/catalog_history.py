"""`isthmus catalog versions|rollback|compact|reembed`: a catalog's past, its upkeep and its change of model."""

from __future__ import annotations

import datetime as dt
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.changes import Reembedding

Place = Annotated[str, typer.Argument(metavar="CATALOG", help="The catalog.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]
Storage = Annotated[
    list[str] | None,
    typer.Option("--storage", help="A setting of object storage; may be repeated. AWS_... work too.", metavar="K=V"),
]
SHOWN = 10  # images on the terminal; JSON holds all
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


def versions(
    catalog: Place,
    limit: Annotated[int, typer.Option(help="How many, from the newest.", min=1)] = 20,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """What each of the last changes did, newest first."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import console, print_json, table

    found = Catalog.open(catalog, storage_options=read_options(storage)).versions(limit)
    if json:
        print_json([one.to_dict() for one in found])
        return
    rows = [(str(one.number), f"{one.time:%Y-%m-%d %H:%M:%S}", str(one.rows), one.what) for one in found]
    console().print(table("", ("version", "time (UTC)", "items", "change"), rows))


def rollback(
    catalog: Place,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="See  isthmus catalog versions.")],
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Make an older version the newest; what came after it stays among the versions."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json

    options = read_options(storage)
    made = Catalog.open(catalog, storage_options=options).rollback(version)
    now = Catalog.open(catalog, storage_options=options)  # its model may be another
    if json:
        print_json({"version": made, "restored": version, "items": len(now), "model": now.facts.fingerprint})
    elif made == version:
        print(f"version {version} is the newest already; nothing was changed")
    else:
        print(f"version {made} is what version {version} was: {len(now)} items, model {now.facts.fingerprint}")


def compact(
    catalog: Place,
    older_than: Annotated[
        str, typer.Option(help="Drop versions out of use for so long: 7d, 12h; at least 2h.", metavar="AGE")
    ] = "7d",
    alone: Annotated[
        bool, typer.Option("--alone", help="No other process uses the catalog: any age, and leftovers go too.")
    ] = False,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Merge small files, extend the index, drop old versions; readers go on."""
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.cli.common import print_json

    opened = Catalog.open(catalog, storage_options=read_options(storage))
    done = opened.compact(age(older_than), alone=alone)
    if json:
        print_json(done.to_dict())
        return
    print(f"{done.files_before} files became {done.files_after}; {done.versions_after} versions are kept")


def age(text: str) -> dt.timedelta:
    """`7d`, `12h` or `90m` as a span of time.

    Raises:
        IsthmusError: it is none.

    Example:
        >>> age("36h")
        datetime.timedelta(days=1, seconds=43200)
    """
    match = re.fullmatch(r"(\d{1,5})([dhm])", text.strip())
    if match is None:
        raise IsthmusError(f"--older-than is an age such as 7d, 12h or 90m, not '{text}'.")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def reembed(
    catalog: Place,
    model: Annotated[str, typer.Option(help="The new run or model folder.", metavar="RUN")],
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Switch without the items whose image is gone or unreadable.")
    ] = False,
    sample: Annotated[int, typer.Option(help="Items asked with, to tell how the first 10 hits change.", min=0)] = 200,
    workers: Annotated[int, typer.Option(help="Threads that read and decode.", min=0)] = 2,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Embed all items with another model beside the catalog, and switch at once; run it again to go on."""
    from isthmus.catalog.reembed import reembed as run
    from isthmus.catalog.storage import read_options
    from isthmus.cli.common import print_json

    try:
        options = read_options(storage)
        done = run(catalog, model, leave_out=leave_out, sample=sample, workers=workers, storage_options=options)
    except KeyboardInterrupt:
        print("isthmus: interrupted; the catalog is whole, and the same command goes on.", file=sys.stderr)
        raise typer.Exit(130) from None
    if json:
        print_json(done.to_dict())
    else:
        show(done)
    if not done.switched:
        raise typer.Exit(2)


def show(done: Reembedding) -> None:
    """What was done on standard output; what stands in the way on standard error."""
    from isthmus.cli.common import number, visible

    print(f"{done.items} items, {done.embedded} embedded now: model {done.old} -> {done.new}")
    if done.overlap is not None:
        found = done.overlap
        print(
            f"first 10 hits of {found.queries} items: {number(found.share)} of them the same, rank-biased overlap "
            f"{number(found.rank_biased)}, nothing changed for {number(found.same)}"
        )
        if found.most_changed:
            print(f"changed most: {visible(', '.join(found.most_changed))}")
    for one in done.gone[:SHOWN]:
        print(f"isthmus: no new vector: {visible(one.reason)}", file=sys.stderr)
    if len(done.gone) > SHOWN:
        print(f"isthmus: ... and {len(done.gone) - SHOWN} more; --json lists all", file=sys.stderr)
    if done.changed:
        print(f"isthmus: {len(done.changed)} images are others than when they were indexed", file=sys.stderr)
    if done.switched:
        carried = f"; {done.carried} items that changed meanwhile were carried over" if done.carried else ""
        print(f"the catalog is of the new model as of version {done.version}{carried}")
    else:
        print(
            f"isthmus: not switched: {len(done.gone)} items have no new vector; bring their images back, or leave them "
            "out with --leave-out. What was embedded is kept.",
            file=sys.stderr,
        )
