"""Settings: presets, layers, files, and one sentence for each way to get them wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.common import parse_settings
from isthmus.config import PRESETS, DomainConfig, RunConfig, read_yaml
from isthmus.errors import IsthmusError


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_is_valid_and_says_its_name(preset: str) -> None:
    assert RunConfig.build(preset).preset == preset


def test_the_paper_preset_is_the_recipe_of_the_paper() -> None:
    run = RunConfig.build("paper")
    assert (run.model.backbone.split(".")[0], run.model.dim, run.model.image_size) == ("resnet50", 512, 224)
    assert (run.augment.resize, run.augment.flip, run.augment.crop) == (256, True, 1.0)
    train = run.train
    assert (train.optimizer, train.lr, train.momentum, train.weight_decay) == ("sgd", 0.003, 0.9, 5e-4)
    assert (train.schedule, train.warmup_steps, train.epochs, train.batch_size) == ("constant", 0, 15, 32)
    assert train.precision == "16-mixed" and train.balance and train.select == "labels"
    loss = run.loss
    assert (loss.instance_weight, loss.matching_weight, loss.pair_weight) == (1.0, 1.0, 0.5)
    assert (loss.instance_temperature, loss.matching_temperature, loss.pair_temperature) == (0.1, 0.1, 1.0)
    assert (loss.matching_top, loss.momentum, loss.ablation) == (700, 0.5, "none")


def test_presets_are_not_changed_by_a_run() -> None:
    before = repr(PRESETS)
    run = RunConfig.build("tiny", {"model.dim": 7, "train": {"lr": 1.0}})
    run.train.epochs = 99
    assert repr(PRESETS) == before
    assert RunConfig.build("tiny").train.epochs != 99
    assert RunConfig().train.epochs == RunConfig.build().train.epochs != 99


def test_later_layers_win_and_dots_equal_nesting() -> None:
    run = RunConfig.build("tiny", {"train": {"lr": 1.0, "epochs": 3}}, {"train.lr": 2.0}, {"loss.momentum": 0.25})
    assert (run.train.lr, run.train.epochs, run.loss.momentum) == (2.0, 3, 0.25)
    assert run.train.batch_size == PRESETS["tiny"]["train"]["batch_size"]


def test_settings_of_the_command_line_have_their_types() -> None:
    given = ["train.lr=1e-3", "model.freeze_norm=true", "data.synthetic=[a, b]", "train.clip_norm=null"]
    changes = parse_settings(given)
    run = RunConfig.build("default", changes)
    assert run.train.lr == 0.001 and run.model.freeze_norm is True
    assert run.data.synthetic == ["a", "b"] and run.train.clip_norm is None


def test_yaml_round_trip(tmp_path: Path) -> None:
    layer = {
        "data.query": {"name": "ink", "train": "a folder/ü,=.txt"},
        "data.gallery": {"name": "paint", "train": "b", "val": "c"},
        "train.lr": 1e-5,
        "train.select": "mutual_nn",
        "seed": 7,
    }
    run = RunConfig.build("paper", layer)
    run.save(tmp_path / "run.yaml")
    again = RunConfig.load(tmp_path / "run.yaml")
    assert again == run and again.fingerprint() == run.fingerprint()


def test_yaml_with_a_preset_needs_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preset: tiny\nmethod: cds\ntrain:\n  epochs: 4\n")
    run = RunConfig.load(path)
    assert (run.preset, run.method, run.train.epochs) == ("tiny", "cds", 4)
    assert run.model.backbone == PRESETS["tiny"]["model"]["backbone"]


def test_fingerprint_sees_what_can_change_the_result_and_nothing_else() -> None:
    base = RunConfig.build()
    same = RunConfig.build("default", {"data.workers": 9, "data.cache_mb": 1})
    assert same.fingerprint() == base.fingerprint()
    for name, value in (("seed", 1), ("train.lr", 0.1), ("loss.ablation", "shared-slots"), ("augment.flip", False)):
        assert RunConfig.build("default", {name: value}).fingerprint() != base.fingerprint(), name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train.learning_rate": 1}, r"no setting 'train\.learning_rate'"),
    ({"trian": {"lr": 1}}, r"no setting 'trian'"),
    ({"train.lr": "fast"}, r"train\.lr = 'fast'"),
    ({"train.lr": 0}, r"train\.lr = 0"),
    ({"train.epochs": 2.5}, r"train\.epochs = 2\.5"),
    ({"train.batch_size": 1}, r"train\.batch_size = 1"),
    ({"train.precision": "8"}, r"train\.precision = '8'.*bf16-mixed"),
    ({"loss.momentum": 1.0}, r"loss\.momentum = 1\.0"),
    ({"model": 3}, r"model = 3"),
    ({"data.query": {"name": "a/b", "train": "x"}}, r"data\.query\.name = 'a/b'"),
    ({"augment.resize": 100, "model.image_size": 128}, r"augment\.resize is smaller than model\.image_size"),
    ({"train.batch_size": 32, "train.devices": 3}, r"train\.batch_size can't be divided"),
    ({"data.query": {"name": "a"}, "data.gallery": {"name": "a"}}, r"different names"),
    ({"train.lr": -1, "train.epochs": 0}, r"train\.lr.*train\.epochs|train\.epochs.*train\.lr"),
]


@pytest.mark.parametrize(("layer", "sentence"), WRONG)
def test_wrong_settings_are_named(layer: dict[str, Any], sentence: str) -> None:
    with pytest.raises(IsthmusError, match=sentence) as raised:
        RunConfig.build("default", layer)
    assert "\n" not in str(raised.value) and "pydantic" not in str(raised.value)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(IsthmusError, match=r"no preset 'huge'.*default, tiny, paper"):
        RunConfig.build("huge")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [1", "no valid YAML"),
        (b"\xff\xfe\x00", "no valid YAML"),
        (b"- 1\n- 2", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_broken_settings_file(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(IsthmusError, match=sentence) as raised:
        read_yaml(path)
    assert str(path) in str(raised.value)


def test_missing_settings_file(tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match=r"none\.yaml can't be read"):
        RunConfig.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "train", "val", "test"),
    [
        ("ink=a", "a", None, None),
        ("ink=a.txt,test=b.txt", "a.txt", None, "b.txt"),
        ("ink=a,b/c", "a,b/c", None, None),
        ("ink=a,b,val=c,d,test=e", "a,b", "c,d", "e"),
        ("ink=x=1,y=2,val=c=3", "x=1,y=2", "c=3", None),
        ("ink=my drawings/ü", "my drawings/ü", None, None),
        ("ink=train=a,val=b", "a", "b", None),
        ("ink=test=b", None, None, "b"),
    ],
)
def test_domain_of_the_command_line(text: str, train: str | None, val: str | None, test: str | None) -> None:
    domain = DomainConfig.parse(text)
    assert (domain.name, domain.train, domain.val, domain.test) == ("ink", train, val, test)


def test_domain_for_another_split_and_with_a_root() -> None:
    domain = DomainConfig.parse("ink=a", main="test", root="r")
    assert (domain.train, domain.test, domain.root) == (None, "a", "r")


@pytest.mark.parametrize("text", ["", "ink", "ink=", "=a", "a/b=c", "two words=c", "@=c", "a,b=c"])
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(IsthmusError, match="is not a domain"):
        DomainConfig.parse(text)
