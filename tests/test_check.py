"""`isthmus check`: what it finds, what it leaves alone, and how it says so."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import images_zoo as zoo
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from isthmus.cli.main import build
from isthmus.data.check import CheckReport, check, examine
from isthmus.data.hints import odd_labels, small_features
from isthmus.data.images import load_image
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import read_folder


def kinds(report: CheckReport) -> Counter[str]:
    return Counter(finding.kind for finding in report.findings)


def names(report: CheckReport, kind: str) -> list[str]:
    return sorted(Path(path).name for found in report.findings if found.kind == kind for path in found.paths)


def look(folder: Path, domain: str = "photo") -> CheckReport:
    return check(read_folder(folder, domain), progress=False)


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(build(), ["check", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_sound_images_pass(tmp_path: Path) -> None:
    for seed in range(5):
        zoo.plain(tmp_path, f"{seed}.png", seed=seed)
    report = look(tmp_path)
    assert report.ok and report.findings == () and report.notes == {} and report.images == 5
    assert report.manifest() == read_folder(tmp_path, "photo")


def test_the_zoo(tmp_path: Path) -> None:
    sound, broken = zoo.build(tmp_path)
    report = look(tmp_path)
    assert names(report, "broken") == sorted(path.name for path in broken)
    assert kinds(report)["broken"] == len(broken) == 5 and not report.ok
    reasons = {Path(finding.paths[0]).name: finding.reason for finding in report.errors}
    for name, words in (("zero.png", "0 bytes"), ("bomb.png", "limit"), ("truncated.jpg", "truncated")):
        assert words in reasons[name]
    assert report.notes == {"cmyk": 1, "16_bit_or_float": 1, "animated": 1, "exif_rotated": 1}
    assert {row.path for row in report.manifest()} == {str(path) for path in sound}
    json.dumps(report.to_json(), ensure_ascii=False).encode()


def test_file_that_vanished_is_broken(tmp_path: Path) -> None:
    manifest = Manifest([Row("p/1", str(tmp_path / "gone.png"), "p")])
    report = check(manifest, progress=False)
    assert "does not exist" in report.errors[0].reason and kinds(report) == {"broken": 1, "few": 1}


def test_tiny_blank_and_misnamed_are_warnings(tmp_path: Path) -> None:
    zoo.scene(64, seed=1).resize((64, 31)).save(tmp_path / "small.png")
    zoo.plain(tmp_path, "just.png", side=32, seed=2)
    Image.new("RGB", (64, 64), (3, 4, 5)).save(tmp_path / "blank.png")
    Image.new("RGBA", (64, 64), (9, 9, 9, 0)).save(tmp_path / "clear.png")  # nothing but white once it lies on white
    zoo.plain(tmp_path, "really.jpg", seed=3).rename(tmp_path / "jpeg.PNG")
    zoo.plain(tmp_path, "fine.JPEG", seed=4)
    report = look(tmp_path)
    assert report.ok and kinds(report) == {"tiny": 1, "blank": 2, "suffix": 1}
    assert names(report, "tiny") == ["small.png"] and names(report, "blank") == ["blank.png", "clear.png"]
    assert names(report, "suffix") == ["jpeg.PNG"]
    assert names(check(read_folder(tmp_path, "p"), min_side=31, progress=False), "tiny") == []


def test_a_large_jpeg_is_measured_at_its_own_size(tmp_path: Path) -> None:
    zoo.plain(tmp_path, "large.jpg", side=512)
    assert examine(str(tmp_path / "large.jpg")).size == (512, 512)
    report = check(read_folder(tmp_path, "p"), min_side=512, progress=False)
    assert kinds(report) == {"few": 1}


def test_copies(tmp_path: Path) -> None:
    """Twice in a split: a warning. In two splits: an error. In two domains: a warning."""
    for domain in ("a", "b"):
        for split in ("train", "test"):
            for number in range(2):
                seed = sum(map(ord, domain + split)) * 10 + number
                zoo.plain(tmp_path / domain / split, f"{number}.png", seed=seed)
    sources = [tmp_path / "a", tmp_path / "b"]
    assert check([read_folder(folder, folder.name) for folder in sources], progress=False).findings == ()
    shutil.copy(tmp_path / "a" / "train" / "0.png", tmp_path / "a" / "train" / "same.png")
    shutil.copy(tmp_path / "a" / "train" / "1.png", tmp_path / "a" / "test" / "leak.png")
    shutil.copy(tmp_path / "b" / "test" / "0.png", tmp_path / "a" / "test" / "shared.png")
    shutil.copy(tmp_path / "b" / "train" / "1.png", tmp_path / "a" / "test" / "both.png")
    report = check([read_folder(folder, folder.name) for folder in sources], progress=False)
    assert kinds(report) == {"leak": 2, "duplicate": 1, "shared": 2} and len(report.errors) == 2
    assert names(report, "leak") == ["1.png", "1.png", "both.png", "leak.png"]
    assert names(report, "duplicate") == ["0.png", "same.png"]
    assert names(report, "shared") == ["0.png", "1.png", "both.png", "shared.png"]
    assert all("test and train" in found.reason for found in report.errors)


def test_one_file_named_by_two_lists(tmp_path: Path) -> None:
    rows = [Row(f"p/{n}", str(zoo.plain(tmp_path, f"{n}.png", seed=n)), "p", split="train") for n in range(3)]
    test = [Row(row.id, row.path, "p", split="test") for row in rows[:1]]
    assert check([Manifest(rows), Manifest(rows[:2])], progress=False).findings == ()
    report = check([Manifest(rows), Manifest(test)], progress=False)
    assert kinds(report) == {"leak": 1} and len(report.manifest()) == 3


def test_one_content_under_two_labels(tmp_path: Path) -> None:
    for seed, name in enumerate(("cat/1.png", "cat/2.png", "dog/3.png")):
        zoo.plain(tmp_path / "p", name, seed=seed)
    shutil.copy(tmp_path / "p" / "cat" / "1.png", tmp_path / "p" / "dog" / "4.png")
    report = look(tmp_path / "p")
    assert kinds(report) == {"conflict": 1, "duplicate": 1} and "cat and dog" in report.errors[0].reason


def test_domains_that_are_too_small(tmp_path: Path) -> None:
    zoo.plain(tmp_path)
    zoo.zero_bytes(tmp_path)
    report = look(tmp_path)
    assert [found.reason for found in report.errors if found.kind == "few"] == [
        "the domain 'photo' has 1 sound images, and at least 2 are needed: add more"
    ]


def test_labels_of_test_splits_are_compared(tmp_path: Path) -> None:
    for seed, name in enumerate(("s/cat/1", "s/dog/2", "p/cat/3", "p/owl/4", "p/owl/5")):
        zoo.plain(tmp_path, f"{name}.png", seed=seed)

    def reasons(split: str) -> list[str]:
        parts = [read_folder(tmp_path / domain, domain, split=split) for domain in ("s", "p")]
        return [found.reason for found in check(parts, progress=False).warnings]

    assert reasons("train") == []  # training sets need share no label: that is the point of the methods
    assert reasons("test") == [
        "split test: 1 images of 's' have a label that 'p' lacks",
        "split test: 2 images of 'p' have a label that 's' lacks",
    ]


def test_label_hints_find_planted_mistakes_and_know_when_to_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, 32))
    labels = np.repeat(["cat", "dog", "owl"], 60)
    clear = centres[np.repeat(np.arange(3), 60)] + 0.1 * generator.normal(size=(180, 32))
    planted = labels.copy()
    planted[[5, 70]] = ["owl", "cat"]
    assert odd_labels(clear, list(labels)) == []
    assert odd_labels(clear, list(planted)) == [(5, "cat"), (70, "dog")]
    assert odd_labels(generator.normal(size=(180, 32)), list(planted)) == []
    # A fifth of the labels wrong: neighbours often agree, and are too often wrong themselves to be believed.
    many = np.repeat(np.arange(3), 300)
    vectors = centres[many] + 0.1 * generator.normal(size=(900, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    noisy = [str(label if generator.random() > 0.2 else (label + 1) % 3) for label in many]
    assert odd_labels(vectors, noisy) == []
    monkeypatch.setattr("isthmus.data.hints.TRUST", 0)
    assert len(odd_labels(vectors, noisy)) > 5
    assert odd_labels(clear[:20], list(planted[:20])) == [] and odd_labels(clear, ["cat"] * 180) == []


def test_label_hints_on_real_sketches(shared_data: Path) -> None:
    """With 2 % of the labels swapped, few images are named, and at least 4 in 10 of them are swapped ones."""
    rows = list(read_folder(shared_data / "data" / "pacs" / "sketch", "sketch"))[::3]
    features = np.stack([small_features(load_image(row.path)) for row in rows])
    true = [str(row.label) for row in rows]
    named_in_all = right = 0
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = list(true)
        swapped = generator.choice(len(rows), len(rows) // 50, replace=False)
        for position in swapped:
            labels[position] = str(generator.choice([name for name in sorted(set(true)) if name != true[position]]))
        named = {position for position, _ in odd_labels(features, labels)}
        named_in_all += len(named)
        right += len(named & set(swapped.tolist()))
    assert 10 <= named_in_all <= 5 * len(rows) // 50 and right >= 0.4 * named_in_all


def test_workers_do_not_change_the_report(tmp_path: Path) -> None:
    zoo.build(tmp_path)
    manifest = read_folder(tmp_path, "p")
    reports = [check(manifest, workers=workers, progress=False) for workers in (1, 4)]
    assert reports[0].findings == reports[1].findings and reports[0].clean == reports[1].clean


def test_command_line(tmp_path: Path) -> None:
    zoo.build(tmp_path / "photo")
    code, text = run(tmp_path / "photo")
    assert code == 2 and "ERROR: can't be read (5)" in text and "bomb.png" in text and "5 errors to mend" in text
    assert r"two\nlines" not in text  # a sound file with a strange name is none of the report's business
    out, clean = tmp_path / "report.json", tmp_path / "clean.parquet"
    code, text = run(f"pic={tmp_path / 'photo'}", "--json", "--out", out, "--write", clean)
    report = json.loads(text)
    assert code == 2 and report == json.loads(out.read_text()) and not report["ok"]
    assert report["found"]["broken"] == 5 and report["domains"][0]["domain"] == "pic"
    assert len(Manifest.load(clean)) == 11 and Manifest.load(clean).domains == ["pic"]
    code, text = run(clean)
    assert code == 0 and "no errors" in text


def test_command_line_reads_splits_from_list_names(tmp_path: Path) -> None:
    for seed in range(4):
        zoo.plain(tmp_path / "photo", f"{seed}.png", seed=seed)
    (tmp_path / "photo_train.txt").write_text("photo/0.png\nphoto/1.png\nphoto/2.png\n")
    (tmp_path / "photo_test.txt").write_text("photo/2.png\nphoto/3.png\n")
    lists = [tmp_path / "photo_train.txt", tmp_path / "photo_test.txt"]
    for arguments in (lists, [f"p={lists[0]},test={lists[1]}"], [f"p={lists[0]}", f"p={lists[1]}"]):
        code, text = run(*arguments, "--json")
        assert code == 2 and json.loads(text)["found"] == {"leak": 1}
        assert [part["split"] for part in json.loads(text)["domains"]] == ["train", "test"]


def test_command_line_refuses_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none", tmp_path / "empty", f"photo={tmp_path / 'none'}"):
        assert run(source)[0] == 2
