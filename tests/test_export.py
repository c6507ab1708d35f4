"""Exports: the same vectors in another runtime, a folder that every verb takes, and refusals where they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_zoo import World, answer_of, make_world, refused, unharmed, works
from torch import nn
from training_zoo import BATCH_NORM, INK, NO_NORM, PAINT, rows_of

import isthmus
from isthmus.catalog.store import Catalog
from isthmus.config import RunConfig
from isthmus.data.manifest import Row
from isthmus.errors import IsthmusError
from isthmus.export.parity import compare
from isthmus.export.run import Exported, export_model
from isthmus.models.encoder import Architecture, Model
from isthmus.models.exported import TOLERANCE, ExportedModel
from isthmus.models.modules import DomainNorm
from isthmus.models.precision import set_precision

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Rows = tuple[list[Row], list[Row]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("figures")
    return rows_of(INK, folder / "ink", range(7)), rows_of(PAINT, folder / "paint", range(50, 56))


def made(backbone: str = BATCH_NORM, *, size: Any = 32, **options: Any) -> Model:
    """A model with means, and with batch statistics that differ between the domains where it has some for each."""
    torch.manual_seed(3)
    filters = options.pop("filters", ("none", "none"))
    model = Model.create(
        Architecture(backbone, options.pop("dim", 16), size, **options), (INK, PAINT), weights="random", filters=filters
    )
    for part in model.encoder.modules():
        if isinstance(part, DomainNorm):
            part.domain_running_mean += torch.rand_like(part.domain_running_mean)  # type: ignore[operator]
            part.domain_running_var *= 0.5 + torch.rand_like(part.domain_running_var)  # type: ignore[operator]
        elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) and part.running_mean is not None:
            part.running_mean += 0.1 * torch.rand_like(part.running_mean)
    model.means = torch.nn.functional.normalize(torch.randn(2, model.dim)) * 0.3
    model.encoder.eval()
    return model


KINDS: dict[str, dict[str, Any]] = {
    "one network": {},
    "no batch norm, other sides": {"backbone": NO_NORM, "size": (48, 32), "filters": ("none", "grey")},
    "statistics a domain": {"domain_norm": True, "neck": True},
    "two towers with probabilities and stages": {
        "towers": True, "beliefs": 4, "belief_share": 0.5, "stages": 2, "stages_share": 0.3,
    },
    "a transformer": {"backbone": "test_vit", "dim": 0},
    "cells of an early stage": {"drop_stages": 1, "grid": 2},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_vectors_of_the_model(kind: str, rows: Rows, tmp_path: Path) -> None:
    model = made(**KINDS[kind])
    if model.architecture.towers:
        with torch.no_grad():  # towers begin alike
            for value in model.encoder.tower(1).parameters():  # type: ignore[operator, union-attr]
                value += 0.05 * torch.randn_like(value)
    layout: Any = "nhwc" if "other sides" in kind else "nchw"
    done = export_model(model, tmp_path / "out", "onnx", rows, layout=layout, workers=0)
    other = isthmus.load(tmp_path / "out")
    assert isinstance(other, ExportedModel)
    assert (other.domains, other.dim, other.centring) == (model.domains, model.dim, model.centring)
    assert other.preprocessing == model.preprocessing and other.architecture == model.architecture
    assert other.fingerprint == model.fingerprint == done.fingerprint
    for domain, part in zip(model.domains, rows, strict=True):
        paths = [row.path for row in part]
        for centring in (None, False):
            ours = other.encode(paths, domain=domain, centring=centring, batch_size=4)
            theirs = model.encode(paths, domain=domain, centring=centring)
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
            assert ours.dtype == np.float32
    apart = {path.stem for path in (tmp_path / "out").glob("*.onnx")}
    assert apart == ({"query", "gallery"} if "domain" in kind or "towers" in kind else {"network"})
    assert 0 <= done.parity.largest <= 1e-5


def test_the_file_alone_takes_plain_images(rows: Rows, tmp_path: Path) -> None:
    # As somebody without Isthmus would use it: uint8 images in, the unit vector of the formula out.
    model = made()
    export_model(model, tmp_path / "out", "onnx", rows, layout="nhwc", workers=0)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "network.onnx"))
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    (vectors,) = session.run(["vectors"], {"images": images})
    looks, slow = model.preprocessing, []
    for image in images:
        pixels = (image.astype(np.float64) / 255 - np.array(looks.mean)) / np.array(looks.std)
        with torch.no_grad():
            encoder: Any = model.encoder
            raw = encoder.head(encoder.backbone(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)))
        slow.append((raw / raw.square().sum().sqrt())[0].numpy())
    np.testing.assert_allclose(vectors, np.stack(slow), atol=1e-5)
    with pytest.raises(Exception, match=r"(?i)dimension|shape"):
        session.run(["vectors"], {"images": images[:, :16]})


def test_openvino_gives_the_vectors_of_the_model(rows: Rows, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = made(domain_norm=True)
    done = export_model(model, tmp_path / "out", "openvino", rows, workers=0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "config.json", "means.safetensors", "query.xml", "query.bin", "gallery.xml", "gallery.bin",
    }  # fmt: skip
    other = isthmus.load(tmp_path / "out")
    paths = [row.path for row in rows[1]]
    theirs = model.encode(paths, domain=PAINT)
    np.testing.assert_allclose(other.encode(paths, domain=PAINT, batch_size=2), theirs, atol=1e-5, rtol=0)
    assert np.abs(other.encode(paths, domain=INK) - theirs).max() > 1e-3  # each domain has its own
    assert other.fingerprint == model.fingerprint == done.fingerprint
    half = isthmus.load(tmp_path / "out", precision="bfloat16").encode(paths, domain=PAINT)
    assert (half * theirs).sum(1).min() > 0.99


def test_int8_is_another_model(rows: Rows, tmp_path: Path) -> None:
    model = made(dim=32)
    first, second = (
        export_model(model, tmp_path / name, "int8", rows, calibration=rows, workers=0) for name in ("a", "b")
    )
    other = isthmus.load(tmp_path / "a")
    assert first.fingerprint == second.fingerprint == other.fingerprint != model.fingerprint == first.source
    ours, theirs = (one.encode([row.path for row in rows[0]], domain=INK, centring=False) for one in (other, model))
    cosines = (ours.astype(np.float64) * theirs).sum(1)
    assert np.abs(ours - theirs).max() > 1e-4 and cosines.min() > 0.9
    parity = compare(model, other, ([row.path for row in rows[0]], [row.path for row in rows[1]]), workers=0)
    assert parity.least_cosine <= cosines.min() + 1e-9 and parity == first.parity
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    import onnx

    # Every layer but the last takes weights of one byte.
    graph = onnx.load(str(tmp_path / "a" / "network.onnx")).graph
    eights = [item for item in graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1]
    layers = sum(isinstance(part, nn.Conv2d | nn.Linear) for part in model.encoder.modules())
    assert len(eights) == layers - 1, (len(eights), layers)
    with pytest.raises(IsthmusError, match="calibrated on training images of both domains"):
        export_model(model, tmp_path / "c", "int8", rows, calibration=(rows[0], []))


def test_parity_against_loops(rows: Rows) -> None:
    model, other = made(), made()
    with torch.no_grad():
        next(other.encoder.parameters()).add_(0.01)
    paths = [row.path for row in rows[0]], [row.path for row in rows[1]]
    found = compare(model, other, paths, workers=0)
    largest, cosines = 0.0, []
    for domain, part in zip(model.domains, paths, strict=True):
        for path in part:
            for centring in (False, True):
                a, b = (one.encode([path], domain=domain, centring=centring)[0].tolist() for one in (model, other))
                largest = max(largest, *(abs(x - y) for x, y in zip(a, b, strict=True)))
                if not centring:
                    cosines.append(sum(x * y for x, y in zip(a, b, strict=True)))
    assert abs(found.largest - largest) < 1e-6 and abs(found.cosine - sum(cosines) / len(cosines)) < 1e-6
    assert abs(found.least_cosine - min(cosines)) < 1e-6 and found.images == (7, 6) and largest > 1e-4


def test_an_export_with_other_vectors_is_not_written(rows: Rows, tmp_path: Path, monkeypatch: Any) -> None:
    from isthmus.export import network

    model = made()
    export_model(model, tmp_path / "out", "onnx", rows, workers=0)
    real = network.Network.forward
    monkeypatch.setattr(network.Network, "forward", lambda self, images: real(self, images // 2 * 2))
    with unharmed(tmp_path), pytest.raises(IsthmusError, match=r"differ by up to \d.*nothing was written"):
        export_model(model, tmp_path / "out", "onnx", rows, workers=0)
    assert TOLERANCE <= 1e-4


def test_what_was_changed_is_refused(rows: Rows, tmp_path: Path) -> None:
    model = made()
    export_model(model, tmp_path / "good", "onnx", rows, workers=0)
    config = json.loads((tmp_path / "good" / "config.json").read_text())

    def broken(**changes: Any) -> Path:
        place = tmp_path / "bad"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "good", place)
        (place / "config.json").write_text(json.dumps(config | changes))
        return place

    looks = config["preprocessing"]
    for changes, says in (
        ({"preprocessing": {**looks, "mean": [0.0, 0.0, 0.0]}}, "was changed since the export"),
        ({"fingerprint": "0" * 16}, "was changed"),
        ({"export": {**config["export"], "parity": {"largest": 0.0}}}, "was changed"),
        ({"export": {}}, "is incomplete"),
        ({"seal": 7}, "was changed"),
        ({"domains": None}, "was changed"),
    ):
        with pytest.raises(IsthmusError, match=says):
            isthmus.load(broken(**changes))
    for name in ("network.onnx", "means.safetensors"):
        place = broken()
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(IsthmusError, match=f"{name} is damaged or was changed"):
            isthmus.load(place)
        (place / name).unlink()
        with pytest.raises(IsthmusError, match=f"lacks its file {name}"):
            isthmus.load(place)
    other = isthmus.load(tmp_path / "good")
    for action in (
        lambda: set_precision(other, "bfloat16"),
        lambda: other.encoder.to("cuda"),
        lambda: other.encoder(torch.zeros(1, 3, 32, 32)),
        lambda: other.save(tmp_path / "again"),
        lambda: export_model(other, tmp_path / "again", "onnx", rows),
        lambda: export_model(model, rows[0][0].path, "onnx", rows),
        lambda: export_model(model, Path(rows[0][0].path).parent, "onnx", rows),
    ):
        with pytest.raises(IsthmusError):
            action()
    assert not (tmp_path / "again").exists()
    (tmp_path / "good" / "network.onnx").touch()
    assert isthmus.load(tmp_path / "good").fingerprint == model.fingerprint


def test_a_missing_runtime_is_a_sentence(rows: Rows, tmp_path: Path, monkeypatch: Any) -> None:
    done: Exported = export_model(made(), tmp_path / "out", "onnx", rows, workers=0)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(IsthmusError, match=r"pip install 'isthmus\[onnx\]'"):
        isthmus.load(done.folder)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(IsthmusError, match=r"pip install 'isthmus\[openvino\]'"):
        export_model(made(), tmp_path / "ov", "openvino", rows)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run with validation images beside training images; test images that must not be read."""
    world = make_world(tmp_path_factory.mktemp("export") / "world")
    for name in ("sketch", "photo"):
        shutil.move(world.folder / name / "test", world.folder / name / "val")
        (world.folder / name / "test" / "cat").mkdir(parents=True)
        (world.folder / name / "test" / "cat" / "0.png").write_bytes(b"whoever opens this has looked at test images")
    run = world.folder / "runs" / "cds"
    data = {part: {"name": name, "train": str(world.folder / name)} for part, name in zip(
        ("query", "gallery"), ("sketch", "photo"), strict=True)}  # fmt: skip
    model = made()
    model.domains = ("sketch", "photo")
    model.save(run / "model")  # as a training leaves it, which would take seconds
    RunConfig.build("default", {"method": "cds", "data": data}).save(run / "config.yaml")
    return world


def test_from_the_command_line_to_a_search(world: World, tmp_path: Path) -> None:
    run = world.folder / "runs" / "cds"
    model = Model.load(run)
    said = answer_of("export", run, "--format", "onnx", "--out", tmp_path / "onnx", "--workers", 0)
    assert said["fingerprint"] == said["source"] == model.fingerprint and said["parity"]["images"] == [4, 4]
    assert said["scores"]["change"] == 0 and "4 sketch and 4 photo validation images" in said["scores"]["protocol"]
    shown = works("export", run, "--format", "int8", "--out", tmp_path / "int8", "--calibration", 3, "--workers", 0)
    assert "mAP@all on validation images: " in shown.stdout and f"made from {model.fingerprint}" in shown.stdout
    facts = json.loads((tmp_path / "int8" / "config.json").read_text())["export"]
    assert facts["calibration"] == [3, 3] and facts["tools"]["onnxruntime"] and facts["format"] == "int8"
    card = (tmp_path / "int8" / "README.md").read_text()
    assert "Calibrated on 3 and 3 training images" in card and "least" in card and card.startswith("---\n")
    # A catalog of the model takes its float export, and no int8; one of an export is made like any other.
    photos, query = world.folder / "photo" / "train", world.folder / "sketch" / "val" / "cat" / "0.png"
    works("index", run, photos, "--out", tmp_path / "catalog", "--workers", 0)
    theirs = answer_of("search", tmp_path / "catalog", query)[0]["hits"]
    ours = answer_of("search", tmp_path / "catalog", query, "--model", tmp_path / "onnx")[0]["hits"]
    assert [hit["id"] for hit in ours] == [hit["id"] for hit in theirs]
    np.testing.assert_allclose([h["score"] for h in ours], [h["score"] for h in theirs], atol=1e-5)
    refused("search", tmp_path / "catalog", query, "--model", tmp_path / "int8", says=("can't be compared",))
    works("index", tmp_path / "int8", photos, "--out", tmp_path / "bytes", "--workers", 0)
    assert answer_of("search", tmp_path / "bytes", query)[0]["hits"]
    assert Catalog.open(tmp_path / "bytes").model.fingerprint == isthmus.load(tmp_path / "int8").fingerprint
    domains = ("--query-domain", world.domain("sketch"), "--gallery-domain", world.domain("photo"))
    works("evaluate", tmp_path / "onnx", *domains, "--split", "val", "--bootstrap", 0, "--workers", 0)
    scores = json.loads((tmp_path / "onnx" / "evaluation-val.json").read_text())
    assert scores["evaluation"]["model"] == model.fingerprint
    mean = scores["evaluation"]["scores"]["mean/mAP@all"]
    assert abs(mean - said["scores"]["export"]) < 1e-9
    # An export is not made of an export, and not over something else.
    refused("export", tmp_path / "onnx", "--format", "onnx", "--out", tmp_path / "x", says=("is an export already",))
    with unharmed(run):
        refused("export", run, "--format", "onnx", "--out", run, says=("something else than an export",))


def test_images_given_by_name(world: World, tmp_path: Path) -> None:
    run = world.folder / "runs" / "cds" / "model"
    wish = ("export", run, "--format", "onnx", "--out", tmp_path / "out", "--workers", 0)
    refused(*wish, says=("names no images of 'sketch'", "--query-domain"))
    ours = ("--gallery-domain", world.domain("photo", world.folder / "photo" / "train"))
    refused(*wish, "--query-domain", f"ink={world.folder}", *ours, says=("'sketch', not 'ink'",))
    refused(*wish[:2], "--format", "tflite", *wish[4:], says=("onnx, openvino or int8",))
    refused(*wish, "--layout", "chwn", says=("nchw or nhwc",))
    said = answer_of(*wish, "--query-domain", world.domain("sketch", world.folder / "sketch" / "train"), *ours,
                     "--images", 5)  # fmt: skip
    assert said["parity"]["images"] == [5, 5] and said["scores"] is None
