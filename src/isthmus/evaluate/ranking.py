"""The metric kernel: at which ranks the relevant gallery items stand, query block by query block.

All retrieval metrics follow from the ranks of the relevant items alone, so nothing else is kept. A block of
similarities is turned into integers that hold the score, the item's place in the order of id hashes, and whether it is
relevant; one sort of these integers settles order, ties and relevance together. NumPy sorts integers with vector
instructions, ten times faster than a stable sort of floats with indices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus import ops
from isthmus.errors import IsthmusError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hits:
    """Where the relevant items of a block of b queries stand; h relevant items in all, every query has at least one.

    Attributes:
        rows: (h,) row of the block, ascending.
        ranks: (h,) from 1, ascending within a row.
        tied: (b,) whether a relevant item has the very score of one that is not relevant, so that the hash decided.
        top: (b, t) gallery positions of the first t items.
        top_scores: (b, t) their scores.
    """

    rows: Ints
    ranks: Ints
    tied: NDArray[np.bool_]
    top: Ints
    top_scores: Floats


def floating(x: Tensor | NDArray[Any]) -> Tensor:
    """As a tensor of float64 where it is that, else of float32."""
    tensor = torch.as_tensor(x)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def cosine_scores(
    query: Tensor | NDArray[Any], gallery: Tensor | NDArray[Any]
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Cosines (b, n) of some queries (b,) to the gallery as a function, and both sides as tensors of one kind.

    Raises:
        IsthmusError: the vectors differ in width.
    """
    q, g = floating(query), floating(gallery)
    if q.ndim != 2 or g.ndim != 2 or q.shape[1] != g.shape[1]:
        raise IsthmusError(f"Query vectors {tuple(q.shape)} and gallery vectors {tuple(g.shape)} differ in width.")
    g = g.to(q.device, q.dtype)
    # A query's own length changes no order; dividing scores by the gallery's lengths spares a copy of the gallery.
    lengths = torch.cat([g[part].norm(dim=1) for part in ops.blocks(len(g), 1 << 16)]) if len(g) else g.new_ones(0)
    scale = torch.where(lengths > 0, 1.0 / lengths, 0.0)

    def scores_of(rows: Tensor) -> Tensor:
        return ops.similarity(ops.normalise(q[rows]), g).mul_(scale)

    return scores_of, q, g


def relevance_codes(
    query_keys: Sequence[str | None], gallery_keys: Sequence[str | None]
) -> tuple[Ints, Ints, Ints, Ints]:
    """Labels or identities as numbers; None is relevant to nothing.

    Returns:
        codes of the queries (q,), -1 where nothing is relevant; codes of the gallery (n,); positions (m,) of the
        queries that have a relevant item; how many relevant items each of these has (m,).

    Raises:
        IsthmusError: no query has one.
    """
    codes = {key: code for code, key in enumerate(dict.fromkeys(x for x in gallery_keys if x is not None))}
    offered = np.array([codes.get(x, -2) if x is not None else -2 for x in gallery_keys], dtype=np.int64)
    asked = np.array([codes.get(x, -1) if x is not None else -1 for x in query_keys], dtype=np.int64)
    kept = np.flatnonzero(asked >= 0)
    if not len(kept):
        raise IsthmusError(
            f"None of the {len(asked)} queries has a relevant item among the {len(offered)} of the gallery; check that "
            "both domains use the same names for their labels or identities."
        )
    return asked, offered, kept, np.bincount(offered[offered >= 0])[asked[kept]]


def rank_block(scores: Tensor, relevant: Tensor, order: Tensor, rank: Tensor, top: int = 0) -> Hits:
    """Rank one block.

    Args:
        scores: (b, n) float32 or float64, finite; equal scores are ordered by `rank`.
        relevant: (b, n) bool.
        order: (n,) int64, gallery positions sorted by tie key.
        rank: (n,) int64, its inverse.
        top: how many first items to name.
    """
    if scores.dtype == torch.float32 and scores.device.type == "cpu":
        return _rank_packed(scores, relevant, order, rank, top)
    return _rank_sorted(scores, relevant, order, top)


def _rank_packed(scores: Tensor, relevant: Tensor, order: Tensor, rank: Tensor, top: int) -> Hits:
    n = scores.shape[1]
    keys = ops.pack(scores, relevant + 2 * rank)
    _sort_rows(keys.numpy())
    flat_keys = keys.numpy().reshape(-1)
    at = np.flatnonzero(flat_keys.astype(np.uint8) & 1)
    rows = at // n
    ranks = at - rows * n + 1
    tied = np.zeros(len(scores), dtype=np.bool_)
    score = flat_keys[at] >> 32
    for step, inside in ((-1, ranks > 1), (1, ranks < n)):
        neighbour = flat_keys[at[inside] + step]
        tied[rows[inside][(neighbour >> 32 == score[inside]) & (neighbour & 1 == 0)]] = True
    top_scores, low = ops.unpack(keys[:, :top])
    return Hits(rows, ranks, tied, order[low >> 1].numpy(), top_scores.numpy().astype(np.float64))


def _sort_rows(keys: Ints) -> None:
    """Sort each row in place, with as many threads as torch may use (NumPy's sort lets go of the interpreter)."""
    threads = min(torch.get_num_threads(), len(keys))
    if threads < 2 or keys.size < 1 << 18:
        keys.sort(axis=1)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: part.sort(axis=1), np.array_split(keys, threads)))


def _rank_sorted(scores: Tensor, relevant: Tensor, order: Tensor, top: int) -> Hits:
    """The same for float64, which leaves no room for packing, and for accelerators: a stable sort in hash order."""
    if not bool(scores.isfinite().all()):
        raise IsthmusError("A query or gallery vector holds NaN or an infinity; leave its image out or encode it anew.")
    values, places = scores[:, order].sort(dim=1, descending=True, stable=True)
    flags = relevant[:, order].gather(1, places)
    mixed = (values[:, 1:] == values[:, :-1]) & (flags[:, 1:] != flags[:, :-1])
    rows, at = flags.nonzero(as_tuple=True)
    return Hits(
        rows.cpu().numpy(),
        at.cpu().numpy() + 1,
        mixed.any(dim=1).cpu().numpy(),
        order[places[:, :top]].cpu().numpy(),
        values[:, :top].double().cpu().numpy(),
    )


def ranked_blocks(
    scores_of: Callable[[slice], Tensor],
    query_codes: Tensor,
    gallery_codes: Tensor,
    keys: Tensor,
    *,
    block: int | None = None,
    top: int = 0,
    limit: int = 64 << 20,
) -> Iterator[tuple[slice, Hits]]:
    """Rank all queries, a block at a time.

    Args:
        scores_of: gives the (rows, n) similarities of a slice of queries.
        query_codes: (q,) int64; each of them occurs in `gallery_codes`.
        gallery_codes: (n,) int64; a gallery item is relevant where the codes are equal.
        keys: (n,) int64 tie keys.
        block: rows of a block of similarities; by default as many as fit into `limit` bytes.
        top: how many first items to name.
        limit: bytes for the similarities; sorting takes a quarter more.
    """
    n = len(gallery_codes)
    order = torch.argsort(keys, stable=True)
    rank = ops.tie_rank(keys)
    # Below 16 rows the matrix product gains nothing, it is filled up to 16 anyway.
    rows = block or max(ops.ROW_STEP, ops.block_rows(n, limit=limit))
    small = ops.block_rows(n, bytes_per_value=40, limit=limit // 4)
    for outer in ops.blocks(len(query_codes), rows):
        scores = scores_of(outer)
        for inner in ops.blocks(len(scores), small):
            here = slice(outer.start + inner.start, outer.start + inner.stop)
            relevant = query_codes[here, None] == gallery_codes
            yield here, rank_block(scores[inner], relevant, order, rank, top)
