"""What the benchmarks' commands share: lists on the command line, the estimate, the three files of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.plan import Plan


def names_of(text: str | None) -> list[str]:
    """`a,b` as a list.

    Example:
        >>> names_of("ihda, joint"), names_of(None)
        (['ihda', 'joint'], [])
    """
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def seeds_of(text: str) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        IsthmusError: no numbers, or one twice.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise IsthmusError(f"--seeds is '{text}'; write different whole numbers with commas between, as in 0,1,2.")
    return found


def positive(jobs: int) -> None:
    """Refuse --jobs below 1."""
    if jobs < 1:
        raise IsthmusError(f"--jobs is {jobs}; write 1 or more.")


def show_estimate(planned: Plan, as_json: bool) -> None:
    """Print an estimate."""
    from isthmus.cli.common import print_json

    if as_json:
        print_json(planned.to_dict())
    else:
        print(planned.text())


def made_of(records: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """How many runs, when and where: as a sentence and as values."""
    machines = "; ".join(sorted({str(record["machine"]) for record in records}))
    dates = sorted({str(record["date"]) for record in records})
    said = f"{len(records)} runs, {dates[0]} to {dates[-1]}, on {machines}"
    return said, {"runs": len(records), "machines": machines, "dates": dates}


def write_tables(
    out: Path,
    heading: str,
    records: Sequence[dict[str, Any]],
    values: dict[str, Any],
    text: str,
    page: Callable[[Path, str, str], None],
) -> None:
    """Write `table.json`, `table.md` and `table.html`.

    Args:
        out: folder.
        heading: of the pages.
        records: the results.
        values: for the JSON.
        text: the tables as Markdown.
        page: writes the page, of its path, heading and subtitle.
    """
    from isthmus.io import atomic_write_json, atomic_write_text

    subtitle, made = made_of(records)
    atomic_write_json(out / "table.json", {**values, **made})
    atomic_write_text(out / "table.md", f"# {heading}\n\n{subtitle}.\n\n{text}")
    page(out / "table.html", heading, subtitle)


def show_tables(out: Path, grids: Sequence[tuple[str, list[str], list[list[str]]]]) -> None:
    """Print the tables, and where they are."""
    from isthmus.cli.common import console, table
    from isthmus.data.files import show_name

    screen = console()
    for title, columns, cells in grids:
        screen.print(table(title, columns, cells))
    print(f"Tables: {', '.join(show_name(out / name) for name in ('table.md', 'table.json', 'table.html'))}")
