"""The catalog in memory against brute force: graphs, filters, deletes, versions, limits, and what happens meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel, brute_force
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from isthmus import Catalog, IsthmusError
from isthmus.catalog import graph, memory, search, snapshot
from isthmus.catalog.memory import Memory, MemorySettings, use_memory
from isthmus.catalog.recall import recall_report
from isthmus.errors import MissingExtraError

DIM = FakeModel.dim
needs_faiss = pytest.mark.skipif(not graph.has_faiss(), reason="FAISS is not installed (pip install 'isthmus[fast]')")
KINDS = [pytest.param("flat"), pytest.param("hnsw", marks=needs_faiss)]
HNSW = MemorySettings(kind="hnsw")


def unit(seed: int) -> Any:
    vector = np.random.default_rng(seed).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def clustered(count: int, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(40, DIM))[draw.integers(0, 40, count)] + 0.5 * draw.normal(size=(count, DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return {f"item{number}": vector for number, vector in enumerate(vectors)}


def put(catalog: Catalog, vectors: dict[str, Any], prices: dict[str, float] | None = None) -> None:
    """Write vectors past the model."""
    catalog.items.make_columns({"price": "number"})
    rows = [
        {"id": id, "path": f"/{id}", "hash": id, "domain": "photo", "size": 1, "mtime": 1}
        | {"price": (prices or {}).get(id)}
        for id in vectors
    ]
    catalog.items.upsert(rows, np.stack(list(vectors.values())).astype(np.float32))


def found(catalog: Catalog, query: Any, **options: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in catalog.search(query, **options)]


def same(hits: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [id for id, _ in hits] == [id for id, _ in expected]
    assert [score for _, score in hits] == pytest.approx([score for _, score in expected], abs=1e-7)


def answered(kept: Memory, catalog: Catalog, query: Any) -> bool:
    """Whether memory, and not the table, answers."""
    return kept.nearest(np.asarray(query, np.float32)[None], 1, None) is not None


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.create(tmp_path / "catalog", FakeModel())


class History(RuleBasedStateMachine):
    """Whatever is written, deleted, changed or compacted: memory finds what brute force finds."""

    kind = "flat"

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.items: dict[str, tuple[Any, float | None]] = {}
        self.before = memory.LATE, memory.LATE_SHARE
        memory.LATE, memory.LATE_SHARE = 6, 0.1  # so that the graph is made anew now and then

    def teardown(self) -> None:
        memory.LATE, memory.LATE_SHARE = self.before
        shutil.rmtree(self.home)

    @initialize()
    def start(self) -> None:
        self.catalog = Catalog.create(self.home / "catalog", FakeModel())
        use_memory(self.catalog, MemorySettings(kind=self.kind, recall=1.0))  # type: ignore[arg-type]
        self.put(dict.fromkeys(range(25), 5))

    # Few seeds: many items have one vector, so that ties are common.
    @rule(many=st.dictionaries(st.integers(0, 40), st.integers(0, 25), min_size=1, max_size=12))
    def put(self, many: dict[int, int]) -> None:
        vectors = {f"i{number}": unit(seed + (number % 20)) for number, seed in many.items()}
        prices = {f"i{number}": float(seed) for number, seed in many.items() if seed % 3}
        put(self.catalog, vectors, prices)
        self.items |= {id: (vector, prices.get(id)) for id, vector in vectors.items()}

    @rule(numbers=st.sets(st.integers(0, 40), max_size=8))
    def delete(self, numbers: set[int]) -> None:
        ids = [f"i{number}" for number in numbers if f"i{number}" in self.items]
        if ids and len(ids) < len(self.items):
            assert self.catalog.delete(ids) == len(ids)
            for id in ids:
                del self.items[id]

    @rule(number=st.integers(0, 40), price=st.sampled_from([None, 1.0, 9.0]))
    def reprice(self, number: int, price: float | None) -> None:
        if (id := f"i{number}") in self.items:
            self.catalog.update({id: {"price": price}})
            self.items[id] = (self.items[id][0], price)

    @rule()
    def compact(self) -> None:
        self.catalog.items.table.optimize()

    @rule(
        seed=st.integers(0, 99), k=st.integers(1, 30), offset=st.sampled_from([0, 3]), below=st.sampled_from([0, 4, 9])
    )
    def search(self, seed: int, k: int, offset: int, below: int) -> None:
        where = f"price < {below}" if below else None
        gallery = {
            id: vector
            for id, (vector, price) in self.items.items()
            if not below or (price is not None and price < below)
        }
        expected = brute_force(unit(seed), gallery, k + offset)[offset:]
        same(found(self.catalog, unit(seed), k=k, offset=offset, where=where), expected)
        kept = self.catalog._searcher.memory
        assert kept is not None and answered(kept, self.catalog, unit(seed))


class GraphHistory(History):
    kind = "hnsw"


TestFlat = History.TestCase
TestFlat.settings = settings(max_examples=2, stateful_step_count=10, deadline=None)
TestGraph = needs_faiss(GraphHistory.TestCase)
TestGraph.settings = settings(max_examples=4, stateful_step_count=12, deadline=None)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalog, dict[str, Any], dict[str, float]]]:
    """4,000 items in clusters with a graph."""
    made = Catalog.create(tmp_path_factory.mktemp("large") / "catalog", FakeModel())
    gallery = clustered(4000)
    # The price is where an item lies: a filter by it leaves nothing near some queries, and nothing else near others.
    prices = {id: float(vector[0]) for id, vector in gallery.items()}
    put(made, gallery, prices)
    use_memory(made, MemorySettings(kind="hnsw"))
    yield made, gallery, prices


@needs_faiss
@pytest.mark.parametrize("where", [None, "price < 0.05", "price > 0.1", "price > 0.25"])
def test_the_graph_has_the_wanted_recall_also_behind_filters(
    large: tuple[Catalog, dict[str, Any], dict[str, float]], where: str | None
) -> None:
    catalog, gallery, prices = large
    passes = {None: lambda p: True, "price < 0.05": lambda p: p < 0.05, "price > 0.1": lambda p: p > 0.1}
    left = {id: vector for id, vector in gallery.items() if passes.get(where, lambda p: p > 0.25)(prices[id])}
    right = 0
    for seed in range(25):
        hits, expected = found(catalog, unit(seed), where=where), brute_force(unit(seed), left, 10)
        assert len(hits) == 10
        for id, score in hits:
            assert id in left and score == pytest.approx(float(gallery[id].astype(float) @ unit(seed).astype(float)))
        assert hits == sorted(hits, key=lambda hit: -hit[1])
        right += len(dict(hits).keys() & dict(expected).keys())
    assert right / 250 >= 0.98
    kept = catalog._searcher.memory
    assert kept is not None
    state = kept.state()
    assert (state.kind, state.items, state.note) == ("hnsw", 4000, "")
    assert state.recall is not None and state.recall >= 0.98


@needs_faiss
def test_the_graph_is_the_same_beside_a_library_that_changes_faiss() -> None:
    """pytorch-metric-learning has FAISS take tensors, by other methods in the place of its own."""
    code = (
        "import numpy as np\n"
        "from isthmus.catalog.graph import build_graph\n"
        "import faiss.contrib.torch_utils\n"
        "rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)\n"
        "rows /= np.linalg.norm(rows, axis=1, keepdims=True)\n"
        "graph = build_graph([rows], 8, 0.9, 1)\n"
        "assert graph.search(rows[:5], 1, 64)[:, 0].tolist() == [0, 1, 2, 3, 4]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@needs_faiss
def test_the_recall_report_is_of_the_search_in_use(large: tuple[Catalog, dict[str, Any], dict[str, float]]) -> None:
    catalog, _, _ = large
    report = recall_report(catalog, 50)
    assert (report.items, report.queries, report.k, report.way) == (4000, 50, 10, "memory hnsw")
    assert 0.98 <= report.recall <= 1 and 0 <= report.worst <= report.recall and report.quick_ms > 0
    assert recall_report(catalog, np.stack([unit(seed) for seed in range(20)])).recall >= 0.95
    with pytest.raises(IsthmusError, match="at least one"):
        recall_report(catalog, 0)


@needs_faiss
def test_the_recall_report_tells_a_poor_graph(
    large: tuple[Catalog, dict[str, Any], dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graph.Graph.search
    monkeypatch.setattr(
        graph.Graph, "search", lambda self, queries, count, effort: whole(self, queries, count + 3, effort)[:, 3:]
    )
    report = recall_report(large[0], 30)
    assert report.recall == pytest.approx(0.8, abs=0.05)  # the item itself and the two nearest are lost
    assert report.perfect == 0


@needs_faiss
def test_changes_are_found_without_a_new_graph(catalog: Catalog) -> None:
    gallery = clustered(300)
    put(catalog, gallery)
    kept = use_memory(catalog, HNSW)
    query = unit(1)
    same(found(catalog, query), brute_force(query, gallery, 10))
    assert kept._snapshot is not None
    first = kept._snapshot.graph
    assert first is not None
    # A new item, one whose content changed, one that is gone and one that comes back.
    gallery["new"], gallery["item7"] = query, -query
    put(catalog, {"new": query, "item7": -query})
    gone = found(catalog, query, k=3)[1][0]
    catalog.delete([gone])
    vector = gallery.pop(gone)
    same(found(catalog, query, k=20), brute_force(query, gallery, 20))
    assert found(catalog, -query, k=1)[0][0] == "item7"
    gallery[gone] = vector
    put(catalog, {gone: vector})
    same(found(catalog, query, k=20), brute_force(query, gallery, 20))
    state = kept.state()
    assert kept._snapshot is not None and kept._snapshot.graph is first
    assert (state.items, state.late) == (301, 2)


@needs_faiss
@pytest.mark.parametrize("kind", KINDS)
def test_another_process_is_seen(catalog: Catalog, kind: Any) -> None:
    gallery = clustered(100)
    put(catalog, gallery)
    use_memory(catalog, MemorySettings(kind=kind))
    found(catalog, unit(0))
    other = Catalog.open(catalog.path)
    other.delete(["item3", "item4"])
    put(other, {"theirs": unit(0)})
    left = {id: vector for id, vector in gallery.items() if id not in ("item3", "item4")} | {"theirs": unit(0)}
    same(found(catalog, unit(0), k=99), brute_force(unit(0), left, 99))


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_background_searches_go_to_the_table_until_memory_is_ready(
    catalog: Catalog, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = clustered(200)
    put(catalog, gallery)
    may, read = threading.Event(), memory.read_snapshot
    monkeypatch.setattr(memory, "read_snapshot", lambda *given: may.wait(20) and read(*given))
    kept = use_memory(catalog, MemorySettings(kind=kind, background=True))
    assert not answered(kept, catalog, unit(0)) and kept.state().building
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    may.set()
    assert (kept.wait().kind, kept.wait().building) == (kind, False)
    assert answered(kept, catalog, unit(0))
    may.clear()
    gallery["late"] = unit(0)
    put(catalog, {"late": unit(0)})
    assert not answered(kept, catalog, unit(0))  # what is in memory is old by now
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    may.set()
    kept.wait()
    assert answered(kept, catalog, unit(0))
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    kept.close()
    assert kept.state().kind == "off"
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))


@needs_faiss
def test_a_change_while_the_graph_is_built_is_not_lost(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = clustered(200)
    put(catalog, gallery)
    begun, may, build = threading.Event(), threading.Event(), memory.build_graph

    def slow(*given: Any) -> Any:
        begun.set()
        assert may.wait(20)
        return build(*given)

    monkeypatch.setattr(memory, "build_graph", slow)
    kept = use_memory(catalog, MemorySettings(kind="hnsw", background=True))
    while not begun.wait(0.01):
        answered(kept, catalog, unit(0))
    assert kept.state().kind == "flat"  # answers exactly meanwhile
    gallery["late"] = unit(0)
    put(catalog, {"late": unit(0)})
    catalog.delete(["item0"])
    del gallery["item0"]
    same(found(catalog, unit(0), k=50), brute_force(unit(0), gallery, 50))
    may.set()
    state = kept.wait()
    assert (state.kind, state.items) == ("hnsw", 200)
    same(found(catalog, unit(0), k=50), brute_force(unit(0), gallery, 50))
    kept.close()


def test_the_limit_of_memory_is_kept_and_told(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = clustered(4000)
    put(catalog, gallery)
    small = use_memory(catalog, MemorySettings(max_mb=1))
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    state = small.state()
    assert state.kind == "off" and "needs 1 MB of memory" in state.note and "limit of 1." in state.note
    monkeypatch.setattr(memory, "has_faiss", lambda: True)
    flat = use_memory(catalog, MemorySettings(max_mb=3, flat_below=100))
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    assert flat.state().kind == "flat" and "A graph needs 5 MB" in flat.state().note
    assert 1 < flat.state().megabytes < 2


def test_the_kind_goes_by_size_and_by_what_is_installed(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = clustered(300)
    put(catalog, gallery)
    assert use_memory(catalog, MemorySettings()).wait().kind == "flat"
    if graph.has_faiss():
        assert use_memory(catalog, MemorySettings(flat_below=299)).wait().kind == "hnsw"
        monkeypatch.setattr(graph, "EFFORTS", (1,))
        monkeypatch.setattr(graph, "_search", lambda index, queries, *rest: np.full((len(queries), 10), -1))
        poor = use_memory(catalog, MemorySettings(flat_below=299))
        same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
        assert poor.state().kind == "flat" and "No graph reaches a recall of 0.98" in poor.state().note
    monkeypatch.setattr(memory, "has_faiss", lambda: False)
    without = use_memory(catalog, MemorySettings(flat_below=299))
    same(found(catalog, unit(0)), brute_force(unit(0), gallery, 10))
    assert without.state().kind == "flat" and "isthmus[fast]" in without.state().note
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'isthmus\[fast\]'"):
        use_memory(catalog, HNSW)
    with pytest.raises(IsthmusError, match="recall"):
        MemorySettings(recall=1.5)


@needs_faiss
def test_a_gallery_of_one_vector_is_one_tie(catalog: Catalog) -> None:
    gallery = {f"item{number}": unit(0) for number in range(200)}
    put(catalog, gallery)
    use_memory(catalog, HNSW)
    for k, offset in ((5, 0), (5, 60), (300, 0)):
        hits = found(catalog, unit(3), k=k, offset=offset)
        same(hits, brute_force(unit(3), gallery, k + offset)[offset:])


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_told(catalog: Catalog, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(catalog, clustered(50))
    use_memory(catalog, MemorySettings(kind=kind))
    monkeypatch.setattr(snapshot, "matrix", lambda *_: np.full((50, DIM), np.nan, np.float32))  # as if the disk had
    monkeypatch.setattr(search, "matrix", lambda *_: np.full((50, DIM), np.nan, np.float32))
    for _ in range(2):
        with pytest.raises(IsthmusError, match="damaged: a stored vector is not finite"):
            found(catalog, unit(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_that_is_not_what_was_written_is_not_served(catalog: Catalog, kind: Any) -> None:
    put(catalog, clustered(50))
    values = np.tile(unit(0), (1, 1))
    catalog.items.table.update(where="id = 'item9'", values={"vector": values[0].tolist()})  # past the checksum
    use_memory(catalog, MemorySettings(kind=kind))
    with pytest.raises(IsthmusError, match="the stored vector of 'item9' is not what was written"):
        found(catalog, unit(0))


@needs_faiss
def test_searches_from_threads_while_another_writes(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LATE", 5)
    monkeypatch.setattr(memory, "LATE_SHARE", 0.0)
    gallery = clustered(150)
    put(catalog, gallery | {"always": unit(0)})
    kept = use_memory(catalog, MemorySettings(kind="hnsw", background=True))
    wrong: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                hits = found(catalog, unit(0), k=5)
                if hits[0] != ("always", pytest.approx(1, abs=1e-6)) or len({id for id, _ in hits}) != 5:
                    wrong.append(hits)
            except Exception as error:  # whatever it is, it fails the test
                wrong.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for number in range(7):
        put(catalog, {f"more{number}": unit(100 + number)})
        catalog.delete([f"item{number}"])
    done.set()
    for asker in askers:
        asker.join()
    assert not wrong
    assert kept.wait().items == 151
    kept.close()
