"""Mistakes with pairs, sources and settings of IHDA: one sentence each, exit code 2, and nothing is begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_zoo import answer_of, refused, unharmed, works
from ihda_zoo import SHOP, facts, rewrite, settings, world
from images_zoo import truncated
from training_zoo import INK, NO_NORM, PAINT, write_domain

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.train.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 6, 6, val=2, test=3)


def words(home: Path, *more: str, method: str = "ihda", source: bool = True) -> list[Any]:
    """`isthmus train` on a world, as a person would write it."""
    tiny = ("model.dim=8", "model.image_size=32", "data.workers=0", "train.batch_size=4", "train.epochs=1",
            "train.accelerator=cpu", "train.precision=32-true")  # fmt: skip
    return [
        "train", "--method", method, "--backbone", NO_NORM, "--weights", "random",
        "--query-domain", f"{INK}={home / 'pairs.parquet'}", "--gallery-domain", f"{PAINT}={home / 'pairs.parquet'}",
        *(["--source-domain", f"{SHOP}={home / 'shop.parquet'}"] if source else []),
        *[word for setting in tiny for word in ("--set", setting)], "--out", home / "out", *more,
    ]  # fmt: skip


def without_some(row: Row) -> Row | None:
    return None if row.domain == PAINT and row.identity == "fig-2" else row


def leaking(row: Row) -> Row:
    return replace(row, identity="fig-0") if row.split == "test" and row.domain == INK else row


MISTAKES: dict[str, tuple[str, Callable[[Row], Row | None], tuple[str, ...]]] = {
    "one domain": ("pairs", without_some, ("1 training identities", f"'{INK}' only", "fig-2", "ihda.unpaired=skip")),
    "leak": ("pairs", leaking, ("The split leaks", "training and the test", "fig-0")),
    "no identity": ("pairs", lambda row: replace(row, identity=None), ("have no identity", "column 'identity'")),
    "one identity": ("pairs", lambda row: row if row.identity == "fig-1" else None, ("1 identity", "no negatives")),
    "other names": ("pairs", lambda row: replace(row, attributes={"colour": 1.0}), ("different attributes", "'round'")),
    "constant": ("shop", lambda row: replace(row, attributes={"flat": 1.0}), ("never vary", "'flat' (always 1)")),
    "range": ("shop", lambda row: replace(row, attributes={"round": 2.0}), ("'round'", "the value 2", "0 to 1")),
    "no attributes": ("shop", lambda row: replace(row, attributes=None), ("no attributes", "attr:NAME")),
    "other domain": ("shop", lambda row: replace(row, domain="mall"), (f"'{SHOP}'",)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_tables(folder: Path, tmp_path: Path, mistake: str) -> None:
    table, change, says = MISTAKES[mistake]
    for name in ("pairs", "shop"):
        rewrite(folder / f"{name}.parquet", tmp_path / f"{name}.parquet", change if name == table else lambda row: row)
    with unharmed(tmp_path):
        refused(*words(tmp_path), says=says)
        refused(*words(tmp_path), "--plan", says=says)


def test_a_tested_photo_in_the_source(folder: Path, tmp_path: Path) -> None:
    photo = next(row for row in Manifest.load(folder / "pairs.parquet") if row.split == "test" and row.domain == PAINT)
    more = replace(photo, id="shop/it", domain=SHOP, split="train", attributes=facts(1))
    Manifest([*Manifest.load(folder / "shop.parquet"), more]).save(tmp_path / "shop.parquet")
    rewrite(folder / "pairs.parquet", tmp_path / "pairs.parquet", lambda row: row)
    refused(*words(tmp_path), says=("The split leaks: 1 source images", "shop/it", "take them out of the source"))


def test_folders_without_identities(folder: Path, tmp_path: Path) -> None:
    for style in (INK, PAINT):
        write_domain(tmp_path / style, style, range(4))
    domains = ["--query-domain", f"{INK}={tmp_path / INK}", "--gallery-domain", f"{PAINT}={tmp_path / PAINT}"]
    refused(*words(folder), *domains, says=("4 train images of 'ink' have no identity", "isthmus data prepare pairs"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--set", "ihda.attributes=[round, colour]"], ["ihda.attributes names 'colour'", "round, high, wide, dark"]),
        (["--set", "ihda.stages=three"], ["ihda.stages = 'three'", "'both', 'source' or 'target'"]),
        (["--set", "ihda.ablation=fault"], ["ihda.ablation", "'fault'", "inverted-domain"]),
        (["--set", "ihda.domain_weight=-1"], ["ihda.domain_weight = -1"]),
        (["--set", "ihda.reversal=-1"], ["ihda.reversal = -1"]),
        (["--set", "ihda.label_smoothing=1"], ["ihda.label_smoothing = 1"]),
        (["--set", "ihda.tripletweight=1"], ["no setting 'ihda.tripletweight'"]),
        (["--set", "ihda.start=nowhere"], ["ihda.start", "ihda.stages=target"]),
        (["--set", "ihda.start=nowhere", "--set", "ihda.stages=target"], ["nowhere", "no model"]),
        (["--set", "ihda.identity_weight=0", "--set", "ihda.triplet_weight=0", "--set", "ihda.attribute_weight=0"],
         ["are all 0", "keep one"]),
        (["--set", "train.batch_size=5", "--set", "ihda.images_per_identity=3"],
         ["train.batch_size = 5", "no negatives", "make it 6"]),
        (["--set", "ihda.source_step_batch=2"], ["ihda.source_step_batch = 2", "no negatives", "make it 4"]),
        (["--set", "loss.pair_weight=1"], ["ihda doesn't use loss.pair_weight"]),
        (["--set", "train.balance=true"], ["ihda doesn't use train.balance"]),
        (["--synthetic", "made"], ["ihda doesn't use data.synthetic"]),
        (["--preset", "shoes"], ["no preset 'shoes'", "paper-shoes", "code-shoes"]),
    ],
)  # fmt: skip
def test_settings(folder: Path, more: list[str], says: list[str]) -> None:
    with unharmed(folder):
        refused(*words(folder, *more), says=tuple(says))


def test_settings_of_ihda_with_another_method(folder: Path) -> None:
    for method in ("cds", "pretrained", "cut"):
        refused(*words(folder, method=method), says=(f"{method} has no use for data.source", "--method ihda"))
        refused(*words(folder, "--set", "ihda.domain_weight=0.5", method=method, source=False),
                says=(f"{method} doesn't use settings ihda.*", "--method ihda"))  # fmt: skip
    refused(*words(folder, source=False), says=("--source-domain NAME=PATH", "ihda.stages=target"))


def test_the_epoch_chosen_by_labels_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    rewrite(folder / "shop.parquet", tmp_path / "shop.parquet", lambda row: row)
    rewrite(folder / "pairs.parquet", tmp_path / "pairs.parquet", lambda row: row if row.split == "train" else None)
    refused(*words(tmp_path, "--set", "train.select=labels", "--set", "data.holdout=0"), alone=False,
            says=("train.select = labels needs labelled validation images",))  # fmt: skip


def test_a_run_is_evaluated_indexed_and_searched(folder: Path, tmp_path: Path) -> None:
    settings(folder).save(tmp_path / "run.yaml")
    run = tmp_path / "run"
    assert answer_of("train", "--config", tmp_path / "run.yaml", "--out", run)["stage"] == "target"
    scores = str(answer_of("evaluate", run, "--bootstrap", "0"))
    assert f"{INK}" in scores and "R@1" in scores
    works("index", run, folder / PAINT, "--out", tmp_path / "catalog", "--workers", "0")
    hits = works("search", tmp_path / "catalog", folder / INK / "0001-0.png", "-k", "2").output
    assert ".png" in hits
    refused("train", "--resume", run, "--set", "ihda.source_epochs=3", says=("'ihda.source_epochs' can't change",))
    refused("train", "--config", tmp_path / "run.yaml", "--set", "ihda.domain_weight=0", "--out", run,
            says=("ihda.domain_weight is 0.1 there and 0.0 here",))  # fmt: skip


def spoiled(folder: Path, out: Path, bad: Callable[[Row], bool]) -> Path:
    """A world in which some images can't be read."""
    path = str(truncated(out, ".png"))
    for name in ("pairs", "shop"):
        rewrite(folder / f"{name}.parquet", out / f"{name}.parquet",
                lambda row: replace(row, path=path) if bad(row) else row)  # fmt: skip
    return out


def test_unreadable_images_take_their_pair_with_them(folder: Path, tmp_path: Path) -> None:
    """Left out by data.on_bad_image=skip, a photo leaves its sketch alone in the world."""
    home = spoiled(folder, tmp_path, lambda row: row.id in ("paint/0002-0", "shop/1001-0"))
    trainer = Trainer(settings(home, data__on_bad_image="skip"), tmp_path / "run")
    assert len(trainer.skipped) == 2
    assert trainer.method.batches.identities == [f"fig-{n}" for n in (0, 1, 3, 4, 5)]
    trainer.fit()
    with pytest.raises(IsthmusError, match=r"2 of .* images can't be read"):
        Trainer(settings(home), tmp_path / "other")


def test_too_little_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    skip = {"data__on_bad_image": "skip"}
    home = spoiled(folder, tmp_path, lambda row: (row.domain == INK and row.identity in ("fig-0", "fig-1", "fig-2"))
                   or (row.domain == PAINT and row.identity in ("fig-3", "fig-4")))  # fmt: skip
    with pytest.raises(IsthmusError, match="1 identities are too few"):
        Trainer(settings(home, **skip), tmp_path / "run")
    home = spoiled(folder, tmp_path, lambda row: row.domain == SHOP)
    with pytest.raises(IsthmusError, match="The source 'shop' has readable images of 0 identities"):
        Trainer(settings(home, **skip), tmp_path / "run")
