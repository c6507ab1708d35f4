"""What a run remembers of failed pictures: not to try them for ever, and with which seed to go on when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, read_json
from isthmus.translate.outputs import FAILED, failure_path, image_path, read_provenance

RETRY = "retry.json"  # image id -> the attempt to begin with
JUDGED = "quality.json"  # the last report's figures; `suspects` among them


def first_attempts(out: Path) -> dict[str, int]:
    """The attempt to begin with, by image id, for those that were asked for again; the others begin with 0."""
    if not (out / RETRY).is_file():
        return {}
    try:
        return {str(id): int(attempt) for id, attempt in read_json(out / RETRY).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise IsthmusError(
            f"{out / RETRY} is not what --retry wrote: remove it, and ask with --retry again."
        ) from error


def given_up(out: Path, id: str, provenance: Mapping[str, Any], first: int) -> str:
    """Why image `id` was left out, where the same image failed with the same settings; else the empty string.

    An image that couldn't be read is never given up: it may have been mended.
    """
    note = _note(failure_path(out, id))
    same = note.get("tried") == dict(provenance) and int(note.get("attempts", 0)) > first
    return str(note["reason"]) if same else ""


def ask_again(out: Path) -> int:
    """Have the next run in `out` try again, with seeds that weren't tried yet; returns how many images.

    These are the images that were left out because the translator gave no picture, and the counterparts that the last
    report found blank, unchanged or repeated, as far as they haven't been made anew since. A counterpart stays until
    its successor is there.

    Example:
        >>> ask_again(Path("nothing/here"))
        0
    """
    wanted: dict[str, int] = {}
    notes: list[Path] = []
    for path in sorted((out / FAILED).rglob("*.json")):
        note = _note(path)
        if "tried" in note:
            wanted[str(note["id"])] = int(note["attempts"])
            notes.append(path)
    if (out / JUDGED).is_file():
        try:
            suspects = [(str(one["source"]), int(one["attempt"])) for one in read_json(out / JUDGED)["suspects"]]
        except (KeyError, TypeError, ValueError) as error:
            raise IsthmusError(f"{out / JUDGED} is not what --report wrote: have it written anew.") from error
        for id, attempt in suspects:
            said = read_provenance(image_path(out, id))
            if said is not None and said.get("attempt", 0) == attempt:
                wanted[id] = attempt + 1
    if wanted:
        # First the wish, then the notes: killed in between, nothing of the wish is lost.
        atomic_write_json(out / RETRY, {**first_attempts(out), **wanted})
        for path in notes:
            path.unlink(missing_ok=True)
    return len(wanted)


def _note(path: Path) -> dict[str, Any]:
    """A note of failure; empty where there is none, or one that nobody can read: then the image is tried anew."""
    try:
        note = read_json(path) if path.is_file() else {}
    except IsthmusError:
        return {}
    return note if isinstance(note, dict) else {}
