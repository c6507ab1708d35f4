"""What the demo will take, from short probes of its parts."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.plan import Plan

if TYPE_CHECKING:
    from isthmus.cli.demo_data import Corpus


def plan_demo(images: Corpus, out: Path, seed: int) -> list[Plan]:
    """A plan for each part: two translations, three runs, and scores with catalog."""
    from isthmus.cli.demo_data import METHODS, run_config
    from isthmus.data.manifest import Manifest
    from isthmus.train.estimate import estimate
    from isthmus.translate.record import Request
    from isthmus.translate.run import plan_source

    plans: list[Plan] = []
    names = (images.query.name, images.gallery.name)
    with tempfile.TemporaryDirectory() as scratch:
        # Counterparts are not made yet; the images themselves in their place cost training just as much.
        stand_in = Path(scratch) / "stand-in"
        stand_in.mkdir()
        rows = []
        for source, target in (names, names[::-1]):
            same = images.to_translate[source]
            request, like = Request("edges", {}, target, seed), images.to_translate[target]
            part = plan_source(same, request, Path(scratch) / target, target=like)
            plans.append(replace(part, what=f"translate {source} to {target}"))
            rows += [replace(row, id=f"{row.id}@{target}", domain=target, source_id=row.id) for row in same]
        Manifest(rows).save(stand_in / "manifest.parquet")
        for method in METHODS.values():
            plans.append(estimate(run_config(images, method, [str(stand_in)], seed)))
    embed = _embedding_seconds(images, seed)
    count = len(METHODS) * sum(len(side) for side in images.test) + len(images.test[1])
    plans.append(Plan("scores and catalog", count, "images", count * embed, 0, 0, f"{1 / embed:.0f} images/s"))
    return plans


def _embedding_seconds(images: Corpus, seed: int) -> float:
    """Seconds an image to decode and embed at test time."""
    from isthmus.cli.demo_data import run_config
    from isthmus.models.encoder import Architecture, Model
    from isthmus.plan import measure

    config = run_config(images, "pretrained", [], seed).model
    architecture = Architecture(config.backbone, config.dim, config.image_size)
    model = Model.create(architecture, (images.query.name, images.gallery.name), weights=config.weights)
    paths = [row.path for row in list(images.test[0])[:64]]
    return measure(lambda: model.encode(paths, domain=images.query.name), repeats=2) / len(paths)
