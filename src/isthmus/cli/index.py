"""`isthmus index`: a folder of images into a catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isthmus.cli.catalog_history import Storage
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.changes import Changes
    from isthmus.catalog.store import Catalog
    from isthmus.data.manifest import Manifest
    from isthmus.scale.cluster import Cluster

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
    workers: Annotated[int | None, typer.Option(help="Threads that read and decode; 2 if not given.", min=0)] = None,
    recall: Annotated[
        float | None, typer.Option(help="Wanted recall@10 of the index of a large new catalog; 0.98.", metavar="R")
    ] = None,
    precision: Annotated[str, typer.Option(help="That the model computes in: float32 or bfloat16.")] = "float32",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Embed on a Ray cluster: auto, local, host:port or ray://...")
    ] = None,
    ray_actors: Annotated[int | None, typer.Option(help="Its workers, each with a model of its own.", min=1)] = None,
    ray_cpus: Annotated[int | None, typer.Option(help="CPUs of each.", min=1)] = None,
    ray_gpus: Annotated[float | None, typer.Option(help="GPUs of each, also a part of one; 0: none.", min=0)] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Read also files of unchanged size and time.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Estimate time, memory and disk, and stop.")] = False,
    storage: Storage = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Embed images and store them in a catalog; run it again to go on or to add what is new."""
    from isthmus.catalog.effort import check_recall
    from isthmus.catalog.storage import read_options
    from isthmus.catalog.store import Catalog
    from isthmus.catalog.table import RECALL
    from isthmus.cli.common import print_json
    from isthmus.models.hub import local
    from isthmus.models.precision import check_precision, set_precision

    check_precision(precision)
    model = str(local(model))
    policy = how(on_bad)
    sizes = {"actors": ray_actors, "cpus": ray_cpus, "gpus": ray_gpus}
    check_ray(ray, sizes, workers=workers, plan=plan)
    workers = 2 if workers is None else workers
    if sync and not Path(photos).is_dir():
        raise IsthmusError(f"--sync compares with a folder, and {photos} is none; leave --sync out or name the folder.")
    place = read_options(storage)
    found = Catalog.exists(out, storage_options=place)
    catalog = Catalog.open(out, model, storage_options=place) if found else None
    if catalog is not None:
        set_precision(catalog.model, precision)
    if recall is not None:
        check_recall(recall)
        if catalog is not None:
            raise IsthmusError(
                f"--recall is for a new catalog, and {out} is there already: use  isthmus catalog recall {out} --tune "
                f"{recall}"
            )
    if plan:
        estimate = planned(catalog, model, photos, domain, workers, precision)
        print_json(estimate.to_dict()) if json else print(estimate.text())
        return
    with reach(ray, sizes) as cluster:
        if catalog is None:
            # A mistake in the images or their metadata should not leave an empty catalog behind.
            check_metadata(metadata, ready(model, photos, domain)[0], photos)
            wanted = RECALL if recall is None else recall
            catalog = Catalog.create(out, model, domain=domain, storage_options=place, recall=wanted)
            set_precision(catalog.model, precision)
        options: dict[str, Any] = {"metadata": metadata, "domain": domain, "on_bad": policy, "thorough": thorough}
        if cluster is None:
            write(catalog, photos, {**options, "workers": workers}, sync=sync, json=json)
        else:
            embed = partial(cluster.index, catalog, photos, model=model, sync=sync, **options)
            tell(embed, catalog, json=json)


def check_ray(ray: str | None, sizes: Mapping[str, float | None], *, workers: int | None, plan: bool) -> None:
    """Raise where options don't go together."""
    if ray is None:
        if given := [name for name, value in sizes.items() if value is not None]:
            raise IsthmusError(f"--ray-{given[0]} speaks of a Ray cluster: say which with --ray, or leave it out.")
        return
    if workers is not None:
        raise IsthmusError(
            "--workers counts threads of this process, and with --ray others read: leave it out, and say how many they "
            "are with --ray-actors and --ray-cpus."
        )
    if plan:
        raise IsthmusError("--plan measures this machine and knows nothing of a Ray cluster: leave --ray out.")


def reach(ray: str | None, sizes: Mapping[str, Any]) -> AbstractContextManager[Cluster | None]:
    """The cluster, or None where none is asked for."""
    if ray is None:
        return nullcontext()
    from isthmus.scale.cluster import ray_cluster

    return ray_cluster(ray, **sizes)


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


def planned(
    catalog: Catalog | None, model: str, photos: str, domain: str | None, workers: int, precision: str = "float32"
) -> Any:
    """The plan of embedding what is not in the catalog yet."""
    from isthmus.catalog.embed import plan_embedding
    from isthmus.catalog.ingest import read_images, rows_to_embed

    if catalog is None:
        from isthmus.models.precision import set_precision

        manifest, loaded = ready(model, photos, domain)
        set_precision(loaded, precision)
        return plan_embedding(loaded, manifest.rows, workers=workers)
    rows = rows_to_embed(catalog.items, read_images(photos, catalog.facts, domain))
    return plan_embedding(
        catalog.model, rows, already=len(catalog), index_above=catalog.facts.index_above, workers=workers
    )


def write(catalog: Catalog, photos: str, options: dict[str, Any], *, sync: bool, json: bool) -> None:
    """Add or synchronise, and say what was done."""
    tell(partial(catalog.sync if sync else catalog.add, photos, **options), catalog, json=json)


def tell(work: Callable[[], Changes], catalog: Catalog, *, json: bool) -> None:
    """Do `work` and say what was done; an interruption says what is kept."""
    import sys

    from isthmus.cli.common import print_json

    try:
        changes = work()
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
