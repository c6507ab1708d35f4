"""The README keeps its word: its commands run, its options exist, its Python runs, its file tree is complete."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_zoo import World, works

import isthmus
from isthmus.cli.main import build

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- command: (?P<mark>\S+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)


def blocks(kind: str, *, marked: bool = False) -> dict[str, str]:
    """Mark (or number) -> text of the fenced blocks of a kind."""
    found = [match for match in BLOCK.finditer(README) if match["kind"] == kind and bool(match["mark"]) == marked]
    return {match["mark"] or str(number): match["text"].strip() for number, match in enumerate(found)}


def calls(text: str) -> list[list[str]]:
    """The words behind `isthmus` of each call in a shell text, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    commands = itertools.chain.from_iterable(re.split(r"&&|\|\||;|\|", line) for line in lines)
    words = [shlex.split(command, comments=True) for command in commands]
    return [word[1:] for word in words if word[:1] == ["isthmus"]]


def test_two_commands_are_marked() -> None:
    assert set(blocks("bash", marked=True)) == {"demo", "test"}
    assert README.count("<!-- command:") == 2
    assert all("\n" not in text for text in blocks("bash", marked=True).values())


def test_ci_runs_the_readmes_test_command() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "test_command=$(readme_command test)" in ci
    assert re.search(r'^part .* bash .*-c "\$test_command"$', ci, re.MULTILINE)
    # What its awk takes from the README is what stands there.
    program = re.search(r"awk -v mark=\"<!-- command: \$1 -->\" '(.*?)' README\.md", ci, re.DOTALL)
    assert program is not None
    awk = shutil.which("awk")
    if awk is not None:
        import subprocess

        done = subprocess.run(
            [awk, "-v", "mark=<!-- command: test -->", program[1], "README.md"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        wanted = "pip install '.[test]' && pytest -n 2 --dist loadfile"
        assert done.stdout.strip() == blocks("bash", marked=True)["test"] == wanted


def test_the_demo_runs(tmp_path: Path) -> None:
    install, demo = blocks("bash", marked=True)["demo"].split("&&")
    assert shlex.split(install) == ["pip", "install", ".[demo]"]
    (words,) = calls(demo)
    out = tmp_path / "demo"
    first = works(*words, "--limit", 120, "--out", out)
    for text in ("SynCDR", "CDS", "untrained", "chance", "R@1", "outline->filled", "filled->outline", "Done in"):
        assert text in first.stdout, (text, first.stdout)
    assert len(re.findall(r"[.1]\d{3}? \[\.?\d", first.stdout)) >= 6, first.stdout
    assert "nearly perfect" in first.stdout
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "hits.png").read_bytes().startswith(b"\x89PNG")
    catalog = isthmus.Catalog.open(out / "catalog")
    assert len(catalog) == 40 and catalog.model.domains == ("outline", "filled")
    weights = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert len(weights) == 3
    # What it prints to type next can be typed.
    for following in calls(first.stdout.partition("Then try:")[2]):
        known(following)
    again = works(*words, "--limit", 120, "--out", out)
    assert again.stderr.count("finished in an earlier run") == 2  # nothing was trained of the network before training
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == weights
    scores = [line for line in first.stdout.splitlines() if line.lstrip().startswith(("SynCDR", "CDS", "untrained"))]
    assert scores and all(line in again.stdout for line in scores)


def known(words: list[str]) -> None:
    """Check that a command line's verb exists, and its options, and that each has its argument."""
    command: Any = typer.main.get_command(build())
    words = list(words)
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, words
        command = command.commands[words.pop(0)]
    options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    places = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    given = 0
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            assert name in options, f"{command.name} has no option {name}"
            if not equals and not options[name].is_flag:
                assert words and not words[0].startswith("-"), f"{name} wants a value"
                words.pop(0)
        elif word not in ("...",):
            given += 1
    most = sum(place.nargs for place in places) if all(place.nargs > 0 for place in places) else 99
    assert given <= most, f"{command.name} takes {most} arguments, not {given}"


def test_every_command_names_only_what_exists() -> None:
    seen = set()
    for text in blocks("bash").values():
        for words in calls(text):
            known(words)
            seen.add(words[0])
    assert {"check", "translate", "train", "evaluate", "index", "search"} <= seen
    inline = re.findall(r"`(isthmus [^`]+)`", README)
    assert len(inline) > 5
    for text in inline:
        known(calls(text)[0])
    for option in re.findall(r"`(--[a-z][-a-z]*)", README):
        verbs: Any = typer.main.get_command(build())
        assert any(option in parameter.opts for verb in verbs.commands.values() for parameter in verb.params), option


def test_a_wrong_command_would_be_noticed() -> None:
    for words in (["trian"], ["train", "--mthod"], ["train", "--method"], ["index", "a", "b", "c"], ["catalog", "x"]):
        with pytest.raises(AssertionError):
            known(words)


def test_the_python_runs(cli_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks("python").values()
    home = tmp_path / "home"
    for name, place in (("runs/syncdr", "runs/mine"), ("catalog", "catalog"), ("photo/train", "photos")):
        shutil.copytree(cli_world.folder / name, home / place)
    shutil.copy(cli_world.folder / "sketch" / "test" / "cat" / "0.png", home / "cat.png")
    prices = "".join(f"{path.relative_to(home / 'photos')},{10 * n}\n" for n, path in enumerate(
        sorted((home / "photos").rglob("*.png"))))  # fmt: skip
    (home / "prices.csv").write_text("path,price\n" + prices, encoding="utf-8")
    monkeypatch.chdir(home)
    works("catalog", "add", "catalog", "photos", "--metadata", "prices.csv", "--model", "runs/mine")
    values: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), values)
    assert values["vectors"].shape == (1, values["model"].dim)
    assert values["hits"] and all(hit.metadata["price"] < 50 for hit in values["hits"])
    assert len(values["catalog"]) >= 8


def test_the_file_tree_is_complete() -> None:
    (tree,) = (text for text in blocks("").values() if text.startswith("src/isthmus/"))
    listed: dict[str, str] = {}
    folders: list[str] = []
    for line in tree.splitlines()[1:]:
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, says = line.strip().partition(" ")
        folders = [*folders[: depth - 1], name.rstrip("/")]
        if not name.endswith("/"):
            listed["/".join(folders)] = says.strip()
    source = ROOT / "src" / "isthmus"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    # A room's __init__.py that holds a line or two has nothing to say beside its room's heading.
    silent = {name for name in files if name.endswith("/__init__.py")}
    assert set(listed) - files == set(), "listed, but not there"
    assert files - silent - set(listed) == set(), "there, but not listed"
    assert all(len(says) > 10 for says in listed.values()), [name for name, says in listed.items() if len(says) <= 10]


def test_links_and_pictures_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
