"""Filters on a catalog's columns: typed conditions, checked against the columns, compiled to LanceDB's SQL.

A condition is built here in one of two ways: from a text that a person writes (`parse` in `isthmus.catalog.where`,
a part of SQL) or, node by node, from a program. Neither ever hands a foreign string to the engine: names are looked up
among the columns, values are written as literals of the column's kind.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from isthmus.catalog.columns import Kind
from isthmus.errors import IsthmusError

Columns = Mapping[str, Kind]
Literals = float | str | bool | dt.datetime
Operator = Literal["=", "!=", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")
MAX_CONDITIONS = 500  # the engine walks conditions recursively
MAX_VALUES = 20_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column by name; upper and lower case are the same where that leaves one column."""

    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    """`column operator value`; false for an item that has no value there."""

    column: Column
    operator: Operator
    value: Literals | Column


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column's value is one of these."""

    column: Column
    values: tuple[Literals, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """Text that fits a pattern: `%` any characters, `_` one character."""

    column: Column
    pattern: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """The item has no value in this column."""

    column: Column


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; as in SQL, still false where the value is missing."""

    part: Condition


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Any_:
    """At least one part holds."""

    parts: tuple[Condition, ...]


Condition = Compare | OneOf | Like | Missing | Not | All | Any_


def compile_condition(condition: Condition, columns: Columns) -> str:
    """The condition in LanceDB's SQL.

    Args:
        condition: the tree.
        columns: name -> kind of the columns that may be asked for.

    Raises:
        IsthmusError: an unknown column, a value of another kind than its column, or far too many conditions.

    Example:
        >>> compile_condition(Compare(Column("Price"), "<", 50.0), {"price": "number"})
        '`price` < 50.0'
    """
    if count(condition) > MAX_CONDITIONS:
        raise IsthmusError(
            f"The filter has more than {MAX_CONDITIONS} conditions; use IN (...) instead of many ORs, or fewer of them."
        )
    return _sql(condition, columns)


def count(condition: Condition) -> int:
    """How many nodes a condition has."""
    if isinstance(condition, Not):
        return 1 + count(condition.part)
    if isinstance(condition, (All, Any_)):
        return 1 + sum(count(part) for part in condition.parts)
    return 1


def ids_in(ids: Iterable[str]) -> str:
    """SQL for: the id is one of these."""
    return f"`id` IN ({', '.join(quote_text(id) for id in ids)})"


def quote_text(text: str) -> str:
    """A text literal."""
    return "'" + text.replace("'", "''") + "'"


def find_column(name: str, columns: Columns) -> str:
    """The column that `name` means.

    Raises:
        IsthmusError: there is none; the sentence lists the columns.
    """
    if name in columns:
        return name
    alike = [column for column in columns if column.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    listed = ", ".join(f"{column} ({kind})" for column, kind in columns.items())
    raise IsthmusError(f"The catalog has no column {name!r} to filter by; it has: {listed}.")


def _sql(condition: Condition, columns: Columns, opposite: bool = False) -> str:
    """The condition, or its opposite: NOT stands before single comparisons only.

    The engine takes `NOT a IN (1) OR NOT a IN (2)` for true, also where a is missing. So an item without a value is
    kept out by name there; with nothing but AND and OR above, false is as good as unknown.
    """
    if isinstance(condition, Not):
        return _sql(condition.part, columns, not opposite)
    if isinstance(condition, (All, Any_)):
        every = isinstance(condition, All) != opposite
        if not condition.parts:
            return "true" if every else "false"
        parts = [_sql(part, columns, opposite) for part in condition.parts]
        return "(" + (" AND " if every else " OR ").join(parts) + ")"
    name = find_column(condition.column.name, columns)
    if isinstance(condition, Missing):
        return f"(`{name}` IS {'NOT ' if opposite else ''}NULL)"
    single = _single(condition, name, columns)
    if not opposite:
        return single
    if isinstance(condition, OneOf):
        return f"(`{name}` IS NOT NULL AND NOT {single})" if condition.values else "true"
    return f"(NOT {single})"


def _single(condition: Compare | OneOf | Like, name: str, columns: Columns) -> str:
    kind = columns[name]
    if isinstance(condition, Like):
        if kind != "text":
            raise IsthmusError(f"LIKE compares text, and the column '{name}' holds {kind}s; use =, <, > instead.")
        return f"`{name}` {'ILIKE' if condition.ignore_case else 'LIKE'} {quote_text(condition.pattern)}"
    if isinstance(condition, OneOf):
        return _one_of(name, kind, condition.values)
    if isinstance(condition.value, Column):
        other = find_column(condition.value.name, columns)
        if columns[other] != kind:
            raise IsthmusError(f"The columns '{name}' ({kind}) and '{other}' ({columns[other]}) can't be compared.")
        return f"`{name}` {condition.operator} `{other}`"
    return f"`{name}` {condition.operator} {_literal(condition.value, kind, name)}"


def _one_of(name: str, kind: Kind, values: Sequence[Literals]) -> str:
    if len(values) > MAX_VALUES:
        raise IsthmusError(f"The filter lists {len(values)} values for '{name}'; {MAX_VALUES} is the limit.")
    if not values:
        return "false"
    return f"`{name}` IN ({', '.join(_literal(value, kind, name) for value in values)})"


def _literal(value: Literals, kind: Kind, name: str) -> str:
    if kind == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise IsthmusError(f"The filter compares '{name}' with {value}, which no item has; give a finite number.")
        return repr(float(value))
    if kind == "flag" and isinstance(value, bool):
        return "true" if value else "false"
    if kind == "text" and isinstance(value, str):
        return quote_text(value)
    if kind == "time":
        return f"timestamp '{_time(value, name).isoformat(sep=' ')}'"
    example = {"number": "50", "text": "'red'", "flag": "true"}[kind]
    shown = repr(value) if isinstance(value, str) else str(value).lower()
    raise IsthmusError(f"The column '{name}' holds {kind}s, and {shown} is none: write for example  {name} = {example}")


def _time(value: Literals, name: str) -> dt.datetime:
    moment = value
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        except ValueError:
            moment = False
    try:
        if isinstance(moment, dt.datetime):
            return moment.astimezone(dt.timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:  # before the first or after the last year once it is in UTC
        pass
    raise IsthmusError(f"The column '{name}' holds times: write for example  {name} > '2026-01-31 12:00'")
