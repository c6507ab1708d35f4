"""The rules of `isthmus check`: what decoded images say about a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isthmus.data.hints import odd_labels
from isthmus.data.manifest import Manifest, Row
from isthmus.data.sources import matched_labels
from isthmus.errors import IsthmusError

# kind -> (is it an error, what the report calls it), in the order of the report
KINDS: Mapping[str, tuple[bool, str]] = {
    "broken": (True, "can't be read"),
    "leak": (True, "the same content in two splits"),
    "conflict": (True, "the same content under two labels"),
    "few": (True, "too few images"),
    "duplicate": (False, "the same content more than once"),
    "shared": (False, "the same content in two domains"),
    "tiny": (False, "very small"),
    "blank": (False, "a single colour"),
    "suffix": (False, "named for another format"),
    "label": (False, "the label looks wrong (a hint: look at it)"),
    "unmatched": (False, "labels without a counterpart"),
}
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
}


@dataclass(frozen=True)
class Facts:
    """What decoding one file showed; `error` is None for a sound image."""

    error: str | None = None
    content: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    mode: str = ""
    animated: bool = False
    rotated: bool = False
    blank: bool = False
    features: NDArray[np.float16] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Finding:
    """One thing that `check` found.

    Attributes:
        kind: a key of `KINDS`.
        reason: what is wrong, in words.
        ids: the rows it is about.
        paths: their files.
    """

    kind: str
    reason: str
    ids: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def is_error(self) -> bool:
        """Whether it has to be mended before the work starts; a warning only deserves a look."""
        return KINDS[self.kind][0]

    def to_json(self) -> dict[str, Any]:
        """Plain values; file names that are not valid Unicode are escaped."""
        return {
            "kind": self.kind,
            "reason": _valid(self.reason),
            "ids": [_valid(id) for id in self.ids],
            "files": [_valid(path) for path in self.paths],
        }


def find_all(rows: Sequence[Row], facts: Mapping[str, Facts], min_side: int) -> list[Finding]:
    """Apply every rule.

    Args:
        rows: the images; one image may occur in several splits.
        facts: what each path holds.
        min_side: images with a shorter side are reported as tiny.
    """
    sound = [row for row in rows if facts[row.path].error is None]
    found = [
        *_by_file(rows, facts, min_side),
        *_by_content(sound, facts),
        *_by_domain(rows, sound),
        *_by_label(sound, facts),
    ]
    order = list(KINDS)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def count_notes(facts: Mapping[str, Facts]) -> dict[str, int]:
    """How many files needed the decoder's care; nothing is wrong with them."""
    notes: Counter[str] = Counter()
    for fact in facts.values():
        notes["cmyk"] += fact.mode == "CMYK"
        notes["16_bit_or_float"] += fact.mode.startswith("I") or fact.mode == "F"
        notes["animated"] += fact.animated
        notes["exif_rotated"] += fact.rotated
    return {name: count for name, count in notes.items() if count}


def _by_file(rows: Sequence[Row], facts: Mapping[str, Facts], min_side: int) -> Iterator[Finding]:
    for row in {row.path: row for row in rows}.values():
        fact = facts[row.path]
        if fact.error is not None:
            yield _finding("broken", fact.error, [row])
            continue
        if min(fact.size) < min_side:
            width, height = fact.size
            yield _finding("tiny", f"{width} x {height} pixels, less than {min_side} on a side", [row])
        if fact.blank:
            yield _finding("blank", "every pixel has the same colour", [row])
        suffix = Path(row.path).suffix.lower()
        if suffix and suffix not in _SUFFIXES.get(fact.format, (suffix,)):
            yield _finding("suffix", f"the content is {fact.format}, the name ends in {suffix}", [row])


def _by_content(rows: Sequence[Row], facts: Mapping[str, Facts]) -> Iterator[Finding]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[facts[row.path].content].append(row)
    for group in groups.values():
        if len(group) < 2:
            continue
        splits = sorted({row.split for row in group if row.split is not None})
        domains = sorted({row.domain for row in group})
        if len(splits) > 1:
            yield _finding("leak", f"in the splits {' and '.join(splits)}; keep it in one", group)
        elif len({(row.domain, row.path) for row in group}) > len(domains):
            yield _finding("duplicate", f"{len({row.path for row in group})} files with the same content", group)
        if len(domains) > 1:
            yield _finding("shared", f"in the domains {' and '.join(domains)}", group)
        yield from _conflicts(group)


def _conflicts(group: Sequence[Row]) -> Iterator[Finding]:
    for domain in sorted({row.domain for row in group}):
        mine = [row for row in group if row.domain == domain]
        for what in ("label", "identity"):
            values = sorted({value for row in mine if (value := getattr(row, what)) is not None})
            if len(values) > 1:
                yield _finding("conflict", f"its {what} is {' and '.join(values)}; keep the right one", mine)


def _by_domain(rows: Sequence[Row], sound: Sequence[Row]) -> Iterator[Finding]:
    sizes = dict.fromkeys((row.domain for row in rows), 0)
    for domain, _ in {(row.domain, row.path) for row in sound}:
        sizes[domain] += 1
    for domain, count in sizes.items():
        if count < 2:
            yield Finding("few", f"the domain '{domain}' has {count} sound images, and at least 2 are needed: add more")
    for split in ("val", "test"):
        for first, second in combinations(sizes, 2):
            pair = [[row for row in sound if row.domain == name and row.split == split] for name in (first, second)]
            if all(any(row.label is not None for row in part) for part in pair):
                yield from _unmatched(pair[0], pair[1], split)


def _unmatched(a: Sequence[Row], b: Sequence[Row], split: str) -> Iterator[Finding]:
    try:
        matched = matched_labels(Manifest(_once(a)), Manifest(_once(b)))
    except IsthmusError as error:
        yield Finding("unmatched", f"split {split}: {error}")
        return
    for row, left_out, other in ((a[0], matched.left_out_a, b[0]), (b[0], matched.left_out_b, a[0])):
        if left_out:
            yield Finding(
                "unmatched",
                f"split {split}: {left_out} images of '{row.domain}' have a label that '{other.domain}' lacks",
            )


def _by_label(rows: Sequence[Row], facts: Mapping[str, Facts]) -> Iterator[Finding]:
    domains: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.label is not None and row.source_id is None and facts[row.path].features is not None:
            domains[row.domain][facts[row.path].content] = row  # a copy of itself would be its own best neighbour
    for candidates in domains.values():
        judged = list(candidates.values())
        features = [known for row in judged if (known := facts[row.path].features) is not None]
        for position, label in odd_labels(np.stack(features), [row.label or "" for row in judged]):
            row = judged[position]
            yield _finding("label", f"it is labelled '{row.label}' and looks like the images of '{label}'", [row])


def _once(rows: Sequence[Row]) -> list[Row]:
    return list({row.id: row for row in rows}.values())


def _finding(kind: str, reason: str, rows: Sequence[Row]) -> Finding:
    unique = list({(row.id, row.path): row for row in rows}.values())
    return Finding(kind, reason, tuple(row.id for row in unique), tuple(dict.fromkeys(row.path for row in unique)))


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
