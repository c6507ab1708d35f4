"""Ray that isn't there, nodes that aren't fit, batches that end their worker: one sentence each, and soon."""

from __future__ import annotations

import pickle
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus import __version__
from isthmus.errors import IsthmusError
from isthmus.translate import base, ray_worker
from isthmus.translate.ray_connect import connected, explain
from isthmus.translate.ray_worker import DONE, ERROR, Errand, RayWorker, pack, packed, unpack
from isthmus.translate.record import Request, settle
from isthmus.translate.work import Item, Job


@pytest.fixture
def web_server() -> Iterator[int]:
    """A port where something answers that isn't Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def test_an_address_without_a_cluster_is_one_sentence_and_soon(
    tmp_path: Path, web_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    began = time.monotonic()
    for address, sentence in (
        (f"127.0.0.1:{closed}", f"No Ray cluster answers at 127.0.0.1:{closed} .*refused"),
        (f"ray://127.0.0.1:{closed}", "No Ray cluster answers"),
        ("no.such.host.invalid:6379", "No Ray cluster answers"),
        (f"127.0.0.1:{web_server}", "is no Ray cluster"),
        ("cluster", "auto, local, host:port"),
        ("http://127.0.0.1:80", "auto, local, host:port"),
        ("127.0.0.1:99999", "No Ray cluster answers"),
    ):
        with pytest.raises(IsthmusError, match=sentence), connected(address):
            pass
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed}")
    with pytest.raises(IsthmusError, match="No Ray cluster answers"), connected("auto"):
        pass
    assert time.monotonic() - began < 25
    with pytest.raises(IsthmusError, match="--workers 0"), connected("local", 0):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(IsthmusError, match=r"isthmus\[ray\]"), connected("local"):
        pass


def errand(tmp_path: Path, **changes: Any) -> Errand:
    out = tmp_path / "out"
    choice = settle(out, Request("edges", {"direction": "lines"}, "sketch", 0), None)
    (out / "marker").mkdir(exist_ok=True)
    given = {"place": base.TRANSLATORS["edges"], "version": __version__, "marker": "marker", "sources": (), **changes}
    return Errand(Job(choice, out, "sketch", 0, True), **given)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "0.0.9"}, "the driver 0.0.9: install the same version"),
        ({"marker": "elsewhere"}, "doesn't see the folder .* a file system that all nodes share"),
        ({"sources": ("/no/such/image.png",)}, "doesn't see the image /no/such/image.png"),
    ],
)
def test_a_node_that_is_not_fit_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(ray_worker, "PATIENCE", 0.1)
    worker = RayWorker(errand(tmp_path, **changes))
    (row,) = worker({"batch": [pack([Item("photo/1", "/1.png", None)])]})
    error = pickle.loads(row[ERROR][0])
    assert row[DONE] == [b""] and isinstance(error, IsthmusError)
    with pytest.raises(IsthmusError, match=sentence):
        raise error


def test_a_batch_that_always_ends_its_worker_is_given_up(tmp_path: Path) -> None:
    task, batches = errand(tmp_path), [[Item("photo/1", "/1.png", None)]]
    for _ in range(ray_worker.TRIES):
        stack = task.in_hand(batches)
        stack.__enter__()
        # A killed process runs no clean-up.
        (kept,) = (tmp_path / "out" / "marker").iterdir()
        content = kept.read_bytes()
        del stack
        kept.write_bytes(content)
    with (
        pytest.raises(IsthmusError, match="images from photo/1 on ended their Ray worker 5 times"),
        task.in_hand(batches),
    ):
        pass
    with task.in_hand(batches):
        assert len(list((tmp_path / "out" / "marker").iterdir())) == 1
    assert not list((tmp_path / "out" / "marker").iterdir())


def test_what_travels_arrives() -> None:
    batch = (Item("photo/é\udce9", "/x y\n", None), Item("b", "c", "d"))
    assert unpack(pack(batch)) == batch

    class Local(Exception):
        pass

    assert str(pickle.loads(packed(IsthmusError("no ink")))) == "no ink"
    assert "Local: lost" in str(pickle.loads(packed(Local("lost"))))
    assert "can't import isthmus" in str(
        explain(RuntimeError("...\nModuleNotFoundError: No module named 'isthmus'"), "a:1")
    )
    assert "failed (boom)" in str(explain(RuntimeError("\nboom.\nat"), "a:1"))


def test_a_lost_race_for_rays_own_actors_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers that start at once race for actors that Ray Data shares among them; the loser begins anew."""
    ray = pytest.importorskip("ray")
    from isthmus.translate import ray_stream

    waited: list[float] = []
    monkeypatch.setattr(ray_stream.time, "sleep", waited.append)
    failures: list[Exception] = []
    taken = ray.exceptions.ActorAlreadyExistsError("The name is already taken")
    rows = [{DONE: b"1", ERROR: b""}, {DONE: b"2", ERROR: b""}]

    def late() -> Iterator[dict[str, bytes]]:
        yield rows[0]
        raise taken

    def fails() -> Iterator[dict[str, bytes]]:
        if failures:
            raise failures.pop()
        yield from rows

    def begin(*wrong: Exception) -> list[dict[str, bytes]]:
        failures[:] = wrong
        return list(ray_stream.begun_anew(fails, "here:1"))

    with pytest.raises(IsthmusError, match=r"already taken.*run the same command again"):
        list(ray_stream.begun_anew(late, "here:1"))  # a row was there already: this is another failure
    assert begin() == rows and not waited
    assert begin(ValueError("gone"), taken) == rows and waited == [1.0, 2.0]
    with pytest.raises(IsthmusError, match=r"here:1 failed \(gone\)"):
        begin(ValueError("gone"), ValueError("gone"), ValueError("gone"))
    waited.clear()
    with pytest.raises(IsthmusError, match="No longer"):
        begin(ray.exceptions.RayError("No longer there"))
    assert not waited
