"""Filters as JSON: a typed grammar over the catalog's columns, from which conditions are built and never text.

```
{"all": [FILTER, ...]}   {"any": [FILTER, ...]}   {"not": FILTER}
{"column": "price", "is": "<", "value": 50}        = != < <= > >=
{"column": "brand", "in": ["Acme", "Umbra"]}
{"column": "title", "like": "%shoe%", "ignore_case": true}       % any characters, _ one, \\ takes the next as it is
{"column": "sold", "missing": true}
```
An item without a value in a column passes neither a comparison nor its opposite, as in SQL; only `missing` finds it.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
)

from isthmus.catalog import filters as build
from isthmus.catalog.columns import Kind
from isthmus.catalog.filters import Columns, Condition, Literals, Operator
from isthmus.errors import IsthmusError
from isthmus.serve.errors import ApiError, sentence_of_errors

MAX_NODES = 200
MAX_DEPTH = 16
MAX_VALUES = 1_000  # the engine compares with one after the other, while other searches wait
MAX_TEXT = 1_000
HIDDEN = ("path", "hash", "size")  # where things are on the server is nobody's business
_SORTS = ("all", "any", "not", "is", "in", "like", "missing")

Text = Annotated[StrictStr, Field(max_length=MAX_TEXT)]


def _plain(value: Any) -> Any:
    # One sentence, where a union would have one for each of its members.
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("a value is a number, a text, true or false")
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"a text has at most {MAX_TEXT} characters")
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError("a text is valid unicode, without half a surrogate pair")
    return value


Scalar = Annotated[StrictBool | StrictInt | StrictFloat | Text, BeforeValidator(_plain)]


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AllNode(_Node):
    """Every part holds."""

    all: list[Node] = Field(max_length=MAX_NODES)


class AnyNode(_Node):
    """At least one part holds."""

    any: list[Node] = Field(max_length=MAX_NODES)


class NotNode(_Node):
    """The opposite."""

    not_: Node = Field(alias="not")


class IsNode(_Node):
    """A comparison with a value of the column's kind; times are ISO texts, in UTC where no zone is named."""

    column: Text
    is_: Operator = Field(alias="is")
    value: Scalar


class InNode(_Node):
    """The value is one of these."""

    column: Text
    in_: list[Scalar] = Field(alias="in", max_length=MAX_VALUES)


class LikeNode(_Node):
    """Text that fits a pattern."""

    column: Text
    like: Text
    ignore_case: StrictBool = False


class MissingNode(_Node):
    """The item has no value there."""

    column: Text
    missing: Literal[True]


def _sort(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((name for name in _SORTS if name in value), None)
    return type(value).__name__.removesuffix("Node").lower()


Node = Annotated[
    Annotated[AllNode, Tag("all")]
    | Annotated[AnyNode, Tag("any")]
    | Annotated[NotNode, Tag("not")]
    | Annotated[IsNode, Tag("is")]
    | Annotated[InNode, Tag("in")]
    | Annotated[LikeNode, Tag("like")]
    | Annotated[MissingNode, Tag("missing")],
    Discriminator(
        _sort,
        custom_error_type="no_filter",
        custom_error_message="a filter is an object with all, any or not, or with a column and is, in, like or missing",
    ),
]


def small_enough(value: Any) -> Any:
    """`value`, where it has at most 200 nodes, 1,000 values and a depth of 16, or ValueError; without recursion."""
    level, depth, nodes, values = [value], 0, 0, 0
    while level:
        depth += 1
        nodes += len(level)
        values += sum(map(_listed, level))
        if depth > MAX_DEPTH:
            raise ValueError(f"the filter is nested more than {MAX_DEPTH} deep; write it flatter")
        if nodes > MAX_NODES:
            raise ValueError(f"the filter has more than {MAX_NODES} conditions; use in instead of many of them")
        if values > MAX_VALUES:
            raise ValueError(f"the filter lists more than {MAX_VALUES} values in all; list fewer of them")
        level = [part for node in level for part in _parts(node)]
    return value


def _listed(node: Any) -> int:
    values = node.get("in") if isinstance(node, Mapping) else getattr(node, "in_", None)
    return len(values) if isinstance(values, list) else 0


def _parts(node: Any) -> list[Any]:
    if isinstance(node, BaseModel):
        found = [getattr(node, name, None) for name in ("all", "any", "not_")]
    elif isinstance(node, Mapping):
        found = [node.get(name) for name in ("all", "any", "not")]
    else:
        return []
    return [part for value in found if value is not None for part in (value if isinstance(value, list) else [value])]


for _model in (AllNode, AnyNode, NotNode):
    _model.model_rebuild()
Filter = Annotated[Node, BeforeValidator(small_enough)]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Filter)


def served_columns(columns: Columns) -> dict[str, Kind]:
    """The columns that a request may name: all but those that tell of the server's disk."""
    return {name: kind for name, kind in columns.items() if name not in HIDDEN}


def read_filter(value: Any, columns: Columns) -> Condition:
    """A filter as JSON has it, as a condition on `columns` (name -> kind); else ApiError 400 `bad_filter`.

    Example:
        >>> read_filter({"column": "price", "is": "<", "value": 50}, {"price": "number"})
        Compare(column=Column(name='price'), operator='<', value=50.0)
    """
    try:
        return condition_of(_ADAPTER.validate_python(value), columns)
    except ValidationError as error:
        raise ApiError(400, "bad_filter", sentence_of_errors(error.errors(include_input=False))) from None


def condition_of(node: Any, columns: Columns) -> Condition:
    """A filter that was read by `Filter` as a condition; raises as `read_filter`."""
    if isinstance(node, AllNode):
        return build.All(tuple(condition_of(part, columns) for part in node.all))
    if isinstance(node, AnyNode):
        return build.Any_(tuple(condition_of(part, columns) for part in node.any))
    if isinstance(node, NotNode):
        return build.Not(condition_of(node.not_, columns))
    try:
        name = build.find_column(node.column, columns)
    except IsthmusError as error:
        raise ApiError(400, "bad_filter", str(error)) from None
    column, kind = build.Column(name), columns[name]
    if isinstance(node, MissingNode):
        return build.Missing(column)
    if isinstance(node, InNode):
        return build.OneOf(column, tuple(_value(value, kind, name) for value in node.in_))
    if isinstance(node, LikeNode):
        if kind != "text":
            raise ApiError(400, "bad_filter", f"like compares text, and the column '{name}' holds {kind}s; use is.")
        return build.Like(column, node.like, node.ignore_case)
    if kind == "flag" and node.is_ not in ("=", "!="):
        raise ApiError(400, "bad_filter", f"The column '{name}' holds flags, which are = or !=, not {node.is_}.")
    return build.Compare(column, node.is_, _value(node.value, kind, name))


def _value(value: Scalar, kind: Kind, name: str) -> Literals:
    found: Literals | None = None
    if kind == "flag":
        found = value if isinstance(value, bool) else None
    elif kind == "number":
        found = None if isinstance(value, (bool, str)) else _number(value)
    elif isinstance(value, str):
        found = value if kind == "text" else _time(value)
    if found is None:
        example = {"number": "50", "text": '"red"', "flag": "true", "time": '"2026-01-31T12:00:00Z"'}[kind]
        raise ApiError(400, "bad_filter", f"The column '{name}' holds {kind}s; give a value such as {example}.")
    return found


def _number(value: int | float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _time(text: str) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        return moment.astimezone(dt.timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):  # the second: beyond the first or the last year once it is in UTC
        return None
