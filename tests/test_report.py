"""The report: one file, nothing from outside, everything said and everything escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from isthmus import IsthmusError
from isthmus.data.manifest import Manifest, Row
from isthmus.evaluate.run import Evaluation, evaluate_embeddings
from isthmus.report.gallery import Ask, choose_queries
from isthmus.report.html import write_report
from isthmus.report.pictures import Pictures

EVIL = "<script>alert('x')</script>\"&"
CLASSES = ("cat", "dog", EVIL)
VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; `problems` lists tags that don't nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    folder = tmp_path_factory.mktemp("drawn")
    parts = []
    for domain in ("sketch", "photo"):
        rows = []
        for i in range(18):
            label = CLASSES[i % 3]
            path = folder / f"{domain}{i}.png"
            picture = Image.new("RGB", (90, 60), "white")
            draw = ImageDraw.Draw(picture)
            draw.ellipse(
                (5 * (i % 3), 5, 50, 50), outline="black", fill=None if domain == "sketch" else (9 * i, 80, 120)
            )
            picture.save(path)
            rows.append(Row(f"{domain}/{label}/{i}.png", str(path), domain, label=label))
        parts.append(Manifest(rows))
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def measure(manifests: tuple[Manifest, Manifest]) -> Callable[..., Evaluation]:
    def measure(noise: float, *, plain: bool = True) -> Evaluation:
        rng = np.random.default_rng(3)
        queries, gallery = manifests
        centres = rng.normal(size=(3, 8))
        q, g = (
            torch.tensor(np.stack([centres[i % 3] for i in range(18)]) + noise * rng.normal(size=(18, 8)))
            for _ in range(2)
        )
        others = {"plain": (q + 0.5, g)} if plain else None
        return evaluate_embeddings(q, g, queries, gallery, setting="centred", others=others, bootstrap=50)

    return measure


@pytest.fixture
def paths(manifests: tuple[Manifest, Manifest]) -> dict[str, str]:
    return {row.id: row.path for row in manifests[0] + manifests[1]}


def read(path: Path) -> tuple[str, Page]:
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def check_self_contained(text: str, page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]", text)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert "url(" not in text
    assert "@import" not in text
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not page.problems


def test_one_evaluation(tmp_path: Path, measure: Callable[..., Evaluation], paths: dict[str, str]) -> None:
    evaluation = measure(1.5, plain=False)
    text, page = read(write_report(tmp_path / "r.html", "One", {"syncdr": evaluation}, images=paths))
    check_self_contained(text, page)
    side = evaluation.side("sketch->photo")
    for metric in side.scores:
        assert metric in page.text
    low, high = side.intervals["Prec@1"]
    assert f"{side.scores['Prec@1']:.3f}" in page.text
    assert f"{low:.3f}–{high:.3f}" in page.text
    assert f"{side.chance['mAP@all']:.3f}" in page.text
    assert side.protocol[1:] in page.text
    assert page.text.count("sketch → photo") >= 3
    assert page.text.count("photo → sketch") >= 3
    assert {"Best", "Typical", "Worst"} <= set(re.findall(r"\w+", page.text))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * 9 * (1 + 8)
    assert "upright line: chance" not in page.text  # the bars that compare evaluations


def test_frames_follow_relevance(tmp_path: Path, measure: Callable[..., Evaluation], paths: dict[str, str]) -> None:
    evaluation = measure(1.5, plain=False)
    text, _ = read(write_report(tmp_path / "r.html", "One", {"a": evaluation}, images=paths))
    kinds = re.findall(r'<figure class="tile (right|wrong)">.*?<figcaption>(.)', text)
    assert {kind for kind, _ in kinds} == {"right", "wrong"}
    assert all((kind == "right") == (sign == "✓") for kind, sign in kinds)


def test_several_evaluations(tmp_path: Path, measure: Callable[..., Evaluation], paths: dict[str, str]) -> None:
    evaluations = {"SynCDR": measure(0.8), "CDS": measure(2.0), "un<trained>": measure(9.0)}
    text, page = read(write_report(tmp_path / "r.html", "Three", evaluations, images=paths.get, notes=["Mind <this>."]))
    check_self_contained(text, page)
    for name, evaluation in evaluations.items():
        for setting in ("centred", "plain"):
            assert f"{name} ({setting})" in page.text
            value = evaluation.side("photo->sketch", setting).scores["mAP@all"]
            assert f"{value:.3f}" in page.text
    assert "Mind <this>." in page.text
    assert "the same query with CDS (centred), un<trained> (centred)" in page.text
    assert "upright line: chance" in page.text
    rows = re.findall(r'<tr class="primary">.*?</tr>', text, re.DOTALL)
    assert len(rows) == 2
    best = max(e.side("sketch->photo", s).scores["Prec@1"] for e in evaluations.values() for s in ("centred", "plain"))
    assert f'class="best">{best:.3f}' in rows[0]


def test_hostile_names_are_escaped(tmp_path: Path, measure: Callable[..., Evaluation], paths: dict[str, str]) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text(f"method: {EVIL}\n")
    (run / "model" / "config.json").write_text('{"provenance": {"method": "<script>bad</script>"}}')
    (run / "log.csv").write_text(f"epoch,loss,val/{EVIL.replace(',', '')}/x\n1,2,3\n2,1,4\n")
    text, page = read(
        write_report(
            tmp_path / "r.html", EVIL, {EVIL: measure(1.0)}, images=paths, run_folder=run, notes=[EVIL], subtitle=EVIL
        )
    )
    check_self_contained(text, page)
    assert "<script" not in text
    assert page.text.count(EVIL) > 10


def test_broken_and_missing_pictures_are_blank(
    tmp_path: Path, measure: Callable[..., Evaluation], paths: dict[str, str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture at all")
    some = dict.fromkeys(paths, str(broken)) | dict.fromkeys(list(paths)[:9], "/nowhere.png")
    text, page = read(write_report(tmp_path / "r.html", "x", {"a": measure(1.0)}, images=some))
    assert "<img" not in text
    assert "no picture" in page.text


def test_without_pictures_there_is_no_gallery(tmp_path: Path, measure: Callable[..., Evaluation]) -> None:
    text, _ = read(write_report(tmp_path / "r.html", "x", {"a": measure(1.0)}))
    assert 'id="queries"' not in text
    assert 'href="#queries"' not in text


def test_errors_are_sentences(tmp_path: Path, measure: Callable[..., Evaluation]) -> None:
    with pytest.raises(IsthmusError, match="at least one evaluation"):
        write_report(tmp_path / "r.html", "x", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(IsthmusError, match="file stands where a folder is needed"):
        write_report(tmp_path / "file" / "r.html", "x", {"a": measure(1.0)})


def test_queries_are_chosen_once_each_and_by_score() -> None:
    asks = [Ask(f"q{i:02}", "abc"[i % 3], i / 20) for i in range(20)]
    groups = dict(choose_queries(asks, 3))
    assert [ask.id for ask in groups["Best"]] == ["q19", "q18", "q17"]
    assert [ask.id for ask in groups["Worst"]] == ["q00", "q01", "q02"]
    assert all(abs(ask.score - 0.5) < 0.2 for ask in groups["Typical"])
    same = dict(choose_queries([Ask(f"q{i:02}", "a" if i > 4 else "b", i / 20) for i in range(20)], 3))
    assert len({ask.id for group in same.values() for ask in group}) == 9
    assert choose_queries([]) == []
    few = choose_queries([Ask("only", "a", 0.5)])
    assert [(name, len(group)) for name, group in few] == [("Best", 1)]


def test_pictures_are_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((900, 700)).save(tmp_path / "noise.jpg")
    Image.new("L", (900, 700), 255).save(tmp_path / "white.png")
    pictures = Pictures({"noise": tmp_path / "noise.jpg", "white": tmp_path / "white.png"})
    assert (pictures("noise") or "").startswith("data:image/jpeg;base64,")
    assert (pictures("white") or "").startswith("data:image/png;base64,")
    assert len(pictures("noise") or "") < 12_000
    assert pictures("unknown") is None
