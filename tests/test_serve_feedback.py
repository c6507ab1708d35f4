"""Marks of hits: kept whole or not at all, and pairs made of them that training on pairs reads."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
from catalog_tools import FakeModel
from cli_zoo import answer_of, failing_writes, refused, works
from hypothesis import given, settings
from hypothesis import strategies as st
from ihda_zoo import settings as ihda_settings
from serve_zoo import error_of, item_id, make_catalog, noise, png, served, strokes

from isthmus.data.manifest import Manifest
from isthmus.data.paired import read_paired_data
from isthmus.errors import IsthmusError
from isthmus.serve.feedback import Feedback, Full, Mark, Side, read_marks
from isthmus.serve.pairs import make_pairs


class World:
    """A client of a catalog whose marks go to `folder/marks`."""

    def __init__(self, folder: Path, client: Any) -> None:
        self.folder, self.client = folder, client
        self.marks = folder / "marks"

    def draw(self, end: tuple[float, float] = (180, 180)) -> dict[str, Any]:
        line = [(20, 20), end]
        return self.client.post("/api/search", json={"strokes": strokes(line), "k": 6}).json()  # type: ignore[no-any-return]

    def mark(self, search: str, item: str, right: Any = True) -> Any:
        return self.client.post("/api/feedback", json={"search": search, "item": item, "right": right})

    def lines(self) -> list[Any]:
        path = self.marks / "marks.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("feedback")
    with served(make_catalog(folder, items=8), feedback=folder / "marks") as client:
        yield World(folder, client)


def test_a_mark_is_on_the_disk_when_it_is_answered(world: World) -> None:
    found = world.draw()
    hit = found["hits"][0]["id"]
    before = world.lines()
    answer = world.mark(found["search"], hit)
    assert (answer.status_code, answer.json()) == (201, {})
    (line,) = world.lines()[len(before) :]
    assert line["right"] is True and line["item"]["id"] == hit and line["item"]["domain"] == "photo"
    assert line["query"]["domain"] == "sketch" and line["query"]["id"] is None
    assert line["model"] == FakeModel().fingerprint
    data = (world.marks / line["query"]["path"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == line["query"]["content"]
    assert data.startswith(b"\x89PNG")
    assert set(line) == {"query", "item", "right", "model"}  # nobody, nowhere, at no time
    # The image of a query is stored once.
    images = len(list((world.marks / "queries").rglob("*.*")))
    assert world.mark(found["search"], found["hits"][1]["id"], False).status_code == 201
    assert len(list((world.marks / "queries").rglob("*.*"))) == images


def test_only_hits_of_a_search_that_was_made_can_be_marked(world: World) -> None:
    found = world.draw()
    lines = world.lines()
    others = {item_id(number) for number in range(8)} - {hit["id"] for hit in found["hits"]}
    error_of(world.mark("never", found["hits"][0]["id"]), 404, "not_found")
    error_of(world.mark(found["search"], min(others)), 400, "bad_request")
    error_of(world.mark(found["search"], "../../etc/passwd"), 400, "bad_request")
    whole = {"search": "x", "item": "x", "right": True}
    for body in ({}, {"search": "x"}, [], whole | {"search": 1}, whole | {"right": "yes"}, whole | {"who": "me"}):
        error_of(world.client.post("/api/feedback", json=body), 400, "bad_request")
    assert world.lines() == lines


def test_a_search_by_an_item_is_marked_with_the_item(world: World) -> None:
    found = world.client.post("/api/search", json={"id": item_id(2), "k": 3}).json()
    assert world.mark(found["search"], found["hits"][0]["id"]).status_code == 201
    last = world.lines()[-1]
    assert last["query"]["id"] == item_id(2) and Path(last["query"]["path"]).is_file()


def test_without_the_setting_nothing_can_be_marked_and_nothing_is_remembered(tmp_path: Path) -> None:
    with served(make_catalog(tmp_path, items=2)) as client:
        found = client.post("/api/search", json={"id": item_id(0)}).json()
        said = {"search": found["search"], "item": item_id(1), "right": True}
        error_of(client.post("/api/feedback", json=said), 404, "not_found")
        assert len(client.app.state.engine.recent) == 0  # type: ignore[attr-defined]


def test_a_full_disk_is_told_and_no_half_mark_stays(world: World) -> None:
    found = world.draw(end=(20, 180))
    lines = world.lines()
    with failing_writes("*.png"):
        error_of(world.mark(found["search"], found["hits"][0]["id"]), 503, "not_ready")
    assert world.lines() == lines
    assert world.mark(found["search"], found["hits"][0]["id"]).status_code == 201


def side(name: str, domain: str, id: str | None = None) -> Side:
    content = hashlib.sha256(name.encode()).hexdigest()
    return Side(id, f"queries/{name}.png" if id is None else f"/{name}", content, domain)


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    store = Feedback(tmp_path, limit=5_000)
    item = side("b", "photo", "b")
    stored = 0
    with pytest.raises(Full):
        for number in range(100):
            image = png(noise(number))
            store.keep(Mark(store.query(image, "sketch"), item, True, ""), image)
            stored += 1
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert stored > 2 and used <= 5_000
    assert len(read_marks(tmp_path)[0]) == stored == len(list((tmp_path / "queries").rglob("*.png")))
    with pytest.raises(Full):  # also after a new start
        image = png(noise(200))
        Feedback(tmp_path, limit=5_000).keep(Mark(store.query(image, "sketch"), item, True, ""), image)


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    mark = Mark(side("a", "sketch"), side("b", "photo", "b"), True, "m")
    Feedback(tmp_path).keep(mark, None)
    path = tmp_path / "marks.jsonl"
    path.write_bytes(path.read_bytes() + b'{"query": {"id": nu')
    Feedback(tmp_path).keep(mark, None)
    assert read_marks(tmp_path) == ([mark, mark], 1)


keys = st.sampled_from(["query", "item", "right", "id", "path", "content", "domain"])
values = st.one_of(st.none(), st.booleans(), st.text(max_size=5))
trees = st.recursive(values, lambda inner: st.dictionaries(keys, inner), max_leaves=9)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(st.one_of(st.binary(max_size=30), trees.map(lambda value: json.dumps(value).encode()))))
def test_foreign_lines_are_passed_over(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "marks.jsonl").write_bytes(b"\n".join(lines))
    marks, torn = read_marks(folder)
    assert len(marks) + torn <= len((folder / "marks.jsonl").read_bytes().splitlines())


class Marks:
    """Marks by hand, of images that are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Feedback(folder / "marks")

    def query(self, number: int, domain: str = "sketch") -> tuple[Side, bytes]:
        image = png(noise(number))
        return self.store.query(image, domain), image

    def item(self, number: int, domain: str = "photo") -> Side:
        path = self.folder / f"{number}.png"
        if not path.exists():
            path.write_bytes(png(noise(1000 + number)))
        return Side(f"{domain}/{number}", str(path), hashlib.sha256(path.read_bytes()).hexdigest(), domain)

    def say(self, query: int, item: int, right: bool = True, domain: str = "sketch") -> None:
        found, image = self.query(query, domain)
        self.store.keep(Mark(found, self.item(item), right, "m"), image)

    def pairs(self) -> Any:
        return make_pairs(read_marks(self.store.folder)[0], self.store.folder)


def shapes(manifest: Manifest) -> set[frozenset[str]]:
    """The identities, as sets of domains and numbers of files."""
    groups: dict[str, set[str]] = {}
    for row in manifest:
        groups.setdefault(str(row.identity), set()).add(row.id.rpartition("/")[2] if row.domain == "photo" else "query")
    return {frozenset(group) for group in groups.values()}


def test_what_was_marked_right_becomes_identities(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.say(1, 1)
    marks.say(1, 2)  # one query, two photos
    marks.say(2, 3)
    marks.say(3, 3)  # two queries, one photo
    marks.say(4, 4, False)
    marks.say(5, 5)
    marks.say(5, 5, False)  # taken back
    marks.say(6, 6, False)
    marks.say(6, 6)  # the other way round
    marks.say(7, 7, domain="photo")  # no pair across domains
    marks.say(8, 8)
    marks.say(9, 8)
    marks.say(9, 9)
    marks.say(8, 9, False)  # joined by a chain and said to differ
    found = marks.pairs()
    assert shapes(found.pairs) == {frozenset({"query", "1", "2"}), frozenset({"query", "3"}), frozenset({"query", "6"})}
    assert sorted(row.domain for row in found.pairs) == ["photo"] * 4 + ["sketch"] * 4
    assert (found.identities, found.one_domain, found.contradictory, found.gone) == (3, 1, 1, 0)
    assert sorted(item.id for _, item in found.wrong) == ["photo/4", "photo/5", "photo/9"]
    assert all(Path(row.path).is_file() for row in found.pairs)


def test_what_is_gone_or_changed_is_left_out(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for number in range(4):
        marks.say(number, number)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(png(noise(77)))
    query, _ = marks.query(2)
    (marks.store.folder / query.path).unlink()
    found = marks.pairs()
    assert shapes(found.pairs) == {frozenset({"query", "3"})} and found.gone == 3


@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=14))
def test_identities_are_the_connected_components(said: list[tuple[int, int, bool]], prepared: Marks) -> None:
    marks = [Mark(prepared.query(q)[0], prepared.item(i), right, "m") for q, i, right in said]
    last = {(q, i): right for q, i, right in said}
    groups: list[set[str]] = []
    for (q, i), right in last.items():
        if right:
            touching = [group for group in groups if group & {f"q{q}", f"i{i}"}]
            groups = [group for group in groups if group not in touching]
            groups.append({f"q{q}", f"i{i}"}.union(*touching))
    denied = [{f"q{q}", f"i{i}"} for (q, i), right in last.items() if not right]
    sound = [group for group in groups if not any(pair <= group for pair in denied)]
    found = make_pairs(marks, prepared.store.folder)
    names = {prepared.query(q)[0].content[:32]: f"q{q}" for q in range(5)}
    result: dict[str, set[str]] = {}
    for row in found.pairs:
        key = row.id.rpartition("/")[2]
        name = names[key.removeprefix("query-")] if row.domain == "sketch" else f"i{key}"
        result.setdefault(str(row.identity), set()).add(name)
    assert sorted(map(sorted, result.values())) == sorted(map(sorted, sound))
    assert found.contradictory == len(groups) - len(sound)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Marks:
    marks = Marks(tmp_path_factory.mktemp("prepared"))
    for number in range(5):
        marks.say(number, number)
    return marks


def test_export_writes_what_training_on_pairs_reads(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    for number in range(6):
        marks.say(number, number)
    marks.say(0, 3, False)
    out = tmp_path / "pairs.csv"
    counts = answer_of("feedback", "export", marks.store.folder, "--out", out)
    assert counts == {"marks": 7, "identities": 6, "images": 12, "wrong": 1, "gone": 0, "one_domain": 0,
                      "contradictory": 0, "unreadable": 0}  # fmt: skip
    config = ihda_settings(tmp_path, **{
        "data__query": {"name": "sketch", "train": str(out)}, "data__gallery": {"name": "photo", "train": str(out)},
        "data__source": None, "ihda__stages": "target",
    })  # fmt: skip
    data = read_paired_data(config.data, seed=0, attributes=[], source="optional")
    assert [len(rows) for rows in data.train] == [6, 6]
    assert {row.identity for row in data.train[0]} == {row.identity for row in data.train[1]}
    with (tmp_path / "pairs-wrong.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["item"] == "photo/3" and Path(row["query_path"]).is_file() and Path(row["item_path"]).is_file()
    text = works("feedback", "export", marks.store.folder, "--out", tmp_path / "other.parquet").stdout
    assert "6 identities with 12 images" in text and len(Manifest.load(tmp_path / "other.parquet")) == 12


def test_export_refuses_what_it_can_not_use(tmp_path: Path) -> None:
    refused("feedback", "export", tmp_path / "none", "--out", tmp_path / "a.csv", says=("holds no marks",))
    marks = Marks(tmp_path)
    marks.say(1, 1)
    (tmp_path / "1.png").unlink()
    folder = marks.store.folder
    refused("feedback", "export", folder, "--out", tmp_path / "a.csv", says=("none can be used", "1 images are gone"))
    refused("feedback", "export", folder, "--out", tmp_path / "a.txt", says=("end it in .csv",))
    out = tmp_path / "a.csv"
    refused("feedback", "export", folder, "--out", out, "--wrong", out, says=("a file each",))
    assert not list(tmp_path.glob("*.csv"))
    with pytest.raises(IsthmusError, match="file"):
        Feedback(folder / "marks.jsonl")
