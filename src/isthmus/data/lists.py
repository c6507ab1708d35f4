"""Lists of images as text, `path label` on each line: what the public SynCDR code and many data sets use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from isthmus.data.files import IMAGE_SUFFIXES, exists, show_name
from isthmus.data.manifest import Manifest, Row, absolute, image_id, some_of
from isthmus.errors import IsthmusError

CLASSES = "classes.txt"
_PROBE = 50  # paths that decide where relative paths start
_SUFFIXES = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True))
_PATH_AND_LABEL = re.compile(rf"(.*(?:{_SUFFIXES}))\s+(\S.*)", re.IGNORECASE)


def parse_list(path: Path, domain: str, *, root: str | Path | None = None, split: str | None = None) -> Manifest:
    """See `isthmus.data.sources.read_list`."""
    name = show_name(path)
    names = read_classes(path.parent / CLASSES)
    known = frozenset(names.values())
    entries: list[tuple[int, str, str | None]] = []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            file, label = parse_line(line, known)
            entries.append((number, file, _class_name(label, names, f"line {number} of {name}")))
    if not entries:
        raise IsthmusError(
            f"The list {name} for domain '{domain}' names no image; it needs a line 'path label' for each."
        )
    base = absolute(root) if root is not None else _find_base(path, [file for _, file, _ in entries])
    paths = [absolute(file, base) for _, file, _ in entries]
    _refuse_repeats(name, paths, entries)
    if missing := [file for full, (_, file, _) in zip(paths, entries, strict=True) if not exists(full)]:
        raise IsthmusError(
            f"{len(missing)} of the {len(entries)} images that the list {name} names do not exist beneath "
            f"{show_name(base)}: {some_of(missing)}; give the folder that the paths start from with --root."
        )
    return Manifest(
        Row(image_id(domain, full, base), full, domain, label=label, split=split)
        for full, (_, _, label) in zip(paths, entries, strict=True)
    )


def parse_line(line: str, names: frozenset[str] = frozenset()) -> tuple[str, str | None]:
    """Split a line into path and label; both may hold spaces.

    The label is the last field when that is an integer or one of `names`. Otherwise it is what follows a known image
    suffix, if anything does.

    Example:
        >>> parse_line("a cat 2.jpg 3"), parse_line("a cat 2.jpg"), parse_line("a.jpg alarm clock")
        (('a cat 2.jpg', '3'), ('a cat 2.jpg', None), ('a.jpg', 'alarm clock'))
    """
    line = line.strip()
    match = _PATH_AND_LABEL.fullmatch(line)
    if match and match[2] in names:
        return match[1], match[2]
    fields = line.rsplit(maxsplit=1)
    if len(fields) == 2 and (_is_integer(fields[1]) or fields[1] in names):
        return fields[0], fields[1]
    if match and Path(line).suffix.lower() not in IMAGE_SUFFIXES:
        return match[1], match[2]
    return line, None


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def read_classes(path: Path) -> Mapping[str, str]:
    """Number -> class name from a `classes.txt`; empty when there is no such file.

    A line is a name (numbered from 0 in order), `index name` or `name index`, the same throughout the file.
    """
    if not path.is_file():
        return {}
    lines = [line.strip() for line in _lines(path) if line.strip()]
    pairs = [line.split(maxsplit=1) for line in lines]
    if _are_numbered(pairs, 0):
        return {str(int(number)): name for number, name in pairs}
    pairs = [line.rsplit(maxsplit=1) for line in lines]
    if _are_numbered(pairs, 1):
        return {str(int(number)): name for name, number in pairs}
    return {str(number): name for number, name in enumerate(lines)}


def _are_numbered(pairs: Sequence[Sequence[str]], position: int) -> bool:
    if not pairs or not all(len(pair) == 2 and pair[position].isdecimal() for pair in pairs):
        return False
    return len({int(pair[position]) for pair in pairs}) == len(pairs)


def _class_name(label: str | None, names: Mapping[str, str], where: str) -> str | None:
    if label is None or not names or not _is_integer(label):
        return label
    try:
        return names[str(int(label))]
    except KeyError:
        raise IsthmusError(
            f"The label {label} in {where} is not in {CLASSES}, which has {len(names)} classes; correct one of them."
        ) from None


def _lines(path: Path) -> list[str]:
    try:
        # A file name may be any bytes; `splitlines` would also cut at characters that names may hold.
        text = path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except FileNotFoundError:
        raise IsthmusError(f"There is no list {show_name(path)}; check the path.") from None
    except OSError as error:
        raise IsthmusError(f"The list {show_name(path)} can't be read ({error.strerror}); check it.") from error
    return re.split(r"\r?\n", text)


def _find_base(path: Path, files: Sequence[str]) -> str:
    step = max(1, len(files) // _PROBE)
    probe = files[::step]
    bases = [absolute(path.parent), absolute(path.parent.parent if path.parent.name else path.parent / "..")]
    # `max` keeps the first, the list's own folder, where both hold as many.
    return max(bases, key=lambda base: sum(exists(absolute(file, base)) for file in probe))


def _refuse_repeats(name: str, paths: Sequence[str], entries: Sequence[tuple[int, str, str | None]]) -> None:
    seen: dict[str, int] = {}
    repeats: list[str] = []
    for full, (number, file, _) in zip(paths, entries, strict=True):
        if full in seen:
            repeats.append(f"{show_name(file)} (lines {seen[full]} and {number})")
        seen.setdefault(full, number)
    if repeats:
        raise IsthmusError(
            f"The list {name} names {len(repeats)} files more than once: {some_of(repeats)}; remove the repeats."
        )
