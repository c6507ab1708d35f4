"""Batch norm of two domains: statistics for each, or stored ones throughout; and a real checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_zoo import BATCH_NORM, INK, PAINT, rows_of

import isthmus
from isthmus.models.encoder import Architecture, Model
from isthmus.models.modules import DomainNorm, active_domain, freeze_norms


def fresh(*, domain_norm: bool) -> Model:
    torch.manual_seed(0)
    return Model.create(Architecture(BATCH_NORM, 16, 32, domain_norm), (INK, PAINT), weights="random")


def batches() -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 32, 32, generator=dice), 3 + 2 * torch.randn(8, 3, 32, 32, generator=dice)


def test_domain_norm_keeps_statistics_apart() -> None:
    model, plain = fresh(domain_norm=True), [fresh(domain_norm=False) for _ in range(2)]
    model.encoder.train()
    for side, batch in enumerate(batches()):
        plain[side].encoder.train()
        for _ in range(3):
            with active_domain(model.encoder, side):
                shared = model.encoder(batch)
            torch.testing.assert_close(shared, plain[side].encoder(batch))
    norms = [module for module in model.encoder.modules() if isinstance(module, DomainNorm)]
    assert len(norms) > 3
    assert not torch.allclose(norms[0].domain_running_mean[0], norms[0].domain_running_mean[1])
    model.encoder.eval()
    for side, batch in enumerate(batches()):
        plain[side].encoder.eval()
        with active_domain(model.encoder, side), torch.no_grad():
            torch.testing.assert_close(model.encoder(batch), plain[side].encoder(batch))


def test_domain_norm_learns_one_weight_for_both() -> None:
    model, plain = fresh(domain_norm=True), fresh(domain_norm=False)
    count = sum(p.numel() for p in plain.encoder.parameters())
    assert sum(p.numel() for p in model.encoder.parameters()) == count
    assert {id(p) for p in model.encoder.parameters() if not p.requires_grad} == set()


def test_domain_norm_survives_saving_and_fingerprints_do_not_move(tmp_path: Path) -> None:
    model = fresh(domain_norm=True)
    model.encoder.train()
    for side, batch in enumerate(batches()):
        with active_domain(model.encoder, side):
            model.encoder(batch)
    paths = [row.path for row in rows_of(INK, tmp_path / "ink", range(4))]
    before = model.fingerprint
    vectors = {domain: model.encode(paths, domain=domain) for domain in (INK, PAINT)}
    assert np.abs(vectors[INK] - vectors[PAINT]).max() > 1e-3
    assert model.fingerprint == before  # which domain was encoded last leaves no trace
    model.encode(paths, domain=INK)
    assert model.fingerprint == before
    model.save(tmp_path / "model")
    again = isthmus.load(tmp_path / "model")
    assert again.fingerprint == before
    for domain in (PAINT, INK):
        np.testing.assert_allclose(again.encode(paths, domain=domain), vectors[domain], atol=1e-6)
    assert again.fingerprint == before


def test_frozen_norm_uses_and_keeps_stored_statistics() -> None:
    model = fresh(domain_norm=False)
    model.encoder.train()
    freeze_norms(model.encoder)
    before = {name: value.clone() for name, value in model.encoder.named_buffers()}
    one = model.encoder(batches()[0][:1])
    torch.testing.assert_close(model.encoder(batches()[0])[:1], one, atol=1e-5, rtol=0)  # no batch statistics
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.named_buffers())
    model.encoder.train()
    assert not torch.allclose(model.encoder(batches()[0])[:1], one, atol=1e-3)


@pytest.mark.parametrize("size", [64, 96])
def test_local_checkpoint_gives_features(shared_data: Path, tmp_path: Path, size: int) -> None:
    """ImageNet's MobileNetV2 from a file: sound features of other classes, unit length, and telling images apart."""
    weights = str(shared_data / "weights" / "mobilenetv2_100.safetensors")
    model = Model.create(Architecture("mobilenetv2_100", 0, size), (INK, PAINT), weights=weights)
    photos = [sorted((shared_data / "data/pacs/photo" / name).iterdir())[:6] for name in ("dog", "guitar", "house")]
    vectors = model.encode([path for group in photos for path in group], domain=PAINT)
    assert vectors.shape == (18, 1280)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    nearest = cosine.argmax(axis=1) // 6
    assert (nearest == np.arange(18) // 6).mean() > 0.6
    random = Model.create(Architecture("mobilenetv2_100", 0, size), (INK, PAINT), weights="random")
    assert random.fingerprint != model.fingerprint
