"""Does it learn? Drawn figures that it never saw, found from their outlines, from random weights in seconds."""

from __future__ import annotations

from pathlib import Path

from ihda_zoo import settings, world
from test_trainer_resume import state
from training_zoo import BATCH_NORM

from isthmus.train.run import train


def test_it_learns_to_find_unseen_figures(tmp_path: Path) -> None:
    """From random weights, 100 drawn pairs and 60 photos with attributes; judged on 40 pairs of other figures."""
    world(tmp_path, 100, 60, val=40)
    config = settings(
        tmp_path,
        model__backbone=BATCH_NORM,
        model__dim=64,
        model__image_size=40,
        model__gallery_filter="grey",
        model__domain_norm=True,
        augment__flip=False,
        ihda__shared=True,
        ihda__drawn=0.5,
        ihda__source_step_batch=32,
        ihda__source_batch=8,
        train__batch_size=40,
        train__epochs=2,
        train__steps_per_epoch=30,
        train__lr=3e-3,
        train__schedule="constant",
    )
    train(config, tmp_path / "run")
    first, *_, last = (float(line["val/Prec@1"]) for line in state(tmp_path / "run")["log"])
    assert last > first + 0.15 and last > 0.6, (first, last)
