"""What the command line does around every verb: start fast, and say errors in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus import IsthmusError, __version__
from isthmus.cli import common, main

SRC = Path(main.__file__).resolve().parent


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isthmus.cli.main", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip


def run_raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command line with one verb that raises `error`."""
    monkeypatch.setattr(main, "VERBS", ())
    app = main.build()

    @app.command(name="work")
    def work() -> None:
        raise error

    @app.command(name="rest")
    def rest() -> None:
        pass

    monkeypatch.setattr(sys, "argv", ["isthmus", "work"])
    monkeypatch.setattr(main, "build", lambda: app)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


def test_help_is_fast_and_imports_no_torch() -> None:
    probe = (
        "import sys, runpy\nsys.argv = ['isthmus', '--help']\n"
        "try:\n    runpy.run_module('isthmus.cli.main', run_name='__main__')\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'torchvision', 'timm', 'lancedb', 'pyarrow', 'scipy', 'diffusers'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert "heavy: []" in result.stderr, result.stderr
    # The best of three, in processor time of the children: other work on the machine is not ours to measure.
    times = []
    for _ in range(3):
        before = os.times()
        done = command("--help")
        after = os.times()
        assert done.returncode == 0, done.stderr
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.6, f"isthmus --help takes {min(times):.2f} s"


def test_every_verb_file_is_a_command() -> None:
    helpers = {"__init__", "main", "common"}
    files = {path.stem for path in SRC.glob("*.py")} - helpers
    verbs = {name for name in files if not name.startswith("_") and name in main.VERBS}
    shown = command("--help").stdout
    assert "evaluate" in verbs
    assert all(f"\n  {verb} " in shown for verb in verbs), shown


def test_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"isthmus {__version__}\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["evaluate"], ["evaluate", "run", "--no-such-option"]])
def test_wrong_usage_exits_2_without_traceback(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_missing_run_is_one_sentence(tmp_path: Path) -> None:
    done = command("evaluate", str(tmp_path / "no [red]run[/red]\nhere"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "no [red]run[/red]\\nhere" in done.stderr


def test_isthmus_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(main.TRACEBACK, raising=False)
    name = "a [bold]b[/bold]\x1b[31m\n.png"
    assert run_raising(IsthmusError(f"{name} is broken; remove it."), monkeypatch) == 2
    assert capsys.readouterr().err == "isthmus: a [bold]b[/bold]\\x1b[31m\\n.png is broken; remove it.\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (MemoryError(), 1, "memory ran out"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), 1, "memory ran out"),
        (RuntimeError("shapes do not fit"), 1, "bug in Isthmus"),
        (ValueError("odd"), 1, "ValueError: odd"),
    ],
)
def test_other_errors_are_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(main.TRACEBACK, raising=False)
    assert run_raising(error, monkeypatch) == code
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1


def test_out_of_memory_of_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert run_raising(torch.cuda.OutOfMemoryError("CUDA out of memory."), monkeypatch) == 1
    assert "memory ran out" in capsys.readouterr().err


def test_interrupted_training_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from isthmus.train.interrupt import Interrupted

    assert run_raising(Interrupted("Stopped and saved after step 3.", 15), monkeypatch) == 143
    assert capsys.readouterr().err == "isthmus: Stopped and saved after step 3. The same command goes on from there.\n"


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(main.TRACEBACK, "1")
    assert run_raising(ValueError("odd"), monkeypatch) == 1
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert "in work" in text


def test_exit_codes_of_verbs_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_raising(typer.Exit(3), monkeypatch) == 3


def test_a_reader_that_leaves_is_no_error() -> None:
    program = (
        "import sys\nfrom isthmus.cli import main\nmain.VERBS = ()\napp = main.build()\n"
        "@app.command(name='work')\ndef work():\n    print('x' * 10_000_000)\n"
        "@app.command(name='rest')\ndef rest(): pass\n"
        "main.build = lambda: app\nsys.argv = ['isthmus', 'work']\nmain.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""


def test_file_names_that_are_not_unicode_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert common.visible(os.fsdecode(b"caf\xe9 \xc3\xa9\t")) == "caf\\udce9 é\\t"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1), ("a=1e-3", 1e-3), ("a=.5", 0.5), ("a=true", True), ("a=null", None), ("a=[x, 2]", ["x", 2]),
        ("a=x=y", "x=y"), ("a=", ""), ("a='1'", "1"), ("a=resnet18.a1_in1k", "resnet18.a1_in1k"), ("a=-2E+3", -2000.0),
    ],
)  # fmt: skip
def test_settings_have_the_type_of_yaml(text: str, value: Any) -> None:
    parsed = common.parse_settings([text])["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["train.lr", "=3", "a=[1", "a={b"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(IsthmusError):
        common.parse_settings([text])


def test_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    common.print_json({"nan": float("nan"), "tuple": (1, np.float32(0.5)), "é": np.arange(2), "path": Path("a")})
    assert json.loads(capsys.readouterr().out) == {"nan": None, "tuple": [1, 0.5], "é": [0, 1], "path": "a"}


def test_tables_stay_whole_when_piped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [[f"metric@{k}", "[red].743[/red] [.701, .781]", ".651 [.601, .701]", ".012"] for k in (1, 200)]
    common.console().print(common.table("sketch\n->photo", ["metric", "SynCDR", "CDS", "chance"], rows))
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "sketch\\n->photo" in text
    assert any(all(cell in line for cell in rows[1]) for line in text.splitlines()), text


def test_numbers() -> None:
    assert [common.number(x) for x in (0.0, 0.12345, 1.0, -0.5, None, float("nan"))] == [
        ".000", ".123", "1.000", "-.500", "–", "–"
    ]  # fmt: skip
    assert common.with_interval(0.5, (0.4, 0.61)) == ".500 [.400, .610]"
    assert common.with_interval(0.5, None) == ".500"
