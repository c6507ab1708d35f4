"""The resumable run: same bytes whatever the workers, shards, restarts; provenance; refusals."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.data.files import content_hash
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.io import stable_hash
from isthmus.translate.outputs import image_path, read_provenance, relative_name
from isthmus.translate.record import Request
from isthmus.translate.run import Options, run_translation, translate_source
from isthmus.translate.select import deal, form_batches
from isthmus.translate.work import Item

Bytes = dict[str, bytes]


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    """40 small pictures of ellipses in two classes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:48, 0:64]
    for number in range(40):
        folder = tmp_path / "photos" / ("round" if number % 2 else "flat")
        folder.mkdir(parents=True, exist_ok=True)
        shape = ((y - 24) / rng.uniform(8, 18)) ** 2 + ((x - 32) / rng.uniform(8, 28)) ** 2 < 1
        pixels = np.where(shape[..., None], rng.integers(0, 120, 3), rng.integers(140, 255, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return read_source(tmp_path / "photos", "photo")


def contents(out: Path) -> Bytes:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted((out / "images").rglob("*.png"))}


def test_counterparts_are_recorded_by_id(photos: Manifest, tmp_path: Path) -> None:
    made = run_translation(photos, "sketch", tmp_path / "out", seed=5)
    assert len(made) == 40
    row = made.by_id("photo/flat/00.png@sketch/edges")
    assert (row.domain, row.label, row.source_id) == ("sketch", "flat", "photo/flat/00.png")
    assert read_source(tmp_path / "out", "sketch") == made
    said = read_provenance(row.path)
    assert said is not None and said["source"] == row.source_id
    assert said["source_sha256"] == content_hash(photos.by_id("photo/flat/00.png").path)
    assert said["seed"] == stable_hash(5, "photo/flat/00.png")
    result = json.loads((tmp_path / "out" / "translation.json").read_text())
    assert result["images"] == 40 and result["failed"] == {} and said["settings"] == result["fingerprint"]


def test_same_bytes_for_workers_shards_order_and_batch(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_translation(photos, "sketch", tmp_path / "one", workers=0)
    expected = contents(tmp_path / "one")
    assert len(expected) == len(set(expected.values())) == 40
    run_translation(photos, "sketch", tmp_path / "two", workers=2)
    assert contents(tmp_path / "two") == expected
    shuffled = Manifest(reversed(photos.rows))
    for number in (3, 1, 2):
        outcome = translate_source(
            shuffled, Request("edges", {}, "sketch", 0), tmp_path / "shards", Options((number, 3), workers=0)
        )
        assert outcome.complete == (number == 2) == (tmp_path / "shards" / "manifest.parquet").exists()
    assert contents(tmp_path / "shards") == expected
    few = Manifest(photos.rows[:7])
    run_translation(few, "sketch", tmp_path / "few", workers=0)
    assert all(expected[name] == data for name, data in contents(tmp_path / "few").items())
    run_translation(photos, "sketch", tmp_path / "seed", seed=1, workers=0)
    assert contents(tmp_path / "seed") != expected


def test_batches_are_formed_before_they_are_dealt() -> None:
    batches = form_batches([Item(f"photo/{i:03d}", "", None) for i in range(100)], 8)
    assert [len(batch) for batch in batches] == [8] * 12 + [4]
    dealt = [deal(batches, (i, 4)) for i in (1, 2, 3, 4)]
    assert {batch for part in dealt for batch in part} == set(batches) and sum(map(len, dealt)) == len(batches)
    assert all(len(part) for part in dealt)
    for bad in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(IsthmusError, match="i/n"):
            deal(batches, bad)


def test_resume_makes_only_what_is_missing_stale_or_changed(photos: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = Request("edges", {}, "sketch", 0)
    translate_source(photos, request, out, Options(workers=0))
    expected = contents(out)
    gone, cut, foreign, changed = (image_path(out, photos[i].id) for i in (0, 7, 9, 20))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:20])
    foreign.write_bytes(changed.read_bytes())
    Image.new("RGB", (64, 48), "white").save(photos[20].path)
    outcome = translate_source(photos, request, out, Options(workers=0))
    assert (outcome.written, outcome.kept) == (4, 36)
    name = changed.relative_to(out).as_posix()
    after = contents(out)
    assert after.pop(name) != expected.pop(name) and after == expected
    assert translate_source(photos, request, out, Options(workers=0)).written == 0


def test_another_run_in_the_same_folder_is_refused(photos: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_translation(photos, "sketch", out, limit=3)
    with pytest.raises(IsthmusError, match=r"made with no settings, now it is settings ink=3"):
        run_translation(photos, "sketch", out, settings={"ink": 3}, limit=3)
    with pytest.raises(IsthmusError, match=r"made with seed 0, now it is seed 1"):
        run_translation(photos, "sketch", out, seed=1, limit=3)
    with pytest.raises(IsthmusError, match="target 'drawing'"):
        run_translation(photos, "drawing", out, limit=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(IsthmusError, match="something other than a translation"):
        run_translation(photos, "sketch", tmp_path / "mine")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"translator": "paint"}, "no translator 'paint'; known are: .*edges"),
        ({"settings": {"inc": 3}}, "Setting 'inc' of translator 'edges'"),
        ({"settings": {"stroke": -1}}, "Setting 'stroke' of translator 'edges'"),
        ({"target_domain": "photo"}, "both 'photo'"),
        ({"limit": 0}, "at least one image"),
    ],
)
def test_bad_settings_are_one_sentence(
    photos: Manifest, tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(IsthmusError, match=sentence):
        run_translation(photos, **{"target_domain": "sketch", "out": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_bad_images_are_listed_or_raised_and_mended_later(photos: Manifest, tmp_path: Path) -> None:
    good = Path(photos[3].path).read_bytes()
    Path(photos[3].path).write_bytes(good[:60])
    with pytest.raises(IsthmusError, match=Path(photos[3].path).name):
        run_translation(photos, "sketch", tmp_path / "strict", on_bad="raise", workers=0)
    request = Request("edges", {}, "sketch", 0)
    outcome = translate_source(photos, request, tmp_path / "out", Options(workers=0))
    assert list(outcome.failed) == [photos[3].id] and outcome.complete and len(outcome.manifest) == 39
    assert json.loads((tmp_path / "out" / "translation.json").read_text())["failed"] == dict(outcome.failed)
    Path(photos[3].path).write_bytes(good)
    outcome = translate_source(photos, request, tmp_path / "out", Options(workers=0))
    assert not outcome.failed and outcome.written == 1 and len(outcome.manifest) == 40
    nothing = Manifest(replace(row, path=str(tmp_path / "none.png")) for row in photos)
    with pytest.raises(IsthmusError, match="None of the 40 images"):
        run_translation(nothing, "sketch", tmp_path / "none", settings={"direction": "lines"})


@pytest.fixture
def failing_replace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    real = os.replace

    def fail_from_image(code: int) -> None:
        calls = 0

        def replace_(source: Any, target: Any) -> None:
            nonlocal calls
            calls += str(target).endswith(".png")
            if calls > 5:
                raise OSError(code, os.strerror(code))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace_)

    yield fail_from_image
    monkeypatch.setattr(os, "replace", real)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "not writable")])
def test_a_full_or_read_only_disk_is_one_sentence_and_loses_nothing(
    photos: Manifest, tmp_path: Path, failing_replace: Callable[[int], None], code: int, words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    failing_replace(code)
    with pytest.raises(IsthmusError, match=words):
        run_translation(photos, "sketch", out, workers=0)
    assert len(contents(out)) == 5 and not list(out.rglob(".*.tmp"))
    assert not (out / "manifest.parquet").exists()
    monkeypatch.undo()
    run_translation(photos, "sketch", tmp_path / "whole", workers=0)
    assert len(run_translation(photos, "sketch", out, workers=0)) == 40
    assert contents(out) == contents(tmp_path / "whole")


def test_names_are_safe_and_different() -> None:
    ids = ["photo/a.jpg", "photo/a.png", "photo/../a", "/etc/x", "photo/a b\n", "photo/é", "photo/.x", "p/" + "y" * 300]
    ids += ["p/" + "y" * 299, "photo/a ", "photo/\udce9", "photo//a", "photo/a\\b", "photo/con:1"]
    names = [relative_name(id) for id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert name.isascii() and "\n" not in name and ":" not in name
        assert all(part and not part.startswith(".") and len(part) < 200 for part in name.split("/"))
