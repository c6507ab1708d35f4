"""`isthmus check`: decode every image before the work starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from isthmus.data.check import CheckReport
    from isthmus.data.manifest import Manifest

SHOWN = 20  # findings of a kind on the terminal; JSON holds all
_LIST_NAME = re.compile(r"(?:(?P<domain>.+?)[_-])?(?P<split>train|valid|validation|val|test)(?:[_-].*)?", re.IGNORECASE)


def check(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDERS|LISTS|TABLES...",
            help="Folders, lists (path label) or tables (.csv, .parquet), each alone or as NAME=PATH to name its "
            "domain; NAME=PATH,val=PATH,test=PATH gives the splits of one domain.",
        ),
    ],
    root: Annotated[
        str | None, typer.Option(help="Folder that the paths in lists and tables start from.", metavar="DIR")
    ] = None,
    min_side: Annotated[int, typer.Option(help="Warn of images with a shorter side than this.", min=1)] = 32,
    workers: Annotated[
        int | None, typer.Option(help="Threads that decode; default: one for each processor.", min=1)
    ] = None,
    out: Annotated[str | None, typer.Option(help="Also write the report as JSON here.", metavar="FILE")] = None,
    write: Annotated[
        str | None,
        typer.Option(help="Write the table of the images without the broken ones here.", metavar="FILE.parquet|.csv"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Decode every image; report broken, duplicate, tiny and mislabelled-looking ones.

    Exit code 2 when something is wrong: broken files, the same content in two splits (a leak) or under two labels, or
    a domain of fewer than 2 images. Warnings leave it at 0.
    """
    from isthmus.cli.common import print_json
    from isthmus.data.check import check as look
    from isthmus.io import atomic_write_json

    report = look([part for text in sources for part in read(text, root)], workers=workers, min_side=min_side)
    if json:
        print_json(report.to_json())
    else:
        show(report)
    if out is not None:
        atomic_write_json(out, report.to_json())
    if write is not None:
        report.manifest().save(write)
    if not report.ok:
        raise typer.Exit(2)


def read(text: str, root: str | None) -> list[Manifest]:
    """The manifests that one argument names: `PATH`, `NAME=PATH` or `NAME=PATH,val=PATH,test=PATH`.

    A list named like `photo_train.txt` gives its images the split and, where no name is given, the domain.
    """
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest
    from isthmus.data.sources import read_source
    from isthmus.data.tables import TABLE_SUFFIXES

    if "=" in text and not Path(text).exists():
        domain = DomainConfig.parse(text, root=root)
        paths = {"train": domain.train, "val": domain.val, "test": domain.test}
        alone = domain.val is None and domain.test is None
        return [
            read_source(path, domain.name, root=root, split=_list_split(path) if alone else split)
            for split, path in paths.items()
            if path is not None
        ]
    path = Path(text)
    if path.is_dir() and (path / "manifest.parquet").is_file():
        path = path / "manifest.parquet"
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        return [Manifest.load(path, root=root)]
    return [read_source(path, _domain_name(path), root=root, split=_list_split(text))]


def _domain_name(path: Path) -> str:
    if path.is_dir():
        return path.resolve().name or "images"
    match = _LIST_NAME.fullmatch(path.stem)
    if match is None:
        return path.stem
    return match["domain"] or path.resolve().parent.name or "images"


def _list_split(path: str) -> str | None:
    from isthmus.data.sources import LIST_SUFFIXES, SPLITS

    match = _LIST_NAME.fullmatch(Path(path).stem)
    if match is None or Path(path).suffix.lower() not in LIST_SUFFIXES:
        return None
    return SPLITS[match["split"].lower()]


def show(report: CheckReport) -> None:
    """Print the report for people."""
    from isthmus.cli.common import console, table
    from isthmus.data.findings import KINDS

    out = console()
    rows = [
        (domain, split or "–", str(images), str(labels) if labels else "–", str(broken) if broken else "–")
        for domain, split, images, labels, broken in report.counts
    ]
    out.print(table(f"{report.images} images", ("domain", "split", "images", "labels", "broken"), rows))
    for kind, (is_error, title) in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if not found:
            continue
        print(f"{'ERROR' if is_error else 'warning'}: {title} ({len(found)})")
        for finding in found[:SHOWN]:
            for line in _lines(finding.reason, finding.paths):
                print(f"  {line}")
        if len(found) > SHOWN:
            print(f"  ... and {len(found) - SHOWN} more (--json or --out lists all)")
    if report.notes:
        print("handled: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.notes.items()))
    rate = report.images / max(report.seconds, 1e-9)
    verdict = "no errors" if report.ok else f"{len(report.errors)} errors to mend"
    print(f"{verdict}, {len(report.warnings)} warnings ({rate:.0f} images/s)")


def _lines(reason: str, paths: tuple[str, ...]) -> list[str]:
    from isthmus.cli.common import visible

    if not paths or visible(paths[0]) in visible(reason) or repr(paths[0]) in reason:
        return [visible(reason)]
    if len(paths) == 1:
        return [f"{visible(paths[0])}: {visible(reason)}"]
    more = [f"  and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    return [visible(reason), *(f"  {visible(path)}" for path in paths[:SHOWN]), *more]
