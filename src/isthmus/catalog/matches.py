"""Hits as matches or not: by the threshold and probabilities that were calibrated for the catalog's model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from isthmus.catalog.search import Hit
from isthmus.errors import IsthmusError
from isthmus.models.calibration import Calibration

NOT_CALIBRATED = (
    "The catalog's model has no threshold, so no hit can be told a match; make one with  isthmus calibrate RUN  and "
    "open the catalog again."
)


def judged(
    answers: Sequence[Iterable[Hit]],
    domains: Sequence[str | None],
    calibration: Calibration | None,
    centring: tuple[bool | None, bool | None],
    *,
    matches_only: bool = False,
) -> list[list[Hit]]:
    """Each hit with the probability of a match and whether it is one; as it is where nothing is calibrated.

    Args:
        answers: hits of each query, best first.
        domains: of each query; None where it is not known, as of a bare vector.
        calibration: of the model.
        centring: whether items and queries are centred; None: as the model does by itself.
        matches_only: leave out hits below the threshold. So a query without a match has no hits.

    Raises:
        IsthmusError: `matches_only`, and there is no threshold for a query and a hit.
    """
    if calibration is None:
        return [list(hits) for hits in answers]
    items, queries = (calibration.centring if centred is None else centred for centred in centring)
    result = []
    for hits, domain in zip(answers, domains, strict=True):
        marked = []
        for hit in hits:
            # Vectors of which only one is centred were never compared on validation images.
            known = domain is not None and (items == queries or not calibration.centres)
            part = calibration.part(str(domain), hit.domain, items) if known else None
            if part is not None:
                hit = replace(hit, probability=part.probability(hit.score), match=hit.score >= part.threshold)
            elif matches_only:
                raise IsthmusError(
                    f"The model has no threshold for {domain or 'a query of unknown domain'} against {hit.domain}, so "
                    "no hit can be told a match; leave matches_only out, name the query's domain, or calibrate with "
                    "more validation images."
                )
            if not matches_only or hit.match:
                marked.append(hit)
        result.append(marked)
    return result


def no_match(hits: Sequence[Hit], offset: int, calibration: Calibration | None) -> dict[str, bool]:
    """`{"no_match": ...}`: whether nothing found is a match; empty on later pages and where that can't be said.

    Example:
        >>> no_match([], 0, None)
        {}
    """
    if calibration is None or offset or any(hit.match is None for hit in hits):
        return {}
    return {"no_match": not any(hit.match for hit in hits)}
