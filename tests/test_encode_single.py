"""`encode` as users of sentence-transformers expect it, and `similarity` against loops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_zoo import BATCH_NORM, INK, PAINT, draw

from isthmus.errors import IsthmusError
from isthmus.models.encoder import Architecture, Model


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = Model.create(Architecture(BATCH_NORM, 16, 32), (INK, PAINT), weights="random")
    model.means = torch.randn(2, 16) * 0.1
    return model


def test_one_image_in_one_vector_out(model: Model, tmp_path: Path) -> None:
    image = draw(1, INK)
    image.save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    many = model.encode([path], domain=INK)
    for one in (path, str(path), path.read_bytes(), image):
        vector = model.encode(one, domain=INK)
        assert vector.shape == (16,) and vector.dtype == np.float32
        np.testing.assert_allclose(vector, many[0], atol=1e-6)
    plain = model.encode(image, domain=INK, centring=False)
    np.testing.assert_allclose(plain, model.encode([image], domain=INK, centring=False)[0], atol=1e-6)
    assert np.abs(plain - many[0]).max() > 1e-3
    with pytest.raises(IsthmusError, match="does not exist"):
        model.encode(tmp_path / "none.png", domain=INK)
    assert np.isnan(model.encode(tmp_path / "none.png", domain=INK, on_bad="skip")).all()


def test_tensors_where_asked_for(model: Model) -> None:
    images = [draw(number, PAINT) for number in range(3)]
    tensor = model.encode(images, domain=PAINT, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), model.encode(images, domain=PAINT))
    assert model.encode(images[0], domain=PAINT, convert_to_tensor=True).shape == (16,)


def test_similarity_against_loops(model: Model) -> None:
    dice = np.random.default_rng(0)
    a, b = (dice.normal(size=(count, 5)).astype(np.float32) for count in (3, 4))
    found = model.similarity(a, torch.from_numpy(b))
    for i, x in enumerate(a.tolist()):
        for j, y in enumerate(b.tolist()):
            dot = sum(p * q for p, q in zip(x, y, strict=True))
            slow = dot / math.sqrt(sum(p * p for p in x)) / math.sqrt(sum(q * q for q in y))
            assert abs(float(found[i, j]) - slow) < 1e-6
    assert found.dtype == torch.float32 and found.shape == (3, 4)
    torch.testing.assert_close(model.similarity(a[0], b), found[:1])
    with pytest.raises(IsthmusError, match="can't be compared"):
        model.similarity(a, b[:, :4])
