"""The errors that are the user's to mend: one clear sentence each, exit code 2 on the command line."""

from __future__ import annotations


class IsthmusError(Exception):
    """Something in the input, the settings or the machine that the user can mend.

    The message is one sentence that names the file or setting and says what to do; the command line prints it without a
    traceback and exits with code 2.
    """


class MissingExtraError(IsthmusError):
    """An optional dependency is needed and not installed."""


def need_extra(extra: str, package: str) -> MissingExtraError:
    """The error to raise where an optional import fails.

    Example:
        >>> str(need_extra("demo", "fonticon_mdi7"))
        "This needs the package 'fonticon_mdi7', which is not installed: run  pip install 'isthmus[demo]'"
    """
    return MissingExtraError(
        f"This needs the package '{package}', which is not installed: run  pip install 'isthmus[{extra}]'"
    )
