"""How hard the table's own index looks: the least effort that reaches the wanted recall, measured on the catalog.

The index (HNSW graphs over 8-bit vectors, in IVF partitions) is asked for more candidates than are needed, and their
whole vectors are compared again. How many it keeps open, and how many it hands over, decides what it misses and what it
costs; which are enough depends on the vectors. So each is tried, from the cheapest, against exact search, once the
index is built; what was chosen stands in the table's schema, so it is of the same version as the index, on a disk as
on object storage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from isthmus.catalog.columns import matrix
from isthmus.catalog.embed import Vectors
from isthmus.catalog.table import RECALL, explained
from isthmus.catalog.trial import TOP, halfway, kth_best, own_items, recall_of, trial_queries
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from isthmus.catalog.items import Items

NOTE = b"isthmus.effort"  # in the metadata of the field `vector`
BLOCK = 16_384
SAMPLE = 60  # of each sort of query: a search of the table takes milliseconds, and each effort tries them all
SPARE = 8  # candidates beyond what is needed: their true scores may change the order
#: candidates kept open, and how many times as many as needed are compared by their whole vectors
STEPS = ((24, 1), (32, 2), (48, 3), (64, 3), (96, 5), (128, 5), (192, 8), (256, 10), (512, 20), (1024, 40))


@dataclass(frozen=True)
class Effort:
    """What a search of the table's index spends.

    Attributes:
        open: candidates that it keeps open in a graph.
        refine: so many times as many candidates as are needed are compared by their whole vectors.
        wanted: recall@10 it was chosen for.
        recall: recall@10 that was measured; below `wanted` where no effort reached that. None: not measured.
        items: in the catalog when it was.
    """

    open: int
    refine: int
    wanted: float = RECALL
    recall: float | None = None
    items: int = 0

    def apply(self, search: Any, need: int) -> Any:
        """Of a LanceDB vector query: as many candidates as `need` hits take."""
        count = need + SPARE
        return search.limit(count).refine_factor(self.refine).ef(max(self.open, self.refine * count))

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


#: before anything was measured
USUAL = Effort(128, 5)


def check_recall(wanted: float) -> float:
    """The wanted recall; an IsthmusError where it is none."""
    if not 0 < wanted <= 1:
        raise IsthmusError(f"The wanted recall lies above 0 and is at most 1, not {wanted}.")
    return wanted


def read_effort(table: Any) -> Effort:
    """What stands in the table's schema; the usual effort where nothing does, or nothing that can be read."""
    stored = (table.schema.field("vector").metadata or {}).get(NOTE)
    try:
        return USUAL if stored is None else Effort(**json.loads(stored))
    except (ValueError, TypeError):
        return USUAL


def keep_effort(items: Items, effort: Effort) -> None:
    """Write it into the table's schema, as one version."""
    table = items.to_write()
    with explained(items.place):
        # The older name replaces what the field has; it takes what was there along.
        old = {key.decode(): text.decode() for key, text in (table.schema.field("vector").metadata or {}).items()}
        values = {**old, NOTE.decode(): json.dumps(effort.to_dict())}
        if hasattr(table, "update_field_metadata"):
            table.update_field_metadata({"path": "vector", "metadata": values})
        else:
            table.replace_field_metadata("vector", values)


def choose_effort(items: Items, wanted: float, *, sample: int = SAMPLE) -> Effort:
    """The least effort that reaches a recall@10, on items as queries and on queries apart from all items.

    Args:
        items: with an index.
        wanted: recall@10 in (0, 1].
        sample: of each sort of query.

    Raises:
        IsthmusError: no such recall, or no items.
    """
    check_recall(wanted)
    own = own_items(items, sample)[1]
    if not len(own):
        raise IsthmusError(f"The catalog {items.place} is empty; its recall can't be measured.")
    queries, count = trial_queries(own), min(TOP, items.count())
    best = kth_best(queries, _blocks(items), count)
    effort = USUAL
    for open_, refine in STEPS:
        effort = Effort(open_, refine, wanted, None, items.count())
        recall = 1.0
        for part in (slice(len(own), None), slice(0, len(own))):  # the harder half first: mostly it says no
            found = [ask_index(items, query, count, effort)[1][:count] for query in queries[part]]
            recall = min(recall, recall_of(queries[part], found, best[part], count))
            if recall < halfway(wanted):
                break
        effort = Effort(open_, refine, wanted, recall, items.count())
        if recall >= halfway(wanted):
            break
    return effort


def ask_index(items: Items, query: Vectors, need: int, effort: Effort, sql: str | None = None) -> tuple[Any, Vectors]:
    """Rows (id and place) near one unit vector (dim,) by the table's index, with their vectors (n, dim)."""
    with explained(items.place):
        search = effort.apply(items.table.search(query).distance_type("cosine"), need)
        if sql is not None:
            search = search.where(sql, prefilter=True)
        rows = search.with_row_id(True).select(["id", "vector", "_distance"]).to_arrow()
    return rows, matrix(rows.column("vector"), items.dim)


def _blocks(items: Items) -> Iterable[Vectors]:
    for batch in items.scan(["vector"], rows=BLOCK):
        yield matrix(batch.column("vector"), items.dim)


def changed_much(effort: Effort, items: int) -> bool:
    """Whether the catalog has grown or shrunk so much that the effort should be chosen anew."""
    return effort.recall is None or not 0.5 * effort.items <= items <= 2 * effort.items
