"""`isthmus catalog recall`: what the quick search misses, told on the command line."""

from __future__ import annotations

from cli_zoo import World, answer_of, refused, works


def test_the_report_is_of_the_catalog_that_is_asked(cli_world: World) -> None:
    place = cli_world.folder / "catalog"
    items = answer_of("catalog", "info", place)["items"]
    for memory, way in (("auto", "memory flat"), ("hnsw", "memory hnsw"), ("off", "exact")):
        found = answer_of("catalog", "recall", place, "--queries", 5, "-k", 3, "--memory", memory)
        assert (found["way"], found["items"], found["queries"], found["k"]) == (way, items, 5, 3)
        assert found["recall"] == found["perfect"] == 1 and found["quick_ms"] > 0  # so few are all found
    said = works("catalog", "recall", place, "--queries", 5, "-k", 3).stdout
    assert "memory flat: recall@3 1.0000 over 5 queries" in said and "compared with every item" in said


def test_images_may_ask(cli_world: World) -> None:
    place = cli_world.folder / "catalog"
    images = cli_world.folder / "sketch"
    found = answer_of("catalog", "recall", place, "--images", images, "-k", 2)
    assert found["queries"] == len(list(images.rglob("*.png")))


def test_bad_input_is_one_sentence(cli_world: World) -> None:
    place = cli_world.folder / "catalog"
    refused("catalog", "recall", place, "--memory", "fast", says=("--memory", "auto, flat, hnsw or off"))
    refused("catalog", "recall", place, "--wanted", 2, says=("recall",))
    refused("catalog", "recall", place, "--images", "nowhere", says=("nowhere",))
    refused("catalog", "recall", place, "--tune", 0.9, says=("has no index to tune", "exact"))
    photos, run = cli_world.folder / "photo", cli_world.folder / "runs" / "syncdr"
    refused("index", run, photos, "--out", place, "--recall", 0.9, says=("--recall", "--tune"))
    refused("index", run, photos, "--out", cli_world.folder / "new", "--recall", 1.5, says=("recall", "at most 1"))
