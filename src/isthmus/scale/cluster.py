"""Embedding images of any number into a catalog with a Ray cluster: resumable, and with the vectors of one process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isthmus.catalog.changes import Changes, Options
from isthmus.catalog.ingest import Images, write_images
from isthmus.catalog.metadata import Source
from isthmus.catalog.store import Catalog
from isthmus.data.files import show_name
from isthmus.data.manifest import absolute
from isthmus.errors import IsthmusError
from isthmus.scale.reader import RayReader
from isthmus.translate.pool import stoppable
from isthmus.translate.ray_connect import reached
from isthmus.translate.ray_stream import Share

DECODERS = 16  # CPUs of a worker with a GPU, at most


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to.

    Attributes:
        address: as it was given.
        share: how many actors, and what each takes.
    """

    address: str
    share: Share

    def index(
        self,
        catalog: Catalog,
        images: Images,
        *,
        model: str | Path | None = None,
        metadata: Source | None = None,
        domain: str | None = None,
        on_bad: Literal["raise", "skip"] = "skip",
        thorough: bool = False,
        sync: bool = False,
    ) -> Changes:
        """`Catalog.add`, or `Catalog.sync` with `sync=True`, whose images the cluster reads and embeds.

        This process alone writes to the catalog, a version every few seconds, so that whatever dies, what was written
        stays and the same call goes on. Images of one content may be embedded more than once where different blocks of
        images hold them; the catalog gets one vector for all.

        Args:
            catalog: an open catalog.
            images: a folder, a list, a table or a manifest; the nodes see the files at the same paths.
            model: the model or run folder, which the nodes see at the same path; where the catalog found it if None.
            metadata: as in `Catalog.add`.
            domain: the images' domain; the catalog's if None. Ignored for a manifest.
            on_bad: `"skip"` lists unreadable images in the result, `"raise"` stops at the first.
            thorough: have every file read even where size and time say that it is unchanged.
            sync: also remove the items beneath the folder whose image is gone.

        Raises:
            IsthmusError: what `Catalog.add` and `Catalog.sync` raise; a node that is not fit for the work; Ray failed.
        """
        place = str(model) if model is not None else catalog.facts.model
        if not place or not Path(place).is_dir():
            was = f"{place} is no folder" if place else "its place is not known"
            raise IsthmusError(f"Ray's workers load the catalog's model themselves, and {was}: name its folder.")
        if sync and (not isinstance(images, (str, Path)) or not Path(images).is_dir()):
            name = show_name(images) if isinstance(images, (str, Path)) else "a manifest"
            raise IsthmusError(f"A catalog is synchronised with a folder, and {name} is none; check the path.")
        precision = getattr(catalog.model, "precision", "float32")
        reader = RayReader(self.address, self.share, absolute(place), catalog.facts.fingerprint, precision)
        options = Options(on_bad, 0, thorough, prune=sync)
        with stoppable():
            return write_images(
                catalog.items, catalog.facts, catalog.model, images, domain, metadata, options, reader=reader
            )


@contextlib.contextmanager
def ray_cluster(
    address: str = "auto", *, actors: int | None = None, cpus: int | None = None, gpus: float | None = None
) -> Iterator[Cluster]:
    """A connection to Ray for the length of the block.

    Args:
        address: `auto` (the cluster of this machine, or of RAY_ADDRESS), `local` (a cluster of this machine alone, for
            the length of the block), `host:port`, or `ray://host:port`.
        actors: how many workers, each with a model of its own; None: one a GPU, or one a node where there are none.
        cpus: of each; a model without a GPU computes on them, all of them read and decode. None: what fits.
        gpus: of each, also a part of one; 0: none. None: one where the cluster has any.

    Raises:
        IsthmusError: no Ray, nobody at the address, or no node that has so much.

    Example:
        >>> with ray_cluster("ray://head:10001", actors=8) as cluster:                      # doctest: +SKIP
        ...     cluster.index(isthmus.Catalog.open("catalog"), "photos/").added
        1200000
    """
    for name, value, least in (("actors", actors, 1), ("cpus", cpus, 1), ("gpus", gpus, 0)):
        if value is not None and not value >= least:
            raise IsthmusError(f"--ray-{name} {value} leaves Ray nothing to work with: {least} is the least.")
    with reached(address) as found:
        import ray

        alive: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [(int(node.get("CPU", 0)), float(node.get("GPU", 0))) for node in alive]
        yield Cluster(found, divide(nodes, found, actors, cpus, gpus))


def divide(
    nodes: list[tuple[int, float]], address: str, actors: int | None, cpus: int | None, gpus: float | None
) -> Share:
    """What each actor takes of nodes with so many (CPUs, GPUs).

    Raises:
        IsthmusError: no node has what one actor takes.

    Example:
        >>> divide([(16, 0), (64, 4.0)], "auto", None, None, None)
        Share(actors=4, cpus=16, gpus=1.0)
    """
    each = gpus if gpus is not None else float(any(gpu >= 1 for _, gpu in nodes))
    fit = [(cpu, gpu) for cpu, gpu in nodes if cpu >= (cpus or 1) and gpu >= each]
    if not fit:
        if actors and not any(cpu for cpu, _ in nodes):
            return Share(actors, cpus or 1, each)  # a cluster that grows when it is asked to
        with_gpu = f" and {each:g} GPU" if each else ""
        raise IsthmusError(
            f"No node of the Ray cluster at {address} has {cpus or 1} CPU{with_gpu} for a worker: add one, or ask for "
            "less with --ray-cpus and --ray-gpus."
        )
    if each:
        room = [(cpu, int(gpu / each)) for cpu, gpu in fit]
        share = min(max(1, cpu // many) for cpu, many in room)
        return Share(actors or sum(many for _, many in room), cpus or min(share, DECODERS), each)
    # A model takes all cores itself, and a copy for each core may not fit into memory.
    sizes = [cpu for cpu, _ in fit]
    if actors is None:
        actors = len(sizes) if cpus is None else sum(size // cpus for size in sizes)
    return Share(actors, cpus or max(1, min(min(sizes), sum(sizes) // actors)), each)
