"""Teachers: classes matched by name, weights by rotation, and what can't go together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from data_free_zoo import DOMAINS, PHOTO, SKETCH, make_teacher, make_teachers
from scipy.linalg import orthogonal_procrustes

from isthmus.errors import IsthmusError
from isthmus.methods.data_free_images import draw_classes, gaussian
from isthmus.models.classifier import Classifier
from isthmus.models.teachers import Teachers, load_teachers


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Teachers:
    made = make_teachers(tmp_path_factory.mktemp("teachers"))
    return load_teachers(made["data_free.photo"], made["data_free.sketch"], None, None, DOMAINS)


def test_classes_are_matched_by_name(teachers: Teachers) -> None:
    assert teachers.classes == ("cat", "dog", "owl", "car", "bee") and teachers.matched == 2
    assert not teachers.unified and "2 classes are known to both" in teachers.notes[0]
    for side, own in enumerate((SKETCH, PHOTO)):
        for code, name in enumerate(teachers.classes):
            assert int(teachers.columns[side][code]) == (own.index(name) if name in own else -1)
        everything = torch.arange(len(own))
        assert [teachers.classes[code] for code in teachers.common(side, everything)] == list(own)
        weight, _ = teachers.sides[side].head()
        for row, code in enumerate(teachers.known(side).tolist()):
            expected = F.normalize(weight[own.index(teachers.classes[code])], dim=0)
            assert torch.allclose(teachers.weights(side)[row], expected)


def test_the_rotation_is_that_of_procrustes() -> None:
    dice = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=dice)).Q
    weights = torch.randn(9, 6, generator=dice)
    pair = []
    for number, rows in enumerate((weights @ turn.T, weights[torch.randperm(9, generator=dice)])):
        made = Classifier.create("resnet10t", tuple("abcdefghi"), 32, weights="random")
        made.network.head.weight = torch.nn.Parameter(rows)  # type: ignore[union-attr]
        pair.append((made, number))
    query, gallery = pair[0][0], pair[1][0]
    order = [int((weights - row).abs().sum(1).argmin()) for row in gallery.head()[0]]
    gallery.classes = tuple("abcdefghi"[k] for k in order)
    found = Teachers((query, gallery), DOMAINS)
    rotation = found.rotation()
    assert torch.allclose(rotation, turn, atol=2e-3)
    expected, _ = orthogonal_procrustes(found.weights(0).double().numpy(), found.weights(1).double().numpy())
    assert torch.allclose(rotation.double(), torch.from_numpy(expected), atol=2e-3)
    proxies = found.proxies(rotation)
    assert torch.allclose(proxies, found.weights(1)[:9], atol=1e-2)


def test_directions_that_no_class_speaks_of_stay(teachers: Teachers) -> None:
    rotation = teachers.rotation()
    assert torch.allclose(rotation @ rotation.T, torch.eye(len(rotation)), atol=1e-4)
    # Matched weights span 4 of 512 directions; the rest isn't turned.
    assert torch.linalg.matrix_rank(rotation - torch.eye(len(rotation)), atol=1e-2) <= 4
    turned = teachers.weights(0)[:2] @ rotation
    before = (teachers.weights(0)[:2] * teachers.weights(1)[:2]).sum(1)
    after = (turned * teachers.weights(1)[:2]).sum(1)
    assert (after > before + 0.2).all()
    proxies = teachers.proxies(rotation)
    assert torch.allclose(proxies[2:4], teachers.weights(1)[2:], atol=1e-5)
    assert torch.allclose(proxies[4], teachers.weights(0)[2] @ rotation, atol=1e-5)
    expected = F.normalize(turned + teachers.weights(1)[:2], dim=1)
    assert torch.allclose(proxies[:2], expected, atol=1e-5)


def test_a_unified_teacher_needs_no_rotation(tmp_path: Path) -> None:
    found = load_teachers(None, None, str(make_teacher(tmp_path / "u", PHOTO)), None, DOMAINS)
    assert found.unified and found.matched == 4 and not found.notes
    assert torch.equal(found.rotation(), torch.eye(512))
    assert torch.allclose(found.proxies(found.rotation()), found.weights(1), atol=1e-6)


def test_classes_are_drawn_evenly_and_shared_where_both_know_them(teachers: Teachers) -> None:
    dice = torch.Generator().manual_seed(1)
    query, gallery = draw_classes(teachers, 400, dice)
    for part, side in ((query, 0), (gallery, 1)):
        assert set(part.tolist()) == set(teachers.known(side).tolist())
    shared = gallery < teachers.matched
    # Where the gallery's class is one of both, so is the query's, and the same, or the gallery had none of its own.
    assert torch.equal(query[shared], gallery[shared])
    counts = torch.bincount(gallery, minlength=5)
    assert counts[:4].tolist() == [100] * 4 and counts[4] == 0
    assert not bool((query[~shared] < teachers.matched).any()) and set(query[~shared].tolist()) == {4}
    again = draw_classes(teachers, 400, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], query)


def test_noise_is_within_bounds() -> None:
    made = gaussian(50, 32, torch.Generator().manual_seed(0))
    assert made.min() >= 0 and made.max() <= 1 and abs(float(made.mean()) - 0.5) < 0.01
    assert 0.2 < float(made.std()) < 0.26


def test_what_cannot_go_together_is_one_sentence(tmp_path: Path) -> None:
    photo = str(make_teacher(tmp_path / "p", PHOTO))
    other = str(make_teacher(tmp_path / "o", ("ape", "bee")))
    modality = str(make_teacher(tmp_path / "m", DOMAINS, kind="modality"))
    wrong = str(make_teacher(tmp_path / "w", ("ink", "photo"), kind="modality"))
    with pytest.raises(IsthmusError, match="no class in common"):
        load_teachers(photo, other, None, None, DOMAINS)
    with pytest.raises(IsthmusError, match="--sketch-classifier is missing"):
        load_teachers(photo, None, None, None, DOMAINS)
    with pytest.raises(IsthmusError, match="--photo-classifier is missing"):
        load_teachers(None, None, None, None, DOMAINS)
    with pytest.raises(IsthmusError, match=r"data_free\.photo = .* tells domains apart"):
        load_teachers(modality, photo, None, None, DOMAINS)
    with pytest.raises(IsthmusError, match="not 'sketch'; name the domains alike"):
        load_teachers(photo, photo, None, wrong, DOMAINS)
    with pytest.raises(IsthmusError, match=r"knows cat, dog, owl, car, not .sketch."):
        load_teachers(photo, photo, None, photo, DOMAINS)
    assert load_teachers(photo, photo, None, modality, DOMAINS).modality is not None
