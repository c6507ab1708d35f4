"""Which domain a query is searched as, and who said so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from isthmus.catalog.table import Facts
from isthmus.data.manifest import absolute
from isthmus.errors import IsthmusError
from isthmus.models.domains import DomainChooser


@dataclass(frozen=True)
class Choice:
    """A domain, and how it was come by.

    Attributes:
        domain: the query is searched as of this domain.
        by: it was drawn (`strokes`), the `request` named it, the `classifier` saw it, it is an `item`'s, or nobody said
            (`default`).
        probability: of the classifier's choice.
        sure: whether it needs no word of caution.
    """

    domain: str
    by: Literal["strokes", "request", "classifier", "item", "default"]
    probability: float | None = None
    sure: bool = True


def find_chooser(facts: Facts, place: str, model: str | None = None) -> DomainChooser | None:
    """The classifier that was stored with the catalog's model, or None.

    Args:
        facts: of the catalog.
        place: of the catalog.
        model: where the model is, if it is no longer where it was.

    Raises:
        IsthmusError: it is damaged, or made for other domains.
    """
    known = (facts.model, absolute(facts.model_relative, place)) if facts.model else ()
    for folder in (model,) if model is not None else known:
        if Path(folder).is_dir():
            chooser = DomainChooser.load(folder)
            if chooser is not None and set(chooser.domains) != set(facts.domains):
                raise IsthmusError(
                    f"The domain classifier in {folder} is for {' and '.join(chooser.domains)}, and the catalog's "
                    f"model for {' and '.join(facts.domains)}; make it anew with  isthmus domains RUN"
                )
            return chooser
    return None


def choose(image: Image.Image, asked: str | None, chooser: DomainChooser | None, domains: tuple[str, str]) -> Choice:
    """The domain of an uploaded image: as the request says, else as the classifier sees it, else the query domain."""
    if asked is not None:
        return Choice(asked, "request")
    if chooser is None:
        return Choice(domains[0], "default", sure=False)
    domain, probability = chooser.choose(image)
    return Choice(domain, "classifier", probability, chooser.is_sure(probability))
