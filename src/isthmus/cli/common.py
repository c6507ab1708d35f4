"""What several verbs share: settings on the command line, JSON and tables on standard output."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 140  # no terminal to fit: wide enough that a table of scores isn't folded
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def visible(text: str) -> str:
    """Text fit for one line of a terminal: control characters and broken Unicode are written as escapes.

    Example:
        >>> visible("a\\ncat.png")
        'a\\\\ncat.png'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` settings; values have the type YAML gives them.

    Args:
        items: such as `["train.lr=1e-3", "data.synthetic=[a, b]", "model.freeze_norm=true"]`.

    Returns:
        Flat dictionary with dotted names, for `RunConfig.build`.

    Raises:
        IsthmusError: an item is no `KEY=VALUE`, or its value is no valid YAML.

    Example:
        >>> parse_settings(["train.lr=1e-3", "method=cds"])
        {'train.lr': 0.001, 'method': 'cds'}
    """
    import yaml

    settings: dict[str, Any] = {}
    for item in items:
        key, mark, text = item.partition("=")
        key = key.strip()
        if not mark or not key:
            raise IsthmusError(f"'{item}' is not a setting: write KEY=VALUE, for example  --set train.lr=1e-3")
        # YAML 1.1 takes 1e-3 for a string, because it has no point.
        if _NUMBER.fullmatch(text.strip()):
            settings[key] = float(text)
            continue
        try:
            settings[key] = yaml.safe_load(text) if text.strip() else ""
        except yaml.YAMLError:
            raise IsthmusError(
                f"The value of '{key}' can't be read as YAML: {text!r}; quote it, for example  --set '{key}=\"text\"'"
            ) from None
    return settings


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinities become null, tuples lists, numpy scalars numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def print_json(value: Any) -> None:
    """Print `value` alone on standard output, indented, with NaN as null."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def console(*, stderr: bool = False) -> Console:
    """A rich console that keeps tables whole when the output is piped, and takes no [brackets] for markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def number(value: float | None, digits: int = 3) -> str:
    """A score as tables show it: `.743`, `1.000`, or `–` where there is none.

    Example:
        >>> number(0.7432), number(1.0), number(float("nan"))
        ('.743', '1.000', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A score with its interval: `.743 [.701, .781]`.

    Example:
        >>> with_interval(0.7432, (0.701, 0.7811))
        '.743 [.701, .781]'
    """
    if interval is None or value is None or not math.isfinite(value):
        return number(value)
    low, high = interval
    return f"{number(value)} [{number(low)}, {number(high)}]"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A rich table: first column to the left, numbers to the right, control characters made visible."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(visible(title), style="bold") if title else None
    result = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        side: Any = "left" if position == 0 else "right"
        result.add_column(Text(visible(name)), justify=side, no_wrap=True)
    for row in rows:
        result.add_row(*(Text(visible(cell)) for cell in row))
    return result
