"""Versions of a catalog: what each changed, going back, and clearing away without hurting whoever reads."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel, photos, picture
from cli_zoo import call

from isthmus import Catalog, IsthmusError
from isthmus.catalog.history import SLACK, merge_files

ONES = np.ones(48)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Catalog.create(tmp_path / "catalog", FakeModel()).add(aged(photos(tmp_path / "photos", 12)))
    return tmp_path / "catalog"


def aged(folder: Path) -> Path:
    """The folder, its files old enough that their times are noted at once and not by a second change."""
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    return folder


def ids(catalog: Catalog) -> list[str]:
    return sorted(row["id"] for row in catalog.rows())


def test_versions_tell_what_changed(tmp_path: Path, place: Path) -> None:
    catalog = Catalog.open(place, FakeModel())
    catalog.update({"photo/001.png": {"price": 1}, "photo/002.png": {"price": 2}})
    picture(tmp_path / "photos" / "000.png", 100)
    catalog.add(aged(photos(tmp_path / "photos", 15, start=12)), thorough=True)
    catalog.delete(["photo/003.png", "photo/004.png", "nobody"])
    catalog.items.tidy(5)
    catalog.rollback(2)
    found = catalog.versions()
    assert [(one.number, one.rows, one.added, one.updated, one.deleted) for one in found] == [
        (9, 12, None, None, None), (8, 25, 0, 0, 0), (7, 25, 0, 0, 0), (6, 25, 0, 0, 2), (5, 27, 15, 1, 0),
        (4, 12, 0, 2, 0), (3, 12, None, None, None), (2, 12, 12, 0, 0), (1, 0, None, None, None),
    ]  # fmt: skip
    assert [one.what for one in found] == [
        "rolled back to version 2", "how hard the index looks", "index", "2 deleted", "15 added, 1 updated",
        "2 updated", "new columns: price", "12 added", "made",
    ]  # fmt: skip
    now = dt.datetime.now(dt.timezone.utc)
    times = [one.time for one in found]
    assert times == sorted(times, reverse=True) and now - dt.timedelta(minutes=5) < times[-1] and times[0] <= now
    assert {one.model for one in found} == {FakeModel().fingerprint}
    assert catalog.versions(3) == found[:3]
    catalog.update({f"photo/{number:03}.png": {"price": 9} for number in range(12)})  # the only file, written anew
    assert catalog.versions(1)[0].updated is None
    with pytest.raises(IsthmusError, match="at least 1"):
        catalog.versions(0)


def test_going_back_is_a_new_version_and_loses_nothing(place: Path) -> None:
    catalog, other = Catalog.open(place, FakeModel()), Catalog.open(place, FakeModel())
    before = catalog.search(ONES, k=12)
    number = catalog.info()["version"]
    catalog.delete(where="path LIKE '%5.png'")
    catalog.delete(["photo/001.png"])
    last = catalog.info()["version"]
    assert len(catalog) == 10
    assert catalog.rollback(number) == last + 1
    assert catalog.search(ONES, k=12) == before == other.search(ONES, k=12)
    assert not other.superseded and other.delete(["photo/001.png"]) == 1  # a writer goes on from there
    assert catalog.rollback(last) == last + 3
    assert len(other) == 10 and catalog.verify().sound
    assert catalog.rollback(last + 3) == last + 3 == catalog.info()["version"]


def test_going_back_to_what_is_not_there_changes_nothing(tmp_path: Path, place: Path) -> None:
    catalog = Catalog.open(place, FakeModel())
    with pytest.raises(IsthmusError, match=r"no version 7; it keeps 2, from 1 to 2.*catalog versions"):
        catalog.rollback(7)
    [first] = (place / "items.lance" / "data").iterdir()
    for number in range(12):
        picture(tmp_path / "photos" / f"{number:03}.png", 200 + number)
    catalog.add(tmp_path / "photos")
    first.unlink()
    with pytest.raises(IsthmusError, match="damaged"):
        catalog.rollback(2)
    assert catalog.info()["version"] == 3 and catalog.verify().sound


def test_compacting_keeps_items_and_readers(tmp_path: Path, place: Path) -> None:
    catalog, reader = Catalog.open(place, FakeModel()), Catalog.open(place, FakeModel())
    for start in range(12, 24, 3):
        catalog.add(photos(tmp_path / "more", 3, start=start))
    catalog.delete(["photo/001.png"])
    expected, listed = catalog.search(ONES, k=30), ids(catalog)
    batches = reader.items.scan(["id"], rows=2)
    next(batches)
    done = catalog.compact()
    assert (done.files_before, done.files_after) == (5, 1) and done.versions_after > done.versions_before == 7
    assert sum(len(batch) for batch in batches) == 21  # from the files that it had open
    assert catalog.search(ONES, k=30) == expected == reader.search(ONES, k=30)
    with pytest.raises(IsthmusError, match=r"2 hours.*--alone"):
        catalog.compact(dt.timedelta(minutes=5))
    done = catalog.compact(dt.timedelta(0), alone=True)
    assert done.versions_after == 1 and [one.number for one in catalog.versions()] == [done.version]
    assert catalog.versions()[0].what == "oldest version kept"
    assert len(list((place / "items.lance" / "data").iterdir())) == 1  # the bytes are gone too
    assert ids(Catalog.open(place)) == listed and catalog.verify().sound


class Clock:
    """A table whose versions are as old as said; notes what `optimize` is asked to drop."""

    def __init__(self, *ages: dt.timedelta) -> None:
        now = dt.datetime.now()
        self.times = [now - age for age in ages]
        self.asked: list[dt.timedelta] = []

    def list_versions(self) -> list[dict[str, Any]]:
        return [{"version": n, "timestamp": time, "metadata": {}} for n, time in enumerate(self.times, 1)]

    def optimize(self, *, cleanup_older_than: dt.timedelta, delete_unverified: bool) -> None:
        self.asked.append(cleanup_older_than)

    def kept(self) -> list[int]:
        """The versions that such a clean-up keeps."""
        limit = dt.datetime.now() - self.asked[-1]
        return [n for n, time in enumerate(self.times, 1) if time >= limit or n == len(self.times)]


def test_a_version_goes_by_how_long_it_has_been_out_of_use() -> None:
    day = dt.timedelta(days=1)
    # The third is old, but was the newest until a minute ago: whoever reads now has it open.
    table = Clock(30 * day, 20 * day, 10 * day, dt.timedelta(minutes=1))
    merge_files(table, 7 * day)
    assert table.kept() == [3, 4]
    merge_files(table, 15 * day)
    assert table.kept() == [2, 3, 4]
    for table in (Clock(10 * day), Clock(2 * day, day)):
        merge_files(table, 7 * day)
        assert table.kept() == list(range(1, len(table.times) + 1))
    assert dt.timedelta(minutes=1) > SLACK


def test_an_upkeep_of_its_own_never_drops_what_is_in_use(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog.open(place)
    monkeypatch.setattr("isthmus.catalog.items.FRAGMENTS", 0)
    assert catalog.items.tidy(10**6) == "compacted the table"
    assert [one.number for one in catalog.versions()][-1] == 1


def test_the_verbs(place: Path) -> None:
    catalog = Catalog.open(place)
    catalog.delete(["photo/001.png"])
    shown = call("catalog", "versions", place)
    assert shown.exit_code == 0 and "1 deleted" in shown.stdout and "12 added" in shown.stdout
    listed = json.loads(call("catalog", "versions", place, "--limit", 2, "--json").stdout)
    assert [one["number"] for one in listed] == [3, 2] and listed[0]["deleted"] == 1
    shown = call("catalog", "rollback", place, 2)
    assert shown.exit_code == 0 and "version 4 is what version 2 was: 12 items" in shown.stdout
    assert "newest already" in call("catalog", "rollback", place, 4).stdout
    failed = call("catalog", "rollback", place, 99)
    assert failed.exit_code == 2 and "no version 99" in failed.stderr
    assert call("catalog", "compact", place, "--older-than", "5m").exit_code == 2
    assert "7d, 12h or 90m" in call("catalog", "compact", place, "--older-than", "soon").stderr
    shown = call("catalog", "compact", place, "--older-than", "0d", "--alone")
    assert shown.exit_code == 0 and "1 versions are kept" in shown.stdout
    assert json.loads(call("catalog", "compact", place, "--json").stdout)["versions_after"] == 1
    assert len(Catalog.open(place)) == 12
