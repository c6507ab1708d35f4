"""Re-ranking after the ranking: k-reciprocal encoding (Zhong, Zheng, Cao and Li, CVPR 2017), never in a dense table.

With unit vectors, d(p, g) = |p - g|^2 divided by the largest distance of p, and V_p of `Graph.overlap`:

    d*(q, g) = (1 - lambda) (1 - sum min(V_q, V_g) / sum max(V_q, V_g)) + lambda d(q, g)

The details are those of the authors' public code: an expansion needs *more* than two thirds, d is scaled item by item,
V sums to 1 (so that the sum of the maxima is 2 minus that of the minima).

The graph of neighbours holds the gallery and queries. `queries="alone"` puts each query into the gallery's graph by
itself, so the answer to one query depends on no other. It is exact: a query changes the lists of the few items that are
nearer to it than to the last of their list, and what follows from these is computed anew (`Graph.enter`).
`queries="together"` is the paper's protocol: all test queries are in the graph and help each other. That is
transductive, no search that answers one query at a time can do it, and it is labelled so wherever it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError
from isthmus.evaluate.reciprocal import UNCHANGED, Graph, squared_distance

Queries = Literal["alone", "together"]
_SETTINGS = "k1, k2, lambda and queries"


@dataclass(frozen=True, slots=True)
class KReciprocal:
    """Settings of k-reciprocal re-ranking; the defaults are the paper's for large galleries.

    Attributes:
        k1: length of the lists in which items have to be mutual.
        k2: over how many of an item's nearest (itself first) its encoding is averaged; 1: not at all.
        weight: lambda, the share of the distance before; 1 leaves the ranking as it is.
        queries: `"alone"` or `"together"` (transductive).
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    queries: Queries = "alone"

    def __post_init__(self) -> None:
        for name, value in (("k1", self.k1), ("k2", self.k2)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise IsthmusError(f"The re-ranking's {name} is {value}; give a whole number from 1 on.")
        number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not number or not 0 <= self.weight <= 1:
            raise IsthmusError(f"The re-ranking's lambda is {self.weight}; give a number from 0 to 1.")
        if self.queries not in get_args(Queries):
            raise IsthmusError(f"The re-ranking's queries is {self.queries}; choose alone or together.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> KReciprocal:
        """From settings by the names of the command line.

        Raises:
            IsthmusError: an unknown name or an impossible value.

        Example:
            >>> KReciprocal.of({"k1": 10, "lambda": 0.5})
            KReciprocal(k1=10, k2=6, weight=0.5, queries='alone')
        """
        named = {"k1": "k1", "k2": "k2", "lambda": "weight", "queries": "queries"}
        for name in values:
            if name not in named:
                raise IsthmusError(f"k-reciprocal re-ranking has no setting '{name}'; it has {_SETTINGS}.")
        return cls(**{named[name]: value for name, value in values.items()})

    @property
    def transductive(self) -> bool:
        """Whether the answer to a query depends on the other test queries."""
        return self.queries == "together"

    @property
    def name(self) -> str:
        """What marks the re-ranked figures."""
        return "k-reciprocal" + (", transductive" if self.transductive else "")

    @property
    def text(self) -> str:
        """All settings in words."""
        how = "transductive: all test queries are in the graph" if self.transductive else "each query by itself"
        return f"k-reciprocal, k1={self.k1}, k2={self.k2}, lambda={self.weight:g}, {how}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names of the command line, and whether it is transductive."""
        values = asdict(self)
        weight = values.pop("weight")
        return {"method": "k-reciprocal", **values, "lambda": weight, "transductive": self.transductive}


class Reranker:
    """Re-ranked similarities 1 - d* of queries to a gallery.

    Args:
        query: (q, d); any length, zero vectors have similarity 0.
        gallery: (n, d).
        query_ids: q ids, gallery_ids: n ids; they order what is equally near, as everywhere.
        settings: of the method. A graph of k1 or fewer other items has shorter lists: then all items are neighbours.
        limit: bytes a block of similarities may take. Held besides: the vectors and `nbytes`, about 1 kB an item at
            k1 = 20; the time grows with the square of the gallery.

    Raises:
        IsthmusError: sizes that do not fit, an empty side, or a vector that holds NaN or an infinity.

    Example:
        >>> vectors = torch.eye(3)
        >>> Reranker(vectors[:1], vectors, ["q"], ["a", "b", "c"]).scores(torch.tensor([0])).argmax().item()
        0
    """

    def __init__(
        self,
        query: Tensor | NDArray[Any],
        gallery: Tensor | NDArray[Any],
        query_ids: Sequence[str],
        gallery_ids: Sequence[str],
        settings: KReciprocal = KReciprocal(),
        *,
        limit: int = 64 << 20,
    ) -> None:
        began = time.perf_counter()
        self.settings = settings
        self._query, self._gallery = unit_vectors(query, gallery, query_ids, gallery_ids)
        self._keys = ops.tie_keys(query_ids).tolist()
        keys = ops.tie_keys(gallery_ids)
        self._order, self._rank = torch.argsort(keys, stable=True), ops.tie_rank(keys)
        items = self._gallery
        if settings.transductive:
            items, keys = torch.cat([items, self._query]), torch.cat([keys, ops.tie_keys(query_ids)])
        self._graph = Graph(items, keys, settings.k1, settings.k2, spare=not settings.transductive, limit=limit)
        self.seconds = time.perf_counter() - began  # of building the graph and, so far, of `scores`

    @property
    def nbytes(self) -> int:
        """Bytes of the graph, without the vectors."""
        return self._graph.nbytes

    def scores(self, rows: Tensor) -> Tensor:
        """Re-ranked similarities of some queries, in [0, 1].

        Args:
            rows: (b,) int64, which queries.

        Returns:
            (b, n) float32.
        """
        began = time.perf_counter()
        found = ops.similarity(self._query[rows], self._gallery)
        for place, query in enumerate(rows.tolist()):
            found[place] = self._one(query, found[place])
        self.seconds += time.perf_counter() - began
        return found

    def _one(self, query: int, similarity: Tensor) -> Tensor:
        graph, n = self._graph, len(self._gallery)
        distance = squared_distance(similarity).numpy()
        if self.settings.transductive:
            item, far, change = n + query, graph.far, UNCHANGED
        else:
            keys = ops.pack(similarity, self._rank).topk(graph.width - 1, largest=False).values.sort().values
            first = self._order[ops.unpack(keys)[1]].numpy()
            # The query may be the farthest of all from an item, by which the item's distances are scaled.
            item, far = n, np.append(np.maximum(graph.far, distance), distance.max())
            change = graph.enter(self._query[query], self._keys[query], similarity.numpy(), first)
        near, shared = graph.overlap(item, n, change, far)
        if change is not UNCHANGED:
            graph.leave(change)
        jaccard = np.ones(n)
        jaccard[near] = 1.0 - shared / (2.0 - shared)
        weight, largest = self.settings.weight, float(far[item])
        final = (1.0 - weight) * jaccard + weight * distance / (largest if largest > 0 else 1.0)
        return torch.from_numpy(1.0 - final).float()


def unit_vectors(
    query: Tensor | NDArray[Any],
    gallery: Tensor | NDArray[Any],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Both sides (q, d) and (n, d) as float32 of unit length on the CPU, once they are known to be fit for use.

    Raises:
        IsthmusError: sizes that do not fit, an empty side, or a vector that holds NaN or an infinity.
    """
    q, g = (torch.as_tensor(x).detach().float().cpu() for x in (query, gallery))
    fits = q.ndim == g.ndim == 2 and q.shape[1] == g.shape[1]
    if not fits or (len(q), len(g)) != (len(query_ids), len(gallery_ids)):
        raise IsthmusError(
            f"Query vectors {tuple(q.shape)} with {len(query_ids)} ids and gallery vectors {tuple(g.shape)} with "
            f"{len(gallery_ids)} ids do not fit together; give vectors of one width and an id each."
        )
    if not len(q) or not len(g):
        raise IsthmusError("There is nothing to re-rank: the queries or the gallery have no image.")
    if not bool(q.isfinite().all() and g.isfinite().all()):
        raise IsthmusError("A vector to re-rank holds NaN or an infinity; leave its image out or encode it anew.")
    return ops.normalise(q), ops.normalise(g)
