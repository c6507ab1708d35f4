"""The quality gate on real photos and sketches: what closes the shift, and what keeps the content."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from isthmus.cli.main import build
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_source
from isthmus.translate.quality import content_kept, domain_probe, measure_quality
from isthmus.translate.quality.features import Features
from isthmus.translate.quality.shift import frechet_figure
from isthmus.translate.run import run_translation

PHOTOS, SKETCHES = 72, 144


@dataclass(frozen=True)
class World:
    """Photos, their counterparts by `edges`, sketches, and features of all."""

    weights: str
    photos: Manifest
    made: Manifest
    sketches: Manifest
    photo: Tensor
    edges: Tensor
    sketch: Tensor
    others: Tensor
    labels: list[str | None]


@pytest.fixture(scope="module")
def world(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = shared_data / "data" / "pacs"
    draw = random.Random(0)

    def some(domain: str, count: int) -> list[Row]:
        return draw.sample(read_source(root / "lists" / f"{domain}_train.txt", domain, root=root).rows, count)

    photos = Manifest(sorted(some("photo", PHOTOS), key=lambda row: row.id))
    drawn = some("sketch", SKETCHES + PHOTOS)
    sketches, others = Manifest(drawn[:SKETCHES]), drawn[SKETCHES:]
    folder = tmp_path_factory.mktemp("made")
    found = {row.source_id: row for row in run_translation(photos, "sketch", folder, target=sketches, workers=0)}
    made = Manifest(found[row.id] for row in photos if row.id in found)
    assert len(made) > 0.95 * PHOTOS
    photos = Manifest(row for row in photos if row.id in found)
    weights = str(shared_data / "weights" / "mobilenetv2_100.safetensors")
    network = Features("mobilenetv2_100", weights, 128)
    parts = [
        network.of(rows, progress=False) for rows in (photos.rows, made.rows, sketches.rows, others[: len(photos)])
    ]
    assert all(part.shape[1] == 1280 and bool(part.isfinite().all()) for part in parts)
    return World(weights, photos, made, sketches, *parts, photos.labels())


def test_identity_closes_nothing_and_keeps_everything(world: World) -> None:
    frechet = frechet_figure(world.photo, world.photo, world.sketch)
    assert frechet.closed.mean == 0 and frechet.before.mean > 3 * frechet.floor.mean
    probe = domain_probe(world.photo, world.sketch)
    assert probe.accuracy > 0.9 and probe.share_target(world.photo[probe.held_out[0]]).value < 0.1
    content = content_kept(world.photo, world.photo, source_labels=world.labels)
    assert content.rank1.value == 1 and content.category == content.category_ceiling
    assert content.category_ceiling is not None and content.category_ceiling.value > 0.7


def test_real_sketches_close_the_shift_and_keep_nothing(world: World) -> None:
    frechet = frechet_figure(world.photo, world.others, world.sketch)
    assert frechet.closed.mean == pytest.approx(1, abs=0.1)
    probe = domain_probe(world.photo, world.sketch)
    assert probe.share_target(world.others).value > 0.9
    content = content_kept(world.photo, world.others, source_labels=world.labels)
    assert content.rank1.value < 0.06 and content.nearer.value == pytest.approx(0.5, abs=0.1)
    assert content.category is not None and content.category_chance is not None
    assert content.category.low < content.category_chance + 0.05


def test_edges_close_a_part_and_keep_a_part(world: World) -> None:
    frechet = frechet_figure(world.photo, world.edges, world.sketch)
    assert 0.3 < frechet.closed.mean < 1 and frechet.floor.mean < frechet.after.mean < 0.6 * frechet.before.mean
    content = content_kept(world.photo, world.edges, source_labels=world.labels, target=world.sketch,
                           target_labels=world.sketches.labels())  # fmt: skip
    assert content.nearer.low > 0.55 and content.rank1.value > 2 * content.chance
    order = torch.randperm(len(world.edges), generator=torch.Generator().manual_seed(0))
    shuffled = content_kept(world.photo, world.edges[order], source_labels=world.labels)
    assert shuffled.nearer.value < content.nearer.low
    assert content.category_target is not None and content.category_target.n == SKETCHES


def test_measured_by_manifest_and_with_bad_files(world: World, tmp_path: Path) -> None:
    few = Manifest(world.made.rows[:40])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    blank = tmp_path / "blank.png"
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(blank)
    bent = [replace(few[0], path=str(broken)), replace(few[1], path=str(blank)), replace(few[2], path=few[9].path)]
    made = Manifest([*bent, *few.rows[3:]])
    quality = measure_quality(world.photos, made, world.sketches, weights=world.weights, progress=False)
    assert (quality.images, quality.sampled, quality.targets) == (40, 39, 80) and not quality.missing
    assert quality.faults.unreadable == (few[0].id,) and quality.faults.blank == (few[1].id,)
    assert set(quality.faults.repeated) | set(quality.faults.repeated.values()) == {few[2].id, few[9].id}
    assert quality.shift is not None and quality.shift.frechet.n == 39
    assert quality.verdicts[2].grade == "poor" and "a hint" in quality.verdicts[0].words
    plain = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
    assert plain["shift"]["frechet"]["n"] == 39 and plain["verdicts"]["shift"]["grade"] in ("good", "fair")


def test_from_the_command_line(world: World, shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "data" / "pacs"
    out = tmp_path / "out"

    def listed(name: str, manifest: Manifest, count: int) -> str:
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{Path(row.path).relative_to(root)} {row.label}\n" for row in manifest.rows[:count]))
        return f"{name}={path}"

    given: list[Any] = ["translate", "--source", listed("photo", world.photos, 20), "--root", root, "--out", out,
                        "--target", listed("sketch", world.sketches, 40), "--split", "all", "--workers", 0, "--report",
                        "--report-weights", world.weights]  # fmt: skip
    result = CliRunner().invoke(build(), [str(one) for one in given])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    starts = ["Domain shift closed: ", "Content kept: ", "Unusable counterparts: 0 of 20, good."]
    assert all(line.startswith(start) for line, start in zip(lines[1:4], starts, strict=True))
    page = (out / "pairs.html").read_text()
    assert page.count("<svg") >= 10 and "prefers-color-scheme: dark" in page and "<script" not in page
    assert all(word in page for word in ("Fréchet distance", "Taken for the target", "Category of the nearest"))
