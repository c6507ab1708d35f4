"""kill -9 at random moments, and several processes at once: what was acknowledged stays, and nothing is half there.

`test_catalog_sync` kills one long `add` and goes on with it; here processes that change a catalog in every way are
killed again and again, and readers run beside a writer.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_tools import FakeModel, Other, photos
from catalog_worker import CHANGES, PICTURES, State, Worker, alive, end, logged, wait_for

from isthmus import Catalog
from isthmus.data.images import content_hash
from isthmus.data.manifest import Manifest, Row

KILLS = 12


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    starter = Worker(tmp_path_factory.mktemp("worker") / "errors")
    yield starter
    starter.stop()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    photos(tmp_path / "pool", PICTURES)
    hashes = [content_hash(tmp_path / "pool" / f"{number:03}.png") for number in range(PICTURES)]
    (tmp_path / "hashes.json").write_text(json.dumps(hashes))
    return tmp_path


def state_of(catalog: Catalog, hashes: list[str]) -> State:
    return {row["id"]: [hashes.index(row["hash"]), row.get("price")] for row in catalog.rows()}


def some_acknowledged(log: Path, count: int) -> None:
    """Wait until a change has begun, and for so many acknowledgements."""
    wait_for(lambda: len(logged(log)) > 0)
    wait_for(lambda: logged(log).count("done") >= count)


def test_killed_at_random_moments_it_opens_and_keeps_what_was_acknowledged(worker: Worker, home: Path) -> None:
    hashes = json.loads((home / "hashes.json").read_text())
    photos(home / "shop", 4)
    model = FakeModel()
    catalog = Catalog.create(home / "catalog", model)
    catalog.add(home / "shop")
    catalog.add(Manifest([Row("a0", str(home / "pool" / "000.png"), "photo")]), metadata={"a0": {"price": 1}})
    chance = random.Random(time.time_ns())
    state = state_of(catalog, hashes)
    kinds: set[str] = set()
    acknowledged = interrupted = 0
    pause = 0.1
    for round in range(KILLS):
        seed = chance.randrange(10**9)
        log = home / f"log{round}"
        # Half of the first changes are killed, of every kind; the others are followed by one that chance chooses.
        first = CHANGES[round // 2 % len(CHANGES)]
        start = time.monotonic()
        process = worker.start("change", home=home, state=state, seed=seed, first=first, log_to=log)
        some_acknowledged(log, round % 2)
        if round % 2:  # about as long as a change takes here
            pause = (time.monotonic() - start) / 2
        time.sleep(chance.uniform(0.0, pause))
        assert alive(process), worker.errors.read_text()
        end(process)
        lines = logged(log)
        begun = [line for line in lines if line != "done"]
        kinds.update(kind for kind, _ in begun)
        acknowledged += len(lines) - len(begun)
        finished = lines[-1] == "done"
        interrupted += not finished
        allowed = begun[-1][1][-1:] if finished else begun[-1][1]
        catalog = Catalog.open(home / "catalog", model)
        state = state_of(catalog, hashes)
        assert state in allowed, (seed, begun[-1][0], finished, state, allowed)
        assert len(catalog) == len(state) and catalog.verify().sound, seed
        assert len(catalog.search(np.ones(48), k=100)) == len(state)
    assert acknowledged >= KILLS // 2 and interrupted >= 3 and len(kinds) == 5, (acknowledged, interrupted, kinds)
    rows, vectors = catalog.items.fetch(state)
    expected = model.encode([home / "pool" / f"{state[row['id']][0]:03}.png" for row in rows], domain="photo")
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_readers_beside_a_writer_see_whole_versions_only(worker: Worker, home: Path) -> None:
    catalog = Catalog.create(home / "catalog", FakeModel())
    rows = [Row(f"a{number}", str(home / "pool" / "000.png"), "photo") for number in range(PICTURES)]
    catalog.add(Manifest(rows), metadata={row.id: {"generation": 0} for row in rows})
    logs = [home / "writer", home / "reader1", home / "reader2"]
    readers = [worker.start("read_all", home=home, writer_log=logs[0], log_to=log) for log in logs[1:]]
    worker.start("replace_all", home=home, seconds=1.5, log_to=logs[0])
    wait_for(lambda: not any(map(alive, readers)))
    errors = worker.errors.read_text()
    assert all(log.exists() for log in logs), errors
    [generations] = logged(logs[0])
    for log in logs[1:]:
        [(reads, seen)] = logged(log)
        assert reads >= seen >= 3, (reads, seen, generations)
    assert {row["generation"] for row in catalog.rows()} == {generations}
    assert catalog.verify().sound


def test_a_killed_reembedding_leaves_the_old_or_the_new_and_goes_on(worker: Worker, home: Path) -> None:
    old, new = FakeModel(), Other()
    Catalog.create(home / "catalog", old).add(home / "pool", metadata={"photo/003.png": {"price": 3}})
    chance = random.Random(time.time_ns())
    log = home / "log"
    kept = [0]
    for _ in range(3):
        process = worker.start("reembed", home=home, delay=0.02, log_to=log)
        wait_for(lambda: progress(home) > kept[-1] or log.exists())
        time.sleep(chance.uniform(0.0, 0.05))
        end(process)
        catalog = Catalog.open(home / "catalog")
        assert catalog.facts.fingerprint in (old.fingerprint, new.fingerprint)
        assert len(catalog) == PICTURES and catalog.verify().sound
        if log.exists() or catalog.facts.fingerprint == new.fingerprint:
            break
        kept.append(progress(home))
    said = len(logged(log))
    worker.start("reembed", home=home, delay=0.0, log_to=log)
    wait_for(lambda: len(logged(log)) > said)
    switched, embedded = logged(log)[-1]
    assert switched and embedded <= PICTURES - kept[-1] < PICTURES
    catalog = Catalog.open(home / "catalog", new)
    rows, vectors = catalog.items.fetch(f"photo/{number:03}.png" for number in range(PICTURES))
    np.testing.assert_allclose(vectors, new.encode([row["path"] for row in rows], domain="photo"), atol=1e-6)
    assert [row["id"] for row in rows if row["price"] == 3] == ["photo/003.png"]


def progress(home: Path) -> int:
    """Items that a re-embedding has ready."""
    import lancedb

    database = lancedb.connect(home / "catalog")
    try:
        return int(database.open_table("reembedding").count_rows())
    except (ValueError, RuntimeError):
        return 0
