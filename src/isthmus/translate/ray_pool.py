"""Batches through a Ray cluster: an actor pool of Ray Data, each actor with a translator of its own.

Written once, a batch stays written: whatever dies, be it an actor, a node or the driver, only what was in hand is done
again, to the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isthmus import __version__
from isthmus.data.manifest import absolute
from isthmus.errors import IsthmusError
from isthmus.io import explain_os_errors
from isthmus.translate.base import TRANSLATORS, Samples, TranslatorChoice, choose, translator_class
from isthmus.translate.pool import Batch
from isthmus.translate.ray_connect import explain, quiet_data
from isthmus.translate.ray_stream import Share, stream
from isthmus.translate.ray_worker import BATCH, DONE, ERROR, Errand, RayWorker, choose_there, pack
from isthmus.translate.work import Done, Job

BLOCK = 8  # batches an actor takes at a time, at most: within a block, reading and writing overlap with the model
LOOKED_AT = 5  # source images that each node has to see


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to. `workers`: how many actors, None for as many as fit."""

    address: str
    workers: int | None = None

    def choose(self, name: str, settings: Mapping[str, Any], samples: Samples) -> TranslatorChoice:
        """On a GPU node where the work will be done on GPUs: device, precision and batch size depend on it."""
        import ray

        translator_class(name)
        if not self.share(name).gpus:
            return choose(name, settings, samples)
        # A worker process that held a model would keep the GPU's memory: one call, and it ends.
        task = ray.remote(num_gpus=1, max_calls=1)(choose_there)
        try:
            found = ray.get(task.remote(TRANSLATORS[name], __version__, name, dict(settings), samples))
        except ray.exceptions.RayError as error:
            raise explain(error, self.address) from error
        if isinstance(found, bytes):
            raise pickle.loads(found)
        choice: TranslatorChoice = found
        return choice

    def processes(self, name: str, images: int) -> int:
        """How many actors, where there is a batch for each."""
        return self.share(name).actors

    def share(self, name: str) -> Share:
        """A GPU an actor where there are GPUs and a model; else a CPU an actor, or a node for a model.

        Raises:
            IsthmusError: the cluster has nothing to work with, and `workers` doesn't say what it will have.
        """
        import ray

        total = ray.cluster_resources()
        cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
        if not translator_class(name).independent:
            if gpus:
                return Share(self.workers or gpus, 1, 1)
            # A model takes all cores itself, and a copy for each core may not fit into memory.
            each = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            sizes = [size for size in each if size]
            if sizes:
                actors = self.workers or len(sizes)
                return Share(actors, max(1, min(min(sizes), cpus // actors)), 0)
        if not cpus and self.workers is None:
            raise IsthmusError(
                f"The Ray cluster at {self.address} has no CPU for workers: add a node, or say with --workers how many "
                "it will get."
            )
        return Share(self.workers or cpus, 1, 0)

    def run(self, batches: Sequence[Batch], job: Job) -> Iterator[Done]:
        """Do `batches` on the cluster.

        Raises:
            IsthmusError: what a worker raised; a node without Isthmus or without the folder; a batch whose workers die.
        """

        if not batches:
            return
        share = self.share(job.choice.name)
        share = replace(share, actors=min(share.actors, len(batches)))
        share.say(self.address)
        job = replace(job, out=Path(absolute(job.out)))
        batches = [[replace(item, path=absolute(item.path)) for item in batch] for batch in batches]
        texts = [pack(batch) for batch in batches]
        with _marker(job.out) as marker:
            errand = Errand(job, TRANSLATORS[job.choice.name], __version__, marker, _some_sources(batches))
            for row in stream(self.address, results, texts, errand, share):
                if row[ERROR]:
                    raise pickle.loads(row[ERROR])
                done: Done = pickle.loads(row[DONE])
                yield done


def results(texts: Sequence[str], errand: Errand, share: Share) -> Iterator[dict[str, bytes]]:
    """A row for each of the batches `texts`, as they are finished: what became of it, or the error that stopped it."""
    import ray.data

    size = max(1, min(BLOCK, len(texts) // (4 * share.actors)))
    with quiet_data():
        rows = ray.data.from_items([{BATCH: text} for text in texts], override_num_blocks=-(-len(texts) // size))
        yield from rows.map_batches(
            RayWorker,
            fn_constructor_args=(errand,),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=share.actors, max_tasks_in_flight_per_actor=2),
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
        ).iter_rows()


@contextlib.contextmanager
def _marker(out: Path) -> Iterator[str]:
    """The name of a new folder in `out`, by which a node knows that it sees `out`."""
    name = f".ray-{uuid.uuid4().hex}.tmp"
    with explain_os_errors(out):
        (out / name).mkdir()
    try:
        yield name
    finally:
        shutil.rmtree(out / name, ignore_errors=True)


def _some_sources(batches: Sequence[Batch]) -> tuple[str, ...]:
    step = max(1, len(batches) // LOOKED_AT)
    return tuple(batch[0].path for batch in batches[::step][:LOOKED_AT] if os.path.isfile(batch[0].path))  # noqa: PTH113
