"""A catalog gets another model while it is served: nobody waits, nobody gets a mixture, nothing has to be restarted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from catalog_tools import FakeModel, Other
from fastapi.testclient import TestClient
from serve_zoo import make_catalog, strokes

from isthmus import Catalog
from isthmus.catalog.reembed import reembed
from isthmus.serve.engine import Engine
from isthmus.serve.following import Following
from isthmus.serve.settings import ServeSettings


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TestClient]:
    app = Following(Engine(make_catalog(tmp_path), ServeSettings(follow=0.05)))
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        yield client


def until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_searches_go_over_to_the_new_model(served: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, place = Other(), tmp_path / "catalog"
    monkeypatch.setattr(Catalog, "reopened", lambda self: Catalog.open(self.path, new))
    asked = {"strokes": strokes(), "k": 24}
    old_hits = served.post("/api/search", json=asked).json()["hits"]
    first = served.app.engine  # type: ignore[attr-defined]
    answers: list[tuple[int, Any]] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            answer = served.post("/api/search", json=asked)
            answers.append((answer.status_code, answer.json()))

    thread = threading.Thread(target=search)
    thread.start()
    try:
        assert reembed(place, new).switched
        until(lambda: served.get("/api/catalog").json()["model"] == new.fingerprint)
        at = len(answers)
        until(lambda: len(answers) > at + 3)
    finally:
        stop.set()
        thread.join()
    new_hits = served.post("/api/search", json=asked).json()["hits"]
    scores = [[(hit["id"], hit["score"]) for hit in hits] for hits in (old_hits, new_hits)]
    assert scores[0] != scores[1]
    assert {status for status, _ in answers} == {200}
    for _, body in answers:  # each is of the one model or of the other
        found = [(hit["id"], pytest.approx(hit["score"], abs=1e-5)) for hit in body["hits"]]
        assert found in scores
    assert metric(served, "isthmus_superseded") == 0
    until(lambda: first.closing)
    # Figures go on where the first engine's ended.
    assert metric(served, "isthmus_search_seconds_count") > len(answers)


def test_a_model_that_is_not_here_leaves_the_old_in_service_and_is_told(
    served: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"strokes": strokes(), "k": 5}
    before = served.post("/api/search", json=asked).json()["hits"]
    reembed(tmp_path / "catalog", Other())
    until(lambda: metric(served, "isthmus_superseded") == 1)
    until(lambda: "that one can't be had" in caplog.text)
    time.sleep(0.3)
    assert caplog.text.count("that one can't be had") == 1  # looked for again and again, and said once
    after = served.post("/api/search", json=asked).json()
    assert [hit["id"] for hit in after["hits"]] == [hit["id"] for hit in before]
    assert served.get("/api/catalog").json()["model"] == FakeModel().fingerprint


def test_no_search_is_lost_while_it_goes_over(tmp_path: Path) -> None:
    """The old engine ends only when what was asked of it is answered."""
    gate = threading.Event()

    class Held(FakeModel):
        def encode(self, images: Any, **options: Any) -> Any:
            if self.hold:
                gate.wait(20)
            return super().encode(images, **options)

        hold = False

    model = Held()
    app = Following(Engine(make_catalog(tmp_path, model=model), ServeSettings(follow=3600)))
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        old = app.engine
        model.hold = True
        answers: list[int] = []
        thread = threading.Thread(
            target=lambda: answers.append(client.post("/api/search", json={"strokes": strokes()}).status_code)
        )
        thread.start()
        until(lambda: app._asked[old] == 1)
        newer = Engine(Catalog.open(old.catalog.path, FakeModel()), old.settings, before=old)
        assert client.portal is not None
        client.portal.call(app._go_over, newer)
        assert client.post("/api/search", json={"strokes": strokes()}).status_code == 200  # by the new one
        assert not old.closing and not answers
        gate.set()
        thread.join()
        assert answers == [200]
        until(lambda: old.closing)


def test_the_engine_draws_and_computes_as_its_model_does(tmp_path: Path) -> None:
    model = FakeModel()
    model.preprocessing = SimpleNamespace(resize=96)  # type: ignore[attr-defined]
    model.precision = "float32"  # type: ignore[attr-defined]
    catalog = make_catalog(tmp_path, model=model)
    for _ in range(2):  # the second meets a model that is guarded already
        engine = Engine(catalog, ServeSettings(precision="bfloat16"))
        assert engine.drawn_side == 96 and model.precision == "bfloat16"  # type: ignore[attr-defined]
        assert engine.memory is not None
        engine.memory.close()
