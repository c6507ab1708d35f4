"""`isthmus train`: two domains in, a run folder with a model out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.errors import IsthmusError


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file with any of the settings.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="syncdr, cds, ihda, data-free, pretrained; cut and fastcut make a translator, classifier a teacher."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="default, tiny or paper: one dial for the rest.")] = None,
    query_domain: Annotated[
        str | None,
        typer.Option(help="NAME=PATH[,val=PATH][,test=PATH]: folder, list or table of the images that ask."),
    ] = None,
    gallery_domain: Annotated[str | None, typer.Option(help="The same for the images that are found.")] = None,
    source_domain: Annotated[
        str | None, typer.Option(help="ihda: the same for attribute-labelled images that look like the gallery's.")
    ] = None,
    photo_classifier: Annotated[
        str | None, typer.Option(help="data-free: classifier of the gallery's images: run, folder or description.")
    ] = None,
    sketch_classifier: Annotated[str | None, typer.Option(help="data-free: the same of the query's images.")] = None,
    unified: Annotated[str | None, typer.Option(help="data-free: one classifier of both, instead of the two.")] = None,
    modality_classifier: Annotated[
        str | None, typer.Option(help="data-free: a classifier that tells the two domains apart.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="data-free: run TorchScript given as a classifier.")] = False,
    root: Annotated[str | None, typer.Option(help="Folder that the paths in lists are relative to.")] = None,
    synthetic: Annotated[list[str] | None, typer.Option(help="Folder that `isthmus translate` wrote.")] = None,
    weights: Annotated[str | None, typer.Option(help="'pretrained', 'random' or a checkpoint file.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Any timm model name.")] = None,
    ablation: Annotated[str | None, typer.Option(help="shared-slots: the public code's slot collision.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any setting, such as train.lr=1e-3.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes (devices) on this machine.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines.")] = None,
    plan: Annotated[bool, typer.Option(help="Estimate time, memory and disk, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train an encoder for two domains, unpaired or (--method ihda) in labelled pairs, or a translator (cut)."""
    from isthmus.cli.common import parse_settings, print_json
    from isthmus.config import DomainConfig, RunConfig, read_yaml

    changes = parse_settings(settings or [])
    named: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "data.synthetic": synthetic or None,
        "model.weights": weights,
        "model.backbone": backbone,
        "loss.ablation": ablation,
        "train.devices": devices,
        "train.nodes": nodes,
        "data_free.photo": photo_classifier,
        "data_free.sketch": sketch_classifier,
        "data_free.unified": unified,
        "data_free.modality": modality_classifier,
        "data_free.trust": trust or None,
    }
    for name, text in (("query", query_domain), ("gallery", gallery_domain), ("source", source_domain)):
        if text is not None:
            named[f"data.{name}"] = DomainConfig.parse(text, root=root).model_dump()
    layer = {name: value for name, value in named.items() if value is not None} | changes
    if resume is not None:
        from isthmus.train.run import settings_to_go_on

        if out is not None or config is not None:
            raise IsthmusError("--resume takes the folder and the settings of the run; leave out --out and --config.")
        run, folder = settings_to_go_on(resume, layer), resume
    else:
        values = read_yaml(config) if config else {}
        run = RunConfig.build(preset or str(values.pop("preset", "default")), values, layer)
        if plan:
            from isthmus.train.estimate import estimate

            planned = estimate(run)
            print_json(planned.to_dict()) if as_json else print(planned.text())
            return
        if out is None:
            raise IsthmusError("Name a folder for the run with --out.")
        folder = out
    _fit(run, folder, resume is not None, as_json)


def _fit(config: Any, folder: Path, resume: bool, as_json: bool) -> None:
    from isthmus.cli.common import print_json, visible
    from isthmus.train.interrupt import Interrupted
    from isthmus.train.run import train as fit

    try:
        record = fit(config, folder, resume=resume)
    except Interrupted as stopped:
        typer.echo(f"{stopped} Go on with:  isthmus train --resume {visible(str(folder))}", err=True)
        raise typer.Exit(128 + stopped.signal) from None
    if as_json:
        print_json({"run": str(folder), **record})
        return
    print(f"The model of epoch {record['epoch']} is in {visible(str(folder / 'model'))}. Next:")
    for line in _next_commands(config, visible(str(folder))):
        print(f"  {line}")


def _next_commands(config: Any, shown: str) -> list[str]:
    from isthmus.config import CUT_METHODS

    if config.method == "classifier":
        return [_as_teacher(config, shown)]
    if config.method == "data-free" and config.data.query is None:
        query, gallery = config.data_free.names
        return [
            f"look at the pictures in {shown}/samples",
            f"isthmus evaluate {shown} --query-domain {query}=IMAGES --gallery-domain {gallery}=IMAGES",
            f"isthmus index {shown} PICTURES --out CATALOG",
        ]
    if config.method not in CUT_METHODS:
        return [f"isthmus evaluate {shown}", f"isthmus index {shown} PICTURES --out CATALOG"]
    a, b = config.data.query.name, config.data.gallery.name
    ways = {"query-to-gallery": [(a, b)], "gallery-to-query": [(b, a)], "both": [(a, b), (b, a)]}
    return [f"look at the pictures in {shown}/samples"] + [
        f"isthmus translate --source {source}=IMAGES --target {target} --translator cut --set run={shown} --out FOLDER"
        for source, target in ways[config.cut.direction]
    ]


def _as_teacher(config: Any, shown: str) -> str:
    if config.classifier.target == "domain":
        option = "--photo-classifier PHOTOS --sketch-classifier SKETCHES --modality-classifier"
    elif config.data.query is not None and config.data.gallery is not None:
        option = "--unified"
    elif config.data.query is not None:
        option = "--photo-classifier PHOTOS --sketch-classifier"
    else:
        option = "--sketch-classifier SKETCHES --photo-classifier"
    return f"isthmus train --method data-free {option} {shown} --out FOLDER"
