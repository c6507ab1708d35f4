"""The house: imports go one way, and no file grows beyond reading."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "src" / "isthmus"
# A room imports rooms of smaller rank, and itself. The ground floor is one room.
GROUND = ("errors", "io", "ops", "plan", "progress", "process", "runtime")
ROOMS = (
    "config", "data", "models", "losses", "evaluate", "methods", "train", "translate", "report", "benchmark", "catalog",
    "export", "scale", "serve", "cli",
)  # fmt: skip
RANK = {**dict.fromkeys(GROUND, 0), **{room: rank for rank, room in enumerate(ROOMS, start=1)}}
# What `isthmus/__init__.py` hands on lazily, by the room it comes from.
ROOF = {"__version__": None, "IsthmusError": "errors", "Model": "models", "load": "models", "Catalog": "catalog"}
LONGEST = 400


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a path relative to src/isthmus: `("data", "images.py")` -> `"data"`."""
    return parts[0].removesuffix(".py")


def imported_rooms(source: str, parts: tuple[str, ...]) -> list[tuple[int, str]]:
    """Every room of Isthmus that a file imports, with the line: at the top, inside functions, relative or by name."""
    package = ("isthmus", *parts[:-1])
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += (node.module or "").split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value).split(".")]
        else:
            continue
        for name in names:
            if name[0] != "isthmus":
                continue
            if len(name) == 1:
                found.append((node.lineno, "the whole package"))
            elif name[1] not in ROOF:
                found.append((node.lineno, name[1]))
            elif room := ROOF[name[1]]:
                found.append((node.lineno, room))
    return found


def offences(source: str, parts: tuple[str, ...]) -> list[str]:
    """Imports that go the wrong way, as sentences."""
    here = room_of(parts)
    if here not in RANK:
        return [f"{'/'.join(parts)}: '{here}' is no room; add it to ROOMS in its place"]
    return [
        f"{'/'.join(parts)}:{line}: {here} imports {room}"
        for line, room in imported_rooms(source, parts)
        if room != here and not (room in RANK and (RANK[room] < RANK[here] or RANK[room] == RANK[here] == 0))
    ]


def files(*suffixes: str) -> list[Path]:
    return sorted(path for path in ROOT.rglob("*") if path.suffix in suffixes)


def test_imports_go_one_way() -> None:
    roof = (("__init__.py",), ("__main__.py",))
    found = [
        sentence
        for path in files(".py")
        if (parts := path.relative_to(ROOT).parts) not in roof
        for sentence in offences(path.read_text(encoding="utf-8"), parts)
    ]
    assert not found, "\n".join(found)


def test_there_is_something_to_check() -> None:
    assert {"cli", "report", "data"} <= {room_of(path.relative_to(ROOT).parts) for path in files(".py")}


@pytest.mark.parametrize(
    "source",
    [
        "from isthmus.report.html import write_report",
        "import isthmus.report.html",
        "from isthmus import report",
        "from ..report import html",
        "from .. import report",
        "def f():\n    from isthmus.report import html",
        "if TYPE_CHECKING:\n    from isthmus.report import html",
        "import importlib\nimportlib.import_module('isthmus.report')",
        "from isthmus import Catalog",
        "import isthmus",
    ],
)
def test_an_import_downwards_is_found(source: str) -> None:
    assert offences(source, ("train", "trainer.py"))


@pytest.mark.parametrize(
    "source",
    [
        "from isthmus.data.images import load_image",
        "from ..data import images",
        "from . import checkpoint",
        "from .checkpoint import save",
        "from isthmus import __version__",
        "from isthmus import Model",
        "import torch\nfrom report import x",
    ],
)
def test_an_import_upwards_is_fine(source: str) -> None:
    assert not offences(source, ("train", "trainer.py"))


def test_a_file_in_no_room_is_found() -> None:
    assert offences("", ("attic.py",))


def test_files_stay_readable() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(".py", ".j2", ".html", ".css")
    }
    long = [f"{path.relative_to(ROOT)}: {length} lines" for path, length in lengths.items() if length > LONGEST]
    assert not long, f"split these, {LONGEST} lines is the limit: {long}"
