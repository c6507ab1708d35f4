"""Filters against an evaluation of the same conditions in plain Python, and what a wrong one is told."""

from __future__ import annotations

import datetime as dt
import fnmatch
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_tools import FakeModel, photos
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import Catalog, IsthmusError
from isthmus.catalog.filters import All, Any_, Column, Compare, Condition, Like, Missing, Not, OneOf
from isthmus.catalog.where import compile_where, parse

KINDS = {"price": "number", "brand": "text", "new": "flag", "since": "time", "date": "time", "Two Words": "number"}
TIMES = [dt.datetime(2024, 1, 1), dt.datetime(2025, 6, 1, 12, 30)]
VALUES: dict[str, list[Any]] = {
    "price": [None, -1.5, 0.0, 3.0, 49.9, 1e-7],
    "brand": [None, "", "acme", "Acme", "it's", "a_b", "100%", "naïve\nline"],
    "new": [None, True, False],
    "since": [None, *TIMES],
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("filters")
    draw = random.Random(0)
    photos(folder / "photos", 60)
    made = Catalog.create(folder / "catalog", FakeModel())
    values = {
        f"photo/{number:03}.png": {name: draw.choice(choices) for name, choices in VALUES.items()}
        for number in range(60)
    }
    made.add(folder / "photos", metadata=values)
    return made


def holds(condition: Condition, row: dict[str, Any]) -> bool | None:
    """SQL's three values: true, false, unknown."""
    if isinstance(condition, Not):
        inner = holds(condition.part, row)
        return None if inner is None else not inner
    if isinstance(condition, All):
        parts = [holds(part, row) for part in condition.parts]
        return False if False in parts else None if None in parts else True
    if isinstance(condition, Any_):
        parts = [holds(part, row) for part in condition.parts]
        return True if True in parts else None if None in parts else False
    value = row[condition.column.name]
    if isinstance(condition, OneOf) and not condition.values:
        return False
    if isinstance(condition, Missing):
        return value is None
    if value is None:
        return None
    if isinstance(condition, OneOf):
        return value in condition.values
    if isinstance(condition, Like):
        pattern, value = condition.pattern, str(value)
        if condition.ignore_case:
            pattern, value = pattern.lower(), value.lower()
        return fnmatch.fnmatchcase(value, pattern.replace("_", "?").replace("%", "*"))
    other = row[condition.value.name] if isinstance(condition.value, Column) else condition.value
    if other is None:
        return None
    return {
        "=": value == other, "!=": value != other, "<": value < other, "<=": value <= other, ">": value > other,
        ">=": value >= other,
    }[condition.operator]  # fmt: skip


def leaves() -> st.SearchStrategy[Condition]:
    operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
    kinds: list[st.SearchStrategy[Condition]] = [st.builds(Missing, st.sampled_from([Column(n) for n in VALUES]))]
    for name, choices in VALUES.items():
        value = st.sampled_from([choice for choice in choices if choice is not None])
        signs = st.sampled_from(["=", "!="]) if name == "new" else operators
        kinds.append(st.builds(Compare, st.just(Column(name)), signs, value))
        kinds.append(st.builds(OneOf, st.just(Column(name)), st.lists(value, max_size=3).map(tuple)))
    patterns = st.text("ac%_e's", max_size=4)
    kinds.append(st.builds(Like, st.just(Column("brand")), patterns, st.booleans()))
    return st.one_of(kinds)


conditions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Any_, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(condition=conditions)
def test_conditions_mean_what_they_say(catalog: Catalog, condition: Condition) -> None:
    expected = {row["id"] for row in catalog.rows() if holds(condition, row) is True}
    assert {hit.id for hit in catalog.search(np.ones(48), k=100, where=condition)} == expected


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), st.text("price brand()'`\"<>=!,.%-;0123456789andornotinlike ", max_size=60)))
def test_any_text_is_a_filter_or_a_sentence(catalog: Catalog, text: str) -> None:
    try:
        catalog.count(text)
    except IsthmusError as error:
        assert str(error).isprintable() and ".rs:" not in str(error)


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("price<-5", "`price` < -5.0"),
        ("50 > PRICE", "`price` < 50.0"),
        ("price <> 1e3", "`price` != 1000.0"),
        ("price not in (1, 2)", "(`price` IS NOT NULL AND NOT `price` IN (1.0, 2.0))"),
        ("brand = 'it''s -- ; not code'", "`brand` = 'it''s -- ; not code'"),
        ("a.price < 1", None),
        ("date >= '2026-01-31'", "`date` >= timestamp '2026-01-31 00:00:00'"),
        ("since < timestamp '2026-01-31T10:00:00+02:00'", "`since` < timestamp '2026-01-31 08:00:00'"),
        ("since < date '2026-01-31'", "`since` < timestamp '2026-01-31 00:00:00'"),
        ("new and not new or date is not null", "((`new` = true AND (NOT `new` = true)) OR (`date` IS NOT NULL))"),
        ("since = date", "`since` = `date`"),
        ("brand ilike '%A%'", "`brand` ILIKE '%A%'"),
    ],
)  # fmt: skip
def test_the_text_of_a_filter(text: str, sql: str | None) -> None:
    if sql is None:
        with pytest.raises(IsthmusError, match="can't be read at"):
            compile_where(text, KINDS)  # type: ignore[arg-type]
    else:
        assert compile_where(text, KINDS) == sql  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("cost < 3", r"no column 'cost'.*price \(number\).*new \(flag\)"),
        ("price <", "it ends where"),
        ("price < 50 brand", "there is 'brand' where the end, AND or OR"),
        ("price < 'cheap'", "holds numbers, and 'cheap' is none"),
        ("brand = 3", "holds texts, and 3.0 is none"),
        ("brand", "holds texts, and true is none"),
        ("new = 1", "holds flags"),
        ("since > 'yesterday'", "holds times"),
        ("price LIKE '%'", "LIKE compares text"),
        ("price < brand", "can't be compared"),
        ("lower(brand) = 'a'", r"can't call functions such as lower\(\)"),
        ("price < 5; drop table items", "can't be read at '; drop table items'"),
        ("brand = 'open", "can't be read at"),
        ("price < 1e999", "finite"),
        ("(" * 60 + "new" + ")" * 60, "nested"),
        (" or ".join(["price = 1"] * 600), "more than 500 conditions"),
        ("price in ()", "a value"),
        ("vector is null", "no column 'vector'"),
    ],
)
def test_a_wrong_filter_is_told(text: str, says: str) -> None:
    with pytest.raises(IsthmusError, match=says):
        compile_where(text, KINDS)  # type: ignore[arg-type]


def test_as_many_conditions_as_allowed_are_no_trouble(catalog: Catalog) -> None:
    assert catalog.count(" or ".join(f"price = {number}" for number in range(499))) == catalog.count(
        "price in (" + ", ".join(str(number) for number in range(20_000)) + ")"
    )
    assert parse("(" * 40 + "new" + ")" * 40) == Compare(Column("new"), "=", True)


def test_odd_column_names_can_be_filtered(tmp_path: Path) -> None:
    names = ["Größe (cm)", "a%", "and", "price/€", "x:y", "Select", "#1".replace("#", "n#"), "a-b", "d'"]
    photos(tmp_path / "photos", 2)
    catalog = Catalog.create(tmp_path / "catalog", FakeModel())
    for name in names[:-1]:
        catalog.add(tmp_path / "photos", metadata={"photo/000.png": {name: 1}})
        assert catalog.count(f"`{name}` = 1") == 1, name
    for name in (names[-1], "a.b", "a`b", "_rowid", "1a", "", "Vector", "AND"):
        with pytest.raises(IsthmusError, match=r"rename it|use one spelling"):
            catalog.add(tmp_path / "photos", metadata={"photo/000.png": {name: 1}})
