"""The demo's corpus: pairs, thirds, place on the sheet, writing once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.data.icons import draw_icon, icon_pairs, split_icons, write_icons
from isthmus.data.manifest import Manifest
from isthmus.data.sources import read_source
from isthmus.errors import IsthmusError


def test_pairs_are_the_fonts() -> None:
    pairs = icon_pairs()
    assert len(pairs) == 1838
    assert [name for name, _, _ in pairs] == sorted({name for name, _, _ in pairs})
    assert all(len(filled) == 1 and len(outline) == 1 and filled != outline for _, filled, outline in pairs)


def test_thirds_share_no_icon_and_depend_on_the_seed() -> None:
    names = [name for name, _, _ in icon_pairs()]
    parts = split_icons(names, seed=0)
    outline = {name for name, shown in parts.items() if shown == ("outline",)}
    filled = {name for name, shown in parts.items() if shown == ("filled",)}
    both = {name for name, shown in parts.items() if len(shown) == 2}
    assert (len(outline), len(filled), len(both)) == (612, 612, 614)
    assert outline | filled | both == set(names) and not outline & filled
    assert split_icons(list(reversed(names)), seed=0) == parts
    assert split_icons(names, seed=1) != parts


def test_icons_lie_inside_the_margin_and_on_each_other() -> None:
    for _, filled, outline in icon_pairs()[::40]:
        boxes = []
        for glyph in (filled, outline):
            rows, columns = np.nonzero(np.asarray(draw_icon(glyph, 64)) < 128)
            boxes.append((rows.min(), rows.max(), columns.min(), columns.max()))
            assert min(rows.min(), columns.min()) >= 4 and max(rows.max(), columns.max()) <= 60
        assert np.abs(np.subtract(*boxes)).max() <= 12


def test_write_icons(tmp_path: Path) -> None:
    manifest = write_icons(tmp_path / "icons", limit=30, seed=3)
    assert {domain: len(manifest.select(domain=domain, split="train")) for domain in manifest.domains} == {
        "outline": 10,
        "filled": 10,
    }
    tests = manifest.select(split="test")
    assert {row.identity for row in tests.select(domain="outline")} == {
        row.identity for row in tests.select(domain="filled")
    }
    trained = {row.identity for row in manifest.select(split="train")}
    assert len(trained) == 20 and not trained & {row.identity for row in tests}
    assert all(Image.open(row.path).size == (64, 64) for row in manifest)
    assert read_source(tmp_path / "icons", "filled", split="test") == tests.select(domain="filled")


def test_a_complete_folder_is_only_read_and_a_broken_one_is_mended(tmp_path: Path) -> None:
    first = write_icons(tmp_path / "icons", limit=12)
    path = Path(first[0].path)
    before = path.stat().st_mtime_ns
    assert write_icons(tmp_path / "icons", limit=12) == first
    assert path.stat().st_mtime_ns == before
    content = path.read_bytes()
    path.unlink()
    assert write_icons(tmp_path / "icons", limit=12) == first
    assert path.read_bytes() == content
    assert len(write_icons(tmp_path / "icons", limit=12, seed=1)) == len(first)
    assert Manifest.load(tmp_path / "icons" / "manifest.parquet") != first


def test_a_moved_folder_still_holds(tmp_path: Path) -> None:
    write_icons(tmp_path / "a", limit=6)
    (tmp_path / "a").rename(tmp_path / "b")
    assert all(Path(row.path).is_file() for row in read_source(tmp_path / "b", "filled"))


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(IsthmusError, match="something other than icons"):
        write_icons(tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
    with pytest.raises(IsthmusError, match="at least 6"):
        write_icons(tmp_path / "x", limit=5)
    with pytest.raises(IsthmusError, match="16 pixels"):
        write_icons(tmp_path / "x", size=8)
