"""The record of a run: a CSV always, TensorBoard beside it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from isthmus.io import atomic_write_text


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


class Tracker:
    """Step and epoch figures as TensorBoard events; only the first process writes."""

    def __init__(self, folder: Path, active: bool, start_step: int) -> None:
        self._writer: Any = None
        if active:
            from torch.utils.tensorboard import SummaryWriter

            # Steps after the checkpoint that this run goes on from are purged: they will be written again.
            self._writer = SummaryWriter(str(folder), purge_step=start_step + 1)

    def log(self, step: int, values: dict[str, float], prefix: str = "") -> None:
        """Add the values of a step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}{name}", value, step)

    def close(self) -> None:
        """Flush what is pending."""
        if self._writer is not None:
            self._writer.close()
