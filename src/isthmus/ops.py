"""Similarity, top-k and ranks in blocks of bounded memory: the numeric ground floor.

Everything that orders items does so by one rule: higher score first, and among equal scores the smaller hash of the
item's id. A position in a folder or a table never decides, because items there often stand class by class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from isthmus.errors import IsthmusError

ROW_STEP = 16
COLUMN_STEP = 64
_CHUNK = 1 << 18  # gallery items a chunk in `top_k`


def normalise(x: Tensor, dim: int = -1) -> Tensor:
    """Scale to unit Euclidean length along `dim`; a zero vector stays zero.

    Args:
        x: any shape, floating point.
        dim: the axis of the vectors.

    Returns:
        The shape and dtype of `x`.

    Example:
        >>> normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return torch.nn.functional.normalize(x, dim=dim)


def blocks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `range(n)`.

    Example:
        >>> list(blocks(5, 2))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if size < 1:
        raise ValueError(f"a block holds at least one row, not {size}")
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def block_rows(columns: int, *, bytes_per_value: int = 4, limit: int = 64 << 20) -> int:
    """How many rows of a (rows, columns) block fit into `limit` bytes: at least 1, from 16 on a multiple of 16.

    Example:
        >>> block_rows(50_000), block_rows(10**9)
        (320, 1)
    """
    rows = max(1, limit // max(1, columns * bytes_per_value))
    return rows if rows < ROW_STEP else rows // ROW_STEP * ROW_STEP


def tie_keys(ids: Sequence[str]) -> Tensor:
    """A fixed 64-bit hash of each id (BLAKE2b), the same in every process and on every machine; smaller goes first.

    Args:
        ids: n ids; names that are not valid Unicode (from a file system) are taken as they are.

    Returns:
        (n,) int64. Two of a million different ids collide with probability 3e-8.

    Example:
        >>> tie_keys(["photo/cat.png"]).equal(tie_keys(["photo/dog.png", "photo/cat.png"])[1:])
        True
    """
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in ids])
    if not digests:
        return torch.empty(0, dtype=torch.int64)
    # A bytearray, because torch refuses to warn-free share memory that is read-only.
    return torch.frombuffer(bytearray(digests), dtype=torch.int64)


def tie_rank(keys: Tensor) -> Tensor:
    """The place of each item in the order of its tie key: (n,) int64 in [0, n), a permutation.

    Example:
        >>> tie_rank(torch.tensor([30, 10, 20])).tolist()
        [2, 0, 1]
    """
    order = torch.argsort(keys, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank


def similarity(queries: Tensor, gallery: Tensor) -> Tensor:
    """Dot products whose bits depend on neither the number of rows and columns nor on an item's position.

    Matrix libraries take other code, with another order of additions, for one row or for the last few columns. Then
    two equal images would differ in the last bit and a tie would be decided by position. So rows are filled up to a
    multiple of 16 and the last columns are computed in a tile of their own of 64.

    Args:
        queries: (q, d).
        gallery: (n, d), same dtype and device.

    Returns:
        (q, n).
    """
    rows, columns = len(queries), len(gallery)
    spare = -rows % ROW_STEP
    if spare:
        queries = torch.cat([queries, queries.new_zeros(spare, queries.shape[1])])
    even = columns // COLUMN_STEP * COLUMN_STEP
    if even == columns:
        return (queries @ gallery.T)[:rows]
    scores = queries.new_empty(len(queries), columns)
    if even:
        torch.mm(queries, gallery[:even].T, out=scores[:, :even])
        tail = gallery[columns - COLUMN_STEP :]
    else:
        tail = torch.cat([gallery.new_zeros(COLUMN_STEP - columns, gallery.shape[1]), gallery])
    scores[:, even:] = (queries @ tail.T)[:, even - columns :]
    return scores[:rows]


def pack(scores: Tensor, low: Tensor) -> Tensor:
    """Integers whose ascending order is: higher score first, then smaller `low`. One integer sort thus settles ties.

    Args:
        scores: float32, any shape.
        low: int64 in [0, 2**32), broadcastable to `scores`.

    Returns:
        int64 of the shape of `scores`; `unpack` gives both parts back.

    Raises:
        IsthmusError: a score is NaN or infinite; such a score has no place in an order.

    Example:
        >>> keys = pack(torch.tensor([0.5, 0.5, -1.0, 2.0]), torch.tensor([7, 3, 0, 9]))
        >>> torch.argsort(keys).tolist()
        [3, 1, 0, 2]
    """
    # The sum is one cheap pass; only where it is not finite does the exact question have to be asked.
    if not bool(scores.sum().isfinite()) and not bool(scores.isfinite().all()):
        raise IsthmusError("A query or gallery vector holds NaN or an infinity; leave its image out or encode it anew.")
    bits = (scores + 0.0).view(torch.int32)  # adding zero makes -0.0 equal to 0.0
    # IEEE floats order like sign-magnitude integers; flipping the magnitude of negative ones makes it two's complement.
    ordered = bits.bitwise_right_shift(31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits).bitwise_not_()
    return ordered.to(torch.int64).bitwise_left_shift_(32).bitwise_or_(low)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The float32 scores and the int64 `low` parts of packed keys."""
    ordered = (keys >> 32).to(torch.int32).bitwise_not_()
    bits = ordered.bitwise_right_shift(31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(ordered)
    return bits.view(torch.float32), keys & 0xFFFFFFFF


@torch.no_grad()
def top_k(
    queries: Tensor, gallery: Tensor, k: int, *, tie_keys: Tensor | None = None, limit: int = 64 << 20
) -> tuple[Tensor, Tensor]:
    """The k gallery items with the highest dot product, exactly, in blocks of bounded memory.

    Args:
        queries: (q, d), floating point.
        gallery: (n, d), on the same device. Scores are float32, also for other input types.
        k: at least 1; a smaller gallery gives n columns.
        tie_keys: (n,) int64 from `tie_keys(ids)`; equal scores are ordered by it, smallest first. Without it by
            position, which is right only where positions carry no meaning.
        limit: about how many bytes the block of scores may take.

    Returns:
        scores (q, min(k, n)) float32, descending; indices (q, min(k, n)) int64 into the gallery.

    Raises:
        IsthmusError: a vector holds NaN or an infinity.

    Example:
        >>> scores, found = top_k(torch.eye(2), torch.eye(2), 1)
        >>> found.tolist()
        [[0], [1]]
    """
    n, device = len(gallery), gallery.device
    k = min(k, n)
    if k < 1:
        return queries.new_empty(len(queries), 0, dtype=torch.float32), torch.empty(
            len(queries), 0, dtype=torch.int64, device=device
        )
    if tie_keys is not None and len(tie_keys) != n:
        raise ValueError(f"{len(tie_keys)} tie keys for {n} gallery items")
    order = torch.argsort(tie_keys.to(device), stable=True) if tie_keys is not None else None
    rank = torch.arange(n, device=device)
    if order is not None:
        rank[order] = rank.clone()
    best: list[Tensor] = []
    columns = min(n, _CHUNK)
    rows = block_rows(columns, bytes_per_value=24, limit=limit)  # float32 scores, their bits and two int64 keys
    for column in blocks(n, columns):
        part = gallery[column].float()
        for number, row in enumerate(blocks(len(queries), rows)):
            keys = pack(similarity(queries[row].float(), part), rank[column])
            keys = keys.topk(min(k, keys.shape[1]), dim=1, largest=False).values
            if number < len(best):
                joined = torch.cat([best[number], keys], dim=1)
                best[number] = joined.topk(min(k, joined.shape[1]), dim=1, largest=False).values
            else:
                best.append(keys)
    if not best:
        return queries.new_empty(0, k, dtype=torch.float32), torch.empty(0, k, dtype=torch.int64, device=device)
    scores, found = unpack(torch.cat(best).sort(dim=1).values)
    return scores, found if order is None else order[found]
