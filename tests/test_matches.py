"""Searches that tell matches: Catalog.search, the command line, the API; nothing changes without a calibration."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from catalog_tools import FakeModel
from cli_zoo import World, answer_of, refused, works
from serve_zoo import error_of, item_id, make_catalog, noise, png, query_of, served, strokes

from isthmus import IsthmusError
from isthmus.catalog.store import Catalog
from isthmus.models.calibration import FILE, Calibration, Part
from isthmus.models.encoder import Model


def part(query: str, item: str, threshold: float, setting: str = "plain") -> Part:
    return Part(query, item, setting, threshold, 1e-3, 2e-3, 0.2, 8.0, -4.0, 0.1, 100, 9900)


def calibrated(*parts: Part, centres: bool = False, model: str | None = None) -> Calibration:
    return Calibration(
        model or FakeModel().fingerprint, ("sketch", "photo"), "label", 1e-3, False, centres, (10, 20), parts
    )


ACROSS = calibrated(part("sketch", "photo", 0.8), part("photo", "photo", 0.1))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("matches"))


@pytest.fixture(autouse=True)
def uncalibrated(request: pytest.FixtureRequest) -> Any:
    """Each test begins and ends without a calibration."""
    yield
    if "catalog" in request.fixturenames:
        request.getfixturevalue("catalog").judge_by(None)


def test_hits_have_a_probability_and_a_verdict(catalog: Catalog) -> None:
    query = query_of(catalog, 5, "sketch")
    plain = catalog.search(query, k=24)
    assert all(hit.match is None and hit.probability is None for hit in plain)
    assert all(set(hit.to_dict()) == {"id", "path", "score", "domain", "label", "metadata"} for hit in plain)
    catalog.judge_by(ACROSS)
    marked = catalog.search(query, k=24)
    assert [replace(hit, match=None, probability=None) for hit in marked] == plain
    for hit in marked:
        assert hit.match == (hit.score >= 0.8)
        odds = 8 * hit.score - 4 + math.log(0.1 / 0.9)
        assert hit.probability == pytest.approx(1 / (1 + math.exp(-odds)))
        assert hit.to_dict()["match"] == hit.match
    matches = [hit for hit in marked if hit.match]
    assert 0 < len(matches) < 24 and marked[0].id == item_id(5)
    assert catalog.search(query, k=24, matches_only=True) == matches
    assert catalog.search(noise(3), k=24, matches_only=True) == []  # no match is an answer
    answers = catalog.search_many([query, noise(3)], k=24, matches_only=True)
    assert answers == [matches, []]


def test_each_direction_has_its_own_threshold(catalog: Catalog) -> None:
    catalog.judge_by(ACROSS)
    alike = catalog.search(id=item_id(2), domain="sketch", k=23)  # an item is of its own domain, whatever is said
    assert [hit.match for hit in alike] == [hit.score >= 0.1 for hit in alike] and any(hit.match for hit in alike)
    vector = catalog.items.fetch([item_id(2)])[1][0]
    assert all(hit.match is None for hit in catalog.search(vector))  # of what domain, nobody said
    assert catalog.search(vector, domain="photo", k=2)[0].match is True
    with pytest.raises(IsthmusError, match="no threshold for a query of unknown domain against photo"):
        catalog.search(vector, matches_only=True)
    catalog.judge_by(calibrated(part("sketch", "photo", 0.8)))
    assert all(hit.match is None for hit in catalog.search(id=item_id(2)))
    with pytest.raises(IsthmusError, match="no threshold for photo against photo"):
        catalog.search(id=item_id(2), matches_only=True)
    catalog.judge_by(None)
    with pytest.raises(IsthmusError, match=r"isthmus calibrate RUN"):
        catalog.search(noise(1), matches_only=True)


def test_centring_of_query_and_items_has_to_be_the_one_that_was_calibrated(catalog: Catalog) -> None:
    query = query_of(catalog, 5, "sketch")
    both = part("sketch", "photo", 0.8), part("sketch", "photo", 0.5, "centred")
    catalog.judge_by(
        calibrated(*both, centres=True)
    )  # the model doesn't centre by itself, and the items are as it does
    assert [hit.match for hit in catalog.search(query, k=24)] == [h.score >= 0.8 for h in catalog.search(query, k=24)]
    assert all(hit.match is None for hit in catalog.search(query, centring=True))
    assert all(hit.match is not None for hit in catalog.search(query, centring=False))
    catalog.judge_by(replace(calibrated(*both, centres=True), centring=True))
    assert [hit.match for hit in catalog.search(query, k=24)] == [h.score >= 0.5 for h in catalog.search(query, k=24)]


def test_it_is_found_beside_the_model(cli_world: World, tmp_path: Path) -> None:
    run, place = tmp_path / "run", tmp_path / "catalog"
    shutil.copytree(cli_world.folder / "runs" / "syncdr", run)
    works("index", run, cli_world.folder / "photo" / "test", "--out", place, "--workers", 0)
    query = cli_world.folder / "sketch" / "test" / "cat" / "0.png"
    before = answer_of("search", place, query)
    refused("search", place, query, "--matches-only", says=("isthmus calibrate RUN",))
    print_ = Model.load(run).fingerprint
    parts = [part(q, i, t, s) for s in ("plain", "centred") for q, i, t in
             (("sketch", "photo", 1.0), ("photo", "photo", -1.0))]  # fmt: skip
    calibrated(*parts, centres=True, model=print_).save(run / "model")
    after = answer_of("search", place, query)
    assert [hit.pop("match") for hit in after[0]["hits"]] == [False] * 4
    assert all(0 < hit.pop("probability") < 1 for hit in after[0]["hits"]) and after == before
    text = works("search", place, query).stdout
    assert "probability" in text and "no match above the threshold; the hits are only the nearest" in text
    assert works("search", place, query, "--matches-only").stdout.strip() == f"{query}: no match above the threshold"
    assert answer_of("search", place, query, "--matches-only") == [{"query": str(query), "hits": []}]
    item = after[0]["hits"][0]["id"]
    assert len(answer_of("search", place, item, "--matches-only")[0]["hits"]) == 3  # no model is loaded for that
    # Of another model that was put into the same place since: not ours, so nothing is told.
    calibrated(*parts, model="f" * 16).save(run / "model")
    assert "match" not in answer_of("search", place, item)[0]["hits"][0]
    (run / "model" / FILE).write_text("{")
    refused("search", place, query, says=(FILE, "is damaged", "isthmus calibrate RUN"))


def test_over_http(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    query, body = png(query_of(catalog, 5, "sketch")), {"strokes": strokes(), "k": 5}

    def by_image(client: Any, **options: Any) -> Any:
        return client.post("/api/search/image", files={"image": ("a.png", query)},
                           data={"options": json.dumps({"domain": "sketch", **options})})  # fmt: skip

    with served(catalog) as client:
        plain = by_image(client).json()
        assert "no_match" not in plain and not {"match", "probability"} & set(plain["hits"][0])
        assert {"label", "chosen"} <= {*plain, *plain["hits"][0]} and plain["hits"][0]["label"] is None
        for answer in (
            by_image(client, matches_only=True),
            client.post("/api/search", json=body | {"matches_only": True}),
        ):
            assert "isthmus calibrate RUN" in error_of(answer, 400, "bad_request")
        assert "matches_only" in error_of(by_image(client, matches_only=1), 400, "bad_request")
    catalog = Catalog.open(catalog.path, FakeModel())
    catalog.judge_by(ACROSS)
    with served(catalog) as client:
        found = by_image(client, k=24).json()
        assert [hit["match"] for hit in found["hits"]] == [hit["score"] >= 0.8 for hit in found["hits"]]
        assert found["no_match"] is False and 0 < found["hits"][0]["probability"] < 1
        stripped = [{k: v for k, v in hit.items() if k not in ("match", "probability")} for hit in found["hits"]]
        assert stripped[: len(plain["hits"])] == plain["hits"]
        count = sum(hit["match"] for hit in found["hits"])
        only = by_image(client, k=24, matches_only=True).json()
        assert [hit["id"] for hit in only["hits"]] == [hit["id"] for hit in found["hits"][:count]] and not only["more"]
        if count > 1:
            assert by_image(client, k=1, matches_only=True).json()["more"]
        later = by_image(client, k=5, offset=10).json()
        assert "no_match" not in later and later["hits"][0]["match"] is False
        drawn = client.post("/api/search", json=body | {"matches_only": True}).json()
        assert drawn["hits"] == [] and drawn["no_match"] is True and drawn["more"] is False
        alike = client.post("/api/search", json={"id": item_id(2), "k": 3}).json()
        assert [hit["match"] for hit in alike["hits"]] == [hit["score"] >= 0.1 for hit in alike["hits"]]
        fields = client.get("/api/openapi.json").json()["components"]["schemas"]
        assert "matches_only" in fields["Search"]["properties"] and "no_match" in fields["Results"]["properties"]
    catalog.judge_by(calibrated(part("photo", "photo", 0.1)))
    with served(Catalog.open(catalog.path, FakeModel())) as client:
        client.app.state.engine.catalog.judge_by(calibrated(part("photo", "photo", 0.1)))  # type: ignore[attr-defined]
        assert "no threshold for sketch" in error_of(by_image(client, matches_only=True), 400, "bad_request")
        assert "no_match" not in by_image(client).json()


def test_a_damaged_calibration_stops_no_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_catalog(tmp_path)
    model = FakeModel()
    model.beside = {FILE: b"{"}  # type: ignore[attr-defined]
    with served(Catalog.open(tmp_path / "catalog", model)) as client:
        assert "match" not in client.post("/api/search", json={"id": item_id(2)}).json()["hits"][0]
    assert FILE in caplog.text and "damaged" in caplog.text
