"""The part of docs/how_large.md that is computed: formulas at three sizes, and beside the measured million."""

from __future__ import annotations

from typing import Any

from scale import (
    CORES,
    MACHINE,
    SIZES,
    USABLE,
    bytes_text,
    core_days,
    grown,
    machines,
    need,
    time_text,
)

DIM = 512


def measured(found: dict[str, dict[str, Any]]) -> str:
    """Markdown; what has no result is left out and said so."""
    parts = [_sizes(), _costs(found)]
    if "million" in found:
        parts.append(_check(found["million"]))
    else:
        parts.append("The formulas were not yet compared with a measured million: `million.py` has no result.")
    return "\n\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    made = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*made, *("| " + " | ".join(row) + " |" for row in rows)])


def _sizes() -> str:
    names = {
        "vectors": "vectors (4 d)",
        "table": "table on disk",
        "index": "its index on disk",
        "quick": "memory, table's index",
        "flat": "memory, flat",
        "graph": "memory, graph",
        "images": "the images themselves, 60 kB each",
    }
    needs = [need(size, DIM) for size in SIZES]
    rows = [[text, *(bytes_text(getattr(one, name)) for one in needs)] for name, text in names.items()]
    for name in ("quick", "graph"):
        counts = (machines(getattr(one, name)) for one in needs)
        rows.append([f"machines of {bytes_text(MACHINE)}: {names[name]}", *(f"{count:,}" for count in counts)])
    head = [f"{DIM} dimensions", *(f"{size:,}" for size in SIZES)]
    return f"### Memory, disk, machines\n\n{_table(head, rows)}"


def _costs(found: dict[str, dict[str, Any]]) -> str:
    rows: list[list[str]] = []
    graph = found.get("search", {}).get("table", {}).get("catalog, memory hnsw", {})
    if bare := graph.get("without_metadata"):
        at = found["search"]["options"]["items"]
        shards = [machines(need(size, DIM).graph) for size in SIZES]
        each = [
            grown(bare["p50_ms"] / 1e3, at, max(2, size // parts), each=False)
            for size, parts in zip(SIZES, shards, strict=True)
        ]
        rows.append(["search of one shard, graph in memory", *(time_text(one) for one in each)])
        total = [one * parts for one, parts in zip(each, shards, strict=True)]
        rows.append(["core time of one query, all shards", *(time_text(one) for one in total)])
        rates = [CORES * parts / cost for parts, cost in zip(shards, total, strict=True)]
        rows.append([f"queries/s of all machines ({CORES} cores each)", *(f"{rate:,.0f}" for rate in rates)])
    million = found.get("million", {})
    if "index" in million:
        at, cores = million["options"]["items"], million["machine"]["cores"]
        seconds = [grown(million["index"]["seconds"] * cores, at, size, each=True) for size in SIZES]
        rows.append(["building the table's index, core time", *(time_text(one) for one in seconds)])
        spread = [one / CORES / machines(need(size, DIM).quick) for one, size in zip(seconds, SIZES, strict=True)]
        rows.append(["... on these machines", *(time_text(one) for one in spread)])
    for name, one in found.get("throughput", {}).items():
        if isinstance(one, dict) and "add_images_s" in one:
            rate, cores = one["add_images_s"]["median"], one["torch_threads"]
            days = [86_400 * core_days(size, rate, cores) for size in SIZES]
            rows.append([f"embedding, {name}, core time", *(time_text(day) for day in days)])
    if not rows:
        return "### Time\n\nNo result of `search.py`, `million.py` or `throughput.py` to start from."
    head = [f"{DIM} dimensions", *(f"{size:,}" for size in SIZES)]
    return f"### Time\n\n{_table(head, rows)}"


def _check(million: dict[str, Any]) -> str:
    options = million["options"]
    items, dim = options["items"], options["dim"]
    paper = need(items, dim)
    rows = [
        _row("table on disk", paper.table, million["table"]["bytes"]),
        _row("its index on disk", paper.index, million["index"]["bytes"]),
    ]
    names = {"quick": "catalog, table index", "flat": "catalog, memory flat", "graph": "catalog, memory hnsw"}
    for key, name in names.items():
        one = million["ways"].get(name)
        if one and "memory_at_end" in one:
            rows.append(_row(f"memory: {name}", getattr(paper, key), one["memory_at_end"]["resident"] * 2**20))
    head = [f"{items:,} x {dim}", "by the formula", "measured", "measured / formula"]
    return (
        f"### The formulas beside a measured {items:,}\n\n{_table(head, rows)}\n\nMachine: "
        f"{million['machine']['processor']}, {million['machine']['cores']} cores; of a machine's memory {USABLE:.0%} "
        "are counted on."
    )


def _row(name: str, paper: float, real: float) -> list[str]:
    return [name, bytes_text(paper), bytes_text(real), f"{real / paper:.2f}"]
