"""What a resumed run reads, keeps and makes anew; the probe of a plan."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import translators_zoo
from PIL import Image

from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError
from isthmus.translate import estimate, work
from isthmus.translate.base import TRANSLATORS, Samples, TranslatorChoice, choose
from isthmus.translate.outputs import image_path
from isthmus.translate.record import Request
from isthmus.translate.run import Options, plan_source, translate_source
from isthmus.translate.work import Item, Job

REQUEST = Request(translators_zoo.NAME, {}, "sketch", 0)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSLATORS, translators_zoo.NAME, "translators_zoo:SlowTint")


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    """Three batches of four."""
    return read_source(translators_zoo.pictures(tmp_path / "photos", 12), "photo")


def made(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "images").rglob("*.png"))}


def test_only_batches_that_lack_something_are_read(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    translate_source(photos, REQUEST, out)
    expected = made(out)
    read: list[str] = []
    real = work.load_image

    def load(path: str) -> Any:
        read.append(Path(path).stem)
        return real(path)

    monkeypatch.setattr(work, "load_image", load)
    outcome = translate_source(photos, REQUEST, out)
    assert (outcome.written, outcome.kept, read) == (0, len(expected), [])
    gone = next(path for path in sorted((out / "images").rglob("*.png")) if path.name.startswith(("04", "05", "06")))
    gone.unlink()
    outcome = translate_source(photos, REQUEST, out)
    assert outcome.written == 1 and sorted(read) == ["04", "05", "06", "07"] and made(out) == expected


@pytest.mark.parametrize("translator", ["edges", translators_zoo.NAME])
def test_sources_that_are_gone_do_not_take_their_counterparts_with_them(
    photos: Manifest, tmp_path: Path, translator: str
) -> None:
    out = tmp_path / "out"
    request = Request(translator, {"direction": "lines"} if translator == "edges" else {}, "sketch", 0)
    before = translate_source(photos, request, out, Options(workers=0))
    expected = made(out)
    shutil.rmtree(tmp_path / "photos")  # a disk that is not mounted
    after = translate_source(photos, request, out, Options(workers=0))
    assert made(out) == expected and after.manifest == before.manifest and after.written == 0
    with pytest.raises(IsthmusError, match="does not exist"):
        translate_source(photos, request, out, Options(workers=0, on_bad="raise"))
    image_path(out, before.manifest[0].source_id or "").unlink()
    lost = translate_source(photos, request, out, Options(workers=0))
    assert before.manifest[0].source_id in lost.failed and len(lost.manifest) == len(before.manifest) - 1


def test_a_label_is_in_the_provenance_where_a_prompt_names_it(photos: Manifest, tmp_path: Path) -> None:
    item = Item(photos[0].id, photos[0].path, "cat")
    for prompt, expected in (("A sketch of a {label}.", "cat"), ("A sketch of an object.", None)):
        choice = TranslatorChoice(translators_zoo.NAME, {"prompt": prompt})
        said = Job(choice, tmp_path, "sketch", 0, True).provenance(item, [item])
        assert said.get("label") == expected


def test_plan_of_a_slow_model_asks_for_one_image(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def translate(self: Any, images: list[Image.Image], seeds: Any, labels: Any) -> list[Image.Image]:
        asked.append(len(images))
        return list(images)

    monkeypatch.setattr(translators_zoo.SlowTint, "translate", translate)
    plan_source(photos, REQUEST, tmp_path / "out")
    assert asked == [1, 4, 4, 4]
    asked.clear()
    monkeypatch.setattr(estimate, "LONG", 0.0)
    plan = plan_source(photos, REQUEST, tmp_path / "out")
    assert asked == [1] and plan.units == 12 and plan.disk > 12 * 1000 and "on 1 images" in plan.probe


def test_plan_of_a_shard_without_a_batch(photos: Manifest, tmp_path: Path) -> None:
    plans = [plan_source(photos, REQUEST, tmp_path / "out", Options(shard=(i, 9))) for i in range(1, 10)]
    assert sum(plan.units for plan in plans) == 12 and min(plan.units for plan in plans) == 0


def test_a_prompt_that_yaml_takes_for_something_else_is_told_how_to_quote() -> None:
    with pytest.raises(IsthmusError, match="quote it, as in  --set 'prompt="):
        choose("img2img", {"prompt": {"A sketch": "of a cat"}}, Samples())


def test_a_limit_never_shrinks_a_finished_table(photos: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = Request("edges", {"direction": "lines"}, "sketch", 0)
    few = translate_source(photos, request, out, Options(limit=5))
    assert len(few.manifest) == 5
    whole = translate_source(photos, request, out)
    assert len(whole.manifest) == 12 and whole.kept == 5
    table = (out / "manifest.parquet").read_bytes()
    with pytest.raises(IsthmusError, match=r"out holds more counterparts than --limit 5.*--out"):
        translate_source(photos, request, out, Options(limit=5))
    assert (out / "manifest.parquet").read_bytes() == table
