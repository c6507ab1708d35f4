"""The one training loop: devices, precision, optimiser, checkpoints, choice of the epoch, logs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource, prefetch
from isthmus.data.screening import screen
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_text, make_folder
from isthmus.methods import find_method
from isthmus.methods.base import Judging, Method, Processes, Trainee, Verdict
from isthmus.methods.judge import score_for
from isthmus.models.modules import freeze_norms
from isthmus.process import keep_memory
from isthmus.train.build import build_fabric, build_optimizer, place
from isthmus.train.checkpoint import (
    Progress,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    seed_everything,
)
from isthmus.train.interrupt import Interrupted, StopRequest
from isthmus.train.schedule import Schedule
from isthmus.train.show import Display
from isthmus.train.together import Together
from isthmus.train.tracking import Tracker, provenance, write_history

SAVE_SECONDS = 300.0  # between checkpoints within an epoch
COLLAPSED = 0.999  # mean cosine between different images above which nothing can be told apart


class Trainer:
    """Trains one run in one folder.

    Args:
        config: all settings; `train.precision = auto` is decided here and written down.
        out: the run's folder: config.yaml, model/, checkpoints/, log.csv, tensorboard/, manifest.parquet.
        fabric: devices and processes; made from the settings if None.
        screening: decode every image first; off for a probe.

    Example:
        >>> Trainer(RunConfig.load("run.yaml"), Path("runs/pacs")).fit()                    # doctest: +SKIP
    """

    def __init__(self, config: RunConfig, out: Path, fabric: Fabric | None = None, *, screening: bool = True) -> None:
        keep_memory()
        seed_everything(config.seed)
        self.config, self.out = config, out
        kind = find_method(config.method)
        self.data: TrainingData = kind.read(config)
        self.model: Trainee = kind.build(config, self.data)
        self.fabric = fabric or build_fabric(config, self.model, trains=kind.trains)
        if config.train.precision == "16-mixed" and self.fabric.device.type != "cuda":
            self.data.notes.append("train.precision = 16-mixed needs a GPU; here the forward passes are in bfloat16.")
        self.together = Together(self.fabric)
        if self.fabric.is_global_zero:
            make_folder(out)
        seed_everything(config.seed)
        looks = self.model.preprocessing.filters_of([*self.data.names, *(row.domain for row in self.data.source)])
        self.source = ImageSource(self.model.preprocessing, config.data.cache_mb, looks)
        self.skipped: list[str] = []
        if screening:
            self.skipped = screen(self.data, self.source, threads=config.data.workers, on_bad=config.data.on_bad_image)
        place(self.model, config.train, self.fabric)
        processes = Processes(self.fabric.global_rank, self.fabric.world_size)
        self.method: Method = kind(config, self.model, self.data, self.source, processes)
        self.method.autocast = self.fabric.autocast
        self.schedule = Schedule(self.method)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        for name, part in self.model.modules().items():
            network, self.optimizers[name] = self.fabric.setup(part, build_optimizer(config.train, part))
            self.method.networks[name] = network
        self.progress = Progress()
        self.judge: Judging = self.method.judge(out, autocast=config.train.precision != "32-true")

    @property
    def checkpoint(self) -> Path:
        """The file that a run goes on from."""
        return self.out / "checkpoints" / "last.pt"

    def fit(self, *, resume: bool = False) -> dict[str, Any]:
        """Train to the end, or go on from the checkpoint.

        Returns:
            The chosen epoch's record.

        Raises:
            IsthmusError: a loss is not finite, the embeddings collapsed, or the folder can't be written.
            Interrupted: Ctrl-C or SIGTERM; the state is saved.
        """
        if self.fabric.is_global_zero:
            self.config.save(self.out / "config.yaml")
            self.data.manifest().save(self.out / "manifest.parquet")
            if self.skipped:
                atomic_write_text(self.out / "skipped.txt", "\n".join(self.skipped) + "\n")
        display = Display(self.fabric.is_global_zero, self.schedule.epochs)
        for note in self.data.notes:
            display.say(note)
        if resume:
            self._restore(load_checkpoint(self.checkpoint))
        else:
            self._mode(training=False)
            self.method.start()
            self._judge(display)
        tracker = Tracker(self.out / "tensorboard", self.fabric.is_global_zero, self.progress.step)
        try:
            if self.method.trains:
                with StopRequest() as stop:
                    while self.progress.epoch < self.schedule.epochs:
                        self._epoch(stop, tracker, display)
        finally:
            tracker.close()
            display.close()
        if self.fabric.is_global_zero:
            self.method.finish(self.out)
        return self.best_record()

    def best_record(self) -> dict[str, Any]:
        """The chosen epoch's line of the log."""
        return next(record for record in self.progress.history if record["epoch"] == self.progress.best_epoch)

    def _epoch(self, stop: StopRequest, tracker: Tracker, display: Display) -> None:
        state = self.progress
        plans = list(self.method.epoch(state.epoch))
        self.method.begun = state.epoch + 1
        place = self.schedule.place(state.epoch)
        if state.epoch == place.first and not state.step_in_epoch:
            self._enter(place.stage)
        todo = plans[state.step_in_epoch :]
        self._mode(training=True)
        # A checkpoint of the epoch's last step leaves none to do.
        rate = self.schedule.rate(state.epoch, max(0, state.step_in_epoch - 1), len(plans))
        start = saved = time.monotonic()
        threads = self.config.data.workers
        for batch in prefetch(todo, self.method.load, threads, ahead=threads + 1):
            rate = self.schedule.rate(state.epoch, state.step_in_epoch, len(plans))
            values = self._step(batch, rate)
            state.step += 1
            state.step_in_epoch += 1
            state.images += self.method.images_per_step()
            for name, value in values.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            tracker.log(state.step, {**values, "lr": rate}, "train/")
            display.step(
                state.epoch + 1, state.step_in_epoch, len(plans), state.step, self.schedule.steps, values["loss"]
            )
            number = self.together.signal(stop.number)
            if number and state.step_in_epoch < len(plans):
                state.seconds += time.monotonic() - start
                self._save()
                self.together.end(Interrupted(f"Stopped and saved after step {state.step}.", number))
            if time.monotonic() - saved > SAVE_SECONDS:
                # A crash in a long epoch loses no more than this.
                state.seconds += time.monotonic() - start
                start = saved = time.monotonic()
                self._save()
        state.seconds += time.monotonic() - start
        state.epoch += 1
        state.step_in_epoch = 0
        means = {name: value / len(plans) for name, value in state.sums.items()}
        state.sums = {}
        self._judge(display, {**means, "lr": rate}, tracker)
        number = self.together.signal(stop.number)
        if number and state.epoch < self.schedule.epochs:
            self.together.end(Interrupted(f"Stopped and saved after epoch {state.epoch}.", number))

    def _enter(self, stage: int) -> None:
        self.method.enter(stage)
        if stage:
            for optimizer in self.optimizers.values():
                # Momenta of what the stage before minimised would push into the wrong direction.
                getattr(optimizer, "optimizer", optimizer).state.clear()

    def _mode(self, *, training: bool) -> None:
        for part in self.model.modules().values():
            part.train(training)
            backbone = getattr(part, "backbone", None)
            if training and self.config.model.freeze_norm and backbone is not None:
                # Norms beside the backbone are new: frozen, they would never have seen an image.
                freeze_norms(backbone)

    def _step(self, batch: Any, rate: float) -> dict[str, float]:
        values: dict[str, float] = {}
        for part, terms in self.method.updates(batch):
            values |= self._update(part, terms, rate)
        self.method.after_step()
        return {**values, "loss": sum(values.values())}

    def _update(self, parts: str | tuple[str, ...], terms: dict[str, Tensor], rate: float) -> dict[str, float]:
        names = (parts,) if isinstance(parts, str) else parts
        loss = torch.stack(list(terms.values())).sum()
        values = self.together.means(terms)
        for name, value in values.items():
            if not math.isfinite(value):
                self.together.end(
                    IsthmusError(
                        f"The loss term '{name}' became {value} at step {self.progress.step + 1}; lower train.lr (now "
                        f"{self.config.train.lr:g}) or set train.precision=32-true. The last checkpoint is kept."
                    )
                )
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        for name in names:
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = rate * self.method.rate_of(name)
            if self.config.train.clip_norm is not None:
                network = self.method.networks[name]
                self.fabric.clip_gradients(network, optimizer, max_norm=self.config.train.clip_norm)
            optimizer.step()
        return values

    def _judge(self, display: Display, losses: dict[str, float] | None = None, tracker: Tracker | None = None) -> None:
        """Measure the network, keep it if it is the best so far, write log and checkpoint."""
        state = self.progress
        verdict = self.together.from_first(self.judge.verdict)
        figures = verdict.figures
        for note in verdict.notes:
            display.say(note)
        record: dict[str, Any] = {
            "epoch": state.epoch,
            "step": state.step,
            "images": state.images,
            "seconds": round(state.seconds, 2),
            **({"stage": name} if (name := self.schedule.name(state.epoch)) else {}),
            **(losses or {}),
            **figures,
        }
        cosine = verdict.mean_cosine
        if cosine is not None:
            record["mean_cosine"] = cosine
        state.history.append(record)
        # A network of random weights may start out as narrow: only one that has become so has collapsed.
        if cosine is not None and cosine > max(COLLAPSED, float(state.history[0].get("mean_cosine", 0.0))):
            kept = f" The best model so far is kept in {self.out / 'model'}." if state.best_epoch >= 0 else ""
            self.together.end(
                IsthmusError(
                    f"The embeddings collapsed in epoch {state.epoch}: all images look alike (mean cosine "
                    f"{cosine:.4f}); lower train.lr.{kept}"
                )
            )
        score = score_for(self.config.train.select, figures, state.epoch, self.method.auto)
        # Epoch 0 is the initial network: it stands in the log, but only a trained epoch is chosen. Of equals the later.
        may = self.schedule.chosen(state.epoch) if self.method.trains else True
        if may and score >= state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            self._keep(verdict)
        if tracker is not None:
            tracker.log(state.step, figures, "")
        display.epoch(record, chosen=bool(figures) and state.best_epoch == state.epoch)
        self._save()

    def _keep(self, verdict: Verdict) -> None:
        if not self.fabric.is_global_zero:
            return
        self.method.keep(verdict)
        summary = self.method.summary(verdict.figures)
        self.model.provenance = provenance(self.config, self.data, self.progress, summary)
        self.model.save(self.out / "model")

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        write_history(self.out / "log.csv", self.progress.history)
        save_checkpoint(
            self.checkpoint,
            {
                "parts": {name: part.state_dict() for name, part in self.model.modules().items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "precision": self.fabric.strategy.precision.state_dict(),
                "method": self.method.state(),
                "random": random_state(),
                "progress": vars(self.progress),
                "names": list(self.data.names),
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            for name, part in self.model.modules().items():
                part.load_state_dict(state["parts"][name])
                self.optimizers[name].load_state_dict(state["optimizers"][name])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.method.restore(state["method"])
            self.progress = Progress(**state["progress"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise IsthmusError(
                f"{self.checkpoint} is of other settings or another architecture; restore {self.out / 'config.yaml'} "
                "or train into another folder."
            ) from error
        restore_random_state(state["random"])
