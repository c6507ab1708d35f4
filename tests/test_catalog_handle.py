"""How an open catalog sees that another has written: at once, and without asking where nothing can have changed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from catalog_tools import FakeModel, photos, picture

from isthmus.catalog import handle
from isthmus.catalog.handle import Live
from isthmus.catalog.store import Catalog

DAY = 86_400 * 10**9


class Probe:
    """Counts the looks at a table."""

    def __init__(self, table: object) -> None:
        self.table, self.looks = table, 0

    @property
    def version(self) -> int:
        self.looks += 1
        return int(self.table.version)  # type: ignore[attr-defined]


@pytest.fixture
def live(tmp_path: Path) -> tuple[Live, Probe, Catalog]:
    """A catalog's handle whose looks are counted, and the same catalog opened by somebody else."""
    photos(tmp_path / "photos", 2)
    other = Catalog.create(tmp_path / "catalog", FakeModel())
    other.add(tmp_path / "photos")
    opened = Catalog.open(tmp_path / "catalog", FakeModel())._live
    probe = opened._probe = Probe(opened._probe)
    return opened, probe, other


def age(live: Live, nanoseconds: int = DAY) -> None:
    assert live._versions is not None
    then = time.time_ns() - nanoseconds
    os.utime(live._versions, ns=(then, then))


def test_a_settled_folder_is_not_asked_again(live: tuple[Live, Probe, Catalog]) -> None:
    opened, probe, _ = live
    age(opened)
    first = opened.current()
    assert [opened.current() for _ in range(5)] == [first] * 5
    assert probe.looks == 1


def test_a_change_elsewhere_is_seen_at_once(live: tuple[Live, Probe, Catalog], tmp_path: Path) -> None:
    opened, _, other = live
    for number in range(4):
        age(opened)
        before = opened.current()[0]
        picture(tmp_path / f"more-{number}" / "a.png", 10 + number)
        other.add(tmp_path / f"more-{number}")
        assert opened.current()[0] == other.items.version > before


def test_two_changes_in_one_tick_are_both_seen(live: tuple[Live, Probe, Catalog], tmp_path: Path) -> None:
    """The folder's time may stand still over two changes; so it is believed only once it is old."""
    opened, _, other = live
    tick = time.time_ns()
    for number in range(3):
        picture(tmp_path / f"more-{number}" / "a.png", 10 + number)
        other.add(tmp_path / f"more-{number}")
        assert opened._versions is not None
        os.utime(opened._versions, ns=(tick, tick))
        assert opened.current()[0] == other.items.version


def test_it_is_not_believed_for_long(live: tuple[Live, Probe, Catalog], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "TRUST", 0.05)
    opened, probe, _ = live
    age(opened)
    opened.current()
    time.sleep(0.06)
    opened.current()
    assert probe.looks == 2


def test_where_nothing_can_be_said_each_use_looks(live: tuple[Live, Probe, Catalog]) -> None:
    opened, probe, _ = live
    opened._versions = None  # as on object storage
    for _ in range(3):
        opened.current()
    assert probe.looks == 3


def test_a_folder_that_is_gone_is_told(live: tuple[Live, Probe, Catalog], tmp_path: Path) -> None:
    opened, probe, _ = live
    age(opened)
    opened.current()
    assert opened._versions is not None
    opened._versions.rename(tmp_path / "gone")
    looks = probe.looks
    with pytest.raises(Exception, match=r"."):
        opened.current()
    assert probe.looks == looks + 1
