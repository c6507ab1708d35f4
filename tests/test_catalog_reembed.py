"""Another model for a catalog: built beside it, switched at once, and nobody's work lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from catalog_tools import FakeModel, Other, brute_force, photos, picture
from cli_zoo import call

from isthmus import Catalog, IsthmusError
from isthmus.catalog import reembed as module
from isthmus.catalog.overlap import overlap, rank_biased_overlap
from isthmus.catalog.reembed import reembed

COUNT = 15


@pytest.fixture
def place(tmp_path: Path) -> Path:
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    folder = photos(tmp_path / "photos", COUNT)
    (folder / "cups").mkdir()
    (folder / "014.png").rename(folder / "cups" / "014.png")
    catalog.add(folder, metadata={f"photo/{number:03}.png": {"price": number} for number in range(5)})
    return tmp_path / "catalog"


def facts(catalog: Catalog) -> dict[str, tuple[Any, ...]]:
    return {row["id"]: tuple(row.values()) for row in catalog.rows()}


def check(place: Path, model: FakeModel) -> None:
    """The catalog has its model's vectors of its images, and its searches are brute force."""
    catalog = Catalog.open(place, model)
    assert catalog.verify(files=True).to_dict() | {"rows": 0, "sound": True} == {
        "rows": 0, "problems": [], "files_missing": [], "files_changed": [], "sound": True,
    }  # fmt: skip
    rows = list(catalog.rows())
    vectors = model.encode([row["path"] for row in rows], domain="photo")
    gallery = {row["id"]: vector.astype(np.float32) for row, vector in zip(rows, vectors, strict=True)}
    query = gallery[rows[3]["id"]]
    hits = [(hit.id, hit.score) for hit in catalog.search(query, k=5)]
    expected = brute_force(query, gallery, 5)
    assert [id for id, _ in hits] == [id for id, _ in expected]
    np.testing.assert_allclose([score for _, score in hits], [score for _, score in expected], atol=1e-6)


@pytest.mark.parametrize("dim", [20, 48])
def test_all_but_the_vectors_stays_and_readers_go_on(place: Path, dim: int) -> None:
    old, new = FakeModel(), Other(dim=dim)
    reader, writer = Catalog.open(place, old), Catalog.open(place, old)
    query = np.ones(48)
    before, rows, version = reader.search(query, k=20), facts(reader), reader.info()["version"]
    done = reembed(place, new)
    assert done.switched and (done.items, done.embedded, done.gone, done.changed) == (COUNT, COUNT, [], [])
    assert (done.old, done.new, done.carried) == (old.fingerprint, new.fingerprint, 0)
    check(place, new)
    catalog = Catalog.open(place, new)
    assert facts(catalog) == rows and catalog.facts.dim == dim and catalog.info()["version"] == done.version
    assert [one.what for one in catalog.versions(1)] == [
        f"re-embedded: model {old.fingerprint} became {new.fingerprint}"
    ]
    assert not Path(place, "reembedding.lance").exists()
    # Whoever had it open answers from the old version, and may not write into the new one.
    assert reader.superseded and reader.search(query, k=20) == before and facts(reader) == rows
    assert reader.search(place.parent / "photos" / "003.png", domain="photo", k=1)[0].score == pytest.approx(1)
    for change in (
        lambda: writer.delete(["photo/001.png"]),
        lambda: writer.update({"photo/001.png": {"price": 7}}),
        lambda: writer.update({"photo/001.png": {"new": 7}}),
        lambda: writer.add(photos(place.parent / "more", 2, start=50)),
        lambda: writer.compact(),
    ):
        with pytest.raises(IsthmusError, match=r"another model.*open it again"):
            change()
    assert facts(catalog) == rows
    with pytest.raises(IsthmusError, match="was made with the model"):
        Catalog.open(place, old)
    # Going back brings the old model back, and those who had it open are current again.
    catalog.rollback(version)
    assert not reader.superseded and catalog.superseded
    assert writer.delete(["photo/001.png"]) == 1 and len(reader) == COUNT - 1
    assert facts(catalog) == rows
    check(place, old)


def test_a_write_that_began_before_the_switch_is_refused(place: Path) -> None:
    writer = Catalog.open(place, FakeModel())
    stale = writer.items.table  # looked at, found current, and then:
    reembed(place, Other(dim=48))
    with pytest.raises(RuntimeError, match="incompatible with concurrent transaction Overwrite"):
        stale.delete("id = 'photo/001.png'")
    data = stale.to_arrow().slice(0, 2)
    with pytest.raises(RuntimeError, match="incompatible with concurrent transaction Overwrite"):
        stale.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(data)
    check(place, Other(dim=48))


def test_images_that_are_gone_are_listed_and_nothing_is_switched(place: Path) -> None:
    folder = place.parent / "photos"
    new = Other()
    (folder / "004.png").rename(place.parent / "away.png")
    (folder / "005.png").write_bytes(b"no image")
    picture(folder / "006.png", 106)
    done = reembed(place, new)
    assert not done.switched and [bad.id for bad in done.gone] == ["photo/004.png", "photo/005.png"]
    assert "004.png does not exist" in done.gone[0].reason and done.changed == ["photo/006.png"]
    assert Catalog.open(place).facts.fingerprint == FakeModel().fingerprint and len(Catalog.open(place)) == COUNT
    assert new.encoded and len(new.encoded) == done.embedded + 1  # the unreadable one was tried
    (place.parent / "away.png").rename(folder / "004.png")
    new.encoded.clear()
    done = reembed(place, new, leave_out=True)
    assert done.switched and [bad.id for bad in done.gone] == ["photo/005.png"] and done.items == COUNT - 1
    assert sorted(Path(path).name for path in new.encoded) == ["004.png", "005.png"]  # the others were kept
    check(place, new)


def test_images_that_are_all_gone_are_an_unmounted_disk(place: Path) -> None:
    (place.parent / "photos").rename(place.parent / "unmounted")
    with pytest.raises(IsthmusError, match="disk mounted"):
        reembed(place, Other(), leave_out=True)
    assert len(Catalog.open(place)) == COUNT


def test_what_changes_while_it_builds_comes_along(place: Path) -> None:
    writer = Catalog.open(place, FakeModel())

    def meanwhile(count: int) -> None:
        if count == 3:
            writer.delete(["photo/002.png", "photo/010.png"])
            writer.update({"photo/003.png": {"price": 33}, "photo/004.png": {"price": None, "brand": "Acme"}})
            writer.add(photos(place.parent / "more", 2, start=70))

    new = Other(before=meanwhile)
    done = reembed(place, new)
    assert done.switched and done.carried == 0 and done.items == COUNT
    rows = {row["id"]: row for row in Catalog.open(place).rows()}
    assert "photo/002.png" not in rows and "photo/070.png" in rows
    assert (rows["photo/003.png"]["price"], rows["photo/004.png"]["price"]) == (33, None)
    assert rows["photo/004.png"]["brand"] == "Acme"
    check(place, Other())


@pytest.mark.parametrize("killed", [False, True])
def test_what_changes_in_the_moment_of_the_switch_is_carried_over(
    place: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    writer = Catalog.open(place, FakeModel())
    switch, complete = module._Job.switch, module._Job.complete

    def late(job: Any, *arguments: Any) -> int:
        writer.delete(["photo/002.png"])
        writer.update({"photo/003.png": {"price": 33, "brand": "Acme"}})
        writer.add(photos(place.parent / "more", 2, start=70))
        return switch(job, *arguments)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Job, "switch", late)
    if killed:
        monkeypatch.setattr(module._Job, "complete", stop)
        with pytest.raises(KeyboardInterrupt):
            reembed(place, Other())
        monkeypatch.setattr(module._Job, "complete", complete)
        Catalog.open(place, Other()).update({"photo/001.png": {"price": 11}})  # the new one is in use already
    done = reembed(place, Other())
    assert done.switched and done.carried == 4
    rows = {row["id"]: row for row in Catalog.open(place).rows()}
    assert len(rows) == COUNT + 1 and "photo/002.png" not in rows and "photo/071.png" in rows
    assert (rows["photo/003.png"]["price"], rows["photo/003.png"]["brand"]) == (33, "Acme")
    assert rows["photo/001.png"]["price"] == (11 if killed else 1)
    check(place, Other())
    assert reembed(place, Other()).carried == 0  # nothing is left to do


def test_leftovers_of_a_third_model_and_of_a_half_made_table_are_no_trouble(place: Path) -> None:
    (place.parent / "photos" / "004.png").rename(place.parent / "away.png")
    assert not reembed(place, Other("third", dim=7)).switched
    (place.parent / "away.png").rename(place.parent / "photos" / "004.png")
    assert lancedb.connect(place).open_table("reembedding").count_rows() == COUNT - 1
    done = reembed(place, Other())
    assert done.switched and done.embedded == COUNT
    check(place, Other())
    (place.parent / "photos" / "004.png").rename(place.parent / "away.png")
    assert not reembed(place, Other("third", dim=7)).switched
    (place.parent / "away.png").rename(place.parent / "photos" / "004.png")
    done = reembed(place, Other())  # it is of this model already: nothing to do, and the third's work stays
    assert done.switched and (done.items, done.embedded, done.carried) == (COUNT, 0, 0)
    done = reembed(place, Other("third", dim=7))
    assert done.switched and done.embedded == 1
    (place / "reembedding.lance" / "data").mkdir(parents=True)
    assert reembed(place, FakeModel()).switched
    check(place, FakeModel())


def test_an_empty_catalog_and_a_model_of_other_domains(tmp_path: Path, place: Path) -> None:
    Catalog.create(tmp_path / "empty", FakeModel())
    done = reembed(tmp_path / "empty", Other())
    assert done.switched and done.items == 0 and done.overlap is None
    assert Catalog.open(tmp_path / "empty", Other()).add(tmp_path / "photos").added == COUNT
    model = Other()
    model.domains = ("drawing", "painting")
    with pytest.raises(IsthmusError, match="no domain 'photo'"):
        reembed(place, model)
    with pytest.raises(IsthmusError, match="no catalog"):
        reembed(tmp_path / "nowhere", Other())


def test_how_the_hits_changed(place: Path) -> None:
    done = reembed(place, Other("negative"), sample=0)
    assert done.overlap is None
    same = reembed(place, Other("same but for its name"), sample=6).overlap
    assert same is not None and (same.queries, same.share, same.rank_biased, same.same) == (6, 1, 1, 1)
    assert same.most_changed == []
    before = {id: [hit.id for hit in Catalog.open(place).search(id=id, k=10)] for id in facts(Catalog.open(place))}
    found = reembed(place, FakeModel(), sample=100).overlap
    after = {id: [hit.id for hit in Catalog.open(place).search(id=id, k=10)] for id in before}
    assert found is not None and found.queries == COUNT
    assert found.share == pytest.approx(np.mean([len(set(before[id]) & set(after[id])) / 10 for id in before]))
    biased = {id: rank_biased_overlap(before[id], after[id]) for id in before}
    assert found.rank_biased == pytest.approx(np.mean(list(biased.values()))) and 0 < found.rank_biased < 1
    assert biased[found.most_changed[0]] == min(biased.values())


def test_the_measures_of_overlap() -> None:
    assert overlap([], []) == rank_biased_overlap([], []) == 1
    assert overlap(list("abcd"), list("cdef")) == 0.5 and overlap(["a"], []) == rank_biased_overlap(["a"], []) == 0
    # Webber, Moffat and Zobel: agreement at depth 1, 2, 3 is 0, 1, 2/3; weights 1, .5, .25.
    assert rank_biased_overlap(list("abc"), list("bad"), 0.5) == pytest.approx((0.5 + 0.25 * 2 / 3) / 1.75)
    top, bottom = list("xbcdefghij"), list("abcdefghix")
    original = list("abcdefghij")
    assert rank_biased_overlap(original, top) < rank_biased_overlap(original, bottom) < 1


def test_the_verb(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_model", lambda model: (Other(str(model)), str(model)))
    (place.parent / "photos" / "004.png").rename(place.parent / "away.png")
    shown = call("catalog", "reembed", place, "--model", "runs/better")
    assert shown.exit_code == 2 and "004.png does not exist" in shown.stderr and "not switched" in shown.stderr
    shown = call("catalog", "reembed", place, "--model", "runs/better", "--leave-out")
    assert shown.exit_code == 0 and "14 items, 0 embedded now" in shown.stdout
    assert "first 10 hits of 14 items" in shown.stdout and "of the new model as of version" in shown.stdout
    assert Catalog.open(place).facts.model.endswith("runs/better")
    done = json.loads(call("catalog", "reembed", place, "--model", "runs/third", "--sample", 4, "--json").stdout)
    assert done["switched"] and done["overlap"]["queries"] == 4 and done["gone"] == []
