"""Models on the Hugging Face hub: `hf://owner/name[@revision]` wherever a model is named."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from isthmus.errors import IsthmusError, need_extra

# One slash too: `Path` makes one of two.
_SCHEME = re.compile(r"hf:/{1,2}(?=[^/])")
_PLACE = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
# What a model's folder is made of. Nothing that could be pickled code is fetched.
WANTED = ("*.json", "*.safetensors", "*.onnx", "*.xml", "network.bin", "query.bin", "gallery.bin", "README.md")


def is_hub(place: str | Path) -> bool:
    """Whether a model's place is on the hub.

    Example:
        >>> is_hub("hf://owner/name"), is_hub("runs/pacs")
        (True, False)
    """
    return _SCHEME.match(str(place)) is not None


def parse_place(place: str | Path) -> tuple[str, str | None]:
    """`owner/name` and the revision (a branch, tag or commit), None for the newest.

    Raises:
        IsthmusError: it is no place on the hub.

    Example:
        >>> parse_place("hf://owner/name@v1")
        ('owner/name', 'v1')
    """
    match = _PLACE.fullmatch(_SCHEME.sub("", str(place), count=1))
    if match is None or not is_hub(place):
        raise IsthmusError(f"{place} names no model on the hub; write  hf://owner/name  or  hf://owner/name@revision.")
    return match["name"], match["revision"]


def local(place: str | Path) -> str | Path:
    """The folder of a model: `place` itself, or what was fetched for a place on the hub.

    Files are kept in huggingface_hub's own cache, in a folder of the commit: what a catalog remembers of it never
    changes. Without a connection the cache alone is used.

    Args:
        place: a folder, or `hf://owner/name[@revision]`.

    Raises:
        IsthmusError: no such model or revision, no access, or no connection and nothing in the cache.
        MissingExtraError: huggingface_hub is not installed.

    Example:
        >>> local("runs/pacs")
        'runs/pacs'
    """
    if not is_hub(place):
        return place
    name, revision = parse_place(place)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise need_extra("hub", "huggingface_hub") from error
    with explained(name, revision):
        return str(snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))
    raise AssertionError("unreachable: what `explained` catches it raises anew")


@contextlib.contextmanager
def explained(name: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into one sentence."""
    from huggingface_hub import errors

    shown = name + (f"@{revision}" if revision else "")
    try:
        yield
    except errors.GatedRepoError as error:
        raise IsthmusError(
            f"hf://{shown} is gated: ask for access on its page, then log in with  hf auth login."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise IsthmusError(
            f"There is no model hf://{shown} on the hub, or it is private: check the name, or log in with  hf auth "
            "login  (or set HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise IsthmusError(
            f"The model hf://{name} has no revision '{revision}'; name a branch, tag or commit."
        ) from error
    except errors.HFValidationError as error:
        raise IsthmusError(f"'{name}' can't be a name on the hub ({_first(error)}); write owner/name.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise IsthmusError(
            f"hf://{shown} is not in this machine's cache and the hub can't be reached (or HF_HUB_OFFLINE is set); "
            "connect, or name a folder."
        ) from error
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        if code in (401, 403):
            raise IsthmusError(
                f"The hub lets nobody do this to {shown} without the right token ({code}): log in with  hf auth login  "
                "(or set HF_TOKEN) as somebody who may."
            ) from error
        raise IsthmusError(f"The hub could not answer for {shown} ({_first(error)}); try again later.") from error
    except errors.LocalTokenNotFoundError as error:
        raise IsthmusError("No token of the hub was found: log in with  hf auth login  or set HF_TOKEN.") from error
    except OSError as error:
        raise IsthmusError(
            f"hf://{shown} could not be fetched or sent ({_first(error)}); check disk and net."
        ) from error
    except Exception as error:
        # The client's own library for HTTP has changed its name before: known by what it is, not by where it is from.
        if not any(kind.__name__ in ("HTTPError", "TransportError", "RequestError") for kind in type(error).__mro__):
            raise
        raise IsthmusError(f"The hub can't be reached for {shown} ({_first(error)}); try again later.") from error


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
