"""Synchronising with a folder by content, and what is left when writing is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from catalog_tools import FakeModel, photos, picture

from isthmus import Catalog, IsthmusError
from isthmus.catalog import sync as sync_module


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", 10)


@pytest.fixture
def catalog(tmp_path: Path, folder: Path, model: FakeModel) -> Catalog:
    made = Catalog.create(tmp_path / "catalog", model)
    made.add(folder, metadata={f"photo/{number:03}.png": {"price": number} for number in range(10)})
    model.encoded.clear()
    return made


def counts(changes: object) -> dict[str, int]:
    names = ("added", "updated", "refreshed", "moved", "unchanged", "removed", "embedded")
    return {name: value for name in names if (value := getattr(changes, name))}


def check(catalog: Catalog, folder: Path, model: FakeModel) -> None:
    """The catalog holds exactly the folder's images, each with its own vector."""
    files = sorted(folder.rglob("*.png"))
    expected = model.encode(files, domain="photo")
    rows, vectors = catalog.items.fetch(f"photo/{file.relative_to(folder).as_posix()}" for file in files)
    assert len(catalog) == len(files) == len(rows)
    order = {row["path"]: vector for row, vector in zip(rows, vectors, strict=True)}
    np.testing.assert_allclose(np.stack([order[str(file)] for file in files]), expected, atol=1e-6)
    assert catalog.verify(files=True).to_dict() | {"rows": 0} == {
        "rows": 0, "problems": [], "files_missing": [], "files_changed": [], "sound": True,
    }  # fmt: skip


def test_nothing_changed_is_nothing_done(catalog: Catalog, folder: Path, model: FakeModel) -> None:
    assert counts(catalog.sync(folder)) == {"unchanged": 10}
    version = catalog.info()["version"]
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))  # other times, same content
    assert counts(catalog.sync(folder)) == {"unchanged": 10}
    assert counts(catalog.sync(folder, thorough=True)) == {"unchanged": 10}
    assert model.encoded == []
    assert catalog.info()["version"] == version + 1  # only the times were noted


def test_new_gone_changed_and_moved(catalog: Catalog, folder: Path, model: FakeModel) -> None:
    picture(folder / "new.png", 100)
    (folder / "001.png").unlink()
    picture(folder / "002.png", 102)
    (folder / "cups").mkdir()
    (folder / "003.png").rename(folder / "cups" / "cup 3.png")
    changes = catalog.sync(folder)
    assert counts(changes) == {
        "added": 1, "updated": 1, "moved": 1, "removed": 1, "unchanged": 7, "embedded": 2,
    }  # fmt: skip
    assert sorted(Path(path).name for path in model.encoded) == ["002.png", "new.png"]
    rows = {row["id"]: row for row in catalog.rows()}
    assert rows["photo/cups/cup 3.png"]["price"] == 3.0  # metadata moves with the file
    assert rows["photo/cups/cup 3.png"]["label"] == "cups"
    assert rows["photo/002.png"]["price"] == 2.0
    assert rows["photo/new.png"]["price"] is None
    check(catalog, folder, model)


def test_names_that_change_places(catalog: Catalog, folder: Path, model: FakeModel) -> None:
    (folder / "000.png").rename(folder / "x")
    (folder / "001.png").rename(folder / "000.png")
    (folder / "x").rename(folder / "001.png")
    changes = catalog.sync(folder, thorough=True)
    assert counts(changes) == {"updated": 2, "unchanged": 8}
    check(catalog, folder, model)


def test_another_folders_items_stay(tmp_path: Path, catalog: Catalog, folder: Path) -> None:
    other = tmp_path / "photos2"  # a name that begins with the folder's
    picture(other / "z.png", 50)
    assert counts(catalog.sync(other)) == {"added": 1, "embedded": 1}
    assert counts(catalog.sync(folder)) == {"unchanged": 10}
    assert len(catalog) == 11


def test_a_moved_folder_keeps_its_vectors(tmp_path: Path, catalog: Catalog, folder: Path, model: FakeModel) -> None:
    folder.rename(tmp_path / "archive")
    assert counts(catalog.sync(tmp_path / "archive")) == {"refreshed": 10}
    assert model.encoded == []
    check(catalog, tmp_path / "archive", model)


def test_an_emptied_folder_empties_nothing(catalog: Catalog, folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(IsthmusError, match="holds no image"):
        catalog.sync(folder)
    folder.rmdir()
    with pytest.raises(IsthmusError, match="no folder"):
        catalog.sync(folder)
    assert len(catalog) == 10


def test_an_image_that_became_unreadable_is_listed_and_stays(catalog: Catalog, folder: Path) -> None:
    (folder / "004.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no" * 50)
    changes = catalog.sync(folder)
    assert counts(changes) == {"unchanged": 9}
    assert [bad.id for bad in changes.bad] == ["photo/004.png"]
    assert len(catalog) == 10
    assert [Path(path).name for path in catalog.verify(files=True).files_changed] == ["004.png"]


def test_file_names_of_every_kind(tmp_path: Path, model: FakeModel) -> None:
    folder = tmp_path / "odd"
    for number, name in enumerate(["a b.png", "line\nbreak.png", "naïve Ω.png", "it's;--.png", "%_`.png"]):
        picture(folder / name, number)
    bad = os.fsencode(folder) + b"/\xff\xfe.png"
    try:
        Path(os.fsdecode(bad)).write_bytes((folder / "a b.png").read_bytes())
    except OSError:
        bad = b""  # this file system takes only Unicode
    catalog = Catalog.create(tmp_path / "catalog", model)
    changes = catalog.sync(folder)
    assert changes.added == 5 and len(changes.bad) == bool(bad)
    assert catalog.delete("photo/it's;--.png") == 1
    assert catalog.search(folder / "line\nbreak.png", domain="photo", k=1)[0].id == "photo/line\nbreak.png"


def test_an_interrupted_add_keeps_its_chunks_and_goes_on(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "CHUNK_ROWS", (4, 4))
    monkeypatch.setattr(sync_module, "PART", 1)

    def stop(count: int) -> None:
        if count == 6:
            raise KeyboardInterrupt

    place = tmp_path / "catalog"
    with pytest.raises(KeyboardInterrupt):
        Catalog.create(place, FakeModel(before=stop)).add(folder)
    model = FakeModel()
    catalog = Catalog.open(place, model)
    kept = len(catalog)
    assert kept == 4
    assert counts(catalog.add(folder)) == {"added": 10 - kept, "unchanged": kept, "embedded": 10 - kept}
    check(catalog, folder, model)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_an_opening_catalog(tmp_path: Path, how: signal.Signals) -> None:
    folder = photos(tmp_path / "photos", 120)
    code = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from catalog_tools import FakeModel
        from isthmus import Catalog
        from isthmus.catalog import sync
        sync.PART, sync.CHUNK_ROWS = 5, (5, 5)
        def slow(count):
            if count:
                time.sleep(0.05)
        Catalog.create({str(tmp_path / "catalog")!r}, FakeModel(before=slow)).add({str(folder)!r})
        """
    )
    # A shell starts background jobs deaf to SIGINT, and children inherit that.
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 120
    kept = 0
    while kept < 10 and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.2)
        if (tmp_path / "catalog" / "items.lance" / "_versions").is_dir():
            kept = len(Catalog.open(tmp_path / "catalog"))
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    model = FakeModel()
    catalog = Catalog.open(tmp_path / "catalog", model)
    done = len(catalog)
    assert 10 <= kept <= done < 120
    assert catalog.verify().sound
    assert catalog.add(folder).added == 120 - done == len(model.encoded)
    check(catalog, folder, model)
