"""`isthmus`: the verbs, and what an error looks like from outside."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isthmus import __version__
from isthmus.cli.common import visible
from isthmus.errors import IsthmusError
from isthmus.process import keep_memory

# In the order of the work: this is the order of `isthmus --help`.
VERBS = (
    "demo", "data", "check", "translate", "train", "evaluate", "calibrate", "domains",
    "index", "search", "catalog", "serve", "feedback", "export", "push", "benchmark",
)  # fmt: skip
TRACEBACK = "ISTHMUS_TRACEBACK"


class Verbs(TyperGroup):
    """The group of verbs; whatever a verb raises becomes a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe has to show here, not while the interpreter shuts down
            return result
        except (Exception, KeyboardInterrupt) as error:
            code = explain(error)
            if code is None:
                raise
            raise typer.Exit(code) from error


def explain(error: BaseException) -> int | None:
    """Say on standard error what went wrong.

    Returns:
        The exit code: 2 for what the user can mend, 130 when interrupted, 0 for a reader of our output that left, 1 for
        memory and for bugs. None where the error is the command line parser's own business.
    """
    if type(error).__module__.split(".")[0] in ("typer", "click"):
        return None
    if isinstance(error, IsthmusError):
        return _say(str(error), 2, error)
    if isinstance(error, KeyboardInterrupt):
        return _say("Interrupted.", 130)
    # Looked up, not imported: where training was never loaded nobody can have interrupted it.
    stopped = getattr(sys.modules.get("isthmus.train.interrupt"), "Interrupted", None)
    if stopped is not None and isinstance(error, stopped):
        return _say(f"{error} The same command goes on from there.", 128 + int(getattr(error, "signal", 2)))
    if isinstance(error, BrokenPipeError):
        _leave_quietly()
        return 0
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _torch_cpu_memory(error):
        return _say(
            "The memory ran out: make the batch or the images smaller (train: --set train.batch_size=..., --set "
            "model.image_size=...; translate: --set batch_size=..., --set size=...) or close other programs.",
            1,
            error,
        )
    return _say(
        f"This is a bug in Isthmus {__version__}, please report it: {type(error).__name__}: {error}  "
        f"(the same command with {TRACEBACK}=1 before it prints the traceback)",
        1,
        error,
    )


def _torch_cpu_memory(error: BaseException) -> bool:
    # On the CPU torch has no class for it, only this RuntimeError.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _say(sentence: str, code: int, error: BaseException | None = None) -> int:
    if error is not None and os.environ.get(TRACEBACK, "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    # Plain print: rich would take [brackets] in file names for markup, and wrap what people want to copy.
    print(f"isthmus: {visible(sentence)}", file=sys.stderr)
    return code


def _leave_quietly() -> None:
    # What is still buffered has nowhere to go; without this the interpreter complains about it at exit.
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"isthmus {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The command line with all its verbs; a verb's module must be cheap to import, `--help` imports them all."""
    app = typer.Typer(
        name="isthmus",
        cls=Verbs,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def isthmus(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
        ] = False,
    ) -> None:
        """Cross-domain image retrieval when pairs, labels or images are scarce: isthmus VERB --help says more."""

    for verb in VERBS:
        name = f"isthmus.cli.{verb}"
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        group = getattr(module, "app", None)
        if isinstance(group, typer.Typer):
            app.add_typer(group, name=verb)
        else:
            action: Callable[..., Any] = getattr(module, verb)
            app.command(name=verb)(action)
    return app


def main() -> None:
    """Entry point of the `isthmus` command."""
    for stream in (sys.stdout, sys.stderr):
        # File names need not be valid Unicode, and the terminal need not be UTF-8: show, never fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    keep_memory()
    try:
        build()(prog_name="isthmus")
    except KeyboardInterrupt:
        sys.exit(explain(KeyboardInterrupt()))


if __name__ == "__main__":
    main()
