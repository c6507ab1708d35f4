"""Search of one vector among 100,000 x 512, metadata returned, beside FAISS, hnswlib and clip-retrieval's steps.

    python benchmarks/serve/search.py --work SCRATCH [--items 100000] [--queries 1000] [--threads 2]

Every way has a process of its own, with its memory; they take turns, a slice of the queries each, so that whatever
else the machine does meets all of them. Graphs are searched with the least effort that reaches, on other queries, the
recall that the catalog's memory index has there. Afterwards filters, deletions, changes and rollbacks are compared
with brute force.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from common import asked, chunks, filled_catalog, parser, recall, spread_of, truth, write

TURNS = 5
CLIP, DEDUP = "clip-retrieval's steps", "clip-retrieval's steps, near-duplicates dropped"
SLOW_QUERIES = 200  # of a flat index
TUNING = 200


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--recall", type=float, default=0.98, help="wanted at least")
    settings = options.parse_args()
    begun = time.perf_counter()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # before anything that reads it is loaded
    from exact import check_exact
    from systems import SYSTEMS, Worker

    place = filled_catalog(settings)
    queries = asked(settings.queries, settings.dim)
    tuning = asked(TUNING, settings.dim, seed=1)
    right = truth(chunks(settings.items, settings.dim), queries)
    right_tuning = truth(chunks(settings.items, settings.dim), tuning)
    workers: dict[str, Worker] = {}
    for name in SYSTEMS:
        _say(f"building: {name}")
        workers[name] = Worker(name, settings, place)
        if workers[name].failed:
            _say(workers[name].told["failed"])
    live = {name: worker for name, worker in workers.items() if not worker.failed}
    own = "catalog, memory hnsw"
    if own not in live:
        raise SystemExit(f"{own}: {workers[own].told}")
    wanted = recall(live[own].do("ask", tuning)[1], right_tuning)
    efforts = {}
    for name in ("FAISS HNSW", "hnswlib", "clip-retrieval's steps"):
        if name in live:
            efforts[name] = live[name].do("tune", wanted, tuning, right_tuning)[1]
    times: dict[str, list[float]] = {name: [] for name in (*live, DEDUP)}
    bare: dict[str, list[float]] = {name: [] for name in live}
    rows: dict[str, list[list[int]]] = {name: [] for name in live}
    for worker in live.values():
        worker.do("ask", tuning[:20])  # what is paid once
    for turn in range(TURNS):
        for name, worker in live.items():
            count = min(len(queries), SLOW_QUERIES) if "flat" in name else len(queries)
            part = queries[turn * count // TURNS : (turn + 1) * count // TURNS]
            seconds, found = worker.do("ask", part)
            times[name] += seconds
            rows[name] += found
            if name == CLIP:
                times[DEDUP] += worker.do("dedup", part)
            if name.startswith("catalog"):
                bare[name] += worker.do("nearest", part)
    table: dict[str, Any] = {}
    base = spread_of(times["FAISS HNSW"])["p50_ms"] if "FAISS HNSW" in live else None
    for name, worker in workers.items():
        if worker.failed:
            table[name] = worker.told
            continue
        took = spread_of(times[name])
        table[name] = {
            **took,
            "ratio_to_faiss_hnsw": round(took["p50_ms"] / base, 2) if base else None,
            "recall": round(recall(rows[name], right[: len(rows[name])]), 4),
            "metadata": worker.metadata,
            "without_metadata": spread_of(bare[name]) if bare[name] else None,
            "effort": efforts.get(name, worker.told.get("state", {}).get("effort")),
            **worker.told,
            "memory_at_end": worker.do("memory"),
        }
        worker.close()
    if CLIP in live:
        table[CLIP]["near_duplicates_dropped"] = spread_of(times[DEDUP])
    _say("comparing with brute force")
    exact = check_exact(settings, place)
    reached = table[own]["recall"]
    result = {"table": table, "recall_on_tuning_queries": round(wanted, 4), "exactness": exact}
    result["targets"] = {f"recall of the catalog's index at least {settings.recall}": reached >= settings.recall}
    write(settings, "search", result, begun)
    if exact["wrong"]:
        sys.exit("a filter, a deletion or a version was not kept exactly; see above")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
