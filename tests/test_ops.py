"""The numeric ground floor against plain sorts, and the promise that position and block size never matter."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus import ops
from isthmus.errors import IsthmusError


def vectors(n: int, d: int, seed: int) -> torch.Tensor:
    return ops.normalise(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


def test_normalise_keeps_zero_and_makes_unit() -> None:
    x = ops.normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]]))
    torch.testing.assert_close(x, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))


@given(st.integers(0, 50), st.integers(1, 20))
def test_blocks_cover_everything_once(n: int, size: int) -> None:
    parts = list(ops.blocks(n, size))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all(0 < part.stop - part.start <= size for part in parts)


def test_blocks_refuse_an_empty_size() -> None:
    with pytest.raises(ValueError, match="at least one"):
        list(ops.blocks(3, 0))


@given(st.integers(1, 10**7), st.integers(1, 40), st.integers(1, 1 << 28))
def test_block_rows_stay_within_the_limit(columns: int, width: int, limit: int) -> None:
    rows = ops.block_rows(columns, bytes_per_value=width, limit=limit)
    assert rows >= 1
    assert rows == 1 or rows * columns * width <= limit
    assert rows < 16 or rows % 16 == 0


def test_tie_keys_are_the_documented_hash_in_every_process() -> None:
    ids = ["photo/a.png", "photo/ü\n.png", "", "photo/\udcff.png"]
    keys = ops.tie_keys(ids)
    first = int.from_bytes(hashlib.blake2b(b"photo/a.png", digest_size=8).digest(), "little", signed=True)
    assert keys.dtype == torch.int64 and keys[0].item() == first and len(set(keys.tolist())) == 4
    code = "from isthmus.ops import tie_keys; print(tie_keys(['photo/a.png']).item())"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout) == first
    assert ops.tie_keys([]).shape == (0,)


def test_tie_rank_is_the_place_in_the_order() -> None:
    keys = ops.tie_keys([str(i) for i in range(100)])
    rank = ops.tie_rank(keys)
    assert [keys.tolist()[i] for i in rank.argsort().tolist()] == sorted(keys.tolist())


@pytest.mark.parametrize("d", [8, 100, 512])
def test_similarity_of_equal_vectors_has_equal_bits_everywhere(d: int) -> None:
    one, other = vectors(1, d, 0), vectors(1, d, 1)
    value = ops.similarity(one, other).item()
    for rows in (1, 2, 15, 16, 17, 64, 70):
        for columns in (1, 63, 64, 65, 127, 1000, 1003):
            table = ops.similarity(one.expand(rows, d).contiguous(), other.expand(columns, d).contiguous())
            assert table.shape == (rows, columns) and bool((table == value).all()), (rows, columns)


@pytest.mark.parametrize("columns", [0, 5, 64, 200, 333])
def test_similarity_is_the_product(columns: int) -> None:
    q, g = vectors(21, 33, 2).double(), vectors(columns, 33, 3).double()
    torch.testing.assert_close(ops.similarity(q, g), q @ g.T)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.randoms())
def test_packed_order_is_score_then_low(values: list[float], random: object) -> None:
    scores = torch.tensor(values + values, dtype=torch.float32)
    low = torch.randperm(len(scores))
    keys = ops.pack(scores, low)
    want = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), low[i].item()))
    assert keys.argsort().tolist() == want
    back, lower = ops.unpack(keys)
    assert torch.equal(back, scores) and torch.equal(lower, low)


def slow_top_k(q: torch.Tensor, g: torch.Tensor, k: int, keys: list[int]) -> list[list[int]]:
    table = ops.similarity(q, g).tolist()
    return [sorted(range(len(g)), key=lambda j: (-row[j], keys[j]))[:k] for row in table]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 60), st.integers(1, 70), st.integers(0, 10**6), st.booleans())
def test_top_k_equals_a_plain_sort(q: int, n: int, k: int, seed: int, coarse: bool) -> None:
    queries, gallery = vectors(q, 6, seed), vectors(n, 6, seed + 1)
    if coarse:
        queries, gallery = queries.sign(), gallery.round()
    keys = ops.tie_keys([f"g{i}" for i in range(n)])
    scores, found = ops.top_k(queries, gallery, k, tie_keys=keys)
    assert found.tolist() == slow_top_k(queries, gallery, k, keys.tolist())
    assert torch.equal(scores, ops.similarity(queries, gallery).gather(1, found))


def test_top_k_in_chunks_and_blocks_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = vectors(50, 16, 5), vectors(700, 16, 6)
    gallery[300:600] = gallery[7]
    keys = ops.tie_keys([str(i) for i in range(700)])
    whole = ops.top_k(queries, gallery, 40, tie_keys=keys)
    monkeypatch.setattr(ops, "_CHUNK", 64)
    parts = ops.top_k(queries, gallery, 40, tie_keys=keys, limit=20_000)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_top_k_ignores_position_and_asks_alone_as_in_company() -> None:
    queries, gallery = vectors(20, 32, 7), vectors(1, 32, 8).expand(501, 32).contiguous()
    ids = [f"photo/{i}" for i in range(501)]
    p = torch.randperm(501, generator=torch.Generator().manual_seed(0))
    scores, found = ops.top_k(queries, gallery, 9, tie_keys=ops.tie_keys(ids))
    moved = ops.top_k(queries, gallery[p], 9, tie_keys=ops.tie_keys([ids[i] for i in p]))
    assert torch.equal(p[moved[1]], found) and found[0].tolist() != list(range(9))
    alone = ops.top_k(queries[3:4], gallery, 9, tie_keys=ops.tie_keys(ids))
    assert torch.equal(alone[0], scores[3:4]) and torch.equal(alone[1], found[3:4])


def test_top_k_edges() -> None:
    scores, found = ops.top_k(vectors(2, 4, 0), torch.empty(0, 4), 3)
    assert scores.shape == found.shape == (2, 0)
    scores, found = ops.top_k(torch.empty(0, 4), vectors(5, 4, 0), 3)
    assert scores.shape == found.shape == (0, 3)
    assert ops.top_k(vectors(2, 4, 0).half(), vectors(5, 4, 0).half(), 3)[0].dtype == torch.float32
    with pytest.raises(ValueError, match="tie keys"):
        ops.top_k(vectors(2, 4, 0), vectors(5, 4, 0), 3, tie_keys=torch.arange(4))
    for bad in (float("nan"), -float("nan"), float("inf")):
        gallery = vectors(5, 4, 0)
        gallery[2, 1] = bad
        with pytest.raises(IsthmusError, match="NaN"):
            ops.top_k(vectors(2, 4, 0), gallery, 1)
