"""A run folder: started, gone on with, or left alone because it is finished or another's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from isthmus.config import DomainConfig, RunConfig
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.train.checkpoint import load_checkpoint

# What may change when a run goes on: nothing that would make the finished part another run's.
CHANGEABLE = ("train.epochs", "data.workers", "data.cache_mb")


def absolute_paths(config: RunConfig) -> RunConfig:
    """The settings with absolute paths, so that a run can be evaluated from any folder."""
    config = config.model_copy(deep=True)
    for domain in (config.data.query, config.data.gallery, config.data.source):
        if domain is not None:
            _absolute(domain)
    config.data.synthetic = [str(Path(folder).absolute()) for folder in config.data.synthetic]
    for name in ("photo", "sketch", "unified", "modality", "bank"):
        given = getattr(config.data_free, name)
        if given is not None:
            setattr(config.data_free, name, str(Path(given).absolute()))
    if config.ihda.start is not None:
        config.ihda.start = str(Path(config.ihda.start).absolute())
    if config.model.weights not in ("pretrained", "random"):
        config.model.weights = str(Path(config.model.weights).absolute())
    return config


def _absolute(domain: DomainConfig) -> None:
    for name in ("train", "val", "test", "root"):
        value = getattr(domain, name)
        if value is not None:
            setattr(domain, name, str(Path(value).absolute()))


def finished_epochs(out: Path) -> int | None:
    """How many epochs the run in `out` has finished; None where there is no run."""
    checkpoint = out / "checkpoints" / "last.pt"
    if not (out / "config.yaml").is_file() or not checkpoint.is_file():
        return None
    return int(load_checkpoint(checkpoint)["progress"]["epoch"])


def settings_to_go_on(out: Path, changes: dict[str, Any]) -> RunConfig:
    """The settings of the run in `out` with permitted changes, for `--resume`."""
    if finished_epochs(out) is None:
        raise IsthmusError(f"{out} holds no run to go on with; start one with  isthmus train --out {out}.")
    wrong = [name for name in changes if name not in CHANGEABLE]
    if wrong:
        raise IsthmusError(
            f"'{wrong[0]}' can't change within a run; only {', '.join(CHANGEABLE)} can. Train into another folder."
        )
    return RunConfig.build("default", RunConfig.load(out / "config.yaml").model_dump(), changes)


def same_run(config: RunConfig, out: Path) -> bool:
    """Whether `out` holds an earlier part of the run with these settings.

    Raises:
        IsthmusError: it holds another run.
    """
    if finished_epochs(out) is None:
        return False
    old = RunConfig.load(out / "config.yaml")
    new = config.model_copy(deep=True)
    if new.train.precision == "auto":
        new.train.precision = old.train.precision  # decided when the run began, never again
    config.train.precision = new.train.precision
    if old.fingerprint() != new.fingerprint():
        raise IsthmusError(
            f"{out} holds a run with other settings ({_first_difference(old, new)}); choose another --out, or go on "
            f"with it by  isthmus train --resume {out}."
        )
    return True


def _first_difference(old: RunConfig, new: RunConfig) -> str:
    there, here = dict(_flat(old.model_dump())), dict(_flat(new.model_dump()))
    # What may change is named last: the mend for it is another one than for the rest.
    for name in sorted(there.keys() | here.keys(), key=lambda name: (name in CHANGEABLE, name)):
        if there.get(name) != here.get(name) and name not in ("data.workers", "data.cache_mb"):
            return f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
    return "see its config.yaml"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


def train(config: RunConfig, out: str | Path, *, resume: bool = False) -> dict[str, Any]:
    """Train a run, or go on with it where it stopped.

    Args:
        config: the settings.
        out: the run's folder. If it holds an earlier part of the same run, that is gone on with.
        resume: go on with what is there, after `settings_to_go_on`.

    Returns:
        The chosen epoch's record.

    Example:
        >>> train(RunConfig.load("run.yaml"), "runs/pacs")                                  # doctest: +SKIP
    """
    from isthmus.models.encoder import Model
    from isthmus.train.trainer import Trainer

    folder = Path(out)
    config = absolute_paths(config)
    going_on = resume or same_run(config, folder)
    trainer = Trainer(config, folder)
    record = trainer.fit(resume=going_on)
    if trainer.fabric.is_global_zero and isinstance(trainer.model, Model):
        keep_chooser(folder / "model", trainer.data, config.data.workers)
    return record


def keep_chooser(folder: Path, data: TrainingData, workers: int) -> None:
    """Put what tells the two domains apart beside the finished model; where that can't be, say so and go on.

    It changes nothing of the run: neither weights nor fingerprint nor scores know of it.
    """
    from isthmus.models.domains import DomainChooser, fit_rows

    try:
        if DomainChooser.load(folder) is not None:
            return
    except IsthmusError:
        pass  # damaged: made anew
    try:
        if not any(data.train):
            raise IsthmusError("The run reads no images to learn the domains' looks from.")
        fit_rows(data.train, data.names, workers=workers).save(folder)
    except IsthmusError as error:
        print(f"No domain chooser beside the model: {error} Later:  isthmus domains RUN", file=sys.stderr)
