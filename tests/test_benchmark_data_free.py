"""The data-free benchmark: rows are what they say, teachers are shared, nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_free_bench_zoo import STYLES, collection, protocol

from isthmus.benchmark.data_free_measure import METRICS
from isthmus.benchmark.data_free_plan import DataFreePlanner
from isthmus.benchmark.data_free_rows import ROWS
from isthmus.benchmark.runner import run_jobs
from isthmus.config import DomainConfig, RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.models.classifier import Classifier
from isthmus.train.trainer import Trainer

NAMED = {row.name: row for row in ROWS}
DONE = ["data-free", "own-features", "averaged-weights", "posteriors", "posteriors-dot", "alternative", "upper-bound",
        "data-free-scratch"]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("collection"))


@pytest.fixture(scope="module")
def done(images: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFreePlanner:
    """Eight rows with independent teachers and one with a unified one, one seed."""
    out = tmp_path_factory.mktemp("benchmark")
    other = [DomainConfig(name=name, train=str(images / name)) for name in STYLES]
    made = DataFreePlanner(protocol(images, alternative=(other[0], other[1])), out / "results", out)
    rows = {"independent": [NAMED[name] for name in DONE], "unified": [NAMED["own-features"]]}
    made.write_queries(rows)  # type: ignore[arg-type]
    assert run_jobs(made.jobs(rows, [0]), say=lambda _: None) == []  # type: ignore[arg-type]
    return made


def record(done: DataFreePlanner, row: str, setting: str = "independent") -> dict[str, Any]:
    return dict(json.loads((done.results / setting / row / "0.json").read_text()))


def of_teachers(done: DataFreePlanner, row: str, domain: str) -> Classifier:
    config = RunConfig.load(done.work / "runs" / "independent" / row / "0" / "config.yaml")
    return Classifier.load(str(getattr(config.data_free, domain)))


def images_of(done: DataFreePlanner, name: str, domain: str) -> list[Row]:
    (table,) = (done.work / "tables").glob(f"test-{name}-*.parquet")
    return list(Manifest.load(table).select(domain=domain))


def test_each_row_changes_what_its_name_says(images: Path) -> None:
    on = {f"data_free.{name}_weight": 2.0 for name in ("proxy", "distillation", "queue")}
    made = protocol(images, settings=on)
    tables = {name: Path(f"{name}.parquet") for name in STYLES}
    other = protocol(
        images, settings=on, alternative=(DomainConfig(name="sketch", train="a"), DomainConfig(name="photo", train="b"))
    )
    base = made.run(NAMED["data-free"], "independent", 3, tables)
    assert base.seed == 3 and base.data_free.students == "teachers" and base.data_free.images == "generators"
    wanted: dict[str, dict[str, Any]] = {
        "own-features": {"images": "none", "crossing": False, "mixing": 0.0, "readout": "embedding", "stages": 0},
        "procrustes": {"images": "none", "mixing": 0.0, "readout": "embedding", "stages": 0},
        "averaged-weights": {"images": "none", "shared": True, "mixing": 0.0, "readout": "embedding", "stages": 0},
        "posteriors": {"images": "none", "mixing": 0.0, "readout": "posteriors", "stages": 0},
        "posteriors-dot": {"images": "none", "mixing": 0.0, "readout": "posteriors", "stages": 0},
        "posteriors-features": {"images": "none", "mixing": 0.0, "stages": 0},
        "untrained": {"images": "none"},
        "unimodal": {"crossing": False, "readout": "embedding", "train": "all", "stages": 0},
        "noise": {"images": "noise", "readout": "embedding", "stages": 0},
        "meta-data": {"images": "inverted", "readout": "embedding", "stages": 0},
        "alternative": {"images": "folders", "readout": "embedding", "stages": 0},
        "upper-bound": {
            "images": "folders",
            "labels": "given",
            "train": "all",
            "proxy_weight": 1.0,
            "distillation_weight": 0.0,
        },
        "upper-maps": {"images": "folders", "labels": "given", "proxy_weight": 1.0, "distillation_weight": 0.0},
        "data-free-scratch": {"students": "scratch", "readout": "embedding", "train": "all", "stages": 0},
        "data-free-weights": {"students": "weights", "readout": "embedding", "train": "all", "stages": 0},
        "embedding-only": {},
        "no-mixing": {"mixing": 0.0},
        "no-stages": {"stages": 0},
        "all-weights": {"train": "all"},
        "no-semantic": {"semantic_weight": 0.0},
        "no-balance": {"entropy_weight": 0.0},
        "no-statistics": {"statistics_weight": 0.0},
        "no-modality": {"modality_weight": 0.0},
        "no-alignment": {"alignment_weight": 0.0},
        "no-adversarial": {"adversarial_weight": 0.0},
        "no-proxy": {"proxy_weight": 0.0},
        "no-distillation": {"distillation_weight": 0.0},
        "no-contrast": {"contrast_weight": 0.0},
        "no-drawn-classes": {"drawn_classes": False},
        "no-diversity": {"diversity_weight": 0.0},
        "with-proxy": {"proxy_weight": 1.0},
        "with-distillation": {"distillation_weight": 1.0},
        "with-queue": {"queue_weight": 1.0},
    }
    assert {"data-free", *wanted} == set(NAMED)
    for name, changes in wanted.items():
        config = other.run(NAMED[name], "independent", 3, tables)
        differ = {key: value for key, value in config.data_free if value != getattr(base.data_free, key)}
        learned_alone = {"images": "bank", "bank": "images"} if NAMED[name].bank else {}
        assert differ == {**changes, **learned_alone}, name
        assert config.train == base.train and config.augment == base.augment and config.seed == 3
    upper, rival = (other.run(NAMED[name], "independent", 3, tables).data for name in ("upper-bound", "alternative"))
    assert upper.query is not None and upper.query.train == "sketch.parquet"
    assert rival.gallery is not None and rival.gallery.train == "b"
    scratch = made.run(NAMED["data-free-scratch"], "independent", 3, tables).model
    assert (scratch.backbone, scratch.image_size) == (made.looks.backbone, made.looks.image_size)
    assert base.model.freeze_norm and not scratch.freeze_norm


def test_teachers_are_told_apart_and_only_those_needed_are_asked_for(images: Path) -> None:
    made = protocol(images)
    tables = {name: Path(f"{name}.parquet") for name in STYLES}
    configs = {kind: made.teacher(kind, 2, tables) for kind in ("photo", "sketch", "unified", "modality")}  # type: ignore[arg-type]
    assert len({config.seed for config in configs.values()}) == 4
    assert configs["photo"].data.query is None and configs["sketch"].data.gallery is None
    assert configs["unified"].data.query is not None and configs["unified"].data.gallery is not None
    assert configs["modality"].classifier.target == "domain" and configs["unified"].classifier.target == "label"

    def needs(row: str, setting: str = "independent") -> set[str]:
        return set(made.teachers_of(made.run(NAMED[row], setting, 0, tables), setting).values())  # type: ignore[arg-type]

    assert needs("data-free") == needs("meta-data") == {"photo", "sketch", "modality"}
    assert needs("no-modality") == needs("own-features") == needs("noise") == {"photo", "sketch"}
    assert needs("data-free", "unified") == {"unified", "modality"}


def test_teachers_are_made_once_and_kept(done: DataFreePlanner) -> None:
    made = {path.name.split("-")[0]: path for path in (done.work / "teachers").iterdir()}
    assert set(made) == {"photo", "sketch", "modality", "unified"}
    assert all((path / "model" / "model.safetensors").is_file() for path in made.values())
    assert not list((done.work / "runs").rglob("*.safetensors")) and not list(done.work.rglob("*.pt"))
    assert Classifier.load(made["photo"]).classes == done.protocol.known


def test_a_result_holds_what_the_table_needs(done: DataFreePlanner) -> None:
    found = record(done, "data-free")
    ways = [(side["setting"], side["direction"]) for side in found["sides"]]
    assert ways == [(part, way) for part in ("known", "held-out") for way in ("sketch->photo", "photo->sketch")]
    for side in found["sides"]:
        assert set(side["scores"]) == set(side["chance"]) == set(METRICS)
        assert side["scores"]["mAP@all"] == pytest.approx(np.mean(side["precision"]), abs=1e-4)
        assert side["cut"] == side["n_gallery"] < 200
    assert found["data_free"] and found["start"] == "teachers"
    assert set(found["needs"]) == {"data_free.photo", "data_free.sketch", "data_free.modality"}
    (accuracy,) = found["needs"]["data_free.photo"].values()
    assert accuracy["images"] == len(images_of(done, "known", "photo"))
    assert set(found["needs"]["data_free.modality"]) == {"sketch", "photo"}
    assert not record(done, "upper-bound")["data_free"] and not record(done, "alternative")["data_free"]
    assert record(done, "averaged-weights")["start"] == "not trained: mean of the teachers"
    assert record(done, "data-free-scratch")["start"] == "random weights"
    assert record(done, "own-features")["steps"] == 0 and found["steps"] == 2
    assert set(record(done, "own-features", "unified")["needs"]) == {"data_free.unified"}
    assert (done.results / "independent" / "data-free" / "0.json").stat().st_size < 20_000


@pytest.mark.parametrize("row", ["own-features", "posteriors", "posteriors-dot"])
def test_untrained_rows_are_what_the_teachers_say(done: DataFreePlanner, row: str) -> None:
    """Features and probabilities straight from the classifiers, and average precision by a loop."""
    vectors, labels = {}, {}
    for domain in STYLES:
        teacher = of_teachers(done, row, domain)
        rows, source = images_of(done, "known", domain), ImageSource(teacher.preprocessing)
        with torch.inference_mode():
            answer = teacher.answer(torch.stack([source.test_view(one) for one in rows]).float() / 255)
        vectors[domain] = (answer.features if row == "own-features" else answer.logits.softmax(dim=1)).double().numpy()
        labels[domain] = [one.label for one in rows]
        if row != "posteriors-dot":
            vectors[domain] /= np.linalg.norm(vectors[domain], axis=1, keepdims=True)
    each = []
    for vector, label in zip(vectors["sketch"], labels["sketch"], strict=True):
        order = np.argsort(-(vectors["photo"] @ vector))
        hits = [labels["photo"][place] == label for place in order]
        each.append(sum(sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit) / sum(hits))
    assert record(done, row)["sides"][0]["precision"] == pytest.approx(each, abs=2e-2)
    assert record(done, row)["sides"][0]["scores"]["mAP@all"] == pytest.approx(np.mean(each), abs=5e-3)


def test_held_out_classes_are_seen_by_nobody(done: DataFreePlanner) -> None:
    known, apart = set(done.protocol.known), set(done.protocol.held_out)
    assert not known & apart and len(apart) == 2
    for table in (done.work / "tables").glob("*-0-*.parquet"):
        rows = list(Manifest.load(table))
        assert {row.label for row in rows} == known and {row.split for row in rows} == {"train"}
        assert not {row.id for row in rows} & {row.id for name in STYLES for row in images_of(done, "known", name)}
    assert {row.label for row in images_of(done, "held-out", "photo")} == apart


def test_a_finished_benchmark_is_never_done_again(done: DataFreePlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.benchmark.jobs.train", lambda *_: pytest.fail("trained again"))
    again = DataFreePlanner(done.protocol, done.results, done.work)
    again.write_queries(["independent"])
    assert run_jobs(again.jobs({"independent": [NAMED[name] for name in DONE]}, [0])) == []


def test_other_settings_classes_and_images_are_refused(done: DataFreePlanner, images: Path) -> None:
    for changes, sentence in (
        ({"settings": {"train.lr": 0.5}}, "other settings"),
        ({"teacher_settings": {"train.lr": 0.5}}, "other settings"),
        ({"known": 4, "held_out": 1}, "other classes"),
        ({"overlap": 0.7}, "other classes"),
    ):
        other = DataFreePlanner(protocol(images, **changes), done.results, done.work)
        with pytest.raises(IsthmusError, match=sentence):
            other.write_queries(["independent"])


def test_a_kill_in_the_midst_loses_nothing(
    done: DataFreePlanner, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended within the method's run, after its teachers: the rest gives what an unbroken run gives."""
    broken = DataFreePlanner(protocol(images), tmp_path / "results", tmp_path)
    rows: Any = {"independent": [NAMED["data-free"]]}
    step = Trainer._step

    def die(self: Trainer, *more: Any) -> Any:
        if self.config.method == "data-free" and self.progress.step == 1:
            raise KeyboardInterrupt
        return step(self, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", die)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(broken.jobs(rows, [0]), say=lambda _: None)
    stamps = {path: path.stat().st_mtime_ns for path in (broken.work / "teachers").rglob("model.safetensors")}
    assert len(stamps) == 3 and not (broken.results / "independent").exists()
    lines: list[str] = []
    assert run_jobs(broken.jobs(rows, [0]), say=lines.append) == []
    ends = ["[0/1] data-free independent 0, training", "[1/1] data-free independent 0"]
    assert [line.split(":")[0] for line in lines] == ends
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert record(broken, "data-free")["sides"] == record(done, "data-free")["sides"]
    (log,) = (broken.work / "methods").glob("independent-0-*/log.csv")
    assert log.read_text().count("\n") == 3
