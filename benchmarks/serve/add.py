"""Adding 1,000 images to a catalog of 100,000: the seconds beside the model's.

    python benchmarks/serve/add.py --work SCRATCH [--items 100000] [--images 1000] [--rounds 3] [--threads 2]

`model` is the time inside `Model.encode` (decoding and network) during that very `add`, `network` the network alone on
as many tensors. What is left is the catalog's: reading what it knows, hashing files, writing one version or several.
Each round starts from a fresh copy. Afterwards: how long the memory index takes until it answers for the new version.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import DOMAINS, K, asked, clocked, copy_of, filled_catalog, memory_mb, model_folder, parser, write
from throughput import jpegs

TARGET = 2.0


class Timed:
    """A model that counts the seconds it is at work."""

    def __init__(self, model: Any) -> None:
        self.model, self.seconds = model, 0.0
        self.dim, self.domains, self.fingerprint = model.dim, model.domains, model.fingerprint

    def encode(self, images: Sequence[Any], **options: Any) -> Any:
        """As the model's own."""
        seconds, vectors = clocked(self.model.encode, images, **options)
        self.seconds += seconds
        return vectors


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    settings = options.parse_args()
    begun = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch

    from isthmus.catalog.memory import use_memory
    from isthmus.catalog.memory_settings import MemorySettings
    from isthmus.catalog.store import Catalog
    from isthmus.models.encoder import Model

    torch.set_num_threads(settings.threads)
    place = filled_catalog(settings)
    folder = jpegs(settings.work, settings.images)
    model = Model.load(model_folder(settings))
    views = torch.randint(0, 256, (50, 3, 224, 224), dtype=torch.uint8)
    model.encode(sorted(folder.iterdir())[:64], domain=DOMAINS[1])
    query = asked(1, settings.dim)[0]
    rounds: list[dict[str, float]] = []
    for _ in range(settings.rounds):
        timed: Any = Timed(model)
        catalog = Catalog.open(copy_of(place, "adding"), timed)
        memory = use_memory(catalog, MemorySettings(kind="flat", max_mb=1 << 20))
        memory.wait()
        seconds, changes = clocked(catalog.add, folder)
        if changes.added + len(changes.same) < settings.images or len(catalog) < settings.items + changes.added:
            raise SystemExit(f"not all images were added: {changes}")
        answered = clocked(catalog.search, query, k=K)[0]
        again = clocked(catalog.add, folder)[0]
        network = clocked(lambda: [model.embed(views, 1) for _ in range(settings.images // 50)])[0]
        rounds.append(
            {
                "add_s": round(seconds, 3),
                "model_s": round(timed.seconds, 3),
                "beside_the_model_s": round(seconds - timed.seconds, 3),
                "network_alone_s": round(network, 3),
                "add_again_unchanged_s": round(again, 3),
                "first_search_of_the_new_version_s": round(answered, 3),
            }
        )
        memory.close()
    beside = float(np.median([one["beside_the_model_s"] for one in rounds]))
    result: dict[str, Any] = {"rounds": rounds, "beside_the_model_s": round(beside, 3), "memory": memory_mb()}
    result["targets"] = {f"under {TARGET:g} s beside the model's time": beside < TARGET}
    write(settings, "add", result, begun)


if __name__ == "__main__":
    main()
