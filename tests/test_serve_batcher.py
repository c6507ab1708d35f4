"""The micro-batcher and the engine around it: who shares a batch, who is refused, and what a stop finishes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel
from PIL import Image
from serve_zoo import Slow, item_id, make_catalog, noise, png, query_of, served

from isthmus.catalog.store import Catalog
from isthmus.errors import IsthmusError
from isthmus.serve.batcher import Batcher
from isthmus.serve.engine import Engine, Locked
from isthmus.serve.errors import ApiError
from isthmus.serve.settings import ServeSettings

POOL = ThreadPoolExecutor(1)


class Model:
    """Encodes a picture of one colour as that colour, behind a gate; `bad` colours fail alone, `poison` the batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.gate.set()
        self.bad: set[int] = set()
        self.poison: set[int] = set()

    def __call__(self, images: Sequence[Image.Image], domain: str) -> list[Any]:
        colours = [int(image.getpixel((0, 0))) for image in images]  # type: ignore[arg-type]
        self.batches.append((domain, colours))
        self.begun.set()
        assert self.gate.wait(10)
        if self.poison & set(colours):
            raise RuntimeError(f"{sorted(self.poison & set(colours))} can't be computed")
        return [IsthmusError(f"{colour} is bad") if colour in self.bad else np.float32([colour]) for colour in colours]


def picture(colour: int, side: int = 2) -> Image.Image:
    return Image.new("L", (side, side), colour)


def batcher(model: Model, **more: Any) -> Batcher:
    settings: dict[str, Any] = {"queue": 64, "pixels": 10**9, "batch": 16, "wait": 0.0, "deadline": 5.0}
    return Batcher(model, POOL, **{**settings, **more})


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run it with an end: a batcher that forgets somebody must not hang the tests."""
    return asyncio.run(asyncio.wait_for(work(), 20))


async def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came to be")


async def busy(model: Model, batches: Batcher, colour: int = 0) -> asyncio.Task[Any]:
    """The model is at work on one image and stays there until its gate opens."""
    model.gate.clear()
    model.begun.clear()
    task = asyncio.create_task(batches.embed(picture(colour), "photo"))
    await until(model.begun.is_set)
    return task


def test_what_comes_while_the_model_works_shares_a_batch() -> None:
    model = Model()

    async def work() -> None:
        seen: list[tuple[int, float]] = []
        batches = batcher(model, done=lambda size, seconds: seen.append((size, seconds)))
        first = await busy(model, batches)
        rest = [asyncio.create_task(batches.embed(picture(colour), "photo")) for colour in range(1, 6)]
        await until(lambda: batches.depth == 5)
        model.gate.set()
        answers = await asyncio.gather(first, *rest)
        assert [float(answer.vector[0]) for answer in answers] == [0, 1, 2, 3, 4, 5]
        assert model.batches == [("photo", [0]), ("photo", [1, 2, 3, 4, 5])]
        assert [size for size, _ in seen] == [1, 5] and all(seconds > 0 for _, seconds in seen)
        assert batches.depth == 0
        await batches.close()

    run(work)


def test_a_batch_is_of_one_domain_and_no_larger_than_it_may_be() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, batch=3)
        first = await busy(model, batches)
        tasks = [
            asyncio.create_task(batches.embed(picture(colour), "sketch" if colour % 2 else "photo"))
            for colour in range(1, 10)
        ]
        await until(lambda: batches.depth == 9)
        model.gate.set()
        answers = await asyncio.gather(first, *tasks)
        assert [float(answer.vector[0]) for answer in answers] == list(range(10))
        # The oldest that waits says which domain is next.
        assert model.batches[1:] == [("sketch", [1, 3, 5]), ("photo", [2, 4, 6]), ("sketch", [7, 9]), ("photo", [8])]

    run(work)


def test_a_lone_image_never_waits_and_a_crowd_does() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, wait=0.3)
        start = time.monotonic()
        for colour in range(3):
            await batches.embed(picture(colour), "photo")
        assert time.monotonic() - start < 0.25
        await asyncio.gather(*(batches.embed(picture(colour), "photo") for colour in range(3)))
        # After a crowd the next one is given company.
        late = asyncio.create_task(batches.embed(picture(7), "photo"))
        await asyncio.sleep(0.05)
        assert not late.done() and batches.depth == 1
        await asyncio.gather(late, batches.embed(picture(8), "photo"))
        assert model.batches[-1] == ("photo", [7, 8])

    run(work)


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, queue=2)
        tasks = [await busy(model, batches)]
        tasks += [asyncio.create_task(batches.embed(picture(colour), "photo")) for colour in (1, 2)]
        await until(lambda: batches.depth == 2)
        with pytest.raises(ApiError) as refused:
            await batches.embed(picture(3), "photo")
        assert (refused.value.status, refused.value.code) == (429, "busy")
        assert int(refused.value.headers["Retry-After"]) >= 1
        model.gate.set()
        await asyncio.gather(*tasks)
        assert (await batches.embed(picture(4), "photo")).vector[0] == 4

    run(work)


def test_large_images_fill_the_queue_sooner() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, pixels=250)
        first = await busy(model, batches)
        second = asyncio.create_task(batches.embed(picture(1, 20), "photo"))  # alone it may be larger
        await until(lambda: batches.depth == 1)
        with pytest.raises(ApiError, match="wait already"):
            await batches.embed(picture(2, 2), "photo")
        model.gate.set()
        await asyncio.gather(first, second)

    run(work)


def test_the_deadline_frees_the_place() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, deadline=0.15)
        first = await busy(model, batches)
        waiting = asyncio.create_task(batches.embed(picture(1), "photo"))
        for task in (first, waiting):  # one at work, one in the queue
            with pytest.raises(ApiError) as late:
                await task
            assert (late.value.status, late.value.code) == (504, "timeout")
        assert batches.depth == 0
        model.gate.set()
        assert (await batches.embed(picture(2), "photo")).vector[0] == 2
        assert [1] not in [colours for _, colours in model.batches]

    run(work)


def test_who_leaves_is_left_out() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model)
        first = await busy(model, batches)
        stays, leaves = (asyncio.create_task(batches.embed(picture(colour), "photo")) for colour in (1, 2))
        await until(lambda: batches.depth == 2)
        leaves.cancel()
        first.cancel()
        await until(lambda: batches.depth == 1)
        model.gate.set()
        assert (await stays).vector[0] == 1
        assert model.batches == [("photo", [0]), ("photo", [1])]

    run(work)


def test_a_failing_image_fails_alone() -> None:
    model = Model()
    model.bad, model.poison = {2}, {4}

    async def work() -> None:
        batches = batcher(model)
        first = await busy(model, batches)
        tasks = [asyncio.create_task(batches.embed(picture(colour), "photo")) for colour in range(1, 6)]
        await until(lambda: batches.depth == 5)
        model.gate.set()
        found = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [type(answer).__name__ for answer in found] == [
            "Embedded", "Embedded", "IsthmusError", "Embedded", "RuntimeError", "Embedded",
        ]  # fmt: skip
        assert [float(answer.vector[0]) for answer in found if not isinstance(answer, Exception)] == [0, 1, 3, 5]
        assert "2 is bad" in str(found[2]) and "[4]" in str(found[4])
        assert (await batches.embed(picture(6), "photo")).vector[0] == 6

    run(work)


def test_a_fault_in_between_reaches_those_who_wait() -> None:
    def faulty(size: int, seconds: float) -> None:
        raise ValueError("a fault of ours")

    async def work() -> None:
        batches = batcher(Model(), done=faulty, deadline=5)
        for _ in range(2):  # and the worker goes on
            with pytest.raises(ValueError, match="of ours"):
                await batches.embed(picture(1), "photo")

    run(work)


def test_a_stop_finishes_what_was_accepted() -> None:
    model = Model()

    async def work() -> None:
        batches = batcher(model, batch=2)
        tasks = [await busy(model, batches)]
        tasks += [asyncio.create_task(batches.embed(picture(colour), "photo")) for colour in range(1, 6)]
        await until(lambda: batches.depth == 5)
        closing = asyncio.create_task(batches.close())
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as late:
            await batches.embed(picture(9), "photo")
        assert late.value.status == 503 and not closing.done()
        model.gate.set()
        await closing
        assert [float(answer.vector[0]) for answer in await asyncio.gather(*tasks)] == list(range(6))

    run(work)


def test_one_batcher_in_several_loops() -> None:
    model = Model()
    batches = batcher(model)
    for colour in range(3):
        assert run(lambda colour=colour: batches.embed(picture(colour), "photo")).vector[0] == colour  # type: ignore[misc]
    run(batches.close)


# The engine


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("engine"))


def test_many_clients_share_batches_and_get_their_own_hits(tmp_path: Path) -> None:
    gate = threading.Event()
    model = Slow(lambda: gate.wait(10))
    gate.set()
    catalog = make_catalog(tmp_path, model=model)  # type: ignore[arg-type]
    model.batches.clear()

    async def work(engine: Engine) -> None:
        gate.clear()
        tasks = [
            asyncio.create_task(
                engine.search(query_of(catalog, number), is_id=False, domain="photo", k=1 + number % 3, offset=0)
            )
            for number in range(20)
        ]
        await until(lambda: len(model.batches) == 1)
        gate.set()
        for number, found in enumerate(await asyncio.gather(*tasks)):
            assert found.hits[0].id == item_id(number) and len(found.hits) == 1 + number % 3 and found.more
        assert sum(size for _, size in model.batches) == 20 and len(model.batches) <= 3
        await engine.close()

    engine = Engine(catalog, ServeSettings())
    run(lambda: work(engine))


def test_changes_are_made_one_at_a_time_and_to_the_end(catalog: Catalog) -> None:
    async def work() -> None:
        engine = Engine(catalog, ServeSettings())
        done: list[int] = []
        at_once = [0, 0]

        def change(number: int) -> int:
            at_once[0] += 1
            at_once[1] = max(at_once)
            time.sleep(0.02)
            at_once[0] -= 1
            done.append(number)
            return number

        tasks = [asyncio.create_task(engine.write(lambda number=number: change(number))) for number in range(6)]  # type: ignore[misc]
        await asyncio.sleep(0.03)
        tasks[5].cancel()  # its client has gone; it was accepted all the same
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError) as late:
            await engine.write(lambda: change(9))
        assert late.value.status == 503
        await closing
        assert done == list(range(6)) and at_once[1] == 1
        assert await asyncio.gather(*tasks[:5]) == list(range(5))
        for late_call in (engine.read(lambda: 1), engine.search("x", is_id=True, domain="photo", k=1, offset=0)):
            with pytest.raises(ApiError):
                await late_call

    run(work)


def test_a_search_that_was_accepted_is_answered_though_the_stop_has_begun(tmp_path: Path) -> None:
    gate = threading.Event()
    model = Slow(lambda: gate.wait(10))
    gate.set()
    catalog = make_catalog(tmp_path, model=model, items=2)  # type: ignore[arg-type]

    async def work() -> None:
        engine = Engine(catalog, ServeSettings())
        gate.clear()
        search = asyncio.create_task(engine.search(noise(1), is_id=False, domain="photo", k=2, offset=0))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        gate.set()
        assert len((await search).hits) == 2
        await closing

    run(work)


def test_a_search_that_takes_too_long_and_too_many_of_them(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(catalog, "search", lambda *a, **b: gate.wait(10) and [])

    async def work() -> None:
        engine = Engine(catalog, ServeSettings(deadline=0.2, queue=1, batch=1))
        tasks = [
            asyncio.create_task(engine.search(item_id(0), is_id=True, domain="photo", k=1, offset=0)) for _ in range(5)
        ]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answer.status for answer in answers if isinstance(answer, ApiError)] == [504, 504, 504, 429, 429]
        gate.set()
        assert (await engine.search(item_id(0), is_id=True, domain="photo", k=1, offset=0)).hits == []
        await engine.close()

    run(work)


def test_the_model_works_for_one_thread_at_a_time() -> None:
    inside = [0, 0]

    def before(_: int) -> None:
        inside[0] += 1
        inside[1] = max(inside)
        time.sleep(0.01)
        inside[0] -= 1

    model = Locked(FakeModel(before=before))
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda seed: model.encode([noise(seed)], domain="photo"), range(8)))
    assert inside[1] == 1 and len({vector.tobytes() for vector in vectors}) == 8


def test_busy_over_http_names_when_to_come_again(tmp_path: Path) -> None:
    gate = threading.Event()
    gate.set()
    model = Slow(lambda: gate.wait(10))
    catalog = make_catalog(tmp_path, model=model, items=2)  # type: ignore[arg-type]
    with served(catalog, queue=1, deadline=1.0) as client, ThreadPoolExecutor(8) as pool:
        gate.clear()
        send = lambda: client.post("/api/search/image", files={"image": ("x", png(noise(1)))})  # noqa: E731
        sent = [pool.submit(send) for _ in range(8)]
        time.sleep(0.3)
        assert "isthmus_queue_depth 1.0" in client.get("/metrics").text
        gate.set()
        answers = [future.result() for future in sent]
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429} and statuses.count(200) >= 2
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)
