"""One version of a catalog in memory: its vectors, which of them are still there, and what a filter lets pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from isthmus.catalog.columns import matrix
from isthmus.catalog.embed import Vectors
from isthmus.catalog.filters import ids_in
from isthmus.catalog.graph import Graph
from isthmus.catalog.items import Items
from isthmus.catalog.known import Known, read_known
from isthmus.catalog.search import BLOCK, MARGIN, MASKS, Block, Found, search_blocks
from isthmus.errors import IsthmusError

SPARE = 8
MOST = 2048  # candidates that a search of the graph keeps open: beyond, comparing with every item is as quick
TRIES = 3
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Part:
    """Items read at one time; those that were changed or deleted since stay, marked by a place of -1.

    Attributes:
        ids: Arrow strings (n,).
        crcs: int64 (n,), tie id, content and vector together.
        vectors: float32 (n, dim).
        places: int64 (n,), LanceDB's row ids in the snapshot's version.
        graph: over the same vectors, where there is one.
    """

    ids: Any
    crcs: Numbers
    vectors: Vectors
    places: Numbers
    graph: Graph | None = None

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def live(self) -> Numbers:
        """Which items there still are."""
        result: Numbers = self.places >= 0
        return result

    @cached_property
    def count(self) -> int:
        """How many items there still are."""
        return int(self.live.sum())


@dataclass(frozen=True)
class Passed:
    """Which items of each part may be found, and how many these are."""

    masks: tuple[Numbers, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """All items of one version; the first part is the large one, a second holds what was added since.

    `known` is what hits show of them, unless it is too large.
    """

    version: int
    parts: tuple[Part, ...]
    known: Known | None = None
    _passed: dict[str | None, Passed] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def graph(self) -> Graph | None:
        """The first part's."""
        return self.parts[0].graph if self.parts else None

    def passed(self, items: Items, sql: str | None) -> Passed | None:
        """What a filter lets pass; None where the table has moved on, so that it can't be said of this version."""
        known = self._passed.get(sql)
        if known is not None:
            return known
        masks = tuple(part.live for part in self.parts)
        if sql is not None:
            rows = [_places(batch) for batch in items.scan(["size"], sql, row_ids=True, rows=BLOCK)]
            if items.version != self.version:
                return None
            allowed = np.concatenate([np.empty(0, np.int64), *rows])
            masks = tuple(np.isin(part.places, allowed) for part in self.parts)
        while len(self._passed) >= MASKS:
            self._passed.pop(list(self._passed)[0], None)  # noqa: RUF015  (an iterator may meet another thread's filter)
        found = self._passed[sql] = Passed(masks, tuple(int(mask.sum()) for mask in masks))
        return found

    def exact(self, queries: Vectors, need: int, passed: Passed, place: str) -> list[Found]:
        """The nearest by a comparison with every item that passes."""
        return search_blocks(queries, need, self._blocks(passed), place)

    def near(self, queries: Vectors, need: int, passed: Passed, place: str) -> list[Found] | None:
        """The nearest by the graph; None where there is none, or too few items pass for it to pay.

        The graph is asked for more than is needed, and what may not be found is dropped: so a filter costs no recall.
        Where too little is left of a query's candidates, or a tie goes on beyond them, its search is an exact one.
        """
        graph, count = self.graph, passed.counts[0] if passed.counts else 0
        if graph is None or not count:
            return None
        first, mask = self.parts[0], passed.masks[0]
        # Where a third passes, three times as many candidates are looked at with three times the effort.
        factor = len(mask) / count * (1.0 if count > 0.99 * len(mask) else 1.25)
        ask = min(len(mask), int((need + SPARE) * factor) + 1)
        effort = int(max(graph.effort, 2 * (need + SPARE)) * factor)
        if effort > MOST:
            return None
        results: list[Found] = []
        for query, slots in zip(queries, graph.search(queries, ask, effort), strict=True):
            wide = query.astype(np.float64)
            slots = slots[slots >= 0]
            kept = slots[mask[slots]]
            found = Found()
            found.take(wide, first.vectors[kept], first.ids.take(kept).to_pylist(), first.places[kept], need)
            complete = len(kept) >= min(need, count)
            if complete and len(found.ids) == need and len(slots) < len(mask):
                last = float((first.vectors[slots[-1]].astype(np.float64) * wide).sum())
                complete = last < found.scores[-1] - MARGIN
            if not complete:
                results.extend(self.exact(query[None], need, passed, place))
                continue
            rest = search_blocks(query[None], need, self._blocks(passed, first=1), place)[0]
            results.append(_merged(found, rest, need))
        return results

    def _blocks(self, passed: Passed, *, first: int = 0) -> Iterator[Block]:
        for part, mask, count in list(zip(self.parts, passed.masks, passed.counts, strict=True))[first:]:
            if count == len(mask):
                yield Block(part.ids, part.places, part.vectors)
            elif 4 * count > len(mask):
                yield Block(part.ids, part.places, part.vectors, mask)
            else:  # few: copying them is quicker than scores for all
                chosen = np.flatnonzero(mask)
                for start in range(0, count, BLOCK):
                    some = chosen[start : start + BLOCK]
                    yield Block(part.ids.take(some), part.places[some], part.vectors[some])


def read_snapshot(items: Items, parts: Sequence[Part] = (), limit: int = 2**62) -> Snapshot | None:
    """The newest version; what stands in `parts` already is not read again. None where it moves on all the time.

    Args:
        items: of the catalog.
        parts: of an earlier snapshot.
        limit: bytes that vectors and everything else may take together.

    Raises:
        IsthmusError: the table is damaged.
    """
    for _ in range(TRIES):
        version = items.version
        found = _current(items, parts)
        known = read_known(items, limit - sum(part.vectors.nbytes for part in found))
        if items.version == version:
            return Snapshot(version, found, known)
    return None


def _current(items: Items, parts: Sequence[Part]) -> tuple[Part, ...]:
    if not parts:
        return (_read(items, None),)
    batches = list(items.scan(["id", "crc"], row_ids=True, rows=BLOCK))
    ids = _strings([batch.column("id") for batch in batches])
    crcs = np.concatenate([np.empty(0, np.int64), *(batch.column("crc").to_numpy() for batch in batches)])
    places = np.concatenate([np.empty(0, np.int64), *(_places(batch) for batch in batches)])
    fresh = np.ones(len(ids), bool)
    renewed: list[Part] = []
    for part in parts:
        row = pc.fill_null(pc.index_in(part.ids, value_set=ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        same = row >= 0
        same[same] = (crcs[row[same]] == part.crcs[same]) & fresh[row[same]]
        fresh[row[same]] = False
        now = np.full(len(row), -1, np.int64)
        now[same] = places[row[same]]
        renewed.append(replace(part, places=now))
    if 2 * int(fresh.sum()) > len(ids):
        return (_read(items, None),)
    added = [_only_live(part) for part in renewed[1:]]
    if fresh.any():
        added.append(_read(items, ids.take(np.flatnonzero(fresh)).to_pylist()))
    added = [part for part in added if len(part.ids)]
    return (renewed[0], joined(added)) if added else (renewed[0],)


def joined(parts: Sequence[Part]) -> Part:
    """One part, without the items that are gone."""
    alive = [_only_live(part) for part in parts]
    if len(alive) == 1:
        return alive[0]
    return Part(
        _strings([part.ids for part in alive]),
        np.concatenate([part.crcs for part in alive]),
        np.concatenate([part.vectors for part in alive]),
        np.concatenate([part.places for part in alive]),
    )


def _only_live(part: Part) -> Part:
    if part.count == len(part):
        return part
    live = np.flatnonzero(part.live)
    return Part(part.ids.take(live), part.crcs[live], part.vectors[live], part.places[live])


def _read(items: Items, ids: list[str] | None) -> Part:
    """Items of these ids, or all."""
    count = items.count() if ids is None else len(ids)
    vectors = np.empty((count, items.dim), np.float32)
    filters = [None] if ids is None else [ids_in(ids[start : start + 10_000]) for start in range(0, len(ids), 10_000)]
    names, crcs, places = [], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    filled = 0
    for sql in filters:
        for batch in items.scan(["id", "hash", "crc", "vector"], sql, row_ids=True, rows=BLOCK):
            block = matrix(batch.column("vector"), items.dim)[: count - filled]
            # Here and not with each hit: what is in memory is what was written.
            items.check(batch.select(["id", "hash", "crc"]).slice(0, len(block)).to_pylist(), block)
            if not np.isfinite(block).all():
                raise IsthmusError(
                    f"The catalog {items.place} is damaged: a stored vector is not finite; see  isthmus catalog verify."
                )
            vectors[filled : filled + len(block)] = block
            names.append(batch.column("id")[: len(block)])
            crcs.append(batch.column("crc").to_numpy()[: len(block)])
            places.append(_places(batch)[: len(block)])
            filled += len(block)
    # Fewer or more rows than were counted: the table has moved on, and whoever asked reads again.
    return Part(_strings(names), np.concatenate(crcs), vectors[:filled], np.concatenate(places))


def _merged(found: Found, other: Found, need: int) -> Found:
    scores, ties = np.concatenate([found.scores, other.scores]), np.concatenate([found.ties, other.ties])
    order = np.lexsort((ties, -scores))[:need]
    ids, places = found.ids + other.ids, np.concatenate([found.places, other.places])
    return Found(scores[order], ties[order], places[order], [ids[position] for position in order])


def _places(rows: Any) -> Numbers:
    return np.asarray(rows.column("_rowid").to_numpy()).astype(np.int64)


def _strings(arrays: Sequence[Any]) -> Any:
    return pa.chunked_array(list(arrays), type=pa.string()).combine_chunks()
