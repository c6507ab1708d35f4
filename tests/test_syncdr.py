"""SynCDR's sets, batches and step, against the formula written plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from training_zoo import BATCH_NORM, INK, PAINT, method_of, settings, world

from isthmus.data.training import TrainingData, read_training_data
from isthmus.errors import IsthmusError
from isthmus.methods.syncdr import Batch, SynCDR, build_sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"), 12, gallery=14)


def read(folder: Path, **changes: Any) -> TrainingData:
    return read_training_data(settings(folder, data__holdout=0.0, **changes).data, synthetic=True, seed=0)


def first_batch(method: SynCDR) -> Batch:
    return method.load(method.epoch(0)[0])


def test_sets_hold_real_and_synthetic_images_and_their_counterparts(folder: Path) -> None:
    a, b = build_sets(read(folder), synthetic=True)
    assert [item.row.domain for item in a] == [INK] * 26 and [item.row.domain for item in b] == [PAINT] * 26
    assert [item.row.source_id is None for item in a] == [True] * 12 + [False] * 14
    assert [item.row.source_id is None for item in b] == [True] * 14 + [False] * 12
    for items, other in ((a, PAINT), (b, INK)):
        assert [item.slot for item in items] == list(range(26))  # one slot an image
        for item in items:
            (counterpart,) = item.counterparts
            assert counterpart.domain == other
            real, made = (item.row, counterpart) if item.row.source_id is None else (counterpart, item.row)
            assert made.source_id == real.id


def test_shared_slots_give_the_collision_of_the_public_code(folder: Path) -> None:
    a, b = build_sets(read(folder), synthetic=True, shared_slots=True)
    assert [item.slot for item in a] == [*range(12), *range(14)]
    assert [item.slot for item in b] == [*range(14), *range(12)]
    assert a[0].slot == a[12].slot and a[0].counterparts[0].id != a[12].counterparts[0].id
    method = method_of(settings(folder, loss__ablation="shared-slots", data__holdout=0.0))
    assert [len(bank.memory) for bank in method.banks] == [14, 14]


def test_sets_of_one_way_synthetic_images(folder: Path) -> None:
    """Only ink -> paint was translated: ink has no synthetic images, and real paint no counterpart."""
    config = settings(folder, data__synthetic=[str(folder / "to_paint")], data__holdout=0.0)
    a, b = build_sets(read(folder, data__synthetic=[str(folder / "to_paint")]), synthetic=True)
    assert len(a) == 12 and all(item.row.source_id is None and item.counterparts for item in a)
    assert len(b) == 26 and [bool(item.counterparts) for item in b] == [False] * 14 + [True] * 12
    method = method_of(config)
    assert method.paired == (True, False)
    batch = first_batch(method)
    assert batch.counterparts[0] is not None and batch.counterparts[1] is None
    assert set(method.step(batch)) == {"instance", "matching", "pairs"}
    assert method.images_per_step() == 8 * 3


def test_images_without_counterpart_are_left_out(folder: Path) -> None:
    data = read(folder)
    lonely = data.train[0][3].id
    del data.counterparts[lonely]
    a, b = build_sets(data, synthetic=True)
    assert lonely not in {item.row.id for item in a} and (len(a), len(b)) == (25, 25)


def test_cds_has_neither_synthetic_images_nor_pairs(folder: Path) -> None:
    method = method_of(settings(folder, method="cds", data__holdout=0.0))
    assert [len(items) for items in method.sets] == [12, 14] and method.paired == (False, False)
    assert set(method.step(first_batch(method))) == {"instance", "matching"}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((100, 100), (32, 32)), ((100, 249), (32, 64)), ((300, 100), (96, 32)), ((10, 14), (32, 32))],
)
def test_cds_recipe_gives_the_larger_domain_a_larger_batch(
    folder: Path, counts: tuple[int, int], expected: tuple[int, int]
) -> None:
    """16 floor(2 n_large / n_small), as in the public code."""
    config = settings(folder, method="cds", train__balance=True, train__batch_size=32, data__holdout=0.0)
    method = method_of(config)
    method.sets = (method.sets[0][:1] * counts[0], method.sets[1][:1] * counts[1])
    assert method.batch_sizes() == expected
    config.train.balance = False
    assert method.batch_sizes() == (32, 32)


def test_an_epoch_is_one_pass_over_a(folder: Path) -> None:
    config = settings(folder, train__steps_per_epoch=None, data__holdout=0.0)
    plans = method_of(config).epoch(0)
    assert len(plans) == 26 // 8
    used = [position for plan in plans for position in plan.a]
    assert len(used) == len(set(used)) == 24


def test_image_and_counterpart_are_augmented_independently(folder: Path) -> None:
    method = method_of(settings(folder, data__holdout=0.0))
    plan = method.epoch(0)[0]
    once, again = method.load(plan), method.load(plan)
    assert torch.equal(once.images[0], again.images[0])  # a function of the plan alone
    item = method.sets[0][plan.a[0]]
    same = item.row, item.row
    views = [method._views([row], name, *plan.draw) for row, name in zip(same, ("image", "counterpart"), strict=True)]
    drawn = {bool(torch.equal(*views))}
    for step in range(8):
        views = [method._views([item.row], name, 0, 0, step) for name in ("image", "counterpart")]
        drawn.add(bool(torch.equal(*views)))
    assert False in drawn
    other = method.load(method.epoch(1)[0])
    assert not torch.equal(once.images[0], other.images[0])


def plain_total(method: SynCDR, batch: Batch, *, joined: bool = False) -> Tensor:
    """The formula of the specification, line by line, without Isthmus's losses."""
    settings_of_loss, encoder = method.config.loss, method.model.encoder
    mean = torch.tensor(method.model.preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(method.model.preprocessing.std).view(1, 3, 1, 1)
    parts = [(x.float() / 255 - mean) / std for x in (*batch.images, *batch.counterparts) if x is not None]
    if joined:
        features = list(encoder(torch.cat(parts)).split([len(part) for part in parts]))
    else:
        features = [encoder(part) for part in parts]
    f_a, f_b, c_a, c_b = features
    m_a, m_b = (bank.memory.clone() for bank in method.banks)
    i_a, i_b = batch.slots
    l_id = 0.5 * (F.cross_entropy(f_a @ m_a.T / 0.1, i_a) + F.cross_entropy(f_b @ m_b.T / 0.1, i_b))

    def entropy(f: Tensor, m: Tensor) -> Tensor:
        p = torch.softmax(torch.sort(f @ m.T / 0.1, dim=1, descending=True).values[:, :700], dim=1)
        return -(p * torch.log(p + 1e-5)).sum(1).mean()

    l_cdm = entropy(f_b, m_a) + entropy(f_a, m_b)
    diagonal, t_syn = torch.arange(len(f_a)), settings_of_loss.pair_temperature
    l_ppp_a = F.cross_entropy(c_a @ f_a.T / t_syn, diagonal)
    l_ppp_b = F.cross_entropy(c_b @ f_b.T / t_syn, diagonal)
    return l_id + l_cdm + 0.5 * l_ppp_a + 0.5 * l_ppp_b


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_step_is_the_formula(folder: Path, temperature: float) -> None:
    config = settings(folder, loss__pair_temperature=temperature, model__backbone=BATCH_NORM, data__holdout=0.0)
    method = method_of(config)
    method.model.encoder.train()
    batch = first_batch(method)
    total = torch.stack(list(method.step(batch).values())).sum()
    torch.testing.assert_close(total, plain_total(method, batch), atol=1e-5, rtol=1e-6)
    # Joining the four batches mixes the domains' batch statistics: other numbers, hence another method.
    assert abs(float(total - plain_total(method, batch, joined=True))) > 1e-3


def test_after_step_mixes_the_features_into_their_slots_only(folder: Path) -> None:
    method = method_of(settings(folder, data__holdout=0.0))
    batch = first_batch(method)
    before = [bank.memory.clone() for bank in method.banks]
    method.step(batch)
    assert all(torch.equal(bank.memory, old) for bank, old in zip(method.banks, before, strict=True))
    method.after_step()
    for side, bank in enumerate(method.banks):
        with torch.no_grad():
            features = method._forward(batch.images[side], side)
        for slot, feature in zip(batch.slots[side].tolist(), features, strict=True):
            expected = F.normalize(0.5 * before[side][slot] + 0.5 * feature, dim=0)
            torch.testing.assert_close(bank.memory[slot], expected, atol=1e-5, rtol=0)
        others = [slot for slot in range(len(bank.memory)) if slot not in batch.slots[side].tolist()]
        assert torch.equal(bank.memory[others], before[side][others])


def test_banks_start_from_the_initial_encoder(folder: Path) -> None:
    method = method_of(settings(folder, data__holdout=0.0))
    for side, items in enumerate(method.sets):
        paths = [item.row.path for item in items]
        vectors = method.model.encode(paths, domain=method.data.names[side], centring=False)
        torch.testing.assert_close(method.banks[side].memory, torch.from_numpy(vectors), atol=1e-5, rtol=0)


@pytest.mark.parametrize("off", ["instance", "matching", "pair"])
def test_terms_of_weight_zero_vanish(folder: Path, off: str) -> None:
    method = method_of(settings(folder, data__holdout=0.0, **{f"loss__{off}_weight": 0.0}))
    batch = first_batch(method)
    terms = method.step(batch)
    assert set(terms) == {"instance", "matching", "pairs"} - {"pairs" if off == "pair" else off}
    assert off != "pair" or batch.counterparts == (None, None)  # and their images are not read


def test_weights_scale_their_terms(folder: Path) -> None:
    plain, scaled = (
        method_of(settings(folder, data__holdout=0.0, **{f"loss__{name}_weight": w for name in terms}))
        for w, terms in ((1.0, ("instance", "matching", "pair")), (3.0, ("instance", "matching", "pair")))
    )
    one, three = plain.step(first_batch(plain)), scaled.step(first_batch(scaled))
    for name in one:
        torch.testing.assert_close(three[name], 3 * one[name])


def test_all_terms_off_is_one_sentence(folder: Path) -> None:
    off = {f"loss__{name}_weight": 0.0 for name in ("instance", "matching", "pair")}
    method = method_of(settings(folder, data__holdout=0.0, **off))
    with pytest.raises(IsthmusError, match="All losses are switched off"):
        method.step(first_batch(method))
