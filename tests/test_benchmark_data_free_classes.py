"""Which classes and rows a data-free benchmark has: who knows what, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_free_bench_zoo import STYLES, collection

from isthmus.benchmark.data_free_classes import choose_classes, divide, read_images
from isthmus.benchmark.data_free_rows import ROWS, choose_rows


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("collection"))


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.8, 1.0])
def test_shares_are_nested_and_leave_nothing_out(overlap: float) -> None:
    names = [f"c{n}" for n in range(10)]
    sketch, photo = (set(part) for part in divide(names, overlap, 1))
    assert sketch | photo == set(names) and len(sketch & photo) == round(10 * overlap)
    assert abs(len(sketch) - len(photo)) <= 1
    assert sketch & photo <= set.intersection(*map(set, divide(names, min(1.0, overlap + 0.1), 1)))
    if overlap < 1:
        assert divide(names, overlap, 1) != divide(names, overlap, 2)


def test_classes_are_those_with_most_test_sketches(images: Path) -> None:
    sketch, photo = (read_images(name, str(images / name)) for name in STYLES)
    known, apart = choose_classes(sketch, photo, classes=None, known=2, held_out=1)
    assert known == ("class0", "class1") and apart == ("class2",)
    assert choose_classes(sketch, photo, classes=None, known=None, held_out=1)[0] == tuple(
        f"class{n}" for n in range(4)
    )
    for part in (sketch, photo):
        assert "25% of each class" in part.notes[0]
        assert all(0 < part.counts("test")[name] < part.counts("train")[name] for name in part.counts())


def test_what_cannot_differ_is_left_out_with_a_sentence() -> None:
    terms = {
        "students": "teachers",
        "queue_weight": 0,
        "readout": "both",
        **{row.term: 2 for row in ROWS if row.term},
        "entropy_weight": 0,
    }
    rows, notes = choose_rows(None, "unified", alternative=False, weights="random", terms=terms)
    gone = {row.name for row in ROWS} - {row.name for row in rows}
    alone = {"procrustes", "averaged-weights", "untrained", "no-mixing"}
    assert gone == {"alternative", "data-free-weights", "no-balance", *alone}
    assert len(notes) == 7 and any("--alternative photo=PATH,sketch=PATH" in note for note in notes)
    assert "embedding-only" in {row.name for row in rows}
    terms |= {
        "readout": "embedding",
        "students": "scratch",
        "contrast_weight": 0,
        "distillation_weight": 0,
        "queue_weight": 0,
    }
    left, notes = choose_rows(None, "independent", alternative=True, weights="x", terms=terms)
    assert "students learn from data_free.proxy_weight alone" in " ".join(notes)
    assert not {"embedding-only", "data-free-scratch", "no-proxy"} & {row.name for row in left}
