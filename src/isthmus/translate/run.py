"""The resumable run: a manifest of one domain in, counterparts in the look of another out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isthmus import __version__
from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json, read_json
from isthmus.plan import Plan
from isthmus.progress import track
from isthmus.translate.base import TranslatorChoice, choose
from isthmus.translate.estimate import plan_translation
from isthmus.translate.outputs import FAILED, IMAGES, failure_path, image_path, read_provenance
from isthmus.translate.pool import default_workers, run_batches, stoppable
from isthmus.translate.record import RESULT, TABLE, Request, recorded, settle
from isthmus.translate.select import Shard, chosen_rows, deal, form_batches, samples
from isthmus.translate.work import Item, Job


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


def run_translation(
    source: Manifest,
    target_domain: str,
    out: str | Path,
    translator: str = "edges",
    settings: Mapping[str, Any] | None = None,
    *,
    target: Manifest | None = None,
    seed: int = 0,
    shard: Shard = (1, 1),
    limit: int | None = None,
    workers: int | None = None,
    on_bad: Literal["skip", "raise"] = "skip",
) -> Manifest:
    """Give each image of `source` a counterpart in the look of `target_domain`; returns the table of counterparts.

    The folder `out` holds `images/`, and when all images are done `manifest.parquet` (id
    `<source id>@<target domain>/<translator>`, label and split of the source image, `source_id`) and
    `translation.json`. A run that was interrupted, at any moment, goes on when it is started again, and ends in
    the same bytes.

    Args:
        source: images of one domain; counterparts among them are left out.
        target_domain: name of the domain to look like.
        out: folder to write to; one made with other settings is refused.
        translator: name in `isthmus.translate.base.TRANSLATORS`.
        settings: of the translator.
        target: unlabelled images of the target domain, from which a translator may measure how to draw.
        seed: an image's randomness is a hash of this and its id, so that batch, order and machine don't matter.
        shard: (i, n), 1 <= i <= n: do the i-th part of the batches. Batches are formed before they are dealt out.
        limit: a seeded choice of so many images only.
        workers: processes of a CPU translator; None: one a core for more than a few images; 0: this one.
        on_bad: `skip` lists images that can't be read, `raise` stops at the first.

    Raises:
        IsthmusError: bad settings, an unreadable image with `on_bad="raise"`, or a folder that can't be written.

    Example:
        >>> photos = read_source("photos/", "photo")                                    # doctest: +SKIP
        >>> sketches = run_translation(photos, "sketch", "made/", "edges")              # doctest: +SKIP
        >>> sketches[0].id                                                              # doctest: +SKIP
        'photo/cat/1.jpg@sketch/edges'
    """
    return translate_source(
        source,
        Request(translator, dict(settings or {}), target_domain, seed),
        Path(out),
        target=target,
        shard=shard,
        limit=limit,
        workers=workers,
        on_bad=on_bad,
    ).manifest


def translate_source(
    source: Manifest,
    request: Request,
    out: Path,
    *,
    target: Manifest | None = None,
    shard: Shard = (1, 1),
    limit: int | None = None,
    workers: int | None = None,
    on_bad: Literal["skip", "raise"] = "skip",
) -> Outcome:
    """`run_translation` with everything it has to say."""
    rows = chosen_rows(source, request, limit)
    # The domains are looked at only where nothing is recorded yet: what was chosen stays chosen.
    seen = None if recorded(out, request) is not None else samples(rows, request, target)
    choice = settle(out, request, seen)
    job = Job(choice, out, request.target, request.seed, on_bad == "skip")
    batches = form_batches([Item(row.id, row.path, row.label) for row in rows], choice.build().batch_size)
    mine = deal(batches, shard)
    count = sum(len(batch) for batch in mine)
    if workers is None:
        workers = default_workers(job, count)
    written = kept = 0
    try:
        with stoppable():
            steps = run_batches(mine, job, workers)
            largest = max((len(batch) for batch in mine), default=1)
            for done in track(steps, count, "translating", "images", largest):
                written += done.written
                kept += done.kept
    except KeyboardInterrupt:
        print(
            f"Stopped with {written + kept} of {count} images done; nothing is half-written. "
            "Run the same command again to go on.",
            file=sys.stderr,
        )
        raise
    return _finish(rows, request, job, written, kept)


def plan_source(
    source: Manifest,
    request: Request,
    out: Path,
    *,
    target: Manifest | None = None,
    shard: Shard = (1, 1),
    limit: int | None = None,
    workers: int | None = None,
) -> Plan:
    """Estimate `translate_source` with the same arguments; nothing is written."""
    rows = chosen_rows(source, request, limit)
    record = recorded(out, request)
    if record is not None:
        choice = TranslatorChoice(request.translator, record["settings"])
    else:
        choice = choose(request.translator, request.settings, samples(rows, request, target))
    wanted = {row.id: row for row in rows}
    items = [Item(row.id, row.path, row.label) for row in rows]
    mine = [wanted[item.id] for batch in deal(form_batches(items, choice.build().batch_size), shard) for item in batch]
    if workers is None:
        workers = default_workers(Job(choice, out, request.target, request.seed, True), len(mine))
    return plan_translation(mine, choice, workers=workers, out=out)


def _finish(rows: Sequence[Row], request: Request, job: Job, written: int, kept: int) -> Outcome:
    """Collect what is there; write the table when nothing is missing."""
    made: list[Row] = []
    failed: dict[str, str] = {}
    missing = 0
    for row in rows:
        path = image_path(job.out, row.id)
        said = read_provenance(path)
        if said is not None and said.get("source") == row.id and said.get("settings") == job.choice.fingerprint:
            made.append(_counterpart(row, path, request))
        elif failure_path(job.out, row.id).is_file():
            failed[row.id] = str(read_json(failure_path(job.out, row.id))["reason"])
        else:
            missing += 1
    manifest = Manifest(made)
    if missing == 0:
        if not made:
            raise IsthmusError(
                f"None of the {len(rows)} images could be translated; the first: {next(iter(failed.values()))}"
            )
        _clean(job.out)
        manifest.save(job.out / TABLE)
        atomic_write_json(
            job.out / RESULT,
            {
                **request.to_dict(),
                "settings": dict(job.choice.settings),
                "notes": list(job.choice.notes),
                "fingerprint": job.choice.fingerprint,
                "source": rows[0].domain,
                "images": len(made),
                "failed": failed,
                "isthmus": __version__,
            },
        )
    return Outcome(manifest, missing == 0, written, kept, failed, missing, job.choice)


def _counterpart(row: Row, path: Path, request: Request) -> Row:
    return Row(
        id=f"{row.id}@{request.target}/{request.translator}",
        path=str(path.resolve()),
        domain=request.target,
        label=row.label,
        split=row.split,
        source_id=row.id,
    )


def _clean(out: Path) -> None:
    """Remove what a killed process left: hidden temporary files. Only once nobody is at work any more."""
    for leftover in _leftovers(out):
        leftover.unlink(missing_ok=True)


def _leftovers(out: Path) -> Iterator[Path]:
    for folder in (out / IMAGES, out / FAILED):
        yield from folder.rglob(".*.tmp")
