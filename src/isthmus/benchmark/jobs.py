"""One training run of a benchmark, and what is kept of it."""

from __future__ import annotations

import contextlib
import csv
import datetime
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from isthmus import __version__
from isthmus.config import RunConfig
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, atomic_write_text, make_folder, read_json
from isthmus.train.run import train

HEAVY = ("checkpoints", "tensorboard", "model")
DONE = "done.json"
#: A finished run's folder and decoding threads -> plain values.
Measure = Callable[[Path, int], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: for the progress line.
        row, split, seed: its place in the table; row is empty for a step 1 that others start from.
        config: all settings.
        run: the folder it trains in.
        result: where its scores go; None for a step 1.
        key: changes with its settings and data.
        steps: optimisation steps, for the time left.
        needs: the steps 1 that it starts from: the setting that names one -> its folder.
        measure: what is asked of the finished run, if anything.
        keep: leave checkpoints and weights in place.
        lasting: of a step 1: its weights stay when no run needs them any more.
        measured: the step 1 that is measured, in place of a run of its own.
    """

    name: str
    row: str
    split: str
    seed: int
    config: RunConfig
    run: Path
    result: Path | None
    key: str
    steps: int
    needs: Mapping[str, Path] = field(default_factory=dict)
    measure: Measure | None = None
    keep: bool = False
    lasting: bool = False
    measured: Path | None = None

    def done(self) -> bool:
        """Whether there is nothing left to do.

        Raises:
            IsthmusError: a result of other settings or data stands in its place.
        """
        file = self.result or self.run / DONE
        if not file.is_file() or (self.result is None and not (self.run / "model" / "config.json").is_file()):
            return False
        there = read_json(file)
        if not isinstance(there, dict) or there.get("key") != self.key:
            raise IsthmusError(
                f"{file} is the result of other settings or other tables; choose another --out, or delete it."
            )
        return True


def perform(job: Job) -> dict[str, Any]:
    """Train, or go on with training; measure, write the result, and clear away what is heavy.

    Returns:
        The result, or for a step 1 its record.
    """
    if job.done():
        return dict(read_json(job.result or job.run / DONE))
    start, cpu = time.monotonic(), time.process_time()
    config, run = job.config, job.measured or job.run
    if job.measured is None:
        make_folder(run)
        config = with_needs(job)
        with (run / "train.log").open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
            train(config, run)
    last = _last_line(run / "log.csv")
    record: dict[str, Any] = {
        "isthmus": __version__,
        "row": job.row,
        "split": job.split,
        "seed": job.seed,
        "key": job.key,
        "date": datetime.datetime.now().astimezone().date().isoformat(),
        "machine": machine(),
        "steps": int(float(last.get("step", 0))),
        "log": last,
    }
    if job.measure is not None:
        record |= job.measure(run, config.data.workers)
    earlier = {} if job.measured is None else read_json(run / DONE)["seconds"]
    record["seconds"] = {
        "training": float(last.get("seconds", 0.0)),
        "wall": round(earlier.get("wall", 0.0) + time.monotonic() - start, 2),
        "cpu": round(earlier.get("cpu", 0.0) + time.process_time() - cpu, 2),
    }
    before = {name: read_json(folder / DONE) for name, folder in job.needs.items() if folder != job.measured}
    if before:
        parts = [{k: v for k, v in one["seconds"].items() if k != "step_1"} for one in before.values()]
        record["seconds"]["step_1"] = {name: round(sum(part[name] for part in parts), 2) for name in parts[0]}
        record["step_1_steps"] = sum(one["steps"] for one in before.values())
        record |= (
            {"needs": found} if (found := {k: one["found"] for k, one in before.items() if "found" in one}) else {}
        )
    if job.result is None:
        clear(job, ("checkpoints", "tensorboard"))
        atomic_write_json(job.run / DONE, record)
    else:
        # One line: a benchmark keeps hundreds of these.
        atomic_write_text(job.result, _compact(record))
        clear(job, HEAVY)
    return record


def with_needs(job: Job) -> RunConfig:
    """The job's settings, with the folders of the steps 1 that it starts from."""
    config = job.config.model_copy(deep=True)
    for name, folder in job.needs.items():
        section, _, setting = name.partition(".")
        setattr(getattr(config, section), setting, str(folder))
    return config


def machine() -> str:
    """Processor, threads, system and the version of torch, in a line."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}, torch {torch.__version__}"


def clear_step_1(folder: Path) -> None:
    """Remove the weights of a step 1 that nobody needs any more; its log stays."""
    shutil.rmtree(folder / "model", ignore_errors=True)


def clear(job: Job, names: tuple[str, ...]) -> None:
    """Remove these folders of a run and its table, unless all is to be kept."""
    if not job.keep:
        for name in names:
            shutil.rmtree(job.run / name, ignore_errors=True)
        (job.run / "manifest.parquet").unlink(missing_ok=True)


def _last_line(log: Path) -> dict[str, Any]:
    with log.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    values: dict[str, Any] = {}
    for name, text in (lines[-1] if lines else {}).items():
        try:
            values[name] = float(f"{float(text):.6g}")
        except ValueError:
            values[name] = text
    return {name: value for name, value in values.items() if value != ""}


def _compact(record: dict[str, Any]) -> str:
    import json

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 6) if value == value and abs(value) != float("inf") else None
        if isinstance(value, dict):
            return {str(name): short(inner) for name, inner in value.items()}
        return [short(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(short(record), ensure_ascii=False, separators=(",", ":")) + "\n"
