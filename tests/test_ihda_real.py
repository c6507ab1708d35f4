"""IHDA learns on real shoes: unseen ones are found better than by the pretrained and by an untrained backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shoes_zoo import shoe_tables

from isthmus.config import RunConfig
from isthmus.train.trainer import Trainer

PAIRS, SOURCE, HELD_OUT = 100, 120, 80


@pytest.fixture(scope="module")
def history(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The log of both steps with the paper's kind of features; its first line is the pretrained backbone."""
    folder = tmp_path_factory.mktemp("shoes")
    shoe_tables(shared_data, folder, PAIRS, SOURCE, HELD_OUT)
    settings: dict[str, Any] = {
        "method": "ihda",
        "data.query": {"name": "sketch", "train": str(folder / "t.parquet")},
        "data.gallery": {"name": "photo", "train": str(folder / "t.parquet")},
        "data.source": {"name": "stock", "train": str(folder / "s.parquet")},
        "data.workers": 1,
        "model.weights": str(shared_data / "weights" / "mobilenetv2_100.safetensors"),
        "model.image_size": 64,
        "model.gallery_filter": "grey",
        "model.drop_stages": 0,
        "model.grid": 1,
        "model.freeze_norm": False,
        "ihda.shared": False,
        "ihda.drawn": 0.0,
        "ihda.source_lr": 1e-3,
        "ihda.source_epochs": 1,
        "ihda.source_step_batch": 32,
        "ihda.source_batch": 16,
        "train.epochs": 2,
        "train.steps_per_epoch": 25,
        "train.batch_size": 24,
        "train.precision": "32-true",
        "train.accelerator": "cpu",
    }
    before = torch.get_num_threads()
    trainer = Trainer(RunConfig.build("default", settings), folder / "run", screening=False)
    trainer.fit()
    torch.set_num_threads(before)
    return trainer.progress.history


def test_unseen_shoes_are_found_better_than_by_the_pretrained_backbone(history: list[dict[str, Any]]) -> None:
    pretrained, trained = history[0], history[-1]
    print({key: (round(pretrained[key], 3), round(trained[key], 3)) for key in ("val/mAP@all", "val/Prec@1")})
    chance = 1 / HELD_OUT * sum(1 / rank for rank in range(1, HELD_OUT + 1))
    assert pretrained["val/mAP@all"] > chance, "which is better than an untrained one"
    assert trained["val/mAP@all"] >= pretrained["val/mAP@all"] + 0.05
    assert trained["val/Prec@1"] > pretrained["val/Prec@1"]


def test_each_step_lowers_its_losses(history: list[dict[str, Any]]) -> None:
    assert [record.get("stage") for record in history] == [None, "source", "target", "target"]
    assert {"source_identity", "source_triplet", "attributes"} <= history[1].keys()
    assert history[3]["identity"] < history[2]["identity"]
    assert history[3]["triplet"] < history[2]["triplet"]
