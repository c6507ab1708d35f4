"""The record of a translation: the settings a folder was made with, so that a resumed run can't mix two."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus import __version__
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, canonical_json, explain_os_errors, make_folder, read_json
from isthmus.translate.base import Samples, TranslatorChoice, choose, translator_class

SETTINGS = "settings.json"
RESULT = "translation.json"
TABLE = "manifest.parquet"


@dataclass(frozen=True)
class Request:
    """What was asked for: all of it has to be the same when a run is resumed.

    Attributes:
        translator: name in the table of translators.
        settings: as given, before anything was chosen from samples.
        target: domain that the counterparts belong to.
        seed: seed of the run.
    """

    translator: str
    settings: Mapping[str, Any]
    target: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The request as plain values."""
        return {
            "translator": self.translator,
            "version": translator_class(self.translator).version,
            "target": self.target,
            "seed": self.seed,
            "requested": dict(self.settings),
        }


Chooser = Callable[[str, Mapping[str, Any], Samples], TranslatorChoice]


def settle(out: Path, request: Request, samples: Samples | None, chooser: Chooser = choose) -> TranslatorChoice:
    """The translator of a run in `out`: as recorded there, or chosen now and recorded.

    What was chosen from samples stays chosen when the run is resumed, also when images have been added since. Of
    several processes that start at the same time the first to record its choice chooses for all.

    Args:
        out: folder of the run; made where it is missing.
        request: what is asked for.
        samples: of both domains; None where only a recorded choice will do.
        chooser: `isthmus.translate.base.choose`, or the same on another machine.

    Raises:
        IsthmusError: the folder was made with other settings, holds something else or can't be written.
    """
    record = recorded(out, request)
    if record is None and out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        # Looked up again: another process may have begun in between.
        record = recorded(out, request)
        if record is None:
            raise IsthmusError(f"{out} holds something other than a translation; choose another folder with --out.")
    if record is None:
        choice = chooser(request.translator, request.settings, samples or Samples())
        make_folder(out)
        mine = {
            **request.to_dict(),
            "settings": dict(choice.settings),
            "fingerprint": choice.fingerprint,
            "notes": list(choice.notes),
            "isthmus": __version__,
        }
        if _write_first(out / SETTINGS, mine):
            return choice
        record = recorded(out, request) or mine
    return TranslatorChoice(request.translator, record["settings"], tuple(record.get("notes", ())))


def _write_first(path: Path, value: Mapping[str, Any]) -> bool:
    """Write `path`, whole or not at all, unless it is there already; whether it was written."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    atomic_write_json(scratch, value)
    try:
        # A link, unlike a renaming, never takes another file's place.
        path.hardlink_to(scratch)
    except FileExistsError:
        return False
    except OSError:
        # A file system without links: two first starters may miss each other here, and the later record counts. What
        # was made with other settings is found by its provenance and made anew.
        if path.exists():
            return False
        with explain_os_errors(path):
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return True


def recorded(out: Path, request: Request) -> dict[str, Any] | None:
    """The record in `out`, or None where there is none; one of another request is an `IsthmusError`."""
    if not (out / SETTINGS).is_file():
        return None
    record = read_json(out / SETTINGS)
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise IsthmusError(f"{out / SETTINGS} is no record of a translation; choose another folder with --out.")
    for key, value in request.to_dict().items():
        if canonical_json(record.get(key)) != canonical_json(value):
            raise IsthmusError(
                f"{out} was made with {_said(key, record.get(key))}, now it is {_said(key, value)}: "
                "choose another folder with --out, or go on with the settings of before."
            )
    return record


def _said(key: str, value: Any) -> str:
    if key != "requested":
        return f"{key} {value!r}"
    text = ", ".join(f"{name}={item}" for name, item in sorted((value or {}).items()))
    return f"settings {text}" if text else "no settings"
