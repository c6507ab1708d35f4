"""`isthmus demo`: the whole way from two folders of unpaired images to a search, on icons or on real sketches."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from isthmus.cli.demo_data import Corpus
    from isthmus.evaluate.run import Evaluation


def demo(
    data: Annotated[str, typer.Option(help="icons (comes along), pacs or sketchy (real, with --root).")] = "icons",
    root: Annotated[Path | None, typer.Option(help="Folder of the data set: images and lists/.")] = None,
    weights: Annotated[str, typer.Option(help="For real images: 'pretrained' or a MobileNetV2 file.")] = "pretrained",
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("isthmus-demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(help="Only so many icons, for a quick look.")] = None,
    plan: Annotated[bool, typer.Option(help="Estimate time, memory and disk, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Train, evaluate, index and search, on data that comes along: run it again to see the finished parts reused."""
    from isthmus.cli.demo_data import corpus

    started = time.monotonic()
    say = _Narrator(started)
    say("The images")
    images = corpus(data, out, root, weights, seed, limit)
    for note in images.notes:
        say.more(note)
    if plan:
        from isthmus.cli.demo_plan import plan_demo

        planned = plan_demo(images, out, seed)
        for part in planned:
            print(part.text())
        from isthmus.progress import clock

        print(f"in all about {clock(sum(part.seconds for part in planned))}")
        return
    say(f"Counterparts: each {images.query.name} image as {images.gallery.name}, and the other way round")
    folders = _translate(images, out, seed, say)
    runs = _train(images, folders, out, seed, say)
    say("Evaluation: both directions, held-out images")
    evaluations = _evaluate(images, runs, say)
    report = _report(images, evaluations, runs, out)
    say("Catalog and search")
    hits = _search(images, runs["SynCDR"], out, say)
    seconds = time.monotonic() - started
    if as_json:
        from isthmus.cli.common import print_json

        scores = {name: evaluation.scores for name, evaluation in evaluations.items()}
        print_json({"seconds": seconds, "report": str(report), "hits": str(hits), "scores": scores})
        return
    _summary(images, evaluations, seconds)
    query = images.example.path
    print(f"\nLook at {report} and {hits}. Then try:")
    print(f"  isthmus search {out / 'catalog'} {query} -k 10 --save hits.png")
    print(f"  isthmus serve {out / 'catalog'}  # a page to draw on; needs  pip install '.[serve]'")
    print("  isthmus check YOUR_SKETCHES YOUR_PHOTOS")
    print("  isthmus translate --source photo=YOUR_PHOTOS --target sketch=YOUR_SKETCHES --out made --limit 16 --report")


class _Narrator:
    """Says on standard error what is being done, and when."""

    def __init__(self, started: float) -> None:
        self.started = started

    def __call__(self, text: str) -> None:
        typer.echo(f"[{time.monotonic() - self.started:5.0f} s] {text}", err=True)

    def more(self, text: str) -> None:
        typer.echo(f"          {text}", err=True)


def _translate(images: Corpus, out: Path, seed: int, say: _Narrator) -> list[str]:
    from isthmus.translate.record import Request
    from isthmus.translate.run import translate_source

    folders = []
    for source, target in ((images.query.name, images.gallery.name), (images.gallery.name, images.query.name)):
        folder = out / "counterparts" / f"{source}-as-{target}"
        outcome = translate_source(
            images.to_translate[source],
            Request("edges", {}, target, seed),
            folder,
            target=images.to_translate[target],
        )
        for note in outcome.choice.notes:
            say.more(note)
        folders.append(str(folder))
    return folders


def _train(images: Corpus, folders: list[str], out: Path, seed: int, say: _Narrator) -> dict[str, Path]:
    from isthmus.cli.demo_data import METHODS, run_config
    from isthmus.train.run import finished_epochs, train

    runs: dict[str, Path] = {}
    for name, method in METHODS.items():
        say(f"Training: {name}" if method != "pretrained" else "The network before training")
        folder = out / "runs" / method
        config = run_config(images, method, folders, seed)
        if (finished_epochs(folder) or 0) >= config.train.epochs:
            say.more("finished in an earlier run")
        train(config, folder)
        runs[name] = folder
    return runs


def _evaluate(images: Corpus, runs: dict[str, Path], say: _Narrator) -> dict[str, Evaluation]:
    from isthmus.cli.demo_data import METHODS
    from isthmus.evaluate.run import evaluate_model
    from isthmus.models.encoder import Model

    evaluations = {}
    for name in reversed(METHODS):
        evaluations[name] = evaluate_model(Model.load(runs[name]), images.test[0], images.test[1])
    return evaluations


def _report(images: Corpus, evaluations: dict[str, Evaluation], runs: dict[str, Path], out: Path) -> Path:
    from isthmus.report.html import write_report

    paths = {row.id: row.path for side in images.test for row in side}
    title = f"Isthmus on {images.name}: {images.query.name} and {images.gallery.name}"
    report = out / "report.html"
    return write_report(report, title, evaluations, run_folder=runs["SynCDR"], images=paths.get, notes=images.notes)


def _search(images: Corpus, run: Path, out: Path, say: _Narrator) -> Path:
    from isthmus.catalog.store import Catalog
    from isthmus.catalog.view import hit_sheet
    from isthmus.models.encoder import Model

    place = out / "catalog"
    if Catalog.exists(place) and Catalog.open(place).facts.fingerprint != Model.load(run).fingerprint:
        shutil.rmtree(place)  # of an earlier demo's model: its vectors are of no use now
    catalog = Catalog.open(place, run) if Catalog.exists(place) else Catalog.create(place, run)
    catalog.add(images.test[1])
    say.more(f"{len(catalog)} {images.gallery.name} images in {place}")
    query = images.example
    hits = catalog.search(query.path, domain=images.query.name, k=10)
    picture = out / "hits.png"
    hit_sheet(query.path, hits).save(picture)
    return picture


def _summary(images: Corpus, evaluations: dict[str, Evaluation], seconds: float) -> None:
    from isthmus.cli.common import console, table, with_interval
    from isthmus.progress import clock

    first = next(iter(evaluations.values()))
    metric = first.primary.partition("/")[2]
    directions = [f"{images.query.name}->{images.gallery.name}", f"{images.gallery.name}->{images.query.name}"]
    rows = []
    for name, evaluation in evaluations.items():
        sides = [evaluation.side(direction) for direction in directions]
        rows.append([name, *(with_interval(side.scores[metric], side.intervals.get(metric)) for side in sides)])
    sides = [first.side(direction) for direction in directions]
    rows.append(["chance", *(with_interval(side.chance.get(metric), None) for side in sides)])
    print(f"\n{metric} among {sides[0].n_gallery} and {sides[1].n_gallery} held-out images, 95 % interval of queries:")
    console().print(table("", ["", *directions], rows))
    print(f"Done in {clock(seconds)}. {images.expect}")
