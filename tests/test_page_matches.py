"""The page of a calibrated catalog: it says that there is no match, and marks hits below the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from catalog_tools import FakeModel
from page_zoo import CHROMIUM, listening, says, stroke
from serve_zoo import ITEMS, make_catalog
from test_matches import calibrated, part

from isthmus.catalog.store import Catalog

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Any, Catalog]]:
    from isthmus.serve.app import create_app
    from isthmus.serve.engine import Engine
    from isthmus.serve.settings import ServeSettings

    api = pytest.importorskip("playwright.sync_api")
    catalog = make_catalog(tmp_path, model=FakeModel())
    app = create_app(Engine(catalog, ServeSettings()))
    with listening(app) as address, api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 820})
        page.set_default_timeout(8000)
        page.goto(address)
        yield page, catalog
        browser.close()


def test_no_match_is_said_and_hits_are_marked(opened: tuple[Any, Catalog]) -> None:
    page, catalog = opened
    line, marked = page.locator("#no-match"), page.locator(".hits .below")
    stroke(page, (0.2, 0.2), (0.8, 0.3))
    says(page, f"{ITEMS} results")
    assert line.is_hidden() and marked.count() == 0  # without a calibration nothing changes
    assert "probability" not in page.locator("body").inner_text()
    catalog.judge_by(calibrated(part("sketch", "photo", 1.0), part("photo", "photo", -1.0)))
    with page.expect_response("**/api/search"):
        stroke(page, (0.2, 0.7), (0.8, 0.8))
    line.wait_for()
    assert "No match above the threshold" in line.inner_text()
    assert marked.count() == ITEMS and "below the threshold" in marked.first.inner_text()
    assert "below the threshold" in str(page.locator(".hit").first.get_attribute("aria-label"))
    page.locator(".hit").first.click()
    assert "probability of a match" in page.locator("#detail-facts").inner_text()
    page.locator("#detail-alike").click()  # photo against photo: everything is a match
    says(page, f"{ITEMS - 1} results")
    assert line.is_hidden() and marked.count() == 0
    page.locator("#back").click()
    line.wait_for()
    page.get_by_role("button", name="Clear", exact=True).click()
    page.locator("#empty").wait_for()
    assert line.is_hidden()
