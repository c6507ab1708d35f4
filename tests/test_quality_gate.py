"""Blank pictures, attempts and retries within a run; faults among finished counterparts; the report's files."""

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
from isthmus.errors import IsthmusError
from isthmus.translate import base
from isthmus.translate.base import NoPicture, Samples, TranslatorSettings
from isthmus.translate.gate import BLANK, passed, shows_nothing
from isthmus.translate.gate_retry import ask_again, first_attempts
from isthmus.translate.outputs import failure_path, image_path, read_provenance
from isthmus.translate.quality.faults import find_faults, repeats
from isthmus.translate.record import Request
from isthmus.translate.run import Outcome, translate_source
from isthmus.translate.work import Job

COUNT = 18


class MoodySettings(TranslatorSettings):
    blank: int = 0  # one seed in so many gives a blank picture
    never: str = ""  # the level of an image that always fails
    alike: bool = False


class MoodyTranslator:
    """Draws noise by the seed; some seeds come out blank, one image never works, or all first pictures are alike."""

    name: ClassVar[str] = "moody"
    version: ClassVar[int] = 1
    independent: ClassVar[bool] = True
    settings_type: ClassVar[type[TranslatorSettings]] = MoodySettings
    calls: ClassVar[list[int]] = []
    first: ClassVar[set[int]] = set()

    def __init__(self, settings: MoodySettings) -> None:
        self.settings = settings
        self.batch_size = 4

    @classmethod
    def resolve(cls, settings: MoodySettings, samples: Samples) -> tuple[MoodySettings, list[str]]:
        return settings, []

    def translate(
        self, images: Sequence[Image.Image], seeds: Sequence[int], labels: Sequence[str | None]
    ) -> list[Image.Image | NoPicture | None]:
        self.calls.append(len(images))
        made: list[Image.Image | NoPicture | None] = []
        for image, seed in zip(images, seeds, strict=True):
            if self.settings.never and image.getpixel((0, 0))[0] == int(self.settings.never):
                made.append(NoPicture("the safety checker held it back"))
            elif self.settings.blank and seed % self.settings.blank == 0:
                made.append(Image.new("RGB", (32, 32), "black"))
            else:
                made.append(noise(7 if self.settings.alike and seed in self.first else seed))
        return made


class BatchedTranslator(MoodyTranslator):
    name: ClassVar[str] = "batched"
    independent: ClassVar[bool] = False


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setitem(base.TRANSLATORS, "moody", f"{__name__}:MoodyTranslator")
    monkeypatch.setitem(base.TRANSLATORS, "batched", f"{__name__}:BatchedTranslator")
    MoodyTranslator.calls.clear()
    rows = []
    for number in range(COUNT):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = noise(1000 + number)
        picture.putpixel((0, 0), (number, 0, 0))
        picture.save(path)
        rows.append(Row(f"photo/{'ab'[number % 2]}/{number:02d}.png", str(path), "photo", "ab"[number % 2]))
    return Manifest(rows)


def run(source: Manifest, out: Path, translator: str = "moody", **settings: Any) -> Outcome:
    MoodyTranslator.calls.clear()
    return translate_source(source, Request(translator, settings, "sketch", 0), out)


def tries() -> int:
    return sum(MoodyTranslator.calls)


def test_what_is_blank() -> None:
    page = Image.new("L", (256, 256), 255)
    assert shows_nothing(page) and shows_nothing(Image.new("RGB", (9, 9), "black"))
    faint = np.random.default_rng(0).integers(253, 256, (64, 64, 3), dtype=np.uint8)
    assert shows_nothing(Image.fromarray(faint))
    page.paste(0, (100, 100, 104, 104))
    assert not shows_nothing(page)
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:4, :, 0], colours[4:, :, 1] = 59, 30  # both halves are equally grey
    assert not shows_nothing(Image.fromarray(colours))
    blank = Image.new("RGB", (8, 8))
    assert passed(blank, Image.fromarray(faint)) is blank and passed(None, blank) is None
    assert passed(blank, noise(0)) == NoPicture(BLANK)


@pytest.mark.parametrize("translator", ["moody", "batched"])
def test_blank_pictures_are_tried_again_then_left_out_and_not_for_ever(
    source: Manifest, tmp_path: Path, translator: str
) -> None:
    out = tmp_path / "out"
    outcome = run(source, out, translator, blank=2)
    assert 0 < len(outcome.failed) < 8 and len(outcome.manifest) + len(outcome.failed) == COUNT
    assert all(f"in 3 attempts: {BLANK}" in reason for reason in outcome.failed.values())
    job = Job(outcome.choice, out, "sketch", 0, True)
    retried = 0
    for row in outcome.manifest:
        # The picture is of the first seed that does not give a blank one, and the file says which.
        seeds = [job.image_seed(str(row.source_id), attempt) for attempt in range(3)]
        good = next(attempt for attempt, seed in enumerate(seeds) if seed % 2)
        assert (read_provenance(row.path) or {}).get("attempt", 0) == good
        assert np.array_equal(np.asarray(Image.open(row.path)), np.asarray(noise(seeds[good])))
        retried += good > 0
    for id in outcome.failed:
        assert all(job.image_seed(id, attempt) % 2 == 0 for attempt in range(3))
    assert retried > 0
    before = {path.name: path.read_bytes() for path in out.rglob("*.png")}
    again = run(source, out, translator, blank=2)
    assert tries() == 0 and again.kept == len(outcome.manifest) and again.failed == outcome.failed and again.complete
    assert {path.name: path.read_bytes() for path in out.rglob("*.png")} == before


@pytest.mark.parametrize("translator", ["moody", "batched"])
def test_asked_to_it_goes_on_with_other_seeds_and_stops_again(
    source: Manifest, tmp_path: Path, translator: str
) -> None:
    out = tmp_path / "out"
    first = run(source, out, translator, blank=2, never="3")
    lost, hopeless = set(first.failed), source[3].id
    assert hopeless in lost and "safety checker" in first.failed[hopeless]
    kept = {row.source_id: Path(row.path).read_bytes() for row in first.manifest}
    assert ask_again(out) == len(lost) and ask_again(out) == 0
    assert set(first_attempts(out).values()) == {3}
    second = run(source, out, translator, blank=2, never="3")
    assert max(MoodyTranslator.calls) <= 4 and tries() <= 3 * len(lost)
    won = {str(row.source_id) for row in second.manifest} - set(kept)
    assert won and won <= lost and "in 6 attempts" in second.failed[hopeless]
    job = Job(second.choice, out, "sketch", 0, True)
    for id in won:
        good = next(attempt for attempt in range(3, 6) if job.image_seed(id, attempt) % 2)
        assert np.array_equal(np.asarray(Image.open(image_path(out, id))), np.asarray(noise(job.image_seed(id, good))))
    assert all(image_path(out, str(id)).read_bytes() == data for id, data in kept.items())
    assert run(source, out, translator, blank=2, never="3").failed == second.failed and tries() == 0


def test_a_changed_source_is_tried_from_the_start(source: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert set(run(source, out, never="3").failed) == {source[3].id}
    noise(5).save(source[3].path)
    assert not run(source, out, never="3").failed and tries() == 1
    assert not failure_path(out, source[3].id).exists()


def test_what_the_user_broke_is_one_sentence_or_mends_itself(source: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out, never="3")
    failure_path(out, source[3].id).write_text("[]")
    assert run(source, out, never="3").failed and tries() == 3
    for name, said in (("quality.json", "--report wrote"), ("retry.json", "--retry wrote")):
        (out / name).write_text("[1]")
        with pytest.raises(IsthmusError, match=said):
            ask_again(out)
        (out / name).unlink()
    assert ask_again(out) == 1


def pairs_of(source: Manifest, folder: Path, pictures: dict[int, Image.Image]) -> list[tuple[Row, Row]]:
    folder.mkdir()
    pairs = []
    for number, row in enumerate(source):
        path = folder / f"{number:02d}.png"
        pictures.get(number, noise(number)).save(path)
        pairs.append((row, Row(f"{row.id}@sketch/x", str(path), "sketch", row.label, source_id=row.id)))
    return pairs


def test_faults_are_found(source: Manifest, tmp_path: Path) -> None:
    same = Image.open(source[5].path).resize((96, 96), Image.Resampling.NEAREST).point(lambda level: level * 0.99)
    repeated = noise(0).resize((64, 64), Image.Resampling.BICUBIC)
    Image.new("RGB", (32, 32), "white").save(source[9].path)
    pictures = {2: Image.new("RGB", (32, 32)), 5: same, 8: repeated, 9: Image.new("RGB", (32, 32)),
                11: repeated, 12: noise(10), 13: noise(10)}  # fmt: skip
    noise(44).save(source[12].path)
    noise(44).save(source[13].path)
    pairs = pairs_of(source, tmp_path / "made", pictures)
    Path(pairs[14][1].path).write_bytes(b"broken")
    ids = [made.id for _, made in pairs]
    faults = find_faults(pairs, progress=False)
    assert faults.blank == (ids[2],) and faults.blank_sources == 1
    assert faults.unchanged == (ids[5],)
    # 12 and 13 repeat 10; that 13 looks like 12 is right, as their sources are alike.
    assert faults.repeated == {ids[8]: ids[0], ids[11]: ids[0], ids[12]: ids[10], ids[13]: ids[10]}
    assert faults.largest == 3 and faults.unreadable == (ids[14],) and faults.images == COUNT
    assert (faults.shortest_side, faults.longest_side) == (32, 96) and 0 < faults.ink < 1
    assert set(faults.found) == {ids[i] for i in (2, 5, 8, 11, 12, 13)}


def test_repeats_by_loops_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.translate.quality import faults as quality_faults

    monkeypatch.setattr(quality_faults, "block_rows", lambda *_, **__: 16)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 60, 150)
    base_made, base_source = (rng.normal(size=(60, 24)).astype(np.float32) for _ in range(2))
    made = base_made[kinds] + 0.02 * rng.normal(size=(150, 24)).astype(np.float32)
    source = base_source[rng.integers(0, 40, 150)]
    made, source = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (made, source))
    made[7] = 0
    expected: dict[int, int] = {}
    for i in range(150):
        for j in range(i):
            if made[i] @ made[j] > 0.98 and source[i] @ source[j] <= 0.98:
                expected[i] = expected.get(j, j)
                break
    assert repeats(made, source) == expected and len(expected) > 50


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(build(), ["translate", *arguments])


def test_report_lists_repeats_and_retry_makes_them_anew(source: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = Job(base.choose("moody", {}, Samples()), out, "sketch", 0, True)
    MoodyTranslator.first = {job.image_seed(row.id) for row in source}
    given = ["--source", f"photo={tmp_path / 'photos'}", "--target", "sketch", "--translator", "moody", "--set",
             "alike=true", "--out", str(out), "--split", "all", "--report-weights", "random"]  # fmt: skip
    result = invoke(*given, "--report", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["report"]
    assert len(report["faults"]["repeated"]) == COUNT - 1 and report["faults"]["largest"] == COUNT
    assert report["verdicts"]["faults"]["grade"] == "poor" and "--target NAME=PATH" in report["missing"]["shift"]
    assert report["content"]["gallery"] == COUNT and report["shift"] is None
    said = json.loads((out / "quality.json").read_text())
    assert [one["source"] for one in said["suspects"]] == [row.id for row in sorted(source, key=lambda r: r.id)][1:]
    page = (out / "pairs.html").read_text()
    assert "Look at these first" in page and page.count("<strong>the same picture as photo") >= COUNT - 1
    result = invoke(*given, "--retry", "--report")
    assert result.exit_code == 0 and f"Trying {COUNT - 1} images again" in result.stderr, result.output
    assert "Unusable counterparts: 0 of 18, good" in result.stdout and "(17 made now, 1 kept)" in result.stdout
    assert len({path.read_bytes() for path in (out / "images").rglob("*.png")}) == COUNT
    result = invoke(*given, "--retry")
    assert "nothing to try again" in result.stderr and "(0 made now, 18 kept)" in result.stdout


def test_without_weights_the_rest_is_written(source: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    out = tmp_path / "out"
    given = ["--source", f"photo={tmp_path / 'photos'}", "--target", f"sketch={tmp_path / 'photos'}", "--out", str(out),
             "--translator", "moody", "--workers", "0", "--split", "all", "--report"]  # fmt: skip
    result = invoke(*given)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    sentence = "The weights of mobilenetv2_100 can't be had here: give a checkpoint of it with --report-weights FILE."
    assert lines[1:3] == [f"Domain shift closed: not measured. {sentence}", f"Content kept: not measured. {sentence}"]
    assert lines[3].startswith("Unusable counterparts: 0 of 18, good.")
    page = (out / "pairs.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * COUNT and "--report-weights" in page and "http" not in page
    assert Image.open(out / "pairs.png").width > 500
    result = invoke(*given, "--report-weights", str(tmp_path / "none.safetensors"))
    assert result.exit_code == 2 and "is no file" in result.stderr and "Traceback" not in result.output
