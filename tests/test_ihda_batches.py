"""Who is in a batch: every identity once a pass, the longer loader sets the epoch, draws that a restart repeats."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from ihda_zoo import SHOP, batch_of, method_of, pairs, settings, shop, work, world
from test_distributed import difference, two_processes
from training_zoo import INK, PAINT

from isthmus.config import RunConfig
from isthmus.data.manifest import Manifest
from isthmus.data.samplers import pick
from isthmus.errors import IsthmusError
from isthmus.methods.base import Processes
from isthmus.methods.ihda import IHDA
from isthmus.methods.ihda_batches import Plan

PASS = {"train__steps_per_epoch": None, "ihda__source_epochs": 2, "train__epochs": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 identities with 3 sketches and 2 photos each; 10 of the source with 2 photos each."""
    return world(tmp_path_factory.mktemp("world"), views={INK: 3, PAINT: 2})


def drawn(plans: list[Plan], what: str) -> list[int]:
    return list(itertools.chain(*(getattr(plan, what) for plan in plans)))


def test_a_pass_has_every_identity_once(folder: Path) -> None:
    for images, size in ((1, 4), (2, 8)):
        method = method_of(settings(folder, **PASS, train__batch_size=size, ihda__images_per_identity=images,
                                    ihda__source_batch=10))  # fmt: skip
        plans = method.epoch(2)
        assert len(plans) == 2 and sorted(drawn(plans, "identities")) == list(range(8))
        assert sorted(drawn(plans, "source")) == list(range(20))
        batch = method.load(plans[0])
        assert batch.query is not None and batch.gallery is not None
        assert batch.query.identities.tolist() == batch.gallery.identities.tolist()
        assert Counter(batch.query.identities.tolist()) == dict.fromkeys(plans[0].identities, images)


def test_step_1_has_every_identity_once(folder: Path) -> None:
    method = method_of(settings(folder, **PASS, ihda__source_step_batch=4))
    plans = method.epoch(1)
    assert len(plans) == 5 and sorted(drawn(plans, "source")) == list(range(10))
    batch = method.load(plans[3])
    assert batch.query is None and batch.gallery is None and batch.source is not None
    assert sorted(Counter(batch.source.identities.tolist()).values()) == [2, 2]


def test_the_longer_loader_sets_the_epoch_and_the_shorter_is_shuffled_anew(folder: Path) -> None:
    for pairs_a_step, beside, long in ((8, 5, "source"), (2, 10, "identities")):
        changes = {"train__batch_size": pairs_a_step, "ihda__source_batch": beside}
        plans = method_of(settings(folder, **PASS, **changes)).epoch(3)
        assert len(plans) == 4
        short = "identities" if long == "source" else "source"
        everyone = sorted(drawn(plans, long))
        assert everyone == list(range(len(everyone)))
        count = {"identities": 8, "source": 20}[short]
        passes = [drawn(plans, short)[n * count : (n + 1) * count] for n in range(len(drawn(plans, short)) // count)]
        assert len(passes) > 1 and all(sorted(each) == list(range(count)) for each in passes)
        assert len({tuple(each) for each in passes}) == len(passes)  # not the same order again and again
        few = method_of(settings(folder, **PASS, **changes, ihda__ablation="short-epoch")).epoch(3)
        assert len(few) == 4 // len(passes)  # the public code's fault


def test_stages_follow_each_other(folder: Path) -> None:
    method = method_of(settings(folder, **(PASS | {"train__steps_per_epoch": 3})))
    plans = [plan for epoch in range(5) for plan in method.epoch(epoch)]
    assert [plan.stage for plan in plans] == ["source"] * 6 + ["target"] * 9
    assert [plan.step for plan in plans] == [*range(6), *range(9)]
    assert [plan.steps for plan in plans] == [6] * 6 + [9] * 9
    orders = {(tuple(plan.identities), tuple(plan.source)) for plan in plans}
    assert len(orders) == 15  # each epoch draws its own


def seen(method: IHDA, plan: Plan) -> list[tuple[str, str]]:
    """Ids and draws of the images of a step."""
    calls: list[tuple[str, str]] = []
    real = method.source.train_view

    def spy(row: Any, augment: Any, *draw: Any, **more: Any) -> Any:
        calls.append((row.id, str(draw)))
        return real(row, augment, *draw, **more)

    method.batches.source.train_view = spy  # type: ignore[method-assign]
    method.load(plan)
    return calls


def test_an_identity_shows_all_its_images_before_one_comes_again(folder: Path) -> None:
    method = method_of(settings(folder, ihda__images_per_identity=3, train__batch_size=6))
    calls = seen(method, method.epoch(1)[0])
    assert len(calls) == 6 + 6 + 6 and len(set(calls)) == 18  # what comes twice comes in another view
    for domain, images in ((INK, 3), (PAINT, 2)):
        mine = [(name.rpartition("-")[0], name) for name, _ in calls if name.startswith(domain)]
        each = Counter(identity for identity, _ in mine)
        assert set(each.values()) == {3} and len(each) == 2
        assert len({name for _, name in mine}) == 2 * images


def test_more_views_than_images_are_different_views(folder: Path) -> None:
    method = method_of(settings(folder, ihda__source_images=4, augment__brightness=0.5, augment__crop=0.5))
    batch = batch_of(method, 0).source
    assert batch is not None and len(batch.views) == 8
    for own in set(batch.identities.tolist()):
        views = batch.views[batch.identities == own]
        assert len(views) == 4
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(views, 2))


@pytest.mark.parametrize(("count", "wanted"), [(1, 3), (3, 3), (3, 7), (5, 2)])
def test_pick(count: int, wanted: int) -> None:
    chosen = [pick(count, wanted, "a", n) for n in range(40)]
    for positions in chosen:
        many = Counter(positions)
        assert len(positions) == wanted and set(positions) <= set(range(count))
        assert max(many.values()) - min(many.get(n, 0) for n in range(count)) <= 1
    assert {x for positions in chosen for x in positions} == set(range(count))
    assert chosen[5] == pick(count, wanted, "a", 5)


def test_a_photo_without_identity_is_a_group_of_its_own(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    rows = [replace(row, identity=None) if row.id.endswith("-1") else row for row in shop(folder, range(1000, 1004))]
    Manifest(rows).save(tmp_path / "shop.parquet")
    Manifest(pairs(folder, range(4))).save(tmp_path / "pairs.parquet")
    method = method_of(settings(tmp_path, **PASS, ihda__source_step_batch=16))
    assert sorted(map(len, method.batches.groups)) == [1] * 8
    batch = batch_of(method, 0).source
    assert batch is not None
    assert sorted(Counter(batch.identities.tolist()).items()) == [(-1, 8), (0, 2), (1, 2), (2, 2), (3, 2)]


def test_another_process_and_another_day_draw_the_same(folder: Path) -> None:
    config = settings(folder, **PASS, ihda__images_per_identity=2)
    first, again = method_of(config), method_of(config)
    first.epoch(0)  # what was asked before does not matter
    for epoch in (1, 3):
        assert first.epoch(epoch) == again.epoch(epoch)
        a, b = (method.load(method.epoch(epoch)[1])[1:] for method in (first, again))
        for x, y in zip(a, b, strict=True):
            assert (x is None) == (y is None) == (epoch == 1 and x is not a[2])
            assert x is None or y is None or (torch.equal(x.views, y.views) and torch.equal(x.identities, y.identities))
    other = method_of(config.model_copy(update={"seed": 5}))
    assert other.epoch(3) != first.epoch(3)


def test_processes_share_a_batch(folder: Path) -> None:
    config = settings(folder, ihda__images_per_identity=2)
    whole = method_of(config)
    halves = [method_of(config, Processes(rank, 2)) for rank in (0, 1)]
    for epoch in (0, 1):
        one, parts = batch_of(whole, epoch), [batch_of(half, epoch) for half in halves]
        for name in ("query", "gallery", "source"):
            if getattr(one, name) is not None:
                for n in range(3):
                    values = torch.cat([getattr(part, name)[n] for part in parts])
                    torch.testing.assert_close(values, getattr(one, name)[n], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("world_size", "changes", "says"),
    [
        (1, {"train__batch_size": 3, "ihda__images_per_identity": 2}, r"train\.batch_size = 3 .* make it 4 at least"),
        (1, {"ihda__source_step_batch": 3}, r"ihda\.source_step_batch = 3 .* make it 4 at least"),
        (1, {"ihda__source_batch": 1}, r"ihda\.source_batch = 1 .*"),
        (2, {"train__batch_size": 2}, r"train\.batch_size = 2 .* make it 4 at least"),
        (2, {"ihda__source_batch": 3}, r"ihda\.source_batch = 3 .* make it 4 at least"),
        (5, {"train__batch_size": 20, "ihda__source_step_batch": 20, "ihda__source_batch": 10},
         "8 identities are too few for 5 processes"),
    ],
)  # fmt: skip
def test_batches_without_negatives(folder: Path, world_size: int, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(IsthmusError, match=says):
        method_of(settings(folder, **changes), Processes(0, world_size))


def test_a_source_of_one_identity(folder: Path, tmp_path: Path) -> None:
    rows = [row for row in Manifest.load(folder / "shop.parquet") if row.identity == "fig-1000"]
    other = [row.__class__(**{name: getattr(row, name) for name in row.__slots__} | {"attributes": {"round": value}})
             for row, value in zip(rows, (0.0, 1.0), strict=True)]  # fmt: skip
    Manifest(other).save(tmp_path / "shop.parquet")
    Manifest(pairs(folder, range(4))).save(tmp_path / "pairs.parquet")
    with pytest.raises(IsthmusError, match=f"The source '{SHOP}' has readable images of 1 identities"):
        method_of(settings(tmp_path))


def test_two_processes_have_the_losses_and_gradients_of_one(folder: Path, tmp_path: Path) -> None:
    """With the hardest of all processes' images: those of one's own alone would give other triplets."""
    files = []
    for name, changes in {
        "query": {"ihda__margin": 1.0},
        "all": {"ihda__anchors": "all", "ihda__images_per_identity": 2, "ihda__inner_triplets": True,
                "ihda__source_identity_weight": 0.5, "ihda__shared": True},
    }.items():  # fmt: skip
        config = settings(folder, train__devices=2, **changes)
        config.save(tmp_path / f"{name}.yaml")
        files.append(tmp_path / f"{name}.yaml")
    ranks = two_processes(tmp_path, "ihda_zoo.py", lambda result: [tmp_path / "out", result, *files])
    for n, file in enumerate(files):
        config = RunConfig.load(file)
        config.train.devices = 1
        alone = work(config, tmp_path / "alone")
        for stage, one in enumerate(alone):
            for rank in ranks:
                two = rank[n][stage]
                assert two["losses"] == pytest.approx(one["losses"], rel=1e-5), (file.name, stage)
                error = difference(two["gradients"], one["gradients"])
                assert error < 1e-5, (file.name, stage, error)
