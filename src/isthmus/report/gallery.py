"""Queries with their first hits, as the page shows them: some of the best, of the usual and of the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isthmus.report.columns import Group
from isthmus.report.pictures import Pictures

if TYPE_CHECKING:
    from isthmus.evaluate.run import Hit, Side

QUERIES = 3  # of each group
HITS = 8


@dataclass(frozen=True)
class Ask:
    """A query: its id, label and average precision."""

    id: str
    label: str
    score: float


def choose_queries(asks: Sequence[Ask], count: int = QUERIES) -> list[tuple[str, list[Ask]]]:
    """Best, typical (about the median) and worst queries by average precision; each query at most once.

    Among equals different labels come first, then the order of ids: three queries of one class show less.

    Example:
        >>> asks = [Ask(str(i), "a", i / 10) for i in range(11)]
        >>> [(name, [ask.id for ask in group]) for name, group in choose_queries(asks, 1)]
        [('Best', ['10']), ('Typical', ['5']), ('Worst', ['0'])]
    """
    ordered = sorted(asks, key=lambda ask: (-ask.score, ask.id))
    if not ordered:
        return []
    middle = ordered[len(ordered) // 2].score
    orders = {
        "Best": ordered,
        "Worst": sorted(asks, key=lambda ask: (ask.score, ask.id)),
        "Typical": sorted(asks, key=lambda ask: (abs(ask.score - middle), ask.id)),
    }
    taken: set[str] = set()
    chosen: dict[str, list[Ask]] = {}
    for name, order in orders.items():
        labels: set[str] = set()
        group: list[Ask] = []
        candidates = [ask for ask in order if ask.id not in taken]
        # Only a little further down the order: a best query must stay one of the best.
        near = candidates[: count * 4]
        for ask in near:
            if len(group) < count and ask.label not in labels:
                group.append(ask)
                labels.add(ask.label)
        group += [ask for ask in near if ask not in group][: count - len(group)]
        taken.update(ask.id for ask in group)
        chosen[name] = group
    return [(name, chosen[name]) for name in ("Best", "Typical", "Worst") if chosen[name]]


def query_sections(groups: Sequence[Group], pictures: Pictures) -> list[dict[str, Any]]:
    """What the template needs for each direction: groups of queries, their hits, and the other evaluations' hits.

    Without pictures there is nothing to show, so the list is empty.
    """
    if not pictures:
        return []
    # A hit carries no label, but in the other direction it asks itself.
    labels = {
        id: label for group in groups for id, label in zip(group.first.query_ids, group.first.query_labels, strict=True)
    }
    sections = []
    for group in groups:
        side = group.first
        scores = side.per_query.get("mAP@all", [0.0] * len(side.query_ids))
        asks = [
            Ask(id, label, score)
            for id, label, score in zip(side.query_ids, side.query_labels, scores, strict=True)
            if side.hits.get(id)
        ]
        others = {name: other for name, other in group.columns.items() if name in group.mains[1:]}
        chosen = [
            {"name": name, "asks": [_ask(ask, side, others, labels, pictures) for ask in part]}
            for name, part in choose_queries(asks)
        ]
        if chosen:
            sections.append({"direction": group.title, "groups": chosen})
    return sections


def _ask(
    ask: Ask, side: Side, others: Mapping[str, Side], labels: Mapping[str, str], pictures: Pictures
) -> dict[str, Any]:
    return {
        "query": {
            "kind": "query",
            "picture": pictures(ask.id),
            "id": ask.id,
            "alt": f"query: {ask.label}",
            "caption": f"{ask.label}, AP {ask.score:.2f}",
        },
        "hits": _hits(side.hits[ask.id], labels, pictures),
        "others": [
            {"name": name, "hits": _hits(other.hits[ask.id], labels, pictures)}
            for name, other in others.items()
            if ask.id in other.hits
        ],
    }


def _hits(hits: Sequence[Hit], labels: Mapping[str, str], pictures: Pictures) -> list[dict[str, Any]]:
    return [
        {
            "kind": "right" if hit.relevant else "wrong",
            "picture": pictures(hit.id),
            "id": hit.id,
            "alt": f"hit {rank}, {'relevant' if hit.relevant else 'not relevant'}: {labels.get(hit.id, hit.id)}",
            "caption": f"{'✓' if hit.relevant else '✗'} {hit.score:.2f} {labels.get(hit.id, '')}".strip(),
        }
        for rank, hit in enumerate(hits[:HITS], start=1)
    ]
