"""The record of a run: a CSV always, TensorBoard beside it."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.config import RunConfig
from isthmus.data.training import TrainingData
from isthmus.io import atomic_write_text, explain_os_errors
from isthmus.train.checkpoint import Progress


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """Write one line an epoch, all columns that any epoch has, atomically."""
    columns: dict[str, None] = {}
    for record in history:
        columns.update(dict.fromkeys(record))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for record in history:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})
    atomic_write_text(path, text.getvalue())


def provenance(config: RunConfig, data: TrainingData, progress: Progress, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a kept model says of where it comes from."""
    return {
        "method": config.method,
        "settings": config.fingerprint(),
        "seed": config.seed,
        "epoch": progress.epoch,
        "select": config.train.select,
        "images_seen": progress.images,
        "training_images": [len(rows) for rows in data.train],
        **summary,
    }


class Tracker:
    """Step and epoch figures as TensorBoard events; only the first process writes."""

    def __init__(self, folder: Path, active: bool, start_step: int) -> None:
        self._writer: Any = None
        self._folder = folder
        self._hook = threading.excepthook
        if active:
            from torch.utils.tensorboard import SummaryWriter

            # Steps after the checkpoint that this run goes on from are purged: they will be written again.
            with explain_os_errors(folder):
                self._writer = SummaryWriter(str(folder), purge_step=start_step + 1)
            threading.excepthook = self._died

    def log(self, step: int, values: dict[str, float], prefix: str = "") -> None:
        """Add the values of a step."""
        if self._writer is not None:
            with explain_os_errors(self._folder):
                for name, value in values.items():
                    self._writer.add_scalar(f"{prefix}{name}", value, step)

    def close(self) -> None:
        """Flush what is pending."""
        if self._writer is not None:
            try:
                with explain_os_errors(self._folder):
                    self._writer.close()
            finally:
                threading.excepthook = self._hook

    def _died(self, thread: Any) -> None:
        # TensorBoard writes in a thread of its own, and raises in ours what went wrong there: told once is enough.
        if not issubclass(thread.exc_type, OSError) or type(thread.thread).__name__ != "_AsyncWriterThread":
            self._hook(thread)
