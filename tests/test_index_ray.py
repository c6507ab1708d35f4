"""Indexing on a Ray cluster: the catalog of one process, whatever is killed; and one sentence where it can't be."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from catalog_tools import FakeModel, photos, picture
from ray_zoo import Host, ray_host
from typer.testing import CliRunner

from isthmus import __version__
from isthmus.catalog import sync as sync_module
from isthmus.catalog.changes import Changes
from isthmus.catalog.store import Catalog
from isthmus.cli.main import build
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.models.encoder import Architecture, Model
from isthmus.scale import reader as reader_module
from isthmus.scale.cluster import Cluster, divide, ray_cluster
from isthmus.scale.reader import in_order
from isthmus.scale.worker import BLOCK, TRIES, Block, EmbedWorker, Errand, Image, pack, unpack
from isthmus.translate.ray_stream import Share

COUNT = 330
DRIVER = """
import os, signal, sys
from isthmus.catalog import sync
from isthmus.catalog.items import Items
from isthmus.cli.main import main

sync.CHUNK_SECONDS = sync.WRITING = 0
write, versions = Items.upsert, []

def upsert(self, rows, vectors):
    write(self, rows, vectors)
    versions.append(len(rows))
    if len(versions) == 2:
        print(sum(versions), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

Items.upsert = upsert
main()
"""

# Its token and its mode are read when Ray is imported, once in a process: drivers have processes of their own.
ORDERS = """
import json, sys
from isthmus.catalog.store import Catalog
from isthmus.scale.cluster import ray_cluster

address = sys.stdin.readline().strip()
with ray_cluster(address):
    for line in sys.stdin:
        order = json.loads(line)
        catalog = Catalog.open(order.pop("catalog"), order["model"])
        with ray_cluster(address, actors=order.pop("actors"), cpus=1) as cluster:
            print(json.dumps(cluster.index(catalog, order.pop("images"), **order).to_dict()), flush=True)
"""


def past(folder: Path) -> Path:
    """The folder, its files of yesterday: a file of this moment is read again in any case."""
    for path in folder.rglob("*.*"):
        os.utime(path, (time.time() - 86_400,) * 2)
    return folder


def contents(catalog: Catalog) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray[Any, Any]]]:
    """Rows and vectors by id."""
    rows = {row["id"]: row for row in catalog.rows()}
    found, vectors = catalog.items.fetch(rows)
    return rows, {row["id"]: vector for row, vector in zip(found, vectors, strict=True)}


@dataclass(frozen=True)
class World:
    """A cluster with a driver that is connected to it, a model, pictures, and the catalog that one process makes."""

    host: Host
    driver: subprocess.Popen[str]
    model: Path
    photos: Path
    one: Path

    def index(self, catalog: Path, images: Path, **order: Any) -> dict[str, Any]:
        """What `Cluster.index` says to the driver."""
        assert self.driver.stdin is not None and self.driver.stdout is not None
        order |= {"catalog": str(catalog), "images": str(images), "model": str(self.model)}
        self.driver.stdin.write(json.dumps(order, default=str) + "\n")
        self.driver.stdin.flush()
        answer = json.loads(self.driver.stdout.readline())
        del answer["seconds"]
        return {name: [tuple(one) for one in value] if name == "same" else value for name, value in answer.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("ray.data")
    folder = tmp_path_factory.mktemp("ray")
    (folder / "home").mkdir()
    with ray_host(folder / "home") as host:
        driver = subprocess.Popen(
            [sys.executable, "-c", ORDERS], stdin=-1, stdout=-1, text=True, env=host.environment, cwd=folder
        )
        assert driver.stdin is not None
        print(host.address, file=driver.stdin, flush=True)
        try:
            model = Model.create(Architecture("test_resnet", 16, 32), ("sketch", "photo"), weights="random")
            model.save(folder / "model")
            past(photos(folder / "photos", COUNT))
            # Bits of a convolution depend on the number of threads; workers of one CPU have one.
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            Catalog.create(folder / "one", folder / "model").add(folder / "photos")
            torch.set_num_threads(threads)
            yield World(host, driver, folder / "model", folder / "photos", folder / "one")
        finally:
            driver.communicate(timeout=60)


def actors(host: Host) -> set[int]:
    """Process ids of the cluster's workers that embed."""
    parents: dict[int, int] = {}
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                if fields[0] != "Z" and b"EmbedWorker" in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
        except OSError:
            continue

    def ours(pid: int) -> bool:
        return pid == host.pid or (pid in parents and ours(parents[pid]))

    return {pid for pid in found if ours(pid)}


def test_driver_and_worker_killed_the_vectors_are_those_of_one_process(world: World, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    command = [sys.executable, "-c", DRIVER, "index", str(world.model), str(world.photos), "--out", str(out)]
    command += ["--ray", world.host.address, "--ray-actors", "1", "--ray-cpus", "1"]
    driver = subprocess.run(command, capture_output=True, text=True, env=world.host.environment, timeout=300)
    assert driver.returncode == -signal.SIGKILL, driver.stderr
    assert driver.stderr.startswith(f"Ray at {world.host.address}: 1 workers with 1 CPU each, 1 nodes")
    kept = len(Catalog.open(out))
    assert kept == int(driver.stdout) and 0 < kept < COUNT

    if not Path("/proc").is_dir():
        pytest.skip("needs /proc to find a worker")
    seen: set[int] = set()
    done = threading.Event()

    def kill_the_first() -> None:
        before = actors(world.host)  # of the killed driver, which Ray may not have cleared away yet
        while not done.is_set():
            new = actors(world.host) - before
            if new and not seen:
                # It is loading the model now, with its first images in hand.
                os.kill(min(new), signal.SIGKILL)
            seen.update(new)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    try:
        changes = world.index(out, world.photos, actors=1)
    finally:
        done.set()
        killer.join()
    assert len(seen) >= 2, "the killed worker has a successor"
    assert [changes[name] for name in ("added", "unchanged", "embedded")] == [COUNT - kept, kept, COUNT - kept]
    rows, vectors = contents(Catalog.open(out))
    expected, exactly = contents(Catalog.open(world.one))
    assert rows == expected
    assert all(np.array_equal(vectors[id], exactly[id]) for id in exactly)


def test_a_changed_folder_is_synchronised_as_by_one_process(world: World, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(world.photos, shop)
    Catalog.create(tmp_path / "one", world.model).add(past(shop))
    shutil.copytree(tmp_path / "one", tmp_path / "many")
    (shop / "000.png").unlink()
    (shop / "deep").mkdir()
    (shop / "001.png").rename(shop / "deep" / "001.png")
    shutil.copy(shop / "002.png", shop / "twin.png")
    (shop / "broken.png").write_bytes(b"no image")
    picture(shop / "003.png", 1003)
    four, five = (shop / "004.png").read_bytes(), (shop / "005.png").read_bytes()
    (shop / "004.png").write_bytes(five)
    (shop / "005.png").write_bytes(four)
    past(photos(shop, 10, start=400))
    prices = tmp_path / "prices.csv"
    prices.write_text("path,price\n" + "".join(f"{n:03}.png,{n}\n" for n in range(2, 90)) + "x.png,1\n")
    one, many = (Catalog.open(tmp_path / name, world.model) for name in ("one", "many"))
    alone = one.sync(shop, metadata=prices, thorough=True)
    shared = world.index(tmp_path / "many", shop, actors=1, metadata=prices, thorough=True, sync=True)
    assert shared == {name: value for name, value in alone.to_dict().items() if name != "seconds"}
    assert (alone.embedded, alone.moved, alone.removed, len(alone.bad)) == (11, 1, 1, 1)
    (rows, vectors), (expected, exactly) = contents(many), contents(one)
    assert rows == expected and rows["photo/002.png"]["price"] == 2
    # Other images in a batch may move the last bits.
    assert max(abs(vectors[id] - exactly[id]).max() for id in exactly) < 1e-6
    for id in random.Random(0).sample(sorted(rows), 20):
        assert [hit.id for hit in many.search(id=id, k=10)] == [hit.id for hit in one.search(id=id, k=10)]
    assert many.verify().sound


class Pretended:
    """A cluster in this process: what Ray would have workers do is done here, in any order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: FakeModel | None = None) -> None:
        self.model, self.shuffle, self.lose = model or FakeModel(), False, 0
        self.embedded: list[str] = []
        monkeypatch.setattr(reader_module, "stream", self.stream)
        monkeypatch.setattr(Share, "say", lambda share, address: None)

    def stream(
        self, address: str, make: Any, texts: Sequence[str], errand: Errand, share: Share, known: Any
    ) -> Iterator[Mapping[str, Any]]:
        worker = EmbedWorker(errand)
        worker.ready = (self.model, known)
        order = list(texts)
        if self.shuffle:
            random.Random(1).shuffle(order)
        for text in order[self.lose :]:
            for row in worker({BLOCK: [text]}):
                yield {name: value[0] for name, value in row.items()}

    def index(self, catalog: Catalog, images: Any, folder: Path, **options: Any) -> Changes:
        return Cluster("here:1", Share(2, 1, 0)).index(catalog, images, model=folder, **options)


def test_blocks_that_come_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos", 150)
    shutil.copy(folder / "003.png", folder / "zz.png")
    (folder / "bad.png").write_bytes(b"x")
    rows = [Row(f"{domain}/{path.name}", str(path), domain) for path in sorted(folder.iterdir())
            for domain in FakeModel.domains]  # fmt: skip
    images = Manifest([*rows, Row("photo/gone", str(folder / "gone.png"), "photo")])
    one = Catalog.create(tmp_path / "one", FakeModel())
    alone = one.add(images)
    monkeypatch.setattr(reader_module, "WAVE", 64)  # two actors: three waves
    cluster = Pretended(monkeypatch)
    cluster.shuffle = True
    many = Catalog.create(tmp_path / "many", FakeModel())
    shared = cluster.index(many, images, folder)
    assert len(shared.bad) == 3
    assert sorted(bad.id for bad in shared.bad) == sorted(bad.id for bad in alone.bad)
    assert {bad.reason for bad in shared.bad} == {bad.reason for bad in alone.bad}
    assert sorted(shared.same) == sorted(alone.same) and len(shared.same) == 2
    assert shared.added == alone.added and contents(many)[0] == contents(one)[0]
    again = cluster.index(many, images, folder)
    assert (again.unchanged, again.embedded, len(again.bad)) == (shared.added, 0, 3)


def test_contents_that_change_hands_while_the_catalog_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker passes over what the catalog has, and then the catalog has it no more: the driver embeds it itself."""
    monkeypatch.setattr(sync_module, "CHUNK_SECONDS", 0)
    monkeypatch.setattr(sync_module, "WRITING", 0)
    folder = photos(tmp_path / "photos", 70)
    local = FakeModel()
    catalog = Catalog.create(tmp_path / "catalog", local)
    cluster = Pretended(monkeypatch)
    cluster.index(catalog, folder, folder)
    shutil.copy(folder / "000.png", folder / "999.png")  # in the second block
    picture(folder / "000.png", 500)
    before = len(local.encoded)
    changes = cluster.index(catalog, folder, folder, thorough=True)
    assert (changes.added, changes.updated, changes.embedded) == (1, 1, 2)
    assert local.encoded[before:] == [str(folder / "999.png")]
    _, vectors = contents(catalog)
    for name in ("000.png", "999.png"):
        expected = FakeModel().encode([folder / name], domain="photo")[0]
        assert abs(vectors[f"photo/{name}"] - expected).max() < 1e-6


def test_a_bad_image_may_stop_and_so_does_a_failing_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos", 100)
    (folder / "070.png").write_bytes(b"x")
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    cluster = Pretended(monkeypatch)
    with pytest.raises(IsthmusError, match=r"070\.png"):
        cluster.index(catalog, folder, folder, on_bad="raise")
    assert len(catalog) == 99  # what was pending beside it is written
    photos(folder, 10, start=200)
    cluster.lose = 1
    with pytest.raises(IsthmusError, match=r"gave back 1 of 2 blocks.*finished images are kept"):
        cluster.index(catalog, folder, folder)
    cluster.lose = 0

    def fail(number: int) -> None:
        raise MemoryError("no room")

    cluster.model = FakeModel(before=fail)
    with pytest.raises(IsthmusError, match=r"A Ray worker failed \(MemoryError: no room\).*finished images are kept"):
        cluster.index(catalog, folder, folder)
    assert len(catalog) == 99
    with pytest.raises(IsthmusError, match="name its folder"):
        cluster.index(catalog, folder, tmp_path / "nowhere")
    with pytest.raises(IsthmusError, match="is none; check the path"):
        cluster.index(catalog, folder / "000.png", folder, sync=True)


def test_a_node_that_is_not_fit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.create(Architecture("test_resnet", 16, 32), ("sketch", "photo"), weights="random")
    model.save(tmp_path / "model")
    fit = Errand(__version__, str(tmp_path / "model"), model.fingerprint, None, 1, 0, ())
    assert fit.prepare()[0].fingerprint == model.fingerprint
    for changes, sentence in (
        ({"version": "0"}, "the driver 0: install the same version"),
        ({"sources": (str(tmp_path / "no.png"),)}, r"doesn't see the image .*no\.png"),
        ({"model": str(tmp_path / "none")}, "doesn't see the model .*none: put it on a file system"),
        ({"fingerprint": "0" * 16}, "put the same model on all nodes"),
        ({"gpus": 1.0}, "--ray-gpus 0"),
    ):
        if "gpus" in changes and torch.cuda.is_available():
            continue
        with pytest.raises(IsthmusError, match=sentence):
            replace(fit, **changes).prepare()


def test_a_block_that_ends_its_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    counts = iter(range(TRIES, TRIES + 2))
    ended: list[int] = []
    monkeypatch.setattr(ray, "get", lambda count: count)
    notes = SimpleNamespace(
        begin=SimpleNamespace(remote=lambda number: next(counts)), end=SimpleNamespace(remote=ended.append)
    )
    errand = Errand(__version__, "", "", None, 1, 0, (), notes=notes)
    block = Block(7, "photo", (Image("photo/é\udce9", "/x y\n", None), Image("b", "/c", "d")))
    assert unpack(pack(block)) == block
    with errand.in_hand(block):
        assert not ended
    assert ended == [7]
    with pytest.raises(IsthmusError, match=f"images from photo/é.* on ended their Ray worker {TRIES} times"):
        errand.in_hand(block).__enter__()


def test_late_blocks_wait_but_not_for_ever() -> None:
    late = [(3, "d"), (1, "b"), (0, "a"), (2, "c")]
    assert list(in_order(late)) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    out: list[int] = []
    most = 0
    for taken, (number, _) in enumerate(in_order([(n, "") for n in [*range(1, 50), 0]], window=8)):
        out.append(number)
        most = max(most, number - taken)
    assert sorted(out) == list(range(50)) and out[-1] == 0 and most <= 8


@pytest.mark.parametrize(
    ("nodes", "asked", "share"),
    [
        ([(8, 0.0), (4, 0.0), (0, 0.0)], (None, None, None), Share(2, 4, 0)),
        ([(8, 0.0)], (4, None, None), Share(4, 2, 0)),
        ([(8, 0.0), (8, 0.0)], (None, 2, None), Share(8, 2, 0)),
        ([(16, 0.0), (64, 4.0)], (None, None, None), Share(4, 16, 1)),
        ([(8, 1.0)], (None, None, 0.5), Share(2, 4, 0.5)),
        ([(8, 1.0)], (None, None, 0.0), Share(1, 8, 0)),
        ([(0, 0.0)], (3, 2, None), Share(3, 2, 0)),
    ],
)
def test_what_each_worker_takes(nodes: Any, asked: Any, share: Share) -> None:
    assert divide(nodes, "auto", *asked) == share


def test_mistakes_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.data")
    folder = photos(tmp_path / "photos", 2)
    model = tmp_path / "model"
    Model.create(Architecture("test_resnet", 16, 32), ("sketch", "photo"), weights="random").save(model)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    none: Callable[[], None] = lambda: None  # noqa: E731
    for words, says, before in (
        (("--ray", "auto", "--workers", "2"), "with --ray others read: leave it out", none),
        (("--ray-actors", "2"), "--ray-actors speaks of a Ray cluster: say which with --ray", none),
        (("--ray", "auto", "--plan"), "leave --ray out", none),
        (("--ray", f"127.0.0.1:{closed}"), "No Ray cluster answers", none),
        (("--ray", "cluster"), "auto, local, host:port", none),
        (("--ray", "local"), "isthmus[ray]", lambda: monkeypatch.setitem(sys.modules, "ray", None)),
    ):
        before()
        answer = CliRunner().invoke(build(), ["index", str(model), str(folder), "--out", str(tmp_path / "c"), *words])
        assert answer.exit_code == 2 and "Traceback" not in answer.output, (words, answer.output)
        assert says in " ".join(answer.stderr.split()), (words, answer.output)
    assert not (tmp_path / "c").exists()
    for nodes, asked in (([(2, 0.0)], (None, 4, None)), ([(0, 0.0)], (None, None, None)), ([(2, 0.0)], (1, 1, 1.0))):
        with pytest.raises(IsthmusError, match="No node of the Ray cluster at auto has"):
            divide(nodes, "auto", *asked)
    with pytest.raises(IsthmusError, match="--ray-actors 0"), ray_cluster("local", actors=0):
        pass
