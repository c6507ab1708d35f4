"""Reading what to train on: splits, counterparts by id, what is held out, and one sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_zoo import INK, PAINT, settings, world, write_domain, write_translation

from isthmus.config import DomainConfig
from isthmus.data.training import TrainingData, read_domain, read_training_data
from isthmus.errors import IsthmusError
from isthmus.methods.judge import Judge
from isthmus.train.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 10)


def read(folder: Path, *, synthetic: bool = True, seed: int = 0, **changes: Any) -> TrainingData:
    return read_training_data(settings(folder, **changes).data, synthetic=synthetic, seed=seed)


def test_counterparts_are_tied_by_id(folder: Path) -> None:
    data = read(folder)
    assert data.names == (INK, PAINT) and data.held_out
    for side in (*data.train, *data.val):
        for row in side:
            (made,) = data.counterparts[row.id]
            assert made.source_id == row.id and Path(made.path).stem == Path(row.path).stem
            assert {row.domain, made.domain} == {INK, PAINT}
    splits = {row.id: row.split for row in data.manifest()}
    assert all(splits[row.id] == splits[str(row.source_id)] for row in data.manifest() if row.source_id)


def test_what_is_held_out_depends_on_the_seed_and_the_ids(folder: Path, tmp_path: Path) -> None:
    def held(seed: int, place: Path = folder) -> set[str]:
        data = read(place, synthetic=False, seed=seed, data__holdout=0.3)
        assert [len(side) for side in data.train] == [7, 7] and not (
            {row.id for row in data.train[0]} & {row.id for row in data.val[0]}
        )
        return {row.id for side in data.val for row in side}

    assert held(0) == held(0) and len({frozenset(held(seed)) for seed in range(4)}) > 1
    nothing = read(folder, synthetic=False, data__holdout=0.0)
    assert nothing.val == ([], []) and nothing.notes == []
    # An image more may join those held out, but moves no other from one side to the other.
    more = world(tmp_path, 11)
    assert len(held_of(more) - held(0)) <= 2


def held_of(place: Path) -> set[str]:
    data = read(place, synthetic=False, data__holdout=0.3)
    return {row.id for side in data.val for row in side}


def test_named_validation_images_are_used_and_training_stays_whole(tmp_path: Path) -> None:
    data = read(world(tmp_path, 6, val=4))
    assert not data.held_out
    assert len(data.notes) == 2 and all("have no counterparts; translate them too" in note for note in data.notes)
    assert [len(side) for side in (*data.train, *data.val)] == [6, 6, 4, 4]


def test_several_translations_give_several_counterparts(tmp_path: Path) -> None:
    folder = world(tmp_path, 4)
    again = write_translation(folder / INK, INK, PAINT, folder / "again", suffix="second")
    data = read(folder, data__synthetic=[str(folder / "to_paint"), str(again)], data__holdout=0.0)
    assert all(len(data.counterparts[row.id]) == 2 for row in data.train[0])
    assert any("only the other direction is synthetic" in note for note in data.notes)


def test_splits_of_one_folder(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        write_domain(tmp_path / "all" / split, INK, range(start, start + 3))
    domain = DomainConfig(name=INK, train=str(tmp_path / "all"))
    for split in ("train", "val", "test"):
        rows = read_domain(domain, split)
        assert rows is not None and {Path(row.path).parent.name for row in rows} == {split}
    flat = DomainConfig(name=INK, train=str(tmp_path / "all" / "test"))
    rows = read_domain(flat, "train")
    assert rows is not None and len(rows) == 3 and read_domain(flat, "test") is None


def test_images_of_another_split_are_never_trained_on(tmp_path: Path) -> None:
    """A source that names only other splits is a mistake, not a training set."""
    for split in ("val", "test"):
        write_domain(tmp_path / "part" / split, INK, range(3))
    with pytest.raises(IsthmusError, match=r"no image of the split 'train' \(it has: test, val\)"):
        read_domain(DomainConfig(name=INK, train=str(tmp_path / "part")), "train")


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    other = world(tmp_path, 3)
    own = write_translation(folder / INK, INK, INK, tmp_path / "own")
    foreign = write_translation(folder / INK, INK, "oil", tmp_path / "oil")
    write_domain(tmp_path / "one", INK, [1])
    both = {"name": INK, "train": str(folder / INK), "val": str(folder / INK)}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"data__synthetic": []}, "needs synthetic counterparts.*--synthetic.*--method cds"),
        ({"data__synthetic": [str(folder / INK)]}, r"holds no finished translation \(no manifest\.parquet\)"),
        ({"data__synthetic": [str(own)]}, "images of 'ink' in the look of 'ink' itself"),
        ({"data__synthetic": [str(foreign)]}, "was translated to 'oil', but the domains are ink and paint"),
        ({"data__query.train": str(tmp_path / "one")}, "'ink' holds a single image"),
        ({"data__query.train": str(tmp_path / "gone")}, "There is no folder, list or table"),
        ({"data__query.train": None}, "'ink' has no training images"),
        ({"data__query": None}, "Two domains are needed"),
        ({"data__query": both}, "10 images of 'ink' are training and validation images at once, such as ink/0000"),
    ]
    for change, sentence in wrong:
        with pytest.raises(IsthmusError, match=sentence):
            read(folder, **change)
    # Another folder's translation has other ids only if its names differ: ink/0000.png is ink/0000.png anywhere.
    for path in (other / "ink").iterdir():
        path.rename(path.with_name("x" + path.name))
    with pytest.raises(IsthmusError, match="holds no counterpart of a training image"):
        read(other, data__synthetic=[str(folder / "to_paint")])


def test_validation_images_without_a_counterpart_do_not_hide_the_others(tmp_path: Path) -> None:
    config = settings(world(tmp_path / "data", 20), data__holdout=0.4)
    trainer = Trainer(config, tmp_path / "run")
    everything = trainer.judge.verdict().figures
    del trainer.data.counterparts[trainer.data.val[0][0].id]
    some = Judge(trainer.model, trainer.data, trainer.source, 0, False)
    assert [len(pairs) for pairs in some.pairs] == [7, 8]
    figures = some.verdict().figures
    assert figures.keys() == everything.keys() and "counterpart_r1" in figures
