"""The filter that a person writes, such as `price < 50 AND brand IN ('Acme', 'Umbra')`, as a condition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.catalog.filters import (
    OPERATORS,
    All,
    Any_,
    Column,
    Columns,
    Compare,
    Condition,
    Like,
    Literals,
    Missing,
    Not,
    OneOf,
    Operator,
    compile_condition,
)
from isthmus.errors import IsthmusError

MAX_LENGTH = 1_000_000
MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
  | (?P<quoted>`[^`]+`|"[^"]+")
  | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
  | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
  | (?P<word>[^\W\d]\w*)
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(["and", "or", "not", "in", "like", "ilike", "between", "is", "null", "true", "false"])
_HELP = "conditions are like  price < 50 AND brand IN ('a', 'b') AND NOT (title LIKE '%x%' OR sold IS NULL)"
_SIGNS: dict[str, Operator] = {**{sign: sign for sign in OPERATORS}, "<>": "!=", "==": "="}
_FLIPPED: dict[Operator, Operator] = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the filter: its sort (`text`, `name`, `number`, `sign`, `keyword`, `end`) and what it says."""

    sort: str
    said: str


def compile_where(where: str | Condition | None, columns: Columns) -> str | None:
    """A filter as LanceDB's SQL, or None for no filter.

    Args:
        where: a text (comparisons `= != < <= > >=`, `IN`, `BETWEEN`, `LIKE`, `ILIKE`, `IS NULL`, `AND`, `OR`, `NOT` and
            brackets, columns in backticks or double quotes where their names have spaces) or a condition.
        columns: name -> kind of the columns.

    Raises:
        IsthmusError: what is wrong with it, in one sentence.

    Example:
        >>> compile_where("price between 10 and 20 or not new", {"price": "number", "new": "flag"})
        '((`price` >= 10.0 AND `price` <= 20.0) OR (NOT `new` = true))'
    """
    if where is None:
        return None
    return compile_condition(parse(where) if isinstance(where, str) else where, columns)


def parse(where: str) -> Condition:
    """Read a filter's text; column names are looked up only when it is compiled."""
    return _Parser(where).whole()


def _tokens(where: str) -> list[Token]:
    if len(where) > MAX_LENGTH:
        raise IsthmusError(f"The filter has {len(where)} characters; {MAX_LENGTH} is the limit.")
    tokens: list[Token] = []
    place, end = 0, len(where.rstrip())
    while place < end:
        match = _TOKEN.match(where, place)
        if match is None or match.end() > end:
            raise IsthmusError(f"The filter {_short(where)} can't be read at {_short(where[place:].strip())}; {_HELP}")
        place, sort = match.end(), str(match.lastgroup)
        said = match.group(sort)
        if sort == "text":
            said = said[1:-1].replace("''", "'")
        elif sort == "quoted":
            sort, said = "name", said[1:-1]
        elif sort == "word":
            sort = "keyword" if said.lower() in _KEYWORDS else "name"
            said = said.lower() if sort == "keyword" else said
        tokens.append(Token(sort, said))
    return [*tokens, Token("end", "")]


class _Parser:
    def __init__(self, where: str) -> None:
        self.where = where
        self.tokens: Sequence[Token] = _tokens(where)
        self.place = 0
        self.depth = 0

    def whole(self) -> Condition:
        if self.now.sort == "end":
            raise IsthmusError(f"The filter is empty; {_HELP}")
        condition = self.either()
        if self.now.sort != "end":
            raise self.wrong("the end, AND or OR")
        return condition

    @property
    def now(self) -> Token:
        return self.tokens[self.place]

    def next(self) -> Token:
        token = self.now
        self.place += 1
        return token

    def took(self, *said: str) -> bool:
        if self.now.sort in ("keyword", "sign") and self.now.said in said:
            self.place += 1
            return True
        return False

    def need(self, said: str) -> None:
        if not self.took(said):
            raise self.wrong(said.upper())

    def wrong(self, wanted: str) -> IsthmusError:
        found = "it ends" if self.now.sort == "end" else f"there is {_short(self.now.said)}"
        return IsthmusError(f"The filter {_short(self.where)} can't be read: {found} where {wanted} should be; {_HELP}")

    def either(self) -> Condition:
        parts = [self.both()]
        while self.took("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Any_(tuple(parts))

    def both(self) -> Condition:
        parts = [self.negated()]
        while self.took("and"):
            parts.append(self.negated())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def negated(self) -> Condition:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise IsthmusError(f"The filter is nested more than {MAX_DEPTH} deep; write it flatter.")
        if self.took("not"):
            result: Condition = Not(self.negated())
        elif self.took("("):
            result = self.either()
            self.need(")")
        else:
            result = self.simple()
        self.depth -= 1
        return result

    def simple(self) -> Condition:
        if self.is_literal():
            value = self.literal()
            operator = self.operator()
            if operator is None:
                raise self.wrong("a comparison")
            return Compare(self.column(), _FLIPPED[operator], value)
        column = self.column()
        if self.took("("):
            raise IsthmusError(f"The filter can't call functions such as {column.name}(); {_HELP}")
        operator = self.operator()
        if operator is not None:
            return Compare(column, operator, self.literal() if self.is_literal() else self.column())
        if self.took("is"):
            negative = self.took("not")
            self.need("null")
            return Not(Missing(column)) if negative else Missing(column)
        negative = self.took("not")
        condition = self.range_or_list(column)
        if condition is None:
            if negative:
                raise self.wrong("IN, LIKE or BETWEEN")
            return Compare(column, "=", True)  # a flag stands alone
        return Not(condition) if negative else condition

    def range_or_list(self, column: Column) -> Condition | None:
        if self.took("in"):
            self.need("(")
            values = [self.literal()]
            while self.took(","):
                values.append(self.literal())
            self.need(")")
            return OneOf(column, tuple(values))
        if self.took("between"):
            low = self.literal()
            self.need("and")
            return All((Compare(column, ">=", low), Compare(column, "<=", self.literal())))
        if self.now in (Token("keyword", "like"), Token("keyword", "ilike")):
            ignore = self.next().said == "ilike"
            pattern = self.literal()
            if not isinstance(pattern, str):
                raise IsthmusError("LIKE takes a pattern in single quotes, such as '%red%'.")
            return Like(column, pattern, ignore)
        return None

    def operator(self) -> Operator | None:
        if self.now.sort == "sign" and self.now.said in _SIGNS:
            return _SIGNS[self.next().said]
        return None

    def column(self) -> Column:
        if self.now.sort != "name":
            raise self.wrong("a column")
        return Column(self.next().said)

    def is_literal(self) -> bool:
        return self.now.sort != "name" or self.is_typed()

    def is_typed(self) -> bool:
        # timestamp '2026-01-31' as in SQL; on their own, date and timestamp are names that columns often have.
        typed = self.now.sort == "name" and self.now.said.lower() in ("timestamp", "date")
        return typed and self.tokens[self.place + 1].sort == "text"

    def literal(self) -> Literals:
        if self.is_typed():
            self.place += 1
        if self.now.sort == "text":
            return self.next().said
        if self.now.sort == "number":
            return float(self.next().said)
        if self.took("true"):
            return True
        if self.took("false"):
            return False
        raise self.wrong("a value (text in single quotes)")


def _short(text: str) -> str:
    cut = text if len(text) <= 60 else text[:57] + "..."
    return f"'{cut}'" if cut.isprintable() else repr(cut)
