"""Time and memory of the metric kernel beside two libraries, on the same vectors, each in a process of its own.

    OMP_NUM_THREADS=2 python benchmarks/metric_kernel.py

Writes metric_kernel.md beside this file. `--queries`, `--gallery` and `--dim` make it smaller.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CLASSES = 126  # as many as DomainNet's usual subset
LIMIT = 900  # seconds a competitor may take
Case = tuple[Tensor, Tensor, Tensor, Tensor]


def vectors(queries: int, gallery: int, dim: int) -> Case:
    """Clustered unit vectors with unlike class sizes, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, dim, generator=generator)
    labels = [(torch.rand(n, generator=generator).square() * CLASSES).long() for n in (queries, gallery)]
    sets = []
    for part in labels:
        x = torch.randn(len(part), dim, generator=generator).mul_(2.5)
        for start in range(0, len(x), 4096):
            x[start : start + 4096] += centres[part[start : start + 4096]]
        sets.append(x.div_(x.norm(dim=1, keepdim=True)))
    return sets[0], sets[1], labels[0], labels[1]


def isthmus_kernel(case: Case, bootstrap: int = 0) -> dict[str, float]:
    from isthmus.evaluate.metrics import retrieval_metrics

    q, g, asked, names = case
    ids = [f"photo/{i}" for i in range(len(g))]
    result = retrieval_metrics(
        q, g, [str(x) for x in asked.tolist()], [str(x) for x in names.tolist()], gallery_ids=ids, bootstrap=bootstrap
    )
    return {name: result.scores[name] for name in ("mAP@all", "mAP@200", "P@200")}


def isthmus_with_intervals(case: Case) -> dict[str, float]:
    return isthmus_kernel(case, bootstrap=1000)


def metric_learning(case: Case) -> dict[str, float]:
    """AccuracyCalculator; it has no P@200, and mAP@200 would be a second pass, which is not counted here."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    q, g, asked, names = case
    calculator = AccuracyCalculator(
        include=("mean_average_precision",), k=len(g), device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity(), batch_size=256),
    )  # fmt: skip
    return {"mAP@all": float(calculator.get_accuracy(q, asked, g, names)["mean_average_precision"])}


def torchmetrics_collection(case: Case) -> dict[str, float]:
    """RetrievalMAP and RetrievalPrecision, fed in blocks of 64 queries; they keep every score until `compute`."""
    from isthmus.runtime import prepare_torchvision

    prepare_torchvision()
    from torchmetrics import MetricCollection
    from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision

    q, g, asked, names = case
    parts = {"mAP@all": RetrievalMAP(), "P@200": RetrievalPrecision(top_k=200)}
    metrics = MetricCollection(parts, compute_groups=[list(parts)])
    for start in range(0, len(q), 64):
        part = slice(start, start + 64)
        scores = (q[part] @ g.T).add_(1.0)  # a relevant item with a score of 0 or less would count as irrelevant
        index = torch.arange(start, start + len(scores))[:, None].expand_as(scores)
        metrics.update(scores, asked[part, None] == names, indexes=index)
    return {name: float(value) for name, value in metrics.compute().items()}


def torchmetrics_functional(case: Case) -> dict[str, float]:
    """Its functions, a query at a time."""
    from isthmus.runtime import prepare_torchvision

    prepare_torchvision()
    from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_precision

    q, g, asked, names = case
    total = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(q), 64):
        scores = (q[start : start + 64] @ g.T).add_(1.0)
        for row, label in zip(scores, asked[start : start + 64], strict=True):
            target = names == label
            total[0] += retrieval_average_precision(row, target)
            total[1] += retrieval_precision(row, target, top_k=200)
    return dict(zip(("mAP@all", "P@200"), (total / len(q)).tolist(), strict=True))


# name -> (function, package, what to say of it)
COMPETITORS: dict[str, tuple[Callable[[Case], dict[str, float]], str, str]] = {
    "isthmus": (isthmus_kernel, "isthmus", "all 17 metrics, chance, ties, values of each query"),
    "isthmus, with intervals": (isthmus_with_intervals, "isthmus", "the same and 1,000 bootstrap resamples"),
    "pytorch-metric-learning": (
        metric_learning, "pytorch-metric-learning", "no P@200; mAP@200 is another pass, not counted"
    ),
    "torchmetrics, a query at a time": (
        torchmetrics_functional, "torchmetrics", "functional; mAP@k over the hits found, none over min(k, relevant)"
    ),
    "torchmetrics, classes": (torchmetrics_collection, "torchmetrics", "RetrievalMAP, RetrievalPrecision; the same"),
}  # fmt: skip


def memory(field: str) -> int:
    """A field of this process's memory in bytes: VmRSS is now, VmHWM the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def child(name: str, size: tuple[int, int, int]) -> None:
    """Measure one competitor in this process and print JSON."""
    case = vectors(*size)
    function = COMPETITORS[name][0]
    function((case[0][:130], case[1][:3000], case[2][:130], case[3][:3000]))  # imports and thread pools are no result
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start, cpu = time.perf_counter(), time.process_time()
    scores = function(case)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"scores": scores, "seconds": seconds, "cpu": cpu, "memory": memory("VmHWM") - before}))


def measure(name: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Run `child` in a new process; a competitor that fails or takes too long is a line in the table, too."""
    command = [sys.executable, __file__, "--child", name]
    for option, value in zip(("--queries", "--gallery", "--dim"), size, strict=True):
        command += [option, str(value)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return {"failed": f"did not finish in {LIMIT} s"}
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        return {"failed": f"stopped: {lines[-1] if lines else f'signal {-error.returncode}'}"[:160]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def table(results: dict[str, dict[str, Any]], size: tuple[int, int, int], load: tuple[float, float]) -> str:
    """The page."""
    base, threads = results["isthmus"], torch.get_num_threads()
    lines = [
        "# The metric kernel beside two libraries",
        "",
        f"{size[0]:,} queries against {size[1]:,} gallery items of {size[2]} dimensions, float32, {CLASSES} classes of "
        "unlike size; the same vectors in every process, each measured alone after a small warm-up call. Memory is the "
        "peak over what the process held with its inputs loaded.",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, {threads} threads used, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, numpy {version('numpy')}; load average before the "
        f"run {load[0]:.1f}, after it {load[1]:.1f}: other work lengthens the wall times, so compare the CPU times. "
        f"{datetime.date.today().isoformat()}. Command: `OMP_NUM_THREADS={threads} python benchmarks/metric_kernel.py`",
        "",
        "| | wall s | ratio | CPU s | ratio | memory MB | mAP@all | mAP@200 | P@200 | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        _, package, note = COMPETITORS[name]
        title = f"{name} {version(package)}"
        if "failed" in result:
            lines.append(f"| {title} | {result['failed']} | | | | | | | | {note} |")
            continue
        cells = [
            f"{result['seconds']:.1f}", f"{result['seconds'] / base['seconds']:.1f}", f"{result['cpu']:.1f}",
            f"{result['cpu'] / base['cpu']:.1f}", f"{result['memory'] / 1e6:.0f}",
            *(f"{result['scores'][m]:.6f}" if m in result["scores"] else "–" for m in ("mAP@all", "mAP@200", "P@200")),
        ]  # fmt: skip
        lines.append(f"| {title} | {' | '.join(cells)} | {note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--child", choices=list(COMPETITORS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.queries, options.gallery, options.dim)
    if options.child:
        child(options.child, size)
        return
    load = os.getloadavg()[0]
    results = {}
    for name in COMPETITORS:
        results[name] = measure(name, size)
        print(name, results[name], file=sys.stderr)
    text = table(results, size, (load, os.getloadavg()[0]))
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
