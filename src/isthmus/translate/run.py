"""The resumable run: a manifest of one domain in, counterparts in the look of another out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.plan import Plan
from isthmus.progress import track
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.estimate import plan_translation
from isthmus.translate.finish import Outcome, finish
from isthmus.translate.pool import Batch, Crew, Local, stoppable
from isthmus.translate.presence import at_work, sweep
from isthmus.translate.record import SETTINGS, TABLE, Request, recorded, settle
from isthmus.translate.select import Shard, chosen_rows, deal, form_batches, samples
from isthmus.translate.work import Item, Job

OnBad = Literal["skip", "raise"]


@dataclass(frozen=True)
class Options:
    """How a run goes about its work: nothing of it changes a counterpart. See `run_translation`."""

    shard: Shard = (1, 1)
    limit: int | None = None
    workers: int | None = None
    on_bad: OnBad = "skip"
    ray: str | None = None


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
    on_bad: OnBad = "skip",
    ray: str | None = None,
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
        workers: processes of a CPU translator; None: one a core for more than a few images; 0: this one. With `ray`:
            actors; None: as many as the cluster has room for.
        on_bad: `skip` lists images that can't be read, `raise` stops at the first.
        ray: do the work on a Ray cluster: `auto`, `local`, `host:port` or `ray://host:port`. All its nodes have to see
            the images and `out` at the same paths. Nothing is uploaded or installed there.

    Raises:
        IsthmusError: bad settings, an unreadable image with `on_bad="raise"`, a folder that can't be written, or a Ray
            cluster that can't be reached or doesn't see the folders.

    Example:
        >>> photos = read_source("photos/", "photo")                                    # doctest: +SKIP
        >>> sketches = run_translation(photos, "sketch", "made/", "edges")              # doctest: +SKIP
        >>> sketches[0].id                                                              # doctest: +SKIP
        'photo/cat/1.jpg@sketch/edges'
    """
    request = Request(translator, dict(settings or {}), target_domain, seed)
    options = Options(shard, limit, workers, on_bad, ray)
    return translate_source(source, request, Path(out), options, target=target).manifest


def translate_source(
    source: Manifest, request: Request, out: Path, options: Options | None = None, *, target: Manifest | None = None
) -> Outcome:
    """`run_translation` with everything it has to say."""
    options = options or Options()
    rows = chosen_rows(source, request, options.limit)
    if options.limit is not None and (out / TABLE).is_file() and len(Manifest.load(out / TABLE)) > len(rows):
        raise IsthmusError(
            f"{out} holds more counterparts than --limit {options.limit} would leave in its table; choose another "
            "folder with --out."
        )
    # The domains are looked at only where nothing is recorded yet: what was chosen stays chosen.
    seen = None if recorded(out, request) is not None else samples(rows, request, target)
    with stoppable():
        with _hired(options) as crew:
            choice = settle(out, request, seen, crew.choose)
            job = Job(choice, out, request.target, request.seed, options.on_bad == "skip")
            with at_work(out / SETTINGS):
                written, kept = _work(crew, _batches(rows, choice, options.shard), job)
                outcome = finish(rows, request, job, written, kept)
        if outcome.complete:
            sweep(out, out / SETTINGS)
    return outcome


def plan_source(
    source: Manifest, request: Request, out: Path, options: Options | None = None, *, target: Manifest | None = None
) -> Plan:
    """Estimate `translate_source` with the same arguments; nothing is written."""
    options = options or Options()
    rows = chosen_rows(source, request, options.limit)
    record = recorded(out, request)
    with _hired(options) as crew:
        if record is not None:
            choice = TranslatorChoice(request.translator, record["settings"])
        else:
            choice = crew.choose(request.translator, request.settings, samples(rows, request, target))
        wanted = {row.id: row for row in rows}
        mine = [wanted[item.id] for batch in _batches(rows, choice, options.shard) for item in batch]
        return plan_translation(mine, choice, workers=crew.processes(choice.name, len(mine)), out=out)


def _hired(options: Options) -> AbstractContextManager[Crew]:
    if options.ray is None:
        return nullcontext(Local(options.workers))
    from isthmus.translate.ray_connect import connected

    return connected(options.ray, options.workers)


def _batches(rows: Sequence[Row], choice: TranslatorChoice, shard: Shard) -> list[tuple[Item, ...]]:
    """The batches of this shard, formed from the id-sorted rows before they are dealt out."""
    items = [Item(row.id, row.path, row.label) for row in rows]
    return deal(form_batches(items, choice.build().batch_size), shard)


def _work(crew: Crew, batches: Sequence[Batch], job: Job) -> tuple[int, int]:
    """Have `crew` do `batches`; how many counterparts were written, and kept."""
    count = sum(len(batch) for batch in batches)
    largest = max((len(batch) for batch in batches), default=1)
    written = kept = done = 0
    try:
        for part in track(crew.run(batches, job), count, "translating", "images", largest):
            written += part.written
            kept += part.kept
            done += part.total
    except KeyboardInterrupt:
        print(
            f"Stopped with {done} of {count} images done; nothing is half-written. "
            "Run the same command again to go on.",
            file=sys.stderr,
        )
        raise
    return written, kept
