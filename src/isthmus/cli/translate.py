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
    translator: Annotated[
        str, typer.Option(help="edges, cut, img2img, instruct-pix2pix, elite or ip-adapter: see docs/translators.md.")
    ] = "edges",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Setting of the translator: KEY=VALUE.")] = None,
    split: Annotated[str, typer.Option(help="Which split: train, val, test or all.")] = "train",
    root: Annotated[str | None, typer.Option(help="Folder that paths in lists are relative to.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    shard: Annotated[str, typer.Option(help="i/n: do only the i-th of n parts; each on a machine of its own.")] = "1/1",
    limit: Annotated[int | None, typer.Option(help="Translate only so many images, chosen by the seed.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Judge them: three figures and pairs in pairs.html.")
    ] = False,
    report_weights: Annotated[
        str, typer.Option(help="Of the report's network (mobilenetv2_100): pretrained or a checkpoint file.")
    ] = "pretrained",
    retry: Annotated[
        bool, typer.Option("--retry", help="Try what was left out, or found faulty by --report, with other seeds.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only estimate time, memory and disk.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes of a CPU translator, 0: no extra ones. With --ray: its actors.", min=0)
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on a Ray cluster: auto, local, host:port or ray://...")
    ] = None,
    on_bad: Annotated[str, typer.Option(help="A source image that can't be read: skip (and list) or raise.")] = "skip",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.")] = False,
) -> None:
    """Give each image of one domain a counterpart in the look of another; SynCDR trains on both."""
    from isthmus.cli.common import parse_settings, print_json, visible
    from isthmus.data.manifest import Manifest
    from isthmus.errors import IsthmusError
    from isthmus.translate.record import Request
    from isthmus.translate.run import Options, translate_source

    if on_bad not in ("skip", "raise"):
        raise IsthmusError(f"--on-bad {on_bad}: it is skip or raise.")
    rows = _read(source, split, root)
    name, _, path = target.partition("=")
    like: Manifest | None = _read(target, split, root) if path else None
    request = Request(translator, parse_settings(settings or []), name, seed)
    options = Options(_shard(shard), limit, workers, "skip" if on_bad == "skip" else "raise", ray)
    if plan:
        _plan(rows, request, out, like, options, as_json)
        return
    if report_weights not in ("pretrained", "random") and not Path(report_weights).is_file():
        raise IsthmusError(f"--report-weights {report_weights} is no file: give a checkpoint of mobilenetv2_100.")
    if retry:
        _retry(out, request)
    outcome = translate_source(rows, request, out, options, target=like)
    for note in outcome.choice.notes:
        print(visible(note), file=sys.stderr)
    for id, reason in outcome.failed.items():
        print(visible(f"Left out: {id}: {reason}"), file=sys.stderr)
    result: dict[str, Any] = {
        "out": str(out), "images": len(outcome.manifest), "written": outcome.written, "kept": outcome.kept,
        "failed": dict(outcome.failed), "missing": outcome.missing, "complete": outcome.complete,
        "settings": dict(outcome.choice.settings),
    }  # fmt: skip
    quality = None
    if report and len(outcome.manifest):
        from isthmus.translate.pairs import JUDGED, PAGE, SHEET, write_report

        quality = write_report(
            out, rows, outcome.manifest, outcome.choice, outcome.failed, target=like, weights=report_weights, seed=seed
        )
        files = {"sheet": str(out / SHEET), "page": str(out / PAGE), "figures": str(out / JUDGED)}
        result["report"] = {**files, **quality.to_dict()}
    if as_json:
        print_json(result)
        return
    print(f"{result['images']} counterparts in {visible(str(out))} ({outcome.written} made now, {outcome.kept} kept).")
    if quality is not None:
        for verdict in quality.verdicts:
            grade = "" if verdict.grade == "unknown" else f", {verdict.grade}"
            print(visible(f"{verdict.title}: {verdict.value}{grade}. {verdict.words}"))
        print(f"Look at {visible(str(out / PAGE))}.")
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


def _retry(out: Path, request: Any) -> None:
    from isthmus.translate.gate_retry import ask_again
    from isthmus.translate.record import recorded

    count = ask_again(out) if recorded(out, request) is not None else 0
    print(
        f"Trying {count} images again with other seeds." if count else "There is nothing to try again.", file=sys.stderr
    )


def _shard(text: str) -> tuple[int, int]:
    from isthmus.errors import IsthmusError

    number, _, count = text.partition("/")
    if not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count):
        raise IsthmusError(f"--shard {text}: write i/n with i from 1 to n, for example 1/4.")
    return int(number), int(count)


def _plan(rows: Any, request: Any, out: Path, like: Any, options: Any, as_json: bool) -> None:
    from isthmus.cli.common import print_json
    from isthmus.translate.run import plan_source

    plan = plan_source(rows, request, out, options, target=like)
    if as_json:
        print_json(plan.to_dict())
    else:
        print(plan.text())
