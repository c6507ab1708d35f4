"""The page in a real Chromium over the real service: draw, look, filter, open, mark; errors are told."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from page_zoo import CHROMIUM, GIVE, TOUCH, listening, says, searches, stroke, titles, until
from serve_zoo import ITEMS, item_id, make_catalog, metadata, query_of

from isthmus.catalog.store import Catalog
from isthmus.serve import routes_page

PAGE = Path(routes_page.__file__).parent / "page"
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def app(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    from isthmus.serve.app import create_app
    from isthmus.serve.engine import Engine
    from isthmus.serve.settings import ServeSettings

    marks = tmp_path_factory.mktemp("marks") / "feedback.jsonl"
    return create_app(Engine(catalog, ServeSettings(feedback=marks)))


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with listening(app) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end no console error that was not `expected`, and no request to anybody else."""
    contexts: list[Any] = []
    wrong: list[str] = []
    allowed: list[str] = []

    def said(message: Any) -> None:
        if message.type == "error":
            wrong.append(message.text)

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "blob:", "data:")):
            wrong.append(request.url)

    def open_page(expected: str = "", before: Callable[[Any], None] | None = None, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 820}, "locale": "en-GB"} | options)
        contexts.append(context)
        allowed.extend([expected] if expected else [])
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", asked)
        if before is not None:
            before(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in wrong if not any(part in text for part in allowed)] == []


@needs_chromium
def test_draw_and_see_hits_then_undo_erase_and_clear(opened: Callable[..., Any]) -> None:
    page = opened()
    bodies = searches(page)
    says(page, f"{ITEMS} items", "#about")
    page.locator("#width").fill("9")
    stroke(page, (0.2, 0.2), (0.8, 0.3), (0.5, 0.8))
    says(page, "24 results")
    assert page.locator(".hit").count() == ITEMS and page.locator("#more").is_hidden()
    until(page, "[...document.querySelectorAll('.hit img')].slice(0, 4).every((img) => img.naturalWidth > 0)")
    line = bodies[-1]["strokes"]["lines"][0]
    assert line["width"] == 9 and not line["erase"] and len(line["points"]) >= 6 and bodies[-1]["domain"] is None
    first = line["points"][0]
    assert abs(first[0] - 0.2 * 512) < 3 and abs(first[1] - 0.2 * 512) < 3
    page.get_by_role("button", name="Eraser").click()
    with page.expect_response("**/api/search"):
        stroke(page, (0.7, 0.1), (0.7, 0.5))
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.locator("#empty").wait_for()
    assert page.locator(".hit").count() == 0 and page.locator("#undo").is_disabled()
    with page.expect_response("**/api/search"):
        page.keyboard.press("Control+Shift+Z")
    says(page, "24 results")
    assert page.locator("#canvas").get_attribute("aria-label") == "Your drawing, 1 line"
    page.get_by_role("button", name="Clear", exact=True).click()
    page.locator("#empty").wait_for()
    page.get_by_role("button", name="Undo").click()
    says(page, "24 results")
    assert any(part["strokes"]["lines"][-1]["erase"] for part in bodies)


@needs_chromium
def test_filters_narrow_and_say_so(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("button", name="Sketch of a shoe").click()
    says(page, "24 results")
    bodies = searches(page)
    page.locator("summary", has_text="brand").click()
    page.get_by_role("checkbox", name=re.compile("O'Neil")).check()
    page.get_by_role("checkbox", name=re.compile("Acme")).check()
    says(page, "12 results")
    page.keyboard.press("Escape")
    page.locator("summary", has_text="price").click()
    page.get_by_label("at least").fill("20")
    page.get_by_label("at most").fill("many")  # no number: no condition, and marked
    expected = sum(
        1
        for n in range(ITEMS)
        if metadata(n)["brand"] in ("Acme", "O'Neil & Söhne") and (metadata(n)["price"] or 0) >= 20
    )
    says(page, f"{expected} results")
    assert page.get_by_label("at most").get_attribute("aria-invalid") == "true"
    page.locator("summary", has_text="made").click()
    page.get_by_label("from", exact=True).fill("2027-01-01")
    says(page, "No results. Loosen a filter.")
    assert {"column": "made", "is": ">=", "value": "2027-01-01"} in bodies[-1]["where"]["all"]
    page.get_by_role("button", name="Clear 3 filters").click()
    says(page, "24 results")
    assert bodies[-1]["where"] is None
    page.locator("summary", has_text="new").click()
    page.get_by_role("checkbox", name=re.compile("yes")).check()
    says(page, f"{sum(metadata(n)['new'] is True for n in range(ITEMS))} results")
    assert bodies[-1]["where"] == {"all": [{"column": "new", "in": [True]}]}


@needs_chromium
def test_open_one_more_like_this_and_marks(opened: Callable[..., Any]) -> None:
    page = opened()
    page.get_by_role("button", name="Sketch of a cat").click()
    says(page, "24 results")
    page.locator(".hit").first.focus()
    for key, place in (("ArrowRight", 1), ("ArrowDown", None), ("Home", 0), ("End", ITEMS - 1), ("Home", 0)):
        page.keyboard.press(key)
        at = page.evaluate("[...document.querySelectorAll('.hit')].indexOf(document.activeElement)")
        assert at == place if place is not None else at > 1
    page.keyboard.press("ArrowRight")
    name = titles(page)[1]
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.get_by_role("heading").inner_text() == name
    until(page, "document.getElementById('detail-picture').naturalWidth > 0")
    shown = dialog.locator("dl").inner_text()
    number = next(n for n in range(ITEMS) if item_id(n) == name)
    assert ("yes" in shown) == (metadata(number)["new"] is True) and name in shown
    page.keyboard.press("ArrowRight")
    assert dialog.get_by_role("heading").inner_text() == titles(page)[2]
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("[...document.querySelectorAll('.hit')].indexOf(document.activeElement)") == 2
    name = titles(page)[2]
    with page.expect_response("**/api/feedback") as answer:
        page.get_by_role("button", name=f"Mark {name} as right").click()
    assert answer.value.status == 201
    assert page.get_by_role("button", name=f"Mark {name} as right").get_attribute("aria-pressed") == "true"
    page.locator(".hit").nth(2).click()
    page.get_by_role("button", name="More like this").click()
    says(page, f"like {name}", "#taken-text")
    says(page, f"{ITEMS - 1} results")
    assert name not in titles(page) and page.locator("#canvas").is_hidden()
    page.get_by_role("button", name="Back to drawing").click()
    says(page, "24 results")
    assert page.locator("#canvas").is_visible()


@needs_chromium
def test_an_image_is_chosen_corrected_pasted_and_refused(opened: Callable[..., Any], catalog: Catalog) -> None:
    page = opened("status of 4")
    photo = io.BytesIO()
    query_of(catalog, 5).save(photo, "PNG")
    file = {"name": "five.png", "mimeType": "image/png", "buffer": photo.getvalue()}
    page.set_input_files("#file", file)
    says(page, "Searched as “sketch”", "#taken-text")
    page.get_by_role("radio", name="photo").check(force=True)
    says(page, "Searched as “photo”", "#taken-text")
    says(page, f"best: {item_id(5)}, 1.00")
    assert page.get_by_role("radio", name="photo").is_checked()
    page.set_input_files("#file", {**file, "buffer": b"no image at all"})
    page.locator("#notice").wait_for()
    assert page.locator("#notice").inner_text().endswith(".") and page.locator("#notice button").count() == 0
    # Neither a broken picture nor the hits of the image before.
    says(page, "This file can't be searched with", "#taken-text")
    assert page.locator("#hits li").count() == 0 and page.locator("#status").inner_text() == ""
    until(page, "document.getElementById('shown').hidden")
    assert page.locator("#domains").is_hidden()
    for kind in ("paste", "drop"):
        with page.expect_response("**/api/search/image") as answer:
            page.evaluate(GIVE, [list(photo.getvalue()), "image/png", kind])
        assert answer.value.status == 200
    # The answer is here, but perhaps not shown yet; showing it takes a notice away.
    until(page, "document.getElementById('results').getAttribute('aria-busy') === 'false'")
    page.evaluate(GIVE, [list(b"text"), "text/plain", "drop"])
    says(page, "That is no image", "#notice")
    assert page.locator("#shown").is_visible()


@needs_chromium
def test_low_confidence_is_said(opened: Callable[..., Any], catalog: Catalog) -> None:
    page = opened()

    def unsure(route: Any) -> None:
        answer = route.fetch()
        chosen = {"by": "classifier", "probability": 0.58, "sure": False}
        route.fulfill(response=answer, json=answer.json() | {"chosen": chosen})

    page.route("**/api/search/image", unsure)
    photo = io.BytesIO()
    query_of(catalog, 3).save(photo, "PNG")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": photo.getvalue()})
    says(page, "Perhaps “sketch”, but hard to tell (58% sure). Please check:", "#taken-text")


@needs_chromium
def test_errors_are_told_and_a_busy_server_is_left_in_peace(opened: Callable[..., Any]) -> None:
    page = opened("Failed to load resource")
    answers: list[tuple[int, dict[str, str]]] = [(503, {}), (429, {"Retry-After": "1"})]
    times: list[float] = []

    def answer(route: Any) -> None:
        times.append(time.monotonic())
        if not answers:
            route.continue_()
            return
        status, headers = answers.pop(0)
        body = {"error": {"code": "x", "reason": "The shelf is locked just now."}}
        route.fulfill(status=status, headers=headers, json=body)

    page.route("**/api/search", answer)
    page.get_by_role("button", name="Sketch of a house").click()
    says(page, "The shelf is locked just now.", "#notice")
    page.get_by_role("button", name="Try again").click()
    says(page, "busy; searching again in 1 second", "#notice")
    page.get_by_role("button", name="Sketch of a fish").click()  # a newer wish waits, too
    says(page, "24 results")
    assert page.locator("#notice").is_hidden()
    assert len(times) == 3 and times[2] - times[1] >= 0.95
    page.route("**/api/search", lambda route: route.abort())
    page.get_by_role("button", name="Sketch of a cup").click()
    says(page, "The server can't be reached.", "#notice")
    assert page.locator(".hit").count() == ITEMS  # what was found stays


@needs_chromium
def test_one_search_at_a_time_and_old_answers_are_dropped(opened: Callable[..., Any]) -> None:
    page = opened()
    waiting: list[Any] = []
    page.route("**/api/search", lambda route: waiting.append(route))
    page.get_by_role("button", name="Sketch of a car").click()
    page.wait_for_timeout(400)
    for name in ("cup", "fish", "chair"):
        page.get_by_role("button", name=f"Sketch of a {name}").click()
        page.wait_for_timeout(300)
    assert len(waiting) == 1
    old, fresh = waiting[0].fetch().json(), waiting[0].fetch().json()
    old["hits"], fresh["hits"] = old["hits"][:2], fresh["hits"][:5]
    waiting[0].fulfill(json=old)
    page.wait_for_timeout(150)
    assert len(waiting) == 2 and page.locator(".hit").count() == 0
    examples = json.loads((PAGE / "examples.json").read_text())["sketches"]
    chair = next(sketch for sketch in examples if sketch["name"] == "chair")
    assert len(waiting[1].request.post_data_json["strokes"]["lines"]) == len(chair["lines"])
    waiting[1].fulfill(json=fresh)
    says(page, "5 results")


@needs_chromium
def test_load_more_goes_on_where_it_was(opened: Callable[..., Any]) -> None:
    def small(page: Any) -> None:
        def answer(route: Any) -> None:
            facts = route.fetch()
            about = facts.json()
            about["limits"]["k"] = 10
            route.fulfill(response=facts, json=about)

        page.route("**/api/catalog", answer)

    first: list[Any] = []

    def moved(route: Any) -> None:  # the catalog changed: the next page begins with a hit that is shown already
        results = route.fetch().json()
        first.extend(results["hits"][:1])
        results["hits"] = first[:1] + [hit for hit in results["hits"] if hit["id"] != first[0]["id"]]
        route.fulfill(json=results)

    page = opened(before=small)
    page.route("**/api/search", moved)
    page.get_by_role("button", name="Sketch of a guitar").click()
    says(page, "10 results")
    for count in (20, ITEMS):
        page.get_by_role("button", name="Load more").click()
        says(page, f"{count} results")
    assert len(set(titles(page))) == ITEMS and page.locator("#more").is_hidden()


@needs_chromium
def test_the_keyboard_draws_and_reaches_everything(opened: Callable[..., Any]) -> None:
    page = opened()
    says(page, "items", "#about")
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.ariaLabel || document.activeElement.innerText"
            )
        )
    assert {"canvas", "pen", "eraser", "width", "choose", "Sketch of a shoe", "price"} <= seen
    page.locator("#canvas").focus()
    for key in ("Space", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "Space"):
        page.keyboard.press(key)
    says(page, "24 results")
    outline = page.evaluate("getComputedStyle(document.getElementById('easel')).outlineStyle")
    assert outline == "solid"


@needs_chromium
def test_a_phone_and_the_dark(opened: Callable[..., Any]) -> None:
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark")
    says(page, "items", "#about")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", paper)[:3])) < 60
    page.evaluate(TOUCH)
    says(page, "24 results")
    assert page.locator("#canvas").get_attribute("aria-label") == "Your drawing, 1 line"
    assert page.evaluate("getComputedStyle(document.getElementById('canvas')).touchAction") == "none"
    page.locator(".hit").first.tap()
    page.get_by_role("dialog").wait_for()
    for width in (360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.get_by_role("dialog").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


@needs_chromium
def test_a_token_opens_a_closed_catalog(opened: Callable[..., Any]) -> None:
    def closed(page: Any) -> None:
        def answer(route: Any) -> None:
            if route.request.headers.get("authorization") == "Bearer open sesame":
                route.continue_()
            else:
                route.fulfill(status=401, json={"error": {"code": "no_token", "reason": "Reading needs a token."}})

        page.route("**/api/**", answer)

    page = opened("status of 401", before=closed)
    says(page, "a token opens it", "#notice")
    page.get_by_label("asks for a token").fill("open sesame")
    page.get_by_role("button", name="Use it").click()
    page.get_by_role("button", name="Sketch of a shoe").click()
    says(page, "24 results")
    until(page, "document.querySelector('.hit img').naturalWidth > 0")
    assert page.locator(".hit img").first.get_attribute("src").startswith("blob:")
