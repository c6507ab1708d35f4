"""`isthmus serve`: what it refuses before it begins, and a whole life: it says where it is, answers, stops in peace."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from serve_zoo import Slow, make_catalog, noise, png
from typer.testing import CliRunner

from isthmus.catalog.store import Catalog
from isthmus.cli import serve as verb
from isthmus.errors import IsthmusError
from isthmus.serve.settings import ServeSettings


def call(*parts: Any) -> Any:
    app = typer.Typer()
    app.command()(verb.serve)
    return CliRunner().invoke(app, [str(part) for part in parts], catch_exceptions=True)


def refusal(*parts: Any) -> str:
    answer = call(*parts)
    assert isinstance(answer.exception, IsthmusError), (answer.exception, answer.output)
    return str(answer.exception)


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ISTHMUS_TOKEN", "ISTHMUS_READ_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_the_world_is_not_let_in_by_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(verb, "run", lambda catalog, model, settings, listening, storage: begun.append(settings.host))
    for host in ("0.0.0.0", "::"):
        assert "--open" in refusal("catalog", "--host", host, "--port", 0)
    assert "--open" in refusal("catalog", "--set", "host=0.0.0.0", "--set", "port=0")
    assert not begun
    token = tmp_path / "token"
    token.write_text(" a-token-of-some-length\n")
    for more in (["--open"], ["--token-file", token], ["--read-token-file", token]):
        assert call("catalog", "--host", "0.0.0.0", "--port", 0, *more).exception is None
    monkeypatch.setenv("ISTHMUS_READ_TOKEN", "from-the-environment")
    assert call("catalog", "--host", "0.0.0.0", "--port", 0).exception is None
    assert call("catalog", "--host", "127.0.0.1", "--port", 0).exception is None
    assert len(begun) == 5


def test_what_is_wrong_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    empty, broken, wrong, odd = (tmp_path / name for name in ("empty", "broken.yaml", "wrong.yaml", "odd.yaml"))
    empty.write_text("\n")
    broken.write_text("a: [1")
    wrong.write_text("queue: many")
    odd.write_text("- queue")
    assert "is empty" in refusal("catalog", "--token-file", empty)
    assert str(tmp_path / "none") in refusal("catalog", "--token-file", tmp_path / "none")
    assert "no valid YAML" in refusal("catalog", "--settings", broken)
    assert "queue" in refusal("catalog", "--settings", wrong)
    assert "holds no settings" in refusal("catalog", "--settings", odd)
    assert "quue" in refusal("catalog", "--set", "quue=1")
    assert "port" in refusal("catalog", "--port", 70000)
    assert "no address" in refusal("catalog", "--host", "no.such.host.invalid", "--open")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "already" in refusal("catalog", "--port", taken.getsockname()[1])
    assert "There is no catalog" in refusal(tmp_path / "nowhere", "--port", 0)


def test_the_later_setting_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(verb, "run", lambda catalog, model, settings, listening, storage: seen.append(settings))
    file = tmp_path / "serve.yaml"
    file.write_text("queue: 3\nbatch: 4\nport: 0\ntoken: in-the-file\n")
    assert call("catalog", "--settings", file, "--feedback", "marks", "--set", "batch=5").exception is None
    assert (seen[0].queue, seen[0].batch, str(seen[0].feedback), seen[0].token) == (3, 5, "marks", "in-the-file")


def test_a_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gate = threading.Event()
    gate.set()
    model = Slow(lambda: gate.wait(10))
    catalog = make_catalog(tmp_path, model=model, items=4)  # type: ignore[arg-type]
    monkeypatch.setattr(Catalog, "open", lambda *a, **b: catalog)
    before = signal.getsignal(signal.SIGTERM)
    answers: list[httpx.Response] = []
    listening = verb._listen(ServeSettings(port=0))
    assert listening.proto == socket.IPPROTO_TCP  # or asyncio would leave Nagle's algorithm on: 40 ms an answer
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def search() -> None:
        answers.append(httpx.post(f"{address}/api/search/image", files={"image": ("x", png(noise(1)))}, timeout=20))

    def client() -> None:
        slow = threading.Thread(target=search)
        try:
            answers.append(httpx.get(f"{address}/api/health/ready", timeout=20))
            gate.clear()
            batches = len(model.batches)
            slow.start()
            for _ in range(1000):
                if len(model.batches) > batches:
                    break
                time.sleep(0.01)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a search is under way
            time.sleep(0.2)
            gate.set()
            slow.join()

    beside = threading.Thread(target=client)
    beside.start()
    with listening:
        verb.run("the catalog", None, ServeSettings(port=0), listening)
    beside.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(answers[1].json()["hits"]) == 4 and "server" not in answers[1].headers
    assert capsys.readouterr().out == f"the catalog: 4 items at {address}/\nstopped\n"
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
