"""The graph of k-reciprocal re-ranking: neighbours, mutual neighbours and their expansion, in rows of about k1 numbers.

An item's list are its nearest items, itself first. Two items are mutual at k if each is among the other's first k + 1.
R(p) are the mutual items of p at k1, and R*(p) adds for each c of R(p) those mutual with c at k1 / 2, if more than two
thirds of these are in R(p). Nothing here is a table of items by items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from isthmus import ops
from isthmus.evaluate.ranking import Floats, Ints

Flags = NDArray[np.bool_]
SELF = 4.0  # above every cosine, so that an item leads its own list also where others are equal to it
_ROWS = 2048  # a block of rows: 2048 x 21 x 21 numbers with the usual k1
_NONE = np.empty(0, dtype=np.int64)


def squared_distance(similarity: Tensor) -> Tensor:
    """|x - y|^2 = 2 - 2 cos of unit vectors, not below 0."""
    return (2.0 - 2.0 * similarity).clamp_(min=0.0)


def ragged(starts: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Where the entries of some rows of a sparse table lie: each one's place in `rows`, and in the entries."""
    lengths = starts[rows + 1] - starts[rows]
    owner = np.repeat(np.arange(len(rows)), lengths)
    return owner, np.arange(len(owner)) + np.repeat(starts[rows] - (np.cumsum(lengths) - lengths), lengths)


def inverted(items: NDArray[Any], owner: NDArray[Any], size: int) -> tuple[Ints, Ints]:
    """Which rows hold each of `size` items: starts (size + 1,) and rows."""
    order = np.argsort(items, kind="stable")
    return np.searchsorted(items[order], np.arange(size + 1)), owner[order]


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from the graph as built while a query is in it.

    Attributes:
        rows: items whose R* may differ, the query among them, ascending.
        starts, items: their R*.
        lists: items with another list.
        undo: what was there before.
    """

    rows: Ints
    starts: Ints
    items: Ints
    lists: Ints
    undo: tuple[Any, ...]


UNCHANGED = Change(_NONE, np.zeros(1, dtype=np.int64), _NONE, _NONE, ())


class Graph:
    """Neighbours of n items, with a place for one query more if `spare`.

    Args:
        vectors: (n, d) float32, unit length.
        keys: (n,) int64 tie keys.
        k1, k2: of the method; smaller graphs have shorter lists.
        spare: whether a query may `enter`; it is item n then.
        limit: bytes a block of similarities may take.
    """

    def __init__(self, vectors: Tensor, keys: Tensor, k1: int, k2: int, *, spare: bool, limit: int = 64 << 20) -> None:
        self.n, self.size = len(vectors), len(vectors) + spare
        self.k1, self.half = min(k1, self.size - 1), min(round(k1 / 2), self.size - 1)
        self.width = min(max(k1, k2 - 1), self.size - 1) + 1
        self.k2 = min(k2, self.width)
        self.vectors = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])]) if spare else vectors
        self.keys = np.append(keys.numpy(), 0) if spare else keys.numpy()
        # Where a query makes a list longer than the gallery alone does, its place is held by the query at no distance.
        self.lists = np.full((self.size, self.width), self.n, dtype=np.int64)
        self.near = np.full((self.n, self.width), -np.inf, dtype=np.float32)
        self.far = np.empty(self.n, dtype=np.float32)
        self._fill(limit)
        self.mutual = np.concatenate([self._mutual(rows, self.k1) for rows in self._blocks(self.size)])
        self.mutual_half = np.concatenate([self._mutual(rows, self.half) for rows in self._blocks(self.size)])
        parts = [self._expanded(rows) for rows in self._blocks(self.n)]
        self.items: NDArray[np.int32] = np.concatenate([items for _, items in parts]).astype(np.int32)
        self.starts = np.append(0, np.cumsum(np.concatenate([np.diff(starts) for starts, _ in parts])))
        owner = np.repeat(np.arange(self.n), np.diff(self.starts)).astype(np.int32)
        self.distances = self._distances(owner, self.items)
        self.holders = inverted(self.items, owner, self.size)
        self.askers = inverted(
            self.lists[: self.n, : self.k2].ravel(), np.repeat(np.arange(self.n), self.k2), self.size
        )
        # Scratch: an item's place among some items, -1 elsewhere; whoever fills them empties them again.
        self._column, self._row, self._changed = (np.full(self.size, -1, dtype=np.int64) for _ in range(3))

    @property
    def nbytes(self) -> int:
        """Bytes held between queries, without the vectors."""
        arrays = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        return sum(array.nbytes for array in (*arrays, *self.holders, *self.askers))

    def enter(self, vector: Tensor, key: int, similarity: NDArray[np.float32], first: Ints) -> Change:
        """Put a query into the graph: every list and R* becomes what it is in the graph of the items and the query.

        Args:
            vector: (d,) of unit length.
            key: its tie key; where it equals an item's, the item goes first.
            similarity: (n,) to the items.
            first: (width - 1,) its nearest items.
        """
        q, last = self.n, self.lists[: self.n, -1]
        inside = (similarity > self.near[:, -1]) | ((similarity == self.near[:, -1]) & (key < self.keys[last]))
        touched = np.flatnonzero(inside)
        old, near, own = self.lists[touched], self.near[touched], similarity[touched, None]
        place = ((near > own) | ((near == own) & (self.keys[old] <= key))).sum(axis=1)
        column = np.arange(self.width)
        moved = np.where(column == place[:, None], q, np.roll(old, 1, axis=1))
        self.vectors[q] = vector
        self.lists[touched] = np.where(column < place[:, None], old, moved)
        self.lists[q] = np.append(q, first)
        # Only where q came in or pushed someone out can two items have become mutual or ceased to be.
        halves = np.unique(np.concatenate([touched[place <= self.half], old[place <= self.half, self.half], [q]]))
        both = np.unique(np.concatenate([touched, old[place <= self.k1, self.k1], halves]))
        undo = (old, both, self.mutual[both], self.mutual_half[both])
        self.mutual[both], self.mutual_half[both] = self._mutual(both, self.k1), self._mutual(both, self.half)
        # Being mutual is symmetric, so those whose expansion looks at an item of `halves` are that item's own R.
        rows = np.union1d(both, self.lists[halves, : self.k1 + 1][self.mutual[halves]])
        return Change(rows, *self._expanded(rows), touched, undo)

    def leave(self, change: Change) -> None:
        """Take the query out again."""
        old, both, mutual, mutual_half = change.undo
        self.lists[change.lists], self.lists[self.n] = old, self.n
        self.mutual[both], self.mutual_half[both] = mutual, mutual_half

    def overlap(self, query: int, gallery: int, change: Change, far: NDArray[np.float32]) -> tuple[Ints, Floats]:
        """sum of min(V_q, V_g) over items, for the gallery items g where it is above 0.

        V_p has weights exp(-d(p, x) / max d(p, .)) on R*(p), scaled to the sum 1, then averaged over the first k2 of
        p's list. Only the rows that share an item with the query's V are built, and of them only these columns.

        Args:
            query: the query's item.
            gallery: items from here on are no candidates.
            change: what `enter` gave, or `UNCHANGED`.
            far: (size,) largest distance of each item.
        """
        self._changed[change.rows] = np.arange(len(change.rows))
        _, items, weights = self._weights(self.lists[query, : self.k2], change, far)
        columns, at = np.unique(items, return_inverse=True)
        own = np.bincount(at, weights) / self.k2
        self._column[columns] = np.arange(len(columns))
        held: NDArray[Any] = self.holders[1][ragged(self.holders[0], columns)[1]]
        owner, _ = ragged(change.starts, np.arange(len(change.rows)))
        rows = np.union1d(held[self._changed[held] < 0], change.rows[owner[self._column[change.items] >= 0]])
        owner, items, weights = self._weights(rows, change, far)
        at = self._column[items]
        table = sparse.csr_array(
            (weights[at >= 0], (owner[at >= 0], at[at >= 0])), shape=(len(rows), len(columns)), dtype=np.float64
        )
        self._row[rows] = np.arange(len(rows))
        found: Ints = np.union1d(self.askers[1][ragged(self.askers[0], rows)[1]], change.lists)
        found = found[found < gallery]
        near = self._row[self.lists[found, : self.k2]]
        who, which = (near >= 0).nonzero()
        share = np.full(len(who), 1.0 / self.k2)
        mean = sparse.csr_array((share, (who, near[who, which])), shape=(len(found), len(rows))) @ table
        owner = np.repeat(np.arange(len(found)), np.diff(mean.indptr))
        smaller: Floats = np.minimum(mean.data, own[mean.indices])
        shared: Floats = np.bincount(owner, weights=smaller, minlength=len(found)).astype(np.float64)
        self._changed[change.rows], self._column[columns], self._row[rows] = -1, -1, -1
        return found[shared > 0], shared[shared > 0]

    def _fill(self, limit: int) -> None:
        """Lists, their similarities, and the largest distance of each item."""
        order = torch.argsort(torch.from_numpy(self.keys[: self.n]), stable=True)
        rank = ops.tie_rank(torch.from_numpy(self.keys[: self.n]))
        items, width = self.vectors[: self.n], min(self.width, self.n)
        for rows in ops.blocks(self.n, ops.block_rows(self.n, bytes_per_value=24, limit=limit)):
            scores = ops.similarity(items[rows], items)
            self.far[rows] = squared_distance(scores.min(dim=1).values).numpy()
            scores[torch.arange(len(scores)), torch.arange(rows.start, rows.stop)] = SELF
            keys = ops.pack(scores, rank).topk(width, dim=1, largest=False).values.sort(dim=1).values
            near, places = ops.unpack(keys)
            self.lists[rows, :width], self.near[rows, :width] = order[places].numpy(), near.numpy()

    def _blocks(self, n: int) -> list[Ints]:
        return [np.arange(part.start, part.stop) for part in ops.blocks(n, _ROWS)]

    def _mutual(self, rows: Ints, k: int) -> Flags:
        """(rows, k + 1): which of the first k + 1 of an item's list have it among their own."""
        found: Flags = (self.lists[self.lists[rows, : k + 1], : k + 1] == rows[:, None, None]).any(axis=2)
        return found

    def _expanded(self, rows: Ints) -> tuple[Ints, Ints]:
        """R* of some items: starts (rows + 1,) and items, ascending in each row."""
        owner, column = self.mutual[rows].nonzero()
        members = self.lists[rows[owner], column]
        inner = np.sort(owner * self.size + members)
        flags = self.mutual_half[members]
        wanted = owner[:, None] * self.size + self.lists[members, : self.half + 1]
        inside = np.zeros_like(flags)
        place = np.searchsorted(inner, wanted[flags]).clip(max=len(inner) - 1)
        inside[flags] = inner[place] == wanted[flags]
        flags &= (3 * inside.sum(axis=1) > 2 * flags.sum(axis=1))[:, None]
        owner, items = np.divmod(np.unique(np.concatenate([inner, wanted[flags]])), self.size)
        return np.searchsorted(owner, np.arange(len(rows) + 1)), items

    def _distances(self, first: Any, second: Any) -> NDArray[np.float32]:
        """Squared distances of pairs of items, in blocks of at most 8 MB of each side's vectors."""
        found = np.empty(len(first), dtype=np.float32)
        for part in ops.blocks(len(first), max(1, (1 << 21) // self.vectors.shape[1])):
            a, b = (self.vectors[torch.from_numpy(x[part].astype(np.int64))] for x in (first, second))
            found[part] = squared_distance((a * b).sum(dim=1)).numpy()
        found[first == second] = 0.0
        return found

    def _weights(self, rows: Ints, change: Change, far: NDArray[np.float32]) -> tuple[Ints, Ints, Floats]:
        """V before it is averaged, of some items: place in `rows`, item and weight of each entry."""
        place = self._changed[rows]
        kept, new = np.flatnonzero(place < 0), np.flatnonzero(place >= 0)
        owner, at = ragged(self.starts, rows[kept])
        owner_new, at_new = ragged(change.starts, place[new])
        items_new = change.items[at_new]
        owners = np.concatenate([kept[owner], new[owner_new]])
        distances = np.concatenate([self.distances[at], self._distances(rows[new[owner_new]], items_new)])
        largest = far[rows[owners]].astype(np.float64)
        weights = np.exp(-distances / np.where(largest > 0, largest, 1.0))
        weights /= np.bincount(owners, weights, minlength=len(rows))[owners]
        return owners, np.concatenate([self.items[at], items_new]), weights
