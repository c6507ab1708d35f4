"""All benchmarks of the service, one after the other, each in a process of its own.

    python benchmarks/serve/run.py --all --work SCRATCH [--weights FILE] [--items 100000] [--seconds 60]
    python benchmarks/serve/run.py --only search,crowd --work SCRATCH

What has a result of the same options is passed over, unless it is named with `--only`. On two idle cores, about:
search 5 minutes (2 of them make the catalog that the others use too), end_to_end 1, crowd 2, throughput 2, add 1,
million 8. Then  python benchmarks/serve/table.py  writes README.md and the measured part of docs/how_large.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MINUTES = {"search": 5, "end_to_end": 1, "crowd": 2, "throughput": 2, "add": 1, "million": 8}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--all", action="store_true")
    options.add_argument("--only", default="")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--out", type=Path, default=HERE / "results")
    options.add_argument("--weights", default="random")
    options.add_argument("--items", type=int, default=100_000)
    options.add_argument("--million", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=512)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--images", type=int, default=1500)
    options.add_argument("--threads", type=int)
    settings = options.parse_args()
    names = [name for name in settings.only.split(",") if name] or (list(MINUTES) if settings.all else [])
    if not names or set(names) - set(MINUTES):
        options.error(f"say --all, or --only with some of {', '.join(MINUTES)}")
    settings.work.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        command = _command(settings, name)
        if not settings.only and _done(settings.out / f"{name}.json", command):
            print(f"{name}: has a result already", flush=True)
            continue
        print(f"{name}: about {MINUTES[name]} min at full size", flush=True)
        begun = time.perf_counter()
        log = settings.work / f"{name}.log"
        with log.open("wb") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code == 0:
            (settings.work / f"{name}.done").write_text(json.dumps(command), encoding="utf-8")
        else:
            failed.append(name)
        told = "done" if code == 0 else f"exit code {code}, see {log}"
        print(f"{name}: {told} after {time.perf_counter() - begun:.0f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _command(settings: argparse.Namespace, name: str) -> list[str]:
    command = [sys.executable, str(HERE / f"{name}.py"), "--work", str(settings.work), "--out", str(settings.out)]
    command += ["--dim", str(settings.dim), "--weights", settings.weights]
    command += ["--items", str(settings.million if name == "million" else settings.items)]
    if settings.threads is not None:
        command += ["--threads", str(settings.threads)]
    if name == "crowd":
        command += ["--seconds", str(settings.seconds)]
    if name == "throughput":
        command += ["--images", str(settings.images), "--large", str(max(1, settings.images * 2 // 5))]
    if name == "add":
        command += ["--images", str(max(1, min(1000, settings.images)))]
    return command


def _done(result: Path, command: list[str]) -> bool:
    told = Path(command[command.index("--work") + 1]) / f"{result.stem}.done"
    return result.is_file() and told.is_file() and json.loads(told.read_text(encoding="utf-8")) == command


if __name__ == "__main__":
    main()
