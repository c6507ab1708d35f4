"""The truncated mean average precision of the paper's public code, under its own name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from isthmus.errors import IsthmusError
from isthmus.evaluate.formulas import Cutoffs, first_hits, first_precisions
from isthmus.evaluate.metrics import metrics_from_similarities

NAME = first_hits(10)


def published(relevant: list[bool], most: int) -> float:
    """As their loop goes: down the list, until enough are found."""
    found, total = 0, 0.0
    for rank, hit in enumerate(relevant, start=1):
        if hit:
            found += 1
            total += found / rank
            if found == most:
                break
    return total / found if found else 0.0


def measured(lists: list[list[bool]], ks: Cutoffs) -> dict[str, list[float]]:
    """Each list as a query whose gallery is ranked from the first item to the last."""
    values: dict[str, list[float]] = {}
    for one in lists:
        result = metrics_from_similarities(
            torch.linspace(1, 0, len(one))[None], ["a"], ["a" if hit else "b" for hit in one],
            gallery_ids=[str(n) for n in range(len(one))], ks=ks, bootstrap=0,
        )  # fmt: skip
        for name, score in result.scores.items():
            values.setdefault(name, []).append(score)
    return values


def test_it_is_what_an_independent_loop_finds() -> None:
    dice = np.random.default_rng(0)
    lists = [[True], [False, True], *[[*(dice.random(60) < share).tolist(), True] for share in (0.05, 0.3, 0.9)]]
    found = measured(lists, Cutoffs(first=(1, 3, 10)))
    for most in (1, 3, 10):
        assert found[first_hits(most)] == pytest.approx([published(one, most) for one in lists])
    assert found[first_hits(10)][:2] == found["mAP@all"][:2]  # with fewer hits it is average precision


def test_ten_early_hits_hide_everything_behind_them() -> None:
    early = [True] * 10 + [False] * 900 + [True] * 90
    found = measured([early], Cutoffs(first=(10,)))
    assert found[NAME] == [1.0]
    assert found["mAP@all"][0] < 0.17


def test_it_is_off_by_default_and_named_apart() -> None:
    assert NAME not in measured([[True, False]], Cutoffs())
    assert NAME == "mAP@10hits (data-free-sbir)"
    with pytest.raises(IsthmusError, match="below 1"):
        Cutoffs(first=(0,))


@pytest.mark.parametrize(("n", "relevant", "most"), [(6, 3, 2), (6, 3, 10), (7, 1, 1), (5, 5, 3)])
def test_chance_is_the_mean_over_all_orders(n: int, relevant: int, most: int) -> None:
    orders = [[place in hits for place in range(n)] for hits in itertools.combinations(range(n), relevant)]
    mean = float(np.mean([published(one, most) for one in orders]))
    assert first_precisions(n, np.array([relevant]), most) == pytest.approx([mean])
    assert measured([orders[0]], Cutoffs(first=(most,)))[first_hits(most)] == [1.0]
