"""`isthmus translate`: images of one domain in the look of another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def translate(
    source: Annotated[str, typer.Option(help="Domain to translate: NAME=PATH (a folder, list or table).")],
    target: Annotated[
        str, typer.Option(help="Domain to look like: NAME, or NAME=PATH to measure the look on its unlabelled images.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the counterparts; an interrupted run in it is resumed.")],
    translator: Annotated[str, typer.Option(help="Which translator.")] = "edges",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Setting of the translator: KEY=VALUE.")] = None,
    split: Annotated[str, typer.Option(help="Which split: train, val, test or all.")] = "train",
    root: Annotated[str | None, typer.Option(help="Folder that paths in lists are relative to.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    shard: Annotated[str, typer.Option(help="i/n: do only the i-th of n parts; each on a machine of its own.")] = "1/1",
    limit: Annotated[int | None, typer.Option(help="Translate only so many images, chosen by the seed.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Write pairs.png and pairs.html to look at.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only estimate time, memory and disk.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes of a CPU translator; 0: no extra ones.", min=0)] = None,
    on_bad: Annotated[str, typer.Option(help="A source image that can't be read: skip (and list) or raise.")] = "skip",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False,
) -> None:
    """Give each image of one domain a counterpart in the look of another; SynCDR trains on both."""
    from isthmus.cli.common import parse_settings, print_json, visible
    from isthmus.data.manifest import Manifest
    from isthmus.errors import IsthmusError
    from isthmus.translate.record import Request
    from isthmus.translate.run import translate_source

    if on_bad not in ("skip", "raise"):
        raise IsthmusError(f"--on-bad {on_bad}: it is skip or raise.")
    rows = _read(source, split, root)
    name, _, path = target.partition("=")
    like: Manifest | None = _read(target, split, root) if path else None
    request = Request(translator, parse_settings(settings or []), name, seed)
    part = _shard(shard)
    if plan:
        _plan(rows, request, out, like, part, limit, workers, as_json)
        return
    outcome = translate_source(
        rows, request, out, target=like, shard=part, limit=limit, workers=workers,
        on_bad="skip" if on_bad == "skip" else "raise",
    )  # fmt: skip
    for note in outcome.choice.notes:
        print(visible(note), file=sys.stderr)
    for id, reason in outcome.failed.items():
        print(visible(f"Left out: {id}: {reason}"), file=sys.stderr)
    result: dict[str, Any] = {
        "out": str(out), "images": len(outcome.manifest), "written": outcome.written, "kept": outcome.kept,
        "failed": dict(outcome.failed), "missing": outcome.missing, "complete": outcome.complete,
        "settings": dict(outcome.choice.settings),
    }  # fmt: skip
    if report and len(outcome.manifest):
        from isthmus.translate.pairs import PAGE, SHEET, summary, write_report

        figures = write_report(out, rows, outcome.manifest, outcome.choice, outcome.failed)
        result["report"] = {"sheet": str(out / SHEET), "page": str(out / PAGE), **summary(figures)}
    if as_json:
        print_json(result)
        return
    print(f"{result['images']} counterparts in {visible(str(out))} ({outcome.written} made now, {outcome.kept} kept).")
    if report and "report" in result:
        print(f"Look at {visible(str(out / PAGE))}: {len(figures.blank)} blank, {len(figures.duplicates)} alike.")
    if not outcome.complete:
        print(f"{outcome.missing} images are still to be done, by other shards or by running this again.")
    elif limit is None:
        print(f"Next: isthmus train --synthetic {visible(str(out))} ...")


def _read(text: str, split: str, root: str | None) -> Any:
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest
    from isthmus.data.sources import read_source
    from isthmus.data.training import read_domain
    from isthmus.errors import IsthmusError

    domain = DomainConfig.parse(text, root=root)
    if split == "all":
        paths = dict.fromkeys(path for path in (domain.train, domain.val, domain.test) if path)
        parts = [read_source(path, domain.name, root=root) for path in paths]
        return sum(parts[1:], parts[0]) if parts else Manifest()
    if split not in ("train", "val", "test"):
        raise IsthmusError(f"--split {split}: it is train, val, test or all.")
    found = read_domain(domain, split)
    if found is None:
        raise IsthmusError(f"{text} has no images of split {split}; choose another with --split.")
    return found


def _shard(text: str) -> tuple[int, int]:
    from isthmus.errors import IsthmusError

    number, _, count = text.partition("/")
    if not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count):
        raise IsthmusError(f"--shard {text}: write i/n with i from 1 to n, for example 1/4.")
    return int(number), int(count)


def _plan(
    rows: Any, request: Any, out: Path, like: Any, shard: tuple[int, int], limit: int | None, workers: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    from isthmus.cli.common import print_json
    from isthmus.translate.run import plan_source

    plan = plan_source(rows, request, out, target=like, shard=shard, limit=limit, workers=workers)
    if as_json:
        print_json(plan.to_dict())
    else:
        print(plan.text())
