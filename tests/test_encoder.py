"""The model: vectors that depend on the image alone, a folder that holds all of it, backbones with their own ways."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from images_zoo import truncated
from safetensors.torch import load_file, save_file
from training_zoo import BATCH_NORM, INK, NO_NORM, PAINT, rows_of

import isthmus
from isthmus.errors import IsthmusError
from isthmus.models.backbones import create_backbone, preprocessing_of
from isthmus.models.encoder import Architecture, Model
from isthmus.models.modules import Encoder, build_encoder


def fresh(backbone: str = BATCH_NORM, *, dim: int = 16, size: int = 32, **options: bool) -> Model:
    torch.manual_seed(0)
    model = Model.create(Architecture(backbone, dim, size, **options), (INK, PAINT), weights="random")
    model.encoder.eval()
    return model


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [Path(row.path) for row in rows_of(PAINT, tmp_path_factory.mktemp("paint"), range(11))]


def test_vectors_are_unit_and_float32(paths: list[Path]) -> None:
    for dim in (0, 16):
        vectors = fresh(dim=dim).encode(paths, domain=PAINT)
        assert vectors.dtype == np.float32 and vectors.shape == (11, dim or 96)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert fresh().encode([], domain=INK).shape == (0, 16)


@pytest.mark.parametrize("backbone", [BATCH_NORM, NO_NORM, "test_vit", "mobilenetv2_050"])
def test_stages_of_any_backbone_lie_beside_its_last_features(backbone: str) -> None:
    network = create_backbone(backbone, "random", 32)
    width = int(getattr(network, "head_hidden_size", 0) or network.num_features)  # type: ignore[arg-type]
    made = build_encoder(backbone, "random", width, 32, stages=2, stages_share=0.3).eval()
    assert isinstance(made, Encoder) and made.stages == 2
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        last, stages = made._staged(images)
        parts = [made.head.embed(made.backbone(images)), *(torch.nn.functional.normalize(part) for part in stages)]  # type: ignore[operator]
        vectors = made(images)
    assert torch.allclose(last, made.backbone(images), atol=1e-5)
    alike = [part @ part.T for part in parts]
    assert torch.allclose(vectors @ vectors.T, 0.7 * alike[0] + 0.15 * (alike[1] + alike[2]), atol=1e-5)
    assert vectors.shape[1] == made.dim == width + sum(part.shape[1] for part in stages)


@pytest.mark.parametrize("backbone", [BATCH_NORM, NO_NORM, "test_vit"])
def test_a_vector_depends_on_its_image_alone(paths: list[Path], backbone: str) -> None:
    model = fresh(backbone)
    base = model.encode(paths, domain=PAINT, batch_size=11, workers=0)
    for batch_size, workers in ((1, 0), (2, 3), (7, 1), (64, 2)):
        again = model.encode(paths, domain=PAINT, batch_size=batch_size, workers=workers)
        np.testing.assert_allclose(again, base, atol=1e-5, rtol=0)
    order = np.random.default_rng(0).permutation(11)
    shuffled = model.encode([paths[i] for i in order], domain=PAINT, batch_size=4)
    np.testing.assert_allclose(shuffled, base[order], atol=1e-5, rtol=0)
    assert np.abs(base[0] - base[1]).max() > 1e-3


def test_all_kinds_of_sources_are_the_same_image(paths: list[Path]) -> None:
    from PIL import Image

    model = fresh()
    given = [paths[0], str(paths[0]), paths[0].read_bytes(), Image.open(paths[0])]
    vectors = model.encode(given, domain=INK)
    np.testing.assert_allclose(vectors, vectors[[0, 0, 0, 0]], atol=1e-6)


def test_bad_images_raise_or_are_nan(paths: list[Path], tmp_path: Path) -> None:
    model, bad = fresh(), truncated(tmp_path, ".png")
    with pytest.raises(IsthmusError, match=r"truncated\.png"):
        model.encode([paths[0], bad], domain=INK)
    vectors = model.encode([paths[0], bad, paths[1]], domain=INK, on_bad="skip", batch_size=2)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]
    np.testing.assert_allclose(vectors[2:], model.encode(paths[1:2], domain=INK), atol=1e-5)


def test_bfloat16_is_used_where_asked_for_and_hardly_moves_a_vector(paths: list[Path], tmp_path: Path) -> None:
    fresh().save(tmp_path / "model")
    exact = isthmus.load(tmp_path / "model")
    half = isthmus.load(tmp_path / "model", precision="bfloat16")
    seen: list[torch.dtype] = []
    convolution = next(part for part in half.encoder.modules() if isinstance(part, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    a, b = exact.encode(paths, domain=PAINT), half.encode(paths, domain=PAINT)
    assert seen == [torch.bfloat16] and b.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, atol=1e-6)
    assert not np.array_equal(a, b) and (a * b).sum(axis=1).min() > 0.99
    assert half.fingerprint == exact.fingerprint and exact.precision == "float32"
    with pytest.raises(IsthmusError, match="float32 or bfloat16, not in 'half'"):
        isthmus.load(tmp_path / "model", precision="half")  # type: ignore[arg-type]


def test_unknown_domain_names_both(paths: list[Path]) -> None:
    with pytest.raises(IsthmusError, match="no domain 'photo'; its domains are ink and paint"):
        fresh().encode(paths[:1], domain="photo")


def test_centring_takes_the_domain_mean_off(paths: list[Path]) -> None:
    model = fresh()
    plain = model.encode(paths, domain=PAINT, centring=False)
    model.means = torch.stack([torch.zeros(16), torch.from_numpy(plain.mean(axis=0))])
    expected = plain - plain.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(paths, domain=PAINT), expected, atol=1e-4)
    np.testing.assert_allclose(model.encode(paths, domain=INK), plain, atol=1e-5)  # ink's mean is zero
    model.centring = False
    np.testing.assert_allclose(model.encode(paths, domain=PAINT), plain, atol=1e-6)


def test_save_and_load(paths: list[Path], tmp_path: Path) -> None:
    model = fresh()
    model.means = torch.randn(2, 16) / 10
    model.provenance = {"method": "syncdr", "scores": {"val/Prec@1": 0.5}}
    model.save(tmp_path / "run" / "model")
    for place in (tmp_path / "run", tmp_path / "run" / "model"):
        again = isthmus.load(place)
        assert again.fingerprint == model.fingerprint and again.provenance == model.provenance
        assert (again.domains, again.dim, again.preprocessing) == (model.domains, 16, model.preprocessing)
        for domain in (INK, PAINT):
            expected = model.encode(paths, domain=domain)
            np.testing.assert_allclose(again.encode(paths, domain=domain), expected, atol=1e-6)
    folder = tmp_path / "run" / "model"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert "0.5" in (folder / "README.md").read_text()


def test_fingerprint_changes_with_anything_that_changes_vectors() -> None:
    seen = {fresh().fingerprint}
    model = fresh()
    with torch.no_grad():
        model.encoder.head.bias[3] += 1e-6  # type: ignore[index,union-attr]
    seen.add(model.fingerprint)
    model = fresh()
    model.means[1, 2] = 1e-6
    seen.add(model.fingerprint)
    model = fresh()
    model.encoder.backbone.bn1.running_mean[0] += 1e-3  # type: ignore[index,operator,union-attr]
    seen.add(model.fingerprint)
    model = fresh()
    model.centring = False
    seen.add(model.fingerprint)
    assert len(seen) == 5 and fresh().fingerprint in seen


def test_folders_that_hold_no_whole_model(tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        fresh().save(tmp_path / name)
        return tmp_path / name

    with pytest.raises(IsthmusError, match=r"is no model: there is no config\.json"):
        isthmus.load(tmp_path)
    folder = broken("cut")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5000])
    with pytest.raises(IsthmusError, match=r"model\.safetensors can't be read"):
        isthmus.load(folder)
    folder = broken("gone")
    (folder / "model.safetensors").unlink()
    with pytest.raises(IsthmusError, match=r"model\.safetensors can't be read"):
        isthmus.load(folder)
    folder = broken("other")
    config = json.loads((folder / "config.json").read_text())
    for change, sentence in (
        ({"architecture": {**config["architecture"], "backbone": NO_NORM}}, "does not fit its config"),
        ({"architecture": {**config["architecture"], "dim": 8}}, "does not fit its config"),
        ({"architecture": {**config["architecture"], "backbone": "resnt18"}}, "no backbone 'resnt18'"),
        ({"format": 99}, "not of a model that this version reads"),
        ({"domains": ["one"]}, "incomplete"),
        ({"preprocessing": {}}, "incomplete"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(IsthmusError, match=sentence):
            isthmus.load(folder)
    for name in ("centring", "preprocessing", "domains", "architecture"):
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != name}))
        with pytest.raises(IsthmusError, match="incomplete"):
            isthmus.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"means": torch.zeros(2, 3)}, folder / "model.safetensors")
    with pytest.raises(IsthmusError, match="does not fit its config"):
        isthmus.load(folder)


def test_unknown_backbone_is_guessed() -> None:
    with pytest.raises(IsthmusError, match=r"no backbone 'resnet5': did you mean .*resnet50"):
        create_backbone("resnet5", "random")
    with pytest.raises(IsthmusError, match=r"no backbone '§§': see timm\.list_models"):
        create_backbone("§§", "random")


def test_weights_files(tmp_path: Path) -> None:
    source = create_backbone(BATCH_NORM, "random")
    whole = {**source.state_dict(), "fc.weight": torch.zeros(10, 96), "fc.bias": torch.zeros(10)}
    save_file(whole, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in whole.items()}}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):  # with the classifier, which is left out, and with a wrapper's prefix
        loaded = create_backbone(BATCH_NORM, str(tmp_path / name)).state_dict()
        assert loaded.keys() == source.state_dict().keys()
        assert all(torch.equal(loaded[key], value) for key, value in source.state_dict().items())
    with pytest.raises(IsthmusError, match=rf"not of the backbone '{NO_NORM}': \d+ tensors missing"):
        create_backbone(NO_NORM, str(tmp_path / "a.safetensors"))
    with pytest.raises(IsthmusError, match="is no file; give a checkpoint"):
        create_backbone(BATCH_NORM, str(tmp_path / "none.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:999])
    (tmp_path / "cut.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:999])
    for name in ("cut.safetensors", "cut.pt"):
        with pytest.raises(IsthmusError, match=f"{name} (can't be read|holds more than tensors)"):
            create_backbone(BATCH_NORM, str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(IsthmusError, match="holds no state dict"):
        create_backbone(BATCH_NORM, str(tmp_path / "list.pt"))


class Payload:
    """Runs code when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_a_pt_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"state_dict": Payload(victim)}, tmp_path / "evil.pt")
    with pytest.raises(IsthmusError, match=r"evil\.pt holds more than tensors"):
        create_backbone(BATCH_NORM, str(tmp_path / "evil.pt"))
    assert not victim.exists()
    pickle.loads(pickle.dumps(Payload(victim)))  # the payload does work where code is run
    assert victim.exists()


def test_backbones_bring_their_own_preprocessing() -> None:
    with torch.device("meta"):
        clip = create_backbone("vit_base_patch16_clip_224.openai", "random", 128)
        vit = create_backbone("vit_tiny_patch16_224", "random", 96)
    used, plain = preprocessing_of(clip, 128, None), preprocessing_of(vit, 96, 100)
    assert used.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-3) and used.interpolation == "bicubic"
    assert used.std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-3) and (used.size, used.resize) == (128, 147)
    assert plain.mean == plain.std == (0.5, 0.5, 0.5) and (plain.size, plain.resize) == (96, 100)
    resnet = preprocessing_of(create_backbone("resnet10t", "random"), 64, None)
    assert resnet.mean == pytest.approx((0.485, 0.456, 0.406)) and resnet.resize == 74


def test_position_embeddings_follow_the_image_size(tmp_path: Path, paths: list[Path]) -> None:
    save_file(create_backbone("test_vit", "random", 160).state_dict(), tmp_path / "vit.safetensors")
    small = create_backbone("test_vit", str(tmp_path / "vit.safetensors"), 64)
    assert tuple(small(torch.zeros(2, 3, 64, 64)).shape) == (2, 64)
    vectors = fresh("test_vit", size=64).encode(paths[:2], domain=INK)
    assert vectors.shape == (2, 16)
