"""What a process is told before it computes on a CPU (`isthmus.process`), switched on and off.

    python benchmarks/process.py

MobileNetV2, 224 px, random weights: batches of 64 in the program's first thread and in another, and single images in
another, as a service has it. Each way is a process of its own; they take turns, and the ratio is of two neighbours.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys

ROUNDS = 5
NAMES = ("64 images, first thread", "64 images, another thread", "1 image, another thread")
WAYS: dict[str, dict[str, str]] = {
    "as the C library and OpenMP have it": {"ISTHMUS_KEEP_MEMORY": "0"},
    "memory kept": {},
    "memory kept, threads awake": {"awake": "1"},
}


def measure(awake: bool) -> None:
    """In a process of its own: images a second of each of `NAMES`, and the system's seconds."""
    from isthmus.process import keep_memory, wait_awake

    if awake:
        wait_awake()
    keep_memory()
    import resource
    import threading
    import time

    import torch

    from isthmus.models.backbones import create_backbone

    network = create_backbone("mobilenetv2_100", weights="random").eval()
    network = network.to(memory_format=torch.channels_last)
    speeds: dict[str, float] = {}

    def run(name: str, count: int, times: int) -> None:
        images = torch.randn(count, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            for _ in range(3):
                network(images)
            begun = time.perf_counter()
            for _ in range(times):
                network(images)
        speeds[name] = count * times / (time.perf_counter() - begun)

    run(NAMES[0], 64, 4)
    for name, count, times in ((NAMES[1], 64, 4), (NAMES[2], 1, 50)):
        thread = threading.Thread(target=run, args=(name, count, times))
        thread.start()
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**speeds, "peak_mb": used.ru_maxrss / 1024, "threads": torch.get_num_threads()}))


def main() -> None:
    """Take turns, and print a table."""
    if sys.argv[1:]:
        measure(sys.argv[1] == "1")
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, settings in WAYS.items():
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_", "ISTHMUS_KEEP"))}
            environment |= {key: value for key, value in settings.items() if key != "awake"}
            command = [sys.executable, __file__, settings.get("awake", "0")]
            told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(told.splitlines()[-1]))
    import torch

    threads = int(found["memory kept"][0]["threads"])
    print(f"machine: {platform.machine()}, {threads} threads, torch {torch.__version__}, {ROUNDS} rounds\n")
    print("| images a second | " + " | ".join([*NAMES, "peak MB"]) + " |\n|---|---:|---:|---:|---:|")
    base = next(iter(WAYS))
    for way, rounds in found.items():
        cells = []
        for name in NAMES:
            ratios = [mine[name] / other[name] for mine, other in zip(rounds, found[base], strict=True)]
            ratio = "" if way == base else f" ({statistics.median(ratios):.1f}x)"
            cells.append(f"{statistics.median(one[name] for one in rounds):.0f}{ratio}")
        cells.append(f"{statistics.median(one['peak_mb'] for one in rounds):.0f}")
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
