"""Search: exact in memory or in a stream where that is quick, approximate above, filters always before the top k.

Whatever finds the candidates, their scores are computed again in float64 from the stored vectors. So a score is the
same on every path, and equal scores are ordered by a fixed hash of the id and never by a place in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus.catalog.columns import SYSTEM, Value, matrix
from isthmus.catalog.effort import ask_index
from isthmus.catalog.embed import Vectors
from isthmus.catalog.filters import ids_in
from isthmus.catalog.items import Items
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.known import Known
    from isthmus.catalog.memory import Memory

MEMORY = 512 << 20  # bytes of vectors kept for exact search
BLOCK = 16_384
SCORES = 1 << 24  # scores computed at once
MASKS = 32
FEW = 10_000  # so many items after a filter are searched exactly: an index would miss some of them
DEEP = 1_000  # an index is made for the first hits, not for page 100
MARGIN = 1e-5  # above the float32 error of a dot product of unit vectors
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Hit:
    """One item found.

    Attributes:
        id: the item's.
        path: of its image when it was added.
        score: cosine similarity to the query, at most 1.
        domain: the item's.
        label: where known.
        metadata: column -> value, without missing values.
        probability: of a match, where the catalog's model is calibrated (`isthmus calibrate`) for this direction.
        match: whether the score reaches the calibrated threshold; None where there is none.
    """

    id: str
    path: str
    score: float
    domain: str
    label: str | None = None
    metadata: dict[str, Value] = field(default_factory=dict)
    probability: float | None = None
    match: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """The hit as plain values; without probability and match where the model is not calibrated."""
        values = asdict(self)
        return values if self.match is not None else {k: values[k] for k in values if k not in ("probability", "match")}


@dataclass
class Found:
    """The best candidates of one query so far, best first; `known` has their rows where these are in memory."""

    scores: Numbers = field(default_factory=lambda: np.empty(0))
    ties: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    places: Numbers = field(default_factory=lambda: np.empty(0, np.int64))
    ids: list[str] = field(default_factory=list)
    known: Known | None = None

    def take(self, query: Numbers, vectors: Vectors, ids: list[str], places: Numbers, need: int) -> None:
        """Score candidates in float64 and keep the best `need` of old and new."""
        from isthmus.ops import tie_keys

        # A row-wise sum: a matrix product's bits would depend on the row's position.
        scores = np.concatenate([self.scores, (vectors.astype(np.float64) * query).sum(axis=1)])
        ties = np.concatenate([self.ties, tie_keys(ids).numpy()])
        order = np.lexsort((ties, -scores))[:need]
        everything = self.ids + ids
        self.places = np.concatenate([self.places, places])[order]
        self.scores, self.ties, self.ids = scores[order], ties[order], [everything[i] for i in order]


@dataclass
class Block:
    """Some rows of the table: ids, their places (LanceDB's row ids), vectors, and which of them may be found."""

    ids: Any
    places: Numbers
    vectors: Vectors
    allowed: Numbers | None = None

    def parts(self, rows: int) -> Iterator[Block]:
        """The block in pieces of at most so many rows, without a copy."""
        if len(self.places) <= rows:
            yield self
            return
        for start in range(0, len(self.places), rows):
            stop = start + rows
            allowed = None if self.allowed is None else self.allowed[start:stop]
            yield Block(self.ids[start:stop], self.places[start:stop], self.vectors[start:stop], allowed)


def search_blocks(queries: Vectors, need: int, blocks: Iterable[Block], place: str) -> list[Found]:
    """The `need` best of all rows for each unit query (q, dim), by a comparison with every row."""
    found = [Found() for _ in queries]
    wide = queries.astype(np.float64)
    for block in (part for whole in blocks for part in whole.parts(max(BLOCK, SCORES // len(queries)))):
        scores = queries @ block.vectors.T  # (q, rows)
        if not np.isfinite(scores).all():
            raise IsthmusError(
                f"The catalog {place} is damaged: a stored vector is not finite; see  isthmus catalog verify."
            )
        if block.allowed is not None:
            scores[:, ~block.allowed] = -np.inf
        for one, query, row in zip(found, wide, scores, strict=True):
            floor = float(one.scores[-1]) - MARGIN if len(one.ids) == need else -2.0
            if len(row) > need:
                floor = max(floor, float(np.partition(row, -need)[-need]) - MARGIN)
            chosen = np.flatnonzero(row >= max(floor, -2.0))
            for start in range(0, len(chosen), BLOCK):  # a whole gallery may be one tie
                some = chosen[start : start + BLOCK]
                one.take(query, block.vectors[some], block.ids.take(some).to_pylist(), block.places[some], need)
    return found


class Searcher:
    """Finds the nearest items; keeps the vectors in memory from the second exact search on, while the table stays.

    Attributes:
        memory: an index of the whole catalog in memory, asked first where there is one.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self.memory: Memory | None = None
        self._kept: tuple[int, Block] | None = None
        self._masks: dict[str, Numbers] = {}  # of the last filters, over the kept block
        self._asked = 0

    def nearest(self, queries: Vectors, need: int, sql: str | None, *, exact: bool = False) -> list[Found]:
        """The `need` nearest items of each unit query (q, dim) among those that the filter lets pass."""
        if self.memory is not None:
            remembered = self.memory.nearest(queries, need, sql, exact=exact)
            if remembered is not None:
                self._kept, self._masks = None, {}  # one copy of the vectors is enough
                return remembered
        possible = self.items.count(sql)
        need = min(need, possible)
        if need == 0:
            return [Found() for _ in queries]
        if not exact and need <= DEEP and (sql is None or possible > FEW) and self.items.indexed() is not None:
            found = [self._approximate(query, need, sql) for query in queries]
            if all(len(one.ids) == need for one in found):
                return found
        return search_blocks(queries, need, self._blocks(sql), self.items.place)

    def _approximate(self, query: Numbers, need: int, sql: str | None) -> Found:
        rows, vectors = ask_index(self.items, query, need, self.items.effort(), sql)
        found = Found()
        found.take(query.astype(np.float64), vectors, rows["id"].to_pylist(), _places(rows), need)
        return found

    def _blocks(self, sql: str | None) -> Iterator[Block]:
        self._asked += 1
        fits = self.items.count() * self.items.dim * 4 <= MEMORY
        version = self.items.version
        if not fits or (self._kept is None and self._asked == 1):
            yield from self._stream(sql)
            return
        if self._kept is None or self._kept[0] != version:
            blocks = list(self._stream(None))
            if not blocks:
                return
            self._kept, self._masks = (version, _joined(blocks)), {}
        block = self._kept[1]
        if sql is None:
            yield block
            return
        allowed = self._masks.get(sql)
        if allowed is None:
            parts = [_places(batch) for batch in self.items.scan(["size"], sql, row_ids=True, rows=BLOCK)]
            if self.items.version != version:  # another process wrote in between: the places may be stale
                yield from self._stream(sql)
                return
            allowed = np.isin(block.places, np.concatenate([np.empty(0, np.int64), *parts]))
            while len(self._masks) >= MASKS:
                self._masks.pop(next(iter(self._masks)))
            self._masks[sql] = allowed
        yield Block(block.ids, block.places, block.vectors, allowed)

    def _stream(self, sql: str | None) -> Iterator[Block]:
        for batch in self.items.scan(["id", "vector"], sql, row_ids=True, rows=BLOCK):
            vectors = matrix(batch.column("vector"), self.items.dim)
            yield Block(batch.column("id"), _places(batch), vectors)

    def hits(self, found: Found, start: int, stop: int) -> list[Hit]:
        """Candidates `start` to `stop` with everything known of them; each is checked for damage."""
        scores = dict(zip(found.ids[start:stop], found.scores[start:stop].tolist(), strict=True))
        if not scores:
            return []
        rows = found.known.of(found.places[start:stop]) if found.known is not None else None
        if rows is None:
            rows = self._take(found.places[start:stop].tolist())
        if rows is None or set(rows) != set(scores):  # compacted in between: the places have moved, the ids have not
            rows = {row["id"]: row for row in self._checked(self._by_id(list(scores)))}
        return [self._hit(rows[id], score) for id, score in scores.items() if id in rows]

    def _take(self, places: list[int]) -> dict[str, dict[str, Any]] | None:
        try:
            table = self.items.table.take_row_ids(places).select(self._names()).to_arrow()
        except (RuntimeError, ValueError, OSError):
            return None  # asked again by id, where a true fault is told
        return {row["id"]: row for row in self._checked([table])}

    def _by_id(self, ids: list[str]) -> list[Any]:
        return list(self.items.scan(self._names(), ids_in(ids)))

    def _names(self) -> list[str]:
        return ["id", "path", "hash", "domain", "label", "crc", "vector", *self.items.kinds()]

    def _checked(self, tables: list[Any]) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = []
        for table in tables:
            rows = table.drop_columns(["vector"]).to_pylist()
            self.items.check(rows, matrix(table.column("vector"), self.items.dim))
            result.extend(rows)
        return result

    def _hit(self, row: dict[str, Any], score: float) -> Hit:
        metadata = {name: value for name, value in row.items() if name not in SYSTEM and value is not None}
        return Hit(row["id"], row["path"], min(score, 1.0), row["domain"], row["label"], metadata)


def _places(rows: Any) -> Numbers:
    return np.asarray(rows.column("_rowid").to_numpy()).astype(np.int64)  # unsigned beside signed would become floats


def _joined(blocks: list[Block]) -> Block:
    """One block: one matrix product is several times as fast as one for each file of the table."""
    import pyarrow as pa

    if len(blocks) == 1:
        return blocks[0]
    ids = pa.chunked_array([block.ids for block in blocks], type=pa.string()).combine_chunks()
    places = np.concatenate([np.empty(0, np.int64), *(block.places for block in blocks)])
    return Block(ids, places, np.concatenate([block.vectors for block in blocks]))
