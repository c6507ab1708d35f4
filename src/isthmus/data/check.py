"""Look at every image before the work starts, so that no bad file ends a run hours in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from isthmus.data.findings import KINDS, Facts, Finding, count_notes, find_all
from isthmus.data.hints import small_features
from isthmus.data.images import ImageError, content_hash, decode_image
from isthmus.data.manifest import Manifest, Row
from isthmus.io import stable_hash
from isthmus.progress import track

HINT_LIMIT = 20_000  # images whose labels are judged in a domain: comparing all with all grows with the square
_BLOCK = 512
_DECODE_SIDE = 64


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        images: how many different files were decoded.
        counts: rows of the summary: domain, split (or None), images, labels, broken.
        findings: errors first, then warnings.
        notes: how many files are CMYK, 16-bit, animated or turned by EXIF: handled, nothing wrong.
        clean: the images without the broken ones, each id once; it can be saved and trained on.
        seconds: how long it took.
    """

    images: int
    counts: tuple[tuple[str, str | None, int, int, int], ...]
    findings: tuple[Finding, ...]
    notes: dict[str, int]
    clean: tuple[Row, ...]
    seconds: float

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What has to be mended."""
        return tuple(finding for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What deserves a look."""
        return tuple(finding for finding in self.findings if not finding.is_error)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def manifest(self) -> Manifest:
        """The clean images as a manifest.

        Raises:
            IsthmusError: two different files have the same id.
        """
        return Manifest(self.clean)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the whole list of findings included."""
        kinds = [finding.kind for finding in self.findings]
        return {
            "ok": self.ok,
            "images": self.images,
            "domains": [
                {"domain": domain, "split": split, "images": images, "labels": labels, "broken": broken}
                for domain, split, images, labels, broken in self.counts
            ],
            "found": {kind: kinds.count(kind) for kind in KINDS if kind in kinds},
            "errors": [finding.to_json() for finding in self.errors],
            "warnings": [finding.to_json() for finding in self.warnings],
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
        }


def check(
    manifests: Manifest | Sequence[Manifest], *, workers: int | None = None, min_side: int = 32, progress: bool = True
) -> CheckReport:
    """Decode every image, and look for what would spoil a run or its scores.

    Errors: broken files, the same content in two splits (a leak), the same content under two labels, a domain of fewer
    than 2 sound images. Warnings: the same content twice in a split or in both domains, tiny or single-coloured images,
    a name that ends for another format, validation or test labels that the other domain lacks, and labels that look
    wrong (a hint only, see `isthmus.data.hints`). Content is compared by the bytes of the files.

    Args:
        manifests: one or several; an image may be in several, as long as its split is the same.
        workers: threads; None: one for each processor. (Threads beat processes here: the decoders release the lock.)
        min_side: shorter images are reported as tiny.
        progress: show a bar on standard error.

    Example:
        >>> check(Manifest.from_folder("photos", "photo")).ok  # doctest: +SKIP
        True
    """
    start = time.monotonic()
    parts = [manifests] if isinstance(manifests, Manifest) else list(manifests)
    rows = list({(row.id, row.path, row.split, row.label): row for part in parts for row in part}.values())
    judged = _judged(rows)
    paths = list(dict.fromkeys(row.path for row in rows))
    results = _examine_all(paths, judged, workers or processors())
    facts = dict(zip(paths, track(results, len(paths), "checking") if progress else results, strict=True))
    clean: dict[tuple[str, str], Row] = {}
    for row in rows:
        if facts[row.path].error is None:
            clean.setdefault((row.id, row.path), row)
    return CheckReport(
        images=len(paths),
        counts=_counts(rows, facts),
        findings=tuple(find_all(rows, facts, min_side)),
        notes=count_notes(facts),
        clean=tuple(clean.values()),
        seconds=time.monotonic() - start,
    )


def examine(path: str, *, with_features: bool = False) -> Facts:
    """Read and decode one file; every failure is in the result."""
    try:
        content = content_hash(path)
        # A reduced decode of a JPEG still reads all of its data, so a truncated one is found.
        decoded = decode_image(path, min_side=_DECODE_SIDE)
    except ImageError as error:
        return Facts(error=str(error))
    image = decoded.image
    return Facts(
        content=content,
        size=decoded.size,
        format=decoded.format or "",
        mode=decoded.mode,
        animated=decoded.animated,
        rotated=decoded.rotated,
        blank=_is_blank(image),
        features=small_features(image) if with_features else None,
    )


def _is_blank(image: Image.Image) -> bool:
    return all(band.getextrema()[0] == band.getextrema()[1] for band in image.split())


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _judged(rows: Sequence[Row]) -> frozenset[str]:
    """The files whose labels will be judged: all, or a fixed sample of a large domain."""
    chosen: set[str] = set()
    for domain in {row.domain for row in rows}:
        labelled = {
            row.path for row in rows if row.domain == domain and row.label is not None and row.source_id is None
        }
        if len(labelled) > HINT_LIMIT:
            labelled = set(sorted(labelled, key=stable_hash)[:HINT_LIMIT])
        chosen |= labelled
    return frozenset(chosen)


def _examine_all(paths: Sequence[str], judged: frozenset[str], workers: int) -> Iterator[Facts]:
    def one(path: str) -> Facts:
        return examine(path, with_features=path in judged)

    pool = ThreadPoolExecutor(workers)
    try:
        # A million waiting jobs would take memory of their own, and Ctrl-C would wait for them.
        for start in range(0, len(paths), _BLOCK):
            yield from pool.map(one, paths[start : start + _BLOCK])
    finally:
        pool.shutdown(cancel_futures=True)


def _counts(rows: Sequence[Row], facts: dict[str, Facts]) -> tuple[tuple[str, str | None, int, int, int], ...]:
    result = []
    for domain, split in dict.fromkeys((row.domain, row.split) for row in rows):
        mine = {row.path: row for row in rows if (row.domain, row.split) == (domain, split)}.values()
        labels = {row.label for row in mine if row.label is not None}
        broken = sum(facts[row.path].error is not None for row in mine)
        result.append((domain, split, len(mine), len(labels), broken))
    return tuple(result)
