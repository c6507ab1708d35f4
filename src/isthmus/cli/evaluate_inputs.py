"""What `isthmus evaluate` reads: the domains of a run, their images, and the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.cli.evaluate_one import Options
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest
    from isthmus.models.encoder import Model


def domains_of(run: Path, options: Options) -> tuple[DomainConfig, DomainConfig]:
    """Both domains: from the command line where named there, else from the run's settings."""
    from isthmus.config import DomainConfig, RunConfig
    from isthmus.errors import IsthmusError

    given = [
        DomainConfig.parse(text, main=options.split, root=options.root) if text else None
        for text in (options.query, options.gallery)
    ]
    settings = run / "config.yaml"
    if None in given and settings.is_file():
        data = RunConfig.load(settings).data
        given = [ours or theirs for ours, theirs in zip(given, (data.query, data.gallery), strict=True)]
    if given[0] is None or given[1] is None:
        missing = "--query-domain" if given[0] is None else "--gallery-domain"
        raise IsthmusError(f"{run} names no images to evaluate on: add  {missing} NAME=PATH.")
    return given[0], given[1]


def rows_of(domain: DomainConfig, split: str) -> Manifest:
    """The images of a domain to measure on."""
    from isthmus.data.training import read_domain
    from isthmus.errors import IsthmusError

    rows = read_domain(domain, split)
    if rows is not None:
        rows = rows.select(domain=domain.name, real=True)
    if rows is None or not len(rows):
        raise IsthmusError(
            f"The domain '{domain.name}' has no {split} images; name some:  --query-domain / --gallery-domain "
            f"{domain.name}=PATH, or choose another --split."
        )
    return rows


def load_model(run: str, domains: tuple[DomainConfig, DomainConfig], *, attributes: bool) -> Model:
    """The run's model, which must know these domains."""
    from isthmus.errors import IsthmusError
    from isthmus.models.encoder import load
    from isthmus.models.ihda import IhdaModel

    model = IhdaModel.load(run) if attributes else load(run)
    names = (domains[0].name, domains[1].name)
    if names == model.domains[::-1]:
        raise IsthmusError(f"The model asks with '{model.domains[0]}': exchange --query-domain and --gallery-domain.")
    if names != model.domains:
        raise IsthmusError(
            f"The model's domains are {' and '.join(model.domains)}, those to evaluate {' and '.join(names)}; use the "
            "model's names, as in  --query-domain NAME=PATH."
        )
    return model
