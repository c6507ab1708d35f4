"""The filter grammar: against a brute force in Python with SQL's three truth values, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import operator
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from serve_zoo import ITEMS, item_id, make_catalog, metadata

from isthmus.catalog.columns import Kind
from isthmus.catalog.store import Catalog
from isthmus.catalog.where import compile_where
from isthmus.serve.errors import ApiError
from isthmus.serve.filters import MAX_DEPTH, MAX_NODES, MAX_VALUES, Filter, condition_of, read_filter, served_columns

COLUMNS: dict[str, Kind] = {"price": "number", "brand": "text", "new": "flag", "made": "time"}
SIGNS = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
ROWS = {item_id(number): {"id": item_id(number), **metadata(number)} for number in range(ITEMS)}

TEXTS = st.sampled_from(["Acme", "acme", "Umbra", "O'Neil & Söhne", "", "zz", "' OR 1=1 --", "A\0", "\\", "%", "\n"])
TIMES = st.sampled_from(
    ["2026-03-05", "2026-03-05T12:30:00Z", "2026-04-07 14:30:00+02:00", "2025-01-01T00:00:00", "9999-12-31T23:59:59"]
)
VALUES = {
    "price": st.one_of(st.sampled_from([5.0, 0, -10, 35, 60.0, 1e300, -0.0]), st.floats(-20, 120)),
    "brand": TEXTS,
    "new": st.booleans(),
    "made": TIMES,
}


def nodes(column: str) -> st.SearchStrategy[dict[str, Any]]:
    signs = ["=", "!="] if column == "new" else list(SIGNS)
    name, values = st.just(column), VALUES[column]
    kinds = [
        st.fixed_dictionaries({"column": name, "is": st.sampled_from(signs), "value": values}),
        st.fixed_dictionaries({"column": name, "in": st.lists(values, max_size=3)}),
        st.fixed_dictionaries({"column": name, "missing": st.just(True)}),
    ]
    if column == "brand":
        patterns = st.sampled_from(["%", "A%", "%m%", "a_me", "U____", "", "%'%", "%&%", "%ö%", "_"])
        kinds.append(st.fixed_dictionaries({"column": name, "like": patterns}, optional={"ignore_case": st.booleans()}))
    return st.one_of(kinds)


FILTERS = st.recursive(
    st.one_of([nodes(column) for column in COLUMNS]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=8,
)


def moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found.astimezone(dt.timezone.utc).replace(tzinfo=None) if found.tzinfo else found


def truth(node: dict[str, Any], row: dict[str, Any]) -> bool | None:
    """SQL's: None is unknown."""
    if "all" in node or "any" in node:
        parts = [truth(part, row) for part in node.get("all", node.get("any"))]
        decides = "any" in node
        if decides in parts:
            return decides
        return None if None in parts else not decides
    if "not" in node:
        inner = truth(node["not"], row)
        return None if inner is None else not inner
    have = row[node["column"]]
    if "missing" in node:
        return have is None
    read = moment if node["column"] == "made" else lambda value: value
    if "in" in node:
        if not node["in"]:
            return False
        return None if have is None else have in [read(value) for value in node["in"]]
    if have is None:
        return None
    if "like" in node:
        pattern = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in node["like"])
        flags = re.DOTALL | (re.IGNORECASE if node.get("ignore_case") else 0)
        return re.fullmatch(pattern, have, flags) is not None
    return bool(SIGNS[node["is"]](have, read(node["value"])))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return make_catalog(tmp_path_factory.mktemp("filters"))


# The engine makes `true` of two lists that have nothing in common, also for what is missing.
DISJOINT = {"any": [{"not": {"column": "brand", "in": [one]}} for one in ("Acme", "Umbra")]}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(node=FILTERS)
@example(node=DISJOINT)
@example(node={"not": {"all": [{"column": "price", "in": [5.0]}, {"column": "price", "in": [0]}]}})
def test_a_filter_lets_pass_what_brute_force_does(catalog: Catalog, node: dict[str, Any]) -> None:
    condition = read_filter(json.loads(json.dumps(node)), served_columns(catalog.columns))
    found = {row["id"] for row in catalog.items.read(["id"], compile_where(condition, catalog.columns))}
    assert found == {id for id, row in ROWS.items() if truth(node, row)}


def test_the_search_keeps_to_the_filter(catalog: Catalog) -> None:
    node = {"any": [{"column": "price", "is": ">", "value": 60}, {"column": "brand", "missing": True}]}
    condition = read_filter(node, served_columns(catalog.columns))
    hits = {hit.id for hit in catalog.search(id=item_id(0), k=100, where=condition)}
    assert hits == {id for id, row in ROWS.items() if truth(node, row)} - {item_id(0)} and hits


def refusal(node: Any, columns: dict[str, Kind] | None = None) -> str:
    with pytest.raises(ApiError) as error:
        read_filter(node, COLUMNS if columns is None else columns)
    assert (error.value.status, error.value.code) == (400, "bad_filter")
    error.value.body()
    return error.value.reason


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (None, "object with all"),
        ("price < 5", "object with all"),
        ([], "object with all"),
        ({}, "object with all"),
        ({"or": []}, "object with all"),
        ({"column": "price"}, "object with all"),
        ({"all": {}}, "list"),
        ({"all": [1]}, "object with all"),
        ({"not": []}, "object with all"),
        ({"all": [], "any": []}, "not permitted"),
        ({"column": "price", "is": "<", "value": 5, "sql": "1=1"}, "not permitted"),
        ({"column": "price", "is": "LIKE", "value": 5}, "is"),
        ({"column": "price", "is": "<"}, "value"),
        ({"column": "price", "is": "<", "value": None}, "value"),
        ({"column": "price", "is": "<", "value": [5]}, "value"),
        ({"column": "price", "is": "<", "value": "5"}, "holds numbers"),
        ({"column": "price", "is": "<", "value": True}, "holds numbers"),
        ({"column": "price", "is": "<", "value": float("nan")}, "holds numbers"),
        ({"column": "price", "is": "<", "value": float("inf")}, "holds numbers"),
        ({"column": "price", "is": "<", "value": 10**400}, "holds numbers"),
        ({"column": "price", "like": "5%"}, "holds numbers"),
        ({"column": "brand", "is": "=", "value": 5}, "holds texts"),
        ({"column": "brand", "in": ["a", False]}, "holds texts"),
        ({"column": "brand", "is": "=", "value": "\ud800"}, "unicode"),
        ({"column": "brand", "is": "=", "value": "x" * 1001}, "1000"),
        ({"column": "brand", "like": "\udfff%"}, "unicode"),
        ({"column": "brand", "like": 5}, "like"),
        ({"column": "brand", "like": "a", "ignore_case": 1}, "ignore_case"),
        ({"column": "brand", "in": "Acme"}, "in"),
        ({"column": "brand", "in": ["a"] * (MAX_VALUES + 1)}, str(MAX_VALUES)),
        ({"column": "new", "is": "=", "value": 1}, "holds flags"),
        ({"column": "new", "is": "<", "value": True}, "= or !="),
        ({"column": "made", "is": "<", "value": 5}, "holds times"),
        ({"column": "made", "is": "<", "value": "yesterday"}, "holds times"),
        ({"column": "made", "is": "<", "value": "0001-01-01T00:00:00+12:00"}, "holds times"),
        ({"column": "made", "is": "<", "value": "9999-12-31T23:59:00-12:00"}, "holds times"),
        ({"column": "nothing", "missing": True}, "no column 'nothing'"),
        ({"column": "price` IS NULL OR `id", "missing": True}, "no column"),
        ({"column": "", "missing": True}, "no column"),
        ({"column": "\ud800", "missing": True}, "unicode"),
        ({"column": 5, "missing": True}, "column"),
        ({"column": "price", "missing": False}, "missing"),
        ({"all": [{"column": "price", "missing": True}, {"column": "nothing", "missing": True}]}, "nothing"),
    ],
)
def test_what_is_no_filter_is_told(node: Any, says: str) -> None:
    assert says in refusal(node)


def test_what_tells_of_the_servers_disk_is_no_column(catalog: Catalog) -> None:
    columns = served_columns(catalog.columns)
    for name in ("path", "hash", "size", "PATH", "crc", "vector", "_rowid"):
        said = refusal({"column": name, "missing": True}, columns)
        assert "brand" in said and "hash" not in said.replace(repr(name), "")
    assert read_filter({"column": "id", "like": "photo/%"}, columns)
    assert read_filter({"column": "Price", "missing": True}, columns) == read_filter(
        {"column": "price", "missing": True}, columns
    )


def test_limits_are_met_before_any_recursion() -> None:
    leaf: Any = {"column": "price", "missing": True}
    for wrap in (lambda node: {"not": node}, lambda node: {"all": [node]}, lambda node: {"any": [leaf, node]}):
        node = leaf
        for _ in range(MAX_DEPTH - 1):
            node = wrap(node)
        read_filter(node, COLUMNS)
        assert str(MAX_DEPTH) in refusal(wrap(node))
        for _ in range(5_000):
            node = wrap(node)
        assert "nested" in refusal(node)
    read_filter({"all": [leaf] * (MAX_NODES - 1)}, COLUMNS)
    assert str(MAX_NODES) in refusal({"all": [leaf] * MAX_NODES})
    assert str(MAX_NODES) in refusal({"any": [{"all": [leaf] * 50} for _ in range(4)]})
    # What no grammar has hides nothing: the deep part below it is never looked at.
    hidden: Any = leaf
    for _ in range(5_000):
        hidden = {"x": hidden}
    assert "object with all" in refusal(hidden)
    assert refusal({"column": "price", "is": "=", "value": hidden}) and refusal({"column": "brand", "in": [hidden]})


def test_the_grammar_is_the_models() -> None:
    # What FastAPI reads by the type `Filter` is what `read_filter` reads.
    from pydantic import TypeAdapter

    node = {"not": {"any": [{"column": "brand", "in": ["Acme"]}, {"column": "price", "is": ">=", "value": 1}]}}
    parsed = TypeAdapter(Filter).validate_json(json.dumps(node))
    assert condition_of(parsed, COLUMNS) == read_filter(node, COLUMNS)
