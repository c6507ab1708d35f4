"""What the benchmarks of the service share: data, the machine, clocks, memory, result files.

Vectors are synthetic, and clustered on purpose. Independent random vectors of 512 dimensions are all nearly at right
angles: an item has no near neighbours, and no index finds the ten that chance put first. Embeddings of images are
not like that. They lie in groups and in far fewer dimensions than the vector has numbers. Here: 1,000 groups, the
largest a hundred times as large as the smallest, in a space of 64 dimensions that a fixed random matrix turns into all
dimensions, a little noise in every one of them, unit length. Queries are new draws, no items: a drawing is no
photograph of the shop.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
CHUNK = 20_000  # vectors drawn at once, each chunk from a seed of its own
LATENT, GROUPS = 64, 1000
SPREAD, NOISE = 0.7, 0.05
K = 10
BRANDS = 50
DOMAINS = ("sketch", "photo")
Array = np.ndarray[Any, Any]


def parser(text: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, required=True, help="scratch folder; what is there already is used again")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    made.add_argument("--items", type=int, default=100_000)
    made.add_argument("--dim", type=int, default=512)
    made.add_argument("--weights", default="random", help="checkpoint of MobileNetV2; random serves as well for timing")
    return made


def _draw(rows: int, dim: int, seed: tuple[int, ...]) -> Array:
    fixed = np.random.default_rng(7)
    groups = fixed.standard_normal((GROUPS, LATENT), dtype=np.float32)
    turn = fixed.standard_normal((LATENT, dim), dtype=np.float32) / LATENT**0.5
    draw = np.random.default_rng(seed)
    share = 1 / (np.arange(GROUPS) + 10.0)
    inner = groups[draw.choice(GROUPS, rows, p=share / share.sum())] + SPREAD * draw.standard_normal(
        (rows, LATENT), dtype=np.float32
    )
    vectors = inner @ turn + NOISE * draw.standard_normal((rows, dim), dtype=np.float32)
    unit: Array = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def chunks(rows: int, dim: int) -> Iterator[tuple[int, Array]]:
    """(first row, vectors) of the gallery, the same at every call, a bounded number at once."""
    for start in range(0, rows, CHUNK):
        yield start, _draw(CHUNK, dim, (1, start))[: rows - start]


def gallery(rows: int, dim: int) -> Array:
    """All vectors float32 (rows, dim) of unit length."""
    whole = np.empty((rows, dim), np.float32)
    for start, part in chunks(rows, dim):
        whole[start : start + len(part)] = part
    return whole


def asked(count: int, dim: int, seed: int = 0) -> Array:
    """Queries (count, dim) from the same distribution."""
    return _draw(count, dim, (2, seed))


def truth(parts: Iterator[tuple[int, Array]], queries: Array, k: int = K) -> Array:
    """Rows int64 (q, k) of the nearest vectors by comparison with every one, best first."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    for first, part in parts:
        for start in range(0, len(part), CHUNK):
            block = part[start : start + CHUNK]
            both = np.concatenate([scores, queries @ block.T], axis=1)
            numbers = np.arange(first + start, first + start + len(block))
            ids = np.concatenate([rows, np.broadcast_to(numbers, (len(queries), len(block)))], axis=1)
            best = np.argpartition(-both, k - 1, axis=1)[:, :k]
            scores, rows = np.take_along_axis(both, best, 1), np.take_along_axis(ids, best, 1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(rows, order, 1)


def recall(found: list[list[int]], right: Array) -> float:
    """Mean share of the right rows among those found."""
    return float(np.mean([len(set(a) & set(b.tolist())) / len(b) for a, b in zip(found, right, strict=True)]))


def spread_of(seconds: list[float]) -> dict[str, float]:
    """Median, p99 and the like of times, in milliseconds."""
    if not seconds:
        return {"count": 0}
    times = 1e3 * np.array(seconds)
    named = {f"p{part}_ms": round(float(np.percentile(times, part)), 3) for part in (50, 90, 99)}
    return {"count": len(seconds), "mean_ms": round(float(times.mean()), 3), **named, "max_ms": round(times.max(), 3)}


def row_of(number: int, prefix: str = "item") -> dict[str, Any]:
    """What the catalog knows of an item beside its vector; a function of the number alone."""
    return {
        "id": f"{prefix}{number}",
        "path": f"/photos/{prefix}{number}.jpg",
        "hash": hashlib.sha256(f"{prefix}{number}".encode()).hexdigest(),
        "domain": DOMAINS[1],
        "size": 1,
        "mtime": 1,
        "price": price_of(number),
        "brand": f"brand {number % BRANDS}",
        "name": f"A thing of the kind that shops sell, number {number}",
    }


def price_of(number: int) -> float:
    """0 to 999, spread evenly and unlike the order of the rows."""
    return float(number * 2_654_435_761 % 2**32 * 1000 // 2**32)


def number_of(id: str) -> int:
    """The row of an item's id."""
    return int(id.removeprefix("item"))


def model_folder(settings: argparse.Namespace, backbone: str = "mobilenetv2_100", *, native: bool = False) -> Path:
    """A model of the wanted width in the scratch folder; `native`: as wide as the backbone, without a head."""
    from isthmus.models.encoder import Architecture, Model

    weights = settings.weights if backbone == "mobilenetv2_100" else "random"
    kind = "random" if weights == "random" else "given"
    folder = Path(settings.work) / f"model-{backbone}-{kind}-{0 if native else settings.dim}"
    if not folder.exists():
        architecture = Architecture(backbone, 0 if native else settings.dim, 224)
        Model.create(architecture, DOMAINS, weights=weights, centring=False).save(folder)
    return folder


def filled_catalog(settings: argparse.Namespace, *, index: bool = True) -> Path:
    """A catalog of `--items` synthetic vectors with metadata, made once and then only read or copied."""
    from isthmus.catalog.store import Catalog

    kind = "index" if index else "table"
    place = Path(settings.work) / f"catalog-{kind}-{settings.items}x{settings.dim}"
    if not place.exists():
        scratch = place.with_name(place.name + ".part")
        shutil.rmtree(scratch, ignore_errors=True)
        seconds = {"table": 0.0, "index": 0.0}
        with_model = str(model_folder(settings))
        catalog = Catalog.create(scratch, with_model)
        catalog.items.make_columns({"price": "number", "brand": "text", "name": "text"})
        for start, part in chunks(settings.items, settings.dim):
            rows = [row_of(number) for number in range(start, start + len(part))]
            begun = time.perf_counter()
            catalog.items.upsert(rows, part)
            seconds["table"] += time.perf_counter() - begun
        begun = time.perf_counter()
        if index:
            catalog.items.tidy(min(settings.items - 1, 50_000))
            seconds["index"] = time.perf_counter() - begun
        (scratch / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
        scratch.rename(place)
    return place


def copy_of(place: Path, name: str) -> Path:
    """A copy that a benchmark may change, made afresh."""
    copy = place.with_name(f"{place.name}-{name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy)
    return copy


def memory_mb(process: int | str = "self") -> dict[str, float]:
    """Resident memory of a process now, its largest, and what of it is no file's, in MB (Linux)."""
    found: dict[str, float] = {}
    names = {"VmRSS": "resident", "VmHWM": "peak", "RssAnon": "anonymous"}
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = round(int(value.split()[0]) / 1024, 1)
    return found


def machine() -> dict[str, Any]:
    """Where and with what this ran."""
    names = ("torch", "lancedb", "faiss-cpu", "hnswlib", "numpy", "pillow", "uvicorn", "timm")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set")},
        "python": platform.python_version(),
        "versions": versions,
        "load_at_end": round(os.getloadavg()[0], 1),
    }


def processor() -> str:
    """Its name, and whether it computes with bfloat16."""
    name, flags = platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = value
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags.split()]
    return f"{name} ({', '.join(units)})" if units else name


def write(settings: argparse.Namespace, name: str, result: dict[str, Any], begun: float) -> None:
    """Keep and print a result."""
    from isthmus.io import atomic_write_json

    settings.out.mkdir(parents=True, exist_ok=True)
    options = {key: value for key, value in vars(settings).items() if isinstance(value, (int, float)) or value is None}
    whole = {"benchmark": name, "options": options, "machine": machine(), **result}
    whole["seconds_in_all"] = round(time.perf_counter() - begun, 1)
    atomic_write_json(settings.out / f"{name}.json", whole)
    print(json.dumps(whole, indent=1))


def clocked(work: Callable[..., Any], *values: Any, **options: Any) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = work(*values, **options)
    return time.perf_counter() - start, result
