"""One million vectors in a catalog: time to build, disk, memory, recall, latency.

    python benchmarks/serve/million.py --work SCRATCH [--items 1000000] [--dim 512] [--ways table,flat] [--threads 2]

The steps are kept in SCRATCH: what is interrupted goes on with the step it was in. `--ways table,flat,hnsw` also
builds a graph in memory, which takes several times as long as everything else.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from common import asked, chunks, clocked, filled_catalog, parser, recall, spread_of, truth, write

WAYS = {"table": "catalog, table index", "flat": "catalog, memory flat", "hnsw": "catalog, memory hnsw"}


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(items=1_000_000)
    options.add_argument("--queries", type=int, default=300)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--ways", default="table,flat")
    settings = options.parse_args()
    begun = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    from isthmus.catalog.checkup import folder_size
    from isthmus.catalog.store import Catalog

    place = filled_catalog(settings, index=False)
    state = _read(place / "seconds.json")
    if "table_bytes" not in state:
        state["table_bytes"] = folder_size(place / "items.lance")
        _keep(place, state)
    if "index_s" not in state:
        _say("building the index of the table")
        catalog = Catalog.open(place)
        state["index_s"], _ = clocked(catalog.items.tidy, min(settings.items - 1, 50_000))
        state["index_bytes"] = folder_size(place / "items.lance") - state["table_bytes"]
        _keep(place, state)
    result: dict[str, Any] = {
        "raw_bytes": settings.items * settings.dim * 4,
        "table": {"seconds": round(state["table"], 1), "bytes": state["table_bytes"]},
        "index": {"seconds": round(state["index_s"], 1), "bytes": state["index_bytes"]},
        "bytes_an_item": {
            "vector": 4 * settings.dim,
            "table_beside_the_vector": round(state["table_bytes"] / settings.items - 4 * settings.dim, 1),
            "index": round(state["index_bytes"] / settings.items, 1),
        },
        "ways": {},
    }
    queries = asked(settings.queries, settings.dim)
    right = truth(chunks(settings.items, settings.dim), queries)
    for way in settings.ways.split(","):
        _say(f"measuring: {WAYS[way]}")
        result["ways"][WAYS[way]] = _measure(settings, place, WAYS[way], queries, right)
    write(settings, "million", result, begun)


def _measure(settings: Any, place: Path, name: str, queries: Any, right: Any) -> dict[str, Any]:
    from systems import Worker

    worker = Worker(name, settings, place)
    if worker.failed:
        return worker.told
    count = min(len(queries), 100) if "flat" in name else len(queries)
    first = worker.do("ask", queries[:1])[0]
    worker.do("ask", queries[-20:])
    seconds, rows = worker.do("ask", queries[:count])
    bare = worker.do("nearest", queries[:count])
    result = {
        **spread_of(seconds),
        "first_s": round(first[0], 3),
        "without_metadata": spread_of(bare),
        "recall": round(recall(rows, right[:count]), 4),
        **worker.told,
        "memory_at_end": worker.do("memory"),
    }
    worker.close()
    return result


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _keep(place: Path, state: dict[str, Any]) -> None:
    from isthmus.io import atomic_write_json

    atomic_write_json(place / "seconds.json", state)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
