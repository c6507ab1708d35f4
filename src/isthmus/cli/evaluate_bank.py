"""The bank of a hubness correction: images of the queries' domain that are not asked, embedded with the same model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from isthmus.cli.evaluate_one import Options
    from isthmus.config import DomainConfig
    from isthmus.data.manifest import Manifest, Row
    from isthmus.evaluate.after import Hubness
    from isthmus.evaluate.reranked import Bank
    from isthmus.models.encoder import Model

Banks = tuple["list[Row]", "list[Row]"]


def bank_rows(
    run: str, domains: tuple[DomainConfig, DomainConfig], measured: tuple[Manifest, Manifest], options: Options
) -> Banks | None:
    """The images of each domain's bank, where the options ask for one that is not the queries themselves.

    Raises:
        IsthmusError: a domain has no image for it.
    """
    from isthmus.evaluate.after import Hubness

    settings = options.rerank
    if not isinstance(settings, Hubness) or settings.transductive:
        return None
    first, second = (_rows_of(run, domain, part, settings) for domain, part in zip(domains, measured, strict=True))
    return first, second


def embed_banks(model: Model, rows: Banks, setting: str, options: Options) -> tuple[Bank, Bank]:
    """Embed both banks in the setting that is re-ranked, `"centred"` or `"plain"`."""
    from isthmus.evaluate.reranked import Bank

    on_bad: Literal["raise", "skip"] = "skip" if options.skip_bad else "raise"
    banks = []
    for domain, part in zip(model.domains, rows, strict=True):
        began = time.perf_counter()
        vectors = model.encode(
            [row.path for row in part], domain=domain, batch_size=options.batch_size, workers=options.workers,
            centring=setting == "centred", progress=options.progress, on_bad=on_bad,
        )  # fmt: skip
        banks.append(Bank(vectors, time.perf_counter() - began))
    return banks[0], banks[1]


def _rows_of(run: str, domain: DomainConfig, measured: Manifest, settings: Hubness) -> list[Row]:
    from isthmus import ops
    from isthmus.config import RunConfig
    from isthmus.data.training import read_domain
    from isthmus.errors import IsthmusError

    found = read_domain(domain, settings.bank)
    file = Path(run) / "config.yaml"
    if found is None and file.is_file():
        # A domain named on the command line has test images alone: then those that the run was trained on.
        data = RunConfig.load(file).data
        own = next((d for d in (data.query, data.gallery) if d is not None and d.name == domain.name), None)
        found = read_domain(own, settings.bank) if own is not None else None
    asked = {row.path for row in measured}  # not ids: those of train/cat/1.png and test/cat/1.png may be the same
    rows = [] if found is None else list(found.select(domain=domain.name, real=True))
    rows = [row for row in rows if row.path not in asked]
    if not rows:
        raise IsthmusError(
            f"The domain '{domain.name}' has no {settings.bank} images besides those that are measured, so "
            f"{settings.method} has no bank: name some ({domain.name}=PATH,{settings.bank}=PATH), or choose another "
            "with  --rerank-set bank=train|val|test  (test: transductive)."
        )
    if len(rows) > settings.size:  # by the hash of the id, so that neither order nor class decides
        keys = ops.tie_keys([row.id for row in rows])
        rows = [rows[place] for place in sorted(keys.argsort(stable=True)[: settings.size].tolist())]
    return rows
