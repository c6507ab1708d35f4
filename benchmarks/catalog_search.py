"""Search in a catalog of 100,000 x 512: exact and approximate, with filters, beside brute force in numpy.

    python benchmarks/catalog_search.py [--rows 100000] [--dim 512] [--queries 100] [--out benchmarks/catalog_search.md]

Vectors are 1,000 random clusters, queries are gallery vectors with noise. Every time is the median of single searches
in one process and stands beside its ratio to numpy's matrix product over all vectors, measured in between.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.catalog.checkup import folder_size
from isthmus.catalog.store import Catalog
from isthmus.io import atomic_write_text

K = 10
CHUNK = 4096


class NoModel:
    """The vectors are made here, so that nothing is ever encoded."""

    domains = ("sketch", "photo")
    fingerprint = "0" * 16

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, images: Any, **_: Any) -> Any:
        raise RuntimeError("the benchmark embeds nothing")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    settings = parser.parse_args()
    draw = np.random.default_rng(0)
    vectors, queries = make(draw, settings.rows, settings.dim, settings.queries)
    truth = [set(brute(vectors, query).tolist()) for query in queries]
    with tempfile.TemporaryDirectory() as folder:
        model: Any = NoModel(settings.dim)
        catalog = Catalog.create(Path(folder) / "catalog", model)
        start = time.perf_counter()
        fill(catalog, vectors, draw)
        written = time.perf_counter() - start
        plain = folder_size(Path(catalog.path))
        lines = [measure(catalog, vectors, queries, truth, f"exact, {name}", **options) for name, options in EXACT]
        start = time.perf_counter()
        catalog.items.tidy(min(settings.rows - 1, 50_000))
        built = time.perf_counter() - start
        lines += [measure(catalog, vectors, queries, truth, f"index, {name}", **options) for name, options in INDEXED]
        start = time.perf_counter()
        extra = make(draw, 1000, settings.dim, 1)[0]
        fill(catalog, extra, draw, prefix="new")
        added = time.perf_counter() - start
        lines.append(measure(catalog, vectors, queries, None, "index + 1,000 items outside it"))
        text = report(settings, lines, written, built, added, plain, folder_size(Path(catalog.path)))
    atomic_write_text(settings.out, text)
    print(text)


EXACT: list[tuple[str, dict[str, Any]]] = [
    ("first search of a process (from disk)", {"first": True}),
    ("vectors in memory", {}),
    ("vectors in memory, filter leaves 50 %", {"where": "price < 500"}),
    ("vectors in memory, filter leaves 0.1 %", {"where": "price < 1"}),
]
INDEXED: list[tuple[str, dict[str, Any]]] = [
    ("no filter", {}),
    ("k = 100", {"k": 100}),
    ("filter leaves 50 %", {"where": "price < 500"}),
    ("filter leaves 0.1 % (searched exactly)", {"where": "price < 1"}),
]


def make(draw: np.random.Generator, rows: int, dim: int, count: int) -> tuple[Any, Any]:
    """Clustered unit vectors and queries near some of them."""
    centres = draw.standard_normal((1000, dim), dtype=np.float32)
    vectors = centres[draw.integers(0, 1000, rows)] + draw.standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[draw.integers(0, rows, count)] + 0.03 * draw.standard_normal((count, dim), dtype=np.float32)
    return vectors, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def brute(vectors: Any, query: Any, k: int = K) -> Any:
    """numpy's own exact search."""
    scores = vectors @ query
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def fill(catalog: Catalog, vectors: Any, draw: np.random.Generator, prefix: str = "item") -> None:
    """Write vectors past the model, in the chunks that `add` uses."""
    catalog.items.make_columns({"price": "number", "brand": "text"})
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK]
        rows = [
            {
                "id": f"{prefix}{number}",
                "path": f"/photos/{prefix}{number}.jpg",
                "hash": f"{prefix}{number}",
                "domain": "photo",
                "size": 1,
                "mtime": 1,
                "price": float(draw.integers(0, 1000)),
                "brand": f"brand {number % 50}",
            }
            for number in range(start, start + len(part))
        ]
        catalog.items.upsert(rows, part)


def clock(work: Callable[[Any], Any], queries: Any) -> tuple[Any, list[Any]]:
    """Milliseconds and answers of single calls."""
    times, answers = [], []
    for query in queries:
        start = time.perf_counter()
        answers.append(work(query))
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times), answers


def measure(
    catalog: Catalog,
    vectors: Any,
    queries: Any,
    truth: list[set[int]] | None,
    name: str,
    *,
    where: str | None = None,
    k: int = K,
    first: bool = False,
) -> list[str]:
    """One line of the table; numpy is measured between the halves of the catalog's searches."""

    def search(query: Any) -> Any:
        opened = Catalog.open(catalog.path) if first else catalog
        return opened.search(query, k=k, where=where)

    asked = queries[:10] if first else queries
    print(f"measuring: {name}", file=sys.stderr, flush=True)
    if not first:
        clock(search, asked[:3])
    half = len(asked) // 2
    one, answers = clock(search, asked[:half])
    numpy_times, _ = clock(lambda query: brute(vectors, query, k), asked)
    two, more = clock(search, asked[half:])
    times = np.concatenate([one, two])
    recall = "–"
    if truth is not None and where is None and k == K:
        shares = [
            len({int(hit.id.removeprefix("item")) for hit in hits} & right) / K
            for hits, right in zip([*answers, *more], truth, strict=False)
        ]
        recall = f"{np.mean(shares):.4f}"
    elif truth is not None:
        exact = [catalog.search(query, k=k, where=where, exact=True) for query in asked[:50]]
        pairs = zip([*answers, *more], exact, strict=False)
        recall = f"{np.mean([len({h.id for h in a} & {h.id for h in b}) / len(b) for a, b in pairs]):.4f}"
    median, base = float(np.median(times)), float(np.median(numpy_times))
    return [name, f"{median:.1f}", f"{np.percentile(times, 99):.1f}", f"{base:.1f}", f"{median / base:.2f}", recall]


def report(
    settings: argparse.Namespace,
    lines: list[list[str]],
    written: float,
    built: float,
    added: float,
    plain: int,
    whole: int,
) -> str:
    """The page in Markdown."""
    import lancedb

    head = ["search, metadata returned", "median ms", "p99 ms", "numpy ms", "ratio", "recall"]
    table = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    table += ["| " + " | ".join(line) + " |" for line in lines]
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    raw = settings.rows * settings.dim * 4
    return (
        f"# Search in a catalog of {settings.rows:,} x {settings.dim}\n\n"
        f"Written by `python benchmarks/catalog_search.py`. Machine: {cpu()}, {os.cpu_count()} cores, OMP_NUM_THREADS="
        f"{threads}, Python {platform.python_version()}, numpy {np.__version__}, LanceDB {lancedb.__version__}; load "
        f"average at the end {os.getloadavg()[0]:.1f}.\n\n"
        f"{settings.queries} queries, one at a time, k = {K} where nothing else is said; `numpy` is the matrix product "
        "over all vectors in memory, without metadata, in the same minutes; `recall` is against exact search with the "
        "same filter.\n\n" + "\n".join(table) + "\n\n"
        f"Writing all items took {written:.1f} s, building the index {built:.1f} s, adding 1,000 items to the indexed "
        f"catalog {added:.2f} s. On disk {plain / raw:.2f} x the raw vectors without the index, {whole / raw:.2f} x "
        "with it.\n"
    )


def cpu() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
