"""`isthmus translate`, its report and its plan; translators that work on whole batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from isthmus.cli.main import build
from isthmus.data.manifest import Manifest, Row
from isthmus.translate import base
from isthmus.translate.base import Samples, TranslatorSettings
from isthmus.translate.outputs import image_path, read_provenance
from isthmus.translate.record import Request
from isthmus.translate.run import Options, translate_source


class TintSettings(TranslatorSettings):
    fail: int = 0


class TintTranslator:
    """Colours depend on the whole batch, as in a model with batch statistics; some seeds fail."""

    name: ClassVar[str] = "tint"
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = False
    settings_type: ClassVar[type[TranslatorSettings]] = TintSettings
    calls: ClassVar[list[int]] = []

    def __init__(self, settings: TintSettings) -> None:
        self.settings = settings
        self.batch_size = 4

    @classmethod
    def resolve(cls, settings: TintSettings, samples: Samples) -> tuple[TintSettings, list[str]]:
        return settings, []

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | None]:
        self.calls.append(len(images))
        mean = int(np.mean([np.asarray(image).mean() for image in images]))
        made = []
        for image, seed in zip(images, seeds, strict=True):
            level = int(np.asarray(image).mean())
            failed = self.settings.fail and seed % self.settings.fail == 0
            made.append(None if failed else Image.new("RGB", (8, 8), (mean, seed % 256, level)))
        return made


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setitem(base.TRANSLATORS, "tint", f"{__name__}:TintTranslator")
    TintTranslator.calls.clear()
    rows = []
    for number in range(18):
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (8, 8), (number * 10, 0, 0)).save(path)
        rows.append(Row(f"photo/{number:02d}", str(path), "photo"))
    return Manifest(rows)


def colours(out: Path, source: Manifest) -> list[tuple[int, ...] | None]:
    paths = [image_path(out, row.id) for row in source]
    return [np.asarray(Image.open(p))[0, 0].tolist() if p.exists() else None for p in paths]


def test_whole_batches_keep_their_composition(source: Manifest, tmp_path: Path) -> None:
    request = Request("tint", {}, "sketch", 0)
    translate_source(source, request, tmp_path / "one")
    expected = colours(tmp_path / "one", source)
    assert TintTranslator.calls == [4, 4, 4, 4, 2]
    for number in (1, 2, 3):
        translate_source(source, request, tmp_path / "many", Options(shard=(number, 3)))
    assert colours(tmp_path / "many", source) == expected
    image_path(tmp_path / "many", "photo/05").unlink()
    before = image_path(tmp_path / "many", "photo/06").stat().st_mtime_ns
    TintTranslator.calls.clear()
    assert translate_source(source, request, tmp_path / "many").written == 1
    assert TintTranslator.calls == [4] and colours(tmp_path / "many", source) == expected
    assert image_path(tmp_path / "many", "photo/06").stat().st_mtime_ns == before
    Path(source[9].path).write_bytes(b"broken")
    translate_source(source, request, tmp_path / "bad")
    after = colours(tmp_path / "bad", source)
    assert after[9] is None and after[:8] + after[12:] == expected[:8] + expected[12:]


def test_failed_pictures_are_tried_again_with_other_seeds(source: Manifest, tmp_path: Path) -> None:
    outcome = translate_source(source, Request("tint", {"fail": 2}, "sketch", 0), tmp_path / "out")
    made = {str(row.source_id) for row in outcome.manifest}
    assert made | set(outcome.failed) == {row.id for row in source}
    # Each attempt fails for half of the seeds: about one in eight fails three times.
    assert 12 <= len(made) < 18 and all("in 3 attempts" in reason for reason in outcome.failed.values())
    said = [read_provenance(image_path(tmp_path / "out", id)) for id in made]
    assert all(one is not None and one["batch"] for one in said)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    y, x = np.mgrid[0:64, 0:64]
    for number in range(6):
        disc = (y - 32) ** 2 + (x - 32) ** 2 < (10 + 3 * number) ** 2
        pixels = np.where(disc[..., None], (200, 40, 40), (60, 120 + 10 * number, 90)).astype(np.uint8)
        (tmp_path / "photos" / "a<b>").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / "a<b>" / f"é {number}.png")
    return tmp_path / "photos"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build(), ["translate", *arguments])


def test_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    result = invoke("--source", f"photo={folder}", "--target", "sketch", "--out", str(out), "--split", "all",
                    "--limit", "4", "--report", "--json", "--workers", "0")  # fmt: skip
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["images"] == 4 and said["complete"] and said["settings"]["direction"] == "lines"
    assert said["report"]["faults"]["blank"] == [] and said["report"]["images"] == 4
    page = (out / "pairs.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 8 and "http" not in page
    assert "a&lt;b&gt;/é" in page and "a<b>" not in page
    assert Image.open(out / "pairs.png").width > 500


def test_plan_writes_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    result = invoke("--source", f"photo={folder}", "--target", "sketch", "--out", str(out), "--split", "all",
                    "--plan", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["units"] == 6 and plan["seconds"] > 0 and plan["disk"] > 500 and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shard", "x"], "write i/n"),
        (["--on-bad", "panic"], "skip or raise"),
        (["--split", "tset"], "train, val, test or all"),
        (["--set", "ink"], "KEY=VALUE"),
        (["--source", "photo=/no/such/folder"], "no folder, list or table"),
    ],
)
def test_bad_arguments_are_one_sentence(folder: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    given = ["--source", f"photo={folder}", "--target", "sketch", "--out", str(tmp_path / "o"), "--split", "all"]
    result = invoke(*given, *arguments)
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output
