"""Reading pairs and a source: what belongs together, what is kept apart, what training may not see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ihda_zoo import ATTRIBUTES, SHOP, facts, pairs, rewrite, row, settings, shop, world
from training_zoo import INK, PAINT, same

from isthmus.data.manifest import Manifest, Row
from isthmus.data.paired import PairedData, identity_of, read_paired_data
from isthmus.errors import IsthmusError
from isthmus.train.checkpoint import load_checkpoint
from isthmus.train.run import train
from isthmus.train.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sketches and a photo of each of 20, all with attributes in the table."""
    return world(tmp_path_factory.mktemp("world"), 20, val=4, test=3, views={INK: 2}, known=True)


def read(folder: Path, *, seed: int = 0, **changes: Any) -> PairedData:
    config = settings(folder, **changes)
    return read_paired_data(config.data, seed=seed, attributes=config.ihda.attributes, unpaired=config.ihda.unpaired)


def changed(folder: Path, out: Path, change: Callable[[Row], Row | None], *, table: str = "pairs") -> Path:
    """A world with one table changed and the other as it is."""
    for name in ("pairs", "shop"):
        rewrite(folder / f"{name}.parquet", out / f"{name}.parquet", change if name == table else lambda row: row)
    return out


def identities(rows: list[Row]) -> set[str | None]:
    return {identity_of(row) for row in rows}


def test_one_table_for_both_domains_and_all_splits(folder: Path) -> None:
    data = read(folder)
    assert data.names == (INK, PAINT) and not data.held_out and not data.notes
    assert [len(side) for side in (*data.train, *data.val, data.source)] == [40, 20, 8, 4, 20]
    for side in (data.train, data.val):
        assert identities(side[0]) == identities(side[1])
        assert [{row.domain for row in rows} for rows in side] == [{INK}, {PAINT}]
    assert not identities(data.train[0]) & identities(data.val[0])
    assert data.attributes == ATTRIBUTES
    assert data.source[3].attributes == facts(int(Path(data.source[3].path).name[:4]))


def test_attributes_of_pairs_are_not_there_to_be_read(folder: Path) -> None:
    config = settings(folder)
    for data in (read(folder), Trainer(config, folder / "spy", screening=False).method.data):
        for side in (*data.train, *data.val):
            assert side and all(row.attributes is None for row in side)
    assert Manifest.load(folder / "pairs.parquet")[0].attributes  # they stood in the table


def test_poisoned_attributes_of_pairs_change_no_bit(folder: Path, tmp_path: Path) -> None:
    """Other values, a value that is none, and no column at all: the same weights."""

    def lies(row: Row) -> Row:
        return replace(row, attributes={name: 1 - value for name, value in (row.attributes or {}).items()})

    def junk(row: Row) -> Row:
        return replace(row, attributes=dict.fromkeys(ATTRIBUTES, float("nan")) | {"colour": 7.0})

    runs = {}
    for name, change in {
        "as it is": lambda row: row,
        "lies": lies,
        "junk": junk,
        "none": lambda row: replace(row, attributes=None),
    }.items():
        home = changed(folder, tmp_path / name, change)
        train(settings(home, train__steps_per_epoch=1), home / "run")
        runs[name] = load_checkpoint(home / "run" / "checkpoints" / "last.pt")["parts"]
    assert same(runs["as it is"], runs["lies"]) and same(runs["as it is"], runs["junk"])
    assert same(runs["as it is"], runs["none"])
    # and those of the source do matter
    home = changed(folder, tmp_path / "source lies", lies, table="shop")
    train(settings(home, train__steps_per_epoch=1), home / "run")
    assert not same(runs["as it is"], load_checkpoint(home / "run" / "checkpoints" / "last.pt")["parts"])


def without_val(folder: Path, tmp_path: Path) -> Path:
    return changed(folder, tmp_path, lambda row: None if row.split == "val" else row)


def test_held_out_identities_are_the_same_in_both_domains(folder: Path, tmp_path: Path) -> None:
    home = without_val(folder, tmp_path)
    data, again, other = (read(home, seed=seed, data__holdout=0.25) for seed in (0, 0, 1))
    assert data.held_out and "5 training identities are kept apart" in data.notes[0]
    assert identities(data.val[0]) == identities(data.val[1]) and len(identities(data.val[0])) == 5
    assert len(data.val[0]) == 10 and len(data.train[0]) == 30
    assert not identities(data.val[0]) & identities(data.train[0]) | identities(data.val[1]) & identities(data.train[1])
    assert data.val == again.val and identities(data.val[0]) != identities(other.val[0])
    assert len(identities(read(home, data__holdout=0.99).train[0])) == 2  # enough for a negative
    # another pair changes nobody else's side
    Manifest([*Manifest.load(home / "pairs.parquet"), *pairs(tmp_path, [77])]).save(home / "pairs.parquet")
    grown = read(home, data__holdout=0.25)
    assert len((identities(grown.val[0]) ^ identities(data.val[0])) - {"fig-77"}) <= 1


def test_labels_stand_in_for_identities(folder: Path, tmp_path: Path) -> None:
    home = changed(folder, tmp_path, lambda row: replace(row, identity=None, label=row.identity))
    assert [len(side) for side in read(home).train] == [40, 20]


def test_identities_in_one_domain_only(folder: Path, tmp_path: Path) -> None:
    lost = {"fig-3", "fig-5"}
    home = changed(folder, tmp_path, lambda row: None if row.domain == PAINT and row.identity in lost else row)
    with pytest.raises(IsthmusError, match=r"2 training identities are in 'ink' only .*'paint' \(fig-3, fig-5\)"):
        read(home)
    data = read(home, ihda__unpaired="skip")
    assert identities(data.train[0]) == identities(data.train[1]) and len(data.train[0]) == 36
    assert data.notes == ["2 identities of 'ink' have no image in 'paint' and are left out."]


def refused(home: Path, sentence: str, **changes: Any) -> None:
    with pytest.raises(IsthmusError, match=sentence) as caught:
        read(home, **changes)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("split", "says"), [("val", "validation"), ("test", "test")])
@pytest.mark.parametrize("domain", [INK, PAINT])
def test_an_identity_in_two_splits_is_a_leak(folder: Path, tmp_path: Path, split: str, says: str, domain: str) -> None:
    """Also where each domain by itself is clean."""

    def leak(row: Row) -> Row:
        mine = row.split == split and row.domain == domain
        return replace(row, identity="fig-4") if mine else row

    refused(changed(folder, tmp_path, leak), f"The split leaks: 1 identities .* training and the {says} .*fig-4")


def test_validation_that_leaks_into_the_test(folder: Path, tmp_path: Path) -> None:
    home = changed(folder, tmp_path, lambda row: replace(row, identity="x") if row.split in ("val", "test") else row)
    refused(home, r"The split leaks: 1 identities .* validation and the test images \(x\)")


def test_a_source_image_that_is_judged_or_tested_is_a_leak(folder: Path, tmp_path: Path) -> None:
    tested = next(row for row in Manifest.load(folder / "pairs.parquet") if row.split == "test" and row.domain == PAINT)
    changed(folder, tmp_path, lambda row: row)
    photo = replace(tested, id="shop/x", domain=SHOP, split="train", attributes=facts(1), identity="other")
    Manifest([*Manifest.load(folder / "shop.parquet"), photo]).save(tmp_path / "shop.parquet")
    refused(tmp_path, "The split leaks: 1 source images are validation or test images of the target, such as shop/x")


def test_no_identity(folder: Path, tmp_path: Path) -> None:
    home = changed(folder, tmp_path, lambda row: replace(row, identity=None) if row.id == "ink/0002-1" else row)
    refused(home, r"1 train images of 'ink' have no identity, such as ink/0002-1; .*isthmus data prepare pairs")


def test_too_few_identities(folder: Path, tmp_path: Path) -> None:
    home = changed(folder, tmp_path, lambda row: row if row.identity == "fig-0" else None)
    refused(home, "share 1 identity to train on; a batch without another one has no negatives")
    refused(changed(folder, tmp_path, lambda row: row if row.domain == PAINT else None), "'ink'")


def test_sources_that_are_none(folder: Path, tmp_path: Path) -> None:
    refused(folder, r"attribute-labelled images: name them with --source-domain .* ihda\.stages=target",
            data__source=None)  # fmt: skip
    home = changed(folder, tmp_path, lambda row: row if row.id == "shop/1000-0" else None, table="shop")
    refused(home, "The source 'shop' has 1 training images")
    home = changed(folder, tmp_path, lambda row: replace(row, attributes=None), table="shop")
    refused(home, "'shop' has no attributes; give its table columns attr:NAME")


def test_attributes_are_chosen_by_name(folder: Path, tmp_path: Path) -> None:
    for wanted, gets in (
        (["wide", "round"], ("wide", "round")),
        ("dark", ("dark",)),
        (["-high"], ("round", "wide", "dark")),
        (["dark", "high", "-high"], ("dark",)),
        ([], ATTRIBUTES),
    ):
        # a pair's table may have others where those that are learned are there
        assert read(folder, ihda__attributes=wanted).attributes == gets
    refused(folder, r"names 'colour', which the source 'shop' hasn't \(it has: round, high, wide, dark\)",
            ihda__attributes=["dark", "-colour"])  # fmt: skip
    refused(folder, r"ihda\.attributes leaves no attribute", ihda__attributes=[f"-{name}" for name in ATTRIBUTES])
    home = changed(folder, tmp_path, lambda row: replace(row, attributes={"round": 1.0, "high": 0.0}))
    refused(home, r"different attributes: 'wide' is not among those of 'ink' and 'paint' \(high, round\)")
    assert read(home, ihda__attributes=["high"]).attributes == ("high",)


def test_attributes_that_teach_nothing_or_lie_outside(folder: Path, tmp_path: Path) -> None:
    def constant(row: Row) -> Row:
        return replace(row, attributes={**facts(int(row.path[-10:-6])), "it's": 1.0, "flat": 0.0})

    home = changed(folder, tmp_path, constant, table="shop")
    rewrite(home / "pairs.parquet", home / "pairs.parquet", lambda row: replace(row, attributes=None))
    refused(home, r"never vary and teach nothing: 'it's' \(always 1\), 'flat' \(always 0\); .*=\[-it's,-flat\]")
    assert read(home, ihda__attributes=["-it's", "-flat"]).attributes == ATTRIBUTES
    for value in (2.0, -1.0, float("nan")):
        home = changed(folder, tmp_path, lambda row, v=value: replace(row, attributes={"round": v}), table="shop")
        refused(home, r"'round' of the source 'shop' has the value (2|-1|nan); use 0 to 1")


def test_unknown_attributes_and_identities_of_the_source_are_unknown(folder: Path, tmp_path: Path) -> None:
    def forget(row: Row) -> Row:
        number = int(Path(row.path).name[:4])
        values = {name: value for name, value in facts(number).items() if name != "wide" or number > 1004}
        return replace(row, attributes=values, identity=row.identity if number > 1002 else None)

    home = changed(folder, tmp_path, forget, table="shop")
    trainer = Trainer(settings(home, ihda__source_batch=20), tmp_path / "run", screening=False)
    plan = trainer.method.epoch(1)[0]
    batch = trainer.method.load(plan).source
    numbers = [int(Path(trainer.data.source[at].path).name[:4]) for at in plan.source]
    assert len(numbers) == len(batch.identities) == 20
    assert (batch.identities < 0).tolist() == [number <= 1002 for number in numbers]
    for name, values in zip(trainer.method.data.attributes, batch.attributes.T, strict=True):
        for number, value in zip(numbers, values.tolist(), strict=True):
            assert math.isnan(value) if name == "wide" and number <= 1004 else value == facts(number)[name]


def test_rows_are_written_down_once(folder: Path) -> None:
    manifest = read(folder).manifest()
    assert len(manifest) == 40 + 20 + 8 + 4 + 20
    assert {row.split for row in manifest.select(domain=SHOP)} == {"train"}
    assert row(folder, SHOP, 1000).path in {row.path for row in shop(folder, [1000])}
