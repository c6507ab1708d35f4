"""The end of a run: what is there, and the table of it once nothing is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isthmus import __version__
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, read_json
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.outputs import failure_path, image_path, read_provenance
from isthmus.translate.presence import one_at_a_time
from isthmus.translate.record import RESULT, TABLE, Request
from isthmus.translate.work import Job


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        manifest: the counterparts that are there, of this run and earlier ones.
        complete: whether every source image has its counterpart or is listed as failed, so that the table was written.
        written, kept: counterparts made now, and found made.
        failed: id -> reason, of all shards.
        missing: images that other shards, or a later run, still have to do.
        choice: the translator with its settings.
    """

    manifest: Manifest
    complete: bool
    written: int
    kept: int
    failed: Mapping[str, str]
    missing: int
    choice: TranslatorChoice


def finish(rows: Sequence[Row], request: Request, job: Job, written: int, kept: int) -> Outcome:
    """Collect what is there of `rows`, and write the table when nothing is missing.

    Whichever of several processes finds everything done writes it; when two do, they write the same.

    Raises:
        IsthmusError: not one image could be translated.
    """
    found = {row.id: _look(row, request, job) for row in rows}
    if None in found.values():
        return _outcome(rows, found, job, written, kept)
    with one_at_a_time(job.out):
        # While this process looked or waited, another may have mended what had failed.
        for row in rows:
            if isinstance(found[row.id], str):
                found[row.id] = _look(row, request, job)
        outcome = _outcome(rows, found, job, written, kept)
        if not outcome.complete:
            return outcome
        if not len(outcome.manifest):
            reason = next(iter(outcome.failed.values()))
            raise IsthmusError(f"None of the {len(rows)} images could be translated; the first: {reason}")
        outcome.manifest.save(job.out / TABLE)
        atomic_write_json(
            job.out / RESULT,
            {
                **request.to_dict(),
                "settings": dict(job.choice.settings),
                "notes": list(job.choice.notes),
                "fingerprint": job.choice.fingerprint,
                "source": rows[0].domain,
                "images": len(outcome.manifest),
                "failed": dict(outcome.failed),
                "isthmus": __version__,
            },
        )
    return outcome


def _look(row: Row, request: Request, job: Job) -> Row | str | None:
    """The counterpart of `row`, or why there is none, or None where it is still to be done."""
    path, note = image_path(job.out, row.id), failure_path(job.out, row.id)
    for _ in range(2):
        said = read_provenance(path)
        if said is not None and said.get("source") == row.id and said.get("settings") == job.choice.fingerprint:
            return _counterpart(row, path, request)
        if not note.is_file():
            return None
        try:
            return str(read_json(note)["reason"])
        except IsthmusError:
            if note.is_file():
                raise
            # Another process has mended it since: look again.
    return None


def _counterpart(row: Row, path: Path, request: Request) -> Row:
    return Row(
        id=f"{row.id}@{request.target}/{request.translator}",
        path=str(path.resolve()),
        domain=request.target,
        label=row.label,
        split=row.split,
        source_id=row.id,
    )


def _outcome(rows: Sequence[Row], found: Mapping[str, Row | str | None], job: Job, written: int, kept: int) -> Outcome:
    failed = {row.id: reason for row in rows if isinstance(reason := found[row.id], str)}
    missing = sum(state is None for state in found.values())
    manifest = Manifest(state for state in found.values() if isinstance(state, Row))
    return Outcome(manifest, missing == 0, written, kept, failed, missing, job.choice)
