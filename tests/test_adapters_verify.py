"""`isthmus data verify` and what `isthmus data list --root` misses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapters_zoo import make_pku
from classes_zoo import make_classes
from cli_zoo import answer_of, call, works

from isthmus.data.adapters import ADAPTERS
from isthmus.data.adapters.layouts import Domain, Family
from isthmus.data.adapters.verify import missing_parts, verify

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


@pytest.fixture
def pacs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete PACS of 14 images a domain."""
    make_classes(tmp_path / "pacs", dict.fromkeys(DOMAINS, 2), CLASSES)
    small = Family(tuple(Domain(name, ((name,),), 14) for name in DOMAINS), 7, ("full",))
    object.__setattr__(ADAPTERS["pacs"], "family", small)
    return tmp_path / "pacs"


@pytest.fixture(autouse=True)
def as_it_was() -> object:
    family = ADAPTERS["pacs"].family
    yield
    object.__setattr__(ADAPTERS["pacs"], "family", family)


def test_a_complete_set_is_fine(pacs: Path) -> None:
    said = answer_of("data", "verify", "pacs", "--root", pacs)
    assert said["ok"] and not said["problems"]
    assert said["counts"][0] == {"domain": "photo", "images": 14, "classes": 7, "published": 14, "fits": True}
    printed = works("data", "verify", "pacs", "--root", pacs).stdout
    assert "problem" not in printed and "Next:  isthmus data prepare pacs" in printed


def test_what_does_not_fit_is_named_and_the_exit_code_is_2(pacs: Path) -> None:
    (pacs / "photo" / "dog" / "00001.jpg").unlink()
    (pacs / "sketch" / "dog" / "00001.jpg").write_bytes(b"")
    broken = pacs / "sketch" / "dog" / "00002.jpg"
    broken.write_bytes(b"\xff\xd8 and no more")
    (pacs / "cartoon").rename(pacs.parent / "elsewhere")
    done = call("data", "verify", "pacs", "--root", pacs, "--json")
    assert done.exit_code == 2
    problems = json.loads(done.stdout)["problems"]
    assert len(problems) == 3
    assert "cartoon missing beneath" in problems[0] and "domaingeneralization.github.io" in problems[0]
    assert problems[1] == "photo: 13 images, the publication has 14."
    assert "2 of 41 images can't be read" in problems[2] and "00001.jpg is empty" in problems[2]
    quick = call("data", "verify", "pacs", "--root", pacs, "--quick")
    assert quick.exit_code == 2 and "1 of 41 images can't be read" in quick.stdout
    assert "problem: photo: 13 images" in quick.stdout and "Get it from https://domain" in quick.stdout


def test_a_class_too_many_and_an_image_outside(pacs: Path) -> None:
    make_classes(pacs, {"photo": 1}, ("cat",))
    (pacs / "photo" / "loose.jpg").write_bytes((pacs / "photo" / "dog" / "00001.jpg").read_bytes())
    found = verify(ADAPTERS["pacs"], pacs, progress=False)
    assert "photo: 1 images lie in no class folder." in found.problems
    assert "photo: 8 classes, the publication has 7." in found.problems


def test_sets_of_pairs_are_counted_too(tmp_path: Path) -> None:
    make_pku(tmp_path)
    assert verify(ADAPTERS["pku"], tmp_path, decode=False, progress=False).ok
    (tmp_path / "photo" / "1_1_3.jpg").unlink()
    found = verify(ADAPTERS["pku"], tmp_path, decode=False, progress=False)
    assert found.problems == ("photo: 399 images, the publication has 400.",)
    (tmp_path / "sketch" / "1.jpg").unlink()
    found = verify(ADAPTERS["pku"], tmp_path, decode=False, progress=False)
    assert not found.ok and "1 only as photo (1)" in found.problems[0]


@pytest.mark.parametrize("name", ADAPTERS)
def test_nothing_there_is_a_problem_for_each(name: str, tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "gone"):
        found = verify(ADAPTERS[name], root, progress=False)
        assert not found.ok and all(text.endswith(".") and "\n" not in text for text in found.problems)
        assert ADAPTERS[name].page.split(" ")[0] in " ".join(found.problems)


def test_list_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "Art").mkdir()
    (tmp_path / "sketch").mkdir()
    said = {fact["name"]: fact["missing"] for fact in answer_of("data", "list", "--root", tmp_path)}
    assert said["office-home"] == ["Real World", "Clipart", "Product"]
    assert said["pairs"] == ["photo"] and said["pku"] == ["photo", "styleAnnotation"]
    printed = works("data", "list", "pairs", "--root", tmp_path).stdout
    assert "missing: photo" in printed and "pku" not in printed
    (tmp_path / "photo").mkdir()
    assert missing_parts(ADAPTERS["pairs"], tmp_path) == []
    assert call("data", "list", "imagenet").exit_code == 2


def test_a_cleaned_release_fits_too_and_an_unknown_number_always() -> None:
    clipart = next(d for d in ADAPTERS["domainnet"].family.domains if d.name == "clipart")  # type: ignore[union-attr]
    assert [clipart.fits(n) for n in (48833, 48129, 48130)] == [True, True, False]
    assert Domain("photo", (("images",),)).fits(3)
