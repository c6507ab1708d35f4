"""Label-free criteria against loops, what they say of good, bad and collapsed embeddings, and their speed."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch

from isthmus.errors import IsthmusError
from isthmus.evaluate import criteria as c
from isthmus.evaluate import spread as s
from isthmus.ops import normalise


def vectors(n: int, seed: int, d: int = 12) -> torch.Tensor:
    return normalise(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


Q, G = vectors(23, 1), vectors(31, 2)
CROSS, IN_Q, IN_G = Q @ G.T, Q @ Q.T, G @ G.T


def entropy(weights: list[float]) -> float:
    return -sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights if w)


def hits(row: list[float], k: int) -> set[int]:
    return set(sorted(range(len(row)), key=lambda j: -row[j])[:k])


def test_soft_density() -> None:
    rows = [entropy([math.exp(x / 0.05) for x in row]) for row in CROSS.double().tolist()]
    assert c.soft_density(CROSS) == pytest.approx(sum(rows) / 23, rel=1e-4)
    own = [entropy([math.exp(x / 0.05) for j, x in enumerate(row) if j != i]) for i, row in enumerate(IN_Q.tolist())]
    assert c.soft_density(IN_Q, skip_self=True) == pytest.approx(sum(own) / 23, rel=1e-4)


def test_mutual_neighbours() -> None:
    table = CROSS.tolist()
    count = sum(
        table[i][j] == max(table[i]) and table[i][j] == max(row[j] for row in table)
        for i in range(23) for j in range(31)
    )  # fmt: skip
    assert count > 3 and c.mutual_neighbours(CROSS) == count / 23 == c.mutual_neighbours(CROSS.T.contiguous())
    assert c.mutual_neighbours(torch.ones(4, 3)) == 0.0


@pytest.mark.parametrize("k", [1, 3, 40])
def test_cycle_consistency(k: int) -> None:
    came_back = 0
    for i, row in enumerate(CROSS.tolist()):
        j = row.index(max(row))
        came_back += i in hits([other[j] for other in CROSS.tolist()], k)
    assert c.cycle_consistency(CROSS, k) == pytest.approx(came_back / 23)
    assert c.cycle_consistency(torch.ones(9, 7), 5) == 0.0


def test_hubness_and_entropy_of_hits() -> None:
    counts = [0] * 31
    for row in CROSS.tolist():
        for j in hits(row, 4):
            counts[j] += 1
    mean = sum(counts) / 31
    moment = {p: sum((x - mean) ** p for x in counts) / 31 for p in (2, 3)}
    assert c.low_hubness(CROSS, 4) == pytest.approx(-moment[3] / moment[2] ** 1.5)
    assert c.hit_entropy(CROSS, 4) == pytest.approx(entropy(counts) / math.log(31))
    assert c.low_hubness(torch.eye(6), 1) == 0.0 and c.hit_entropy(torch.eye(6), 1) == pytest.approx(1.0)


def test_top_contrast() -> None:
    values = []
    for row in CROSS.double().tolist():
        best = sorted(row)[-5:]
        values.append((sum(best) / 5 - np.mean(row)) / np.std(row, ddof=1))
    assert c.top_contrast(CROSS, 5) == pytest.approx(np.mean(values), rel=1e-5)


def test_hit_coherence() -> None:
    inside = IN_G.double().tolist()
    pairs = [inside[i][j] for i, j in itertools.permutations(range(31), 2)]
    among = [np.mean([inside[i][j] for i, j in itertools.permutations(hits(row, 4), 2)]) for row in CROSS.tolist()]
    want = (np.mean(among) - np.mean(pairs)) / np.std(pairs, ddof=1)
    assert c.hit_coherence(CROSS, IN_G, 4) == pytest.approx(want, rel=1e-4)
    assert c.hit_coherence(CROSS[:, :1], IN_G[:1, :1]) == 0.0


def test_neighbour_consensus_and_counterpart_agreement() -> None:
    k, found = 4, [hits(row, 4) for row in CROSS.tolist()]
    near = [sorted((j for j in range(23) if j != i), key=lambda j: -IN_Q[i, j].item())[:k] for i in range(23)]
    own = np.mean([len(found[i] & found[j]) / k for i in range(23) for j in near[i]])
    any_two = np.mean([len(found[i] & found[j]) / k for i, j in itertools.permutations(range(23), 2)])
    assert c.neighbour_consensus(CROSS, IN_Q, k) == pytest.approx(own - any_two, abs=1e-6)
    assert c.neighbour_consensus(torch.ones(9, 7), torch.ones(9, 9), k) == pytest.approx(0.0, abs=1e-6)
    other = [hits(row, k) for row in (vectors(23, 9) @ G.T).tolist()]
    own = np.mean([len(found[i] & other[i]) / k for i in range(23)])
    any_two = np.mean([len(found[i] & other[j]) / k for i, j in itertools.permutations(range(23), 2)])
    assert c.counterpart_agreement(CROSS, vectors(23, 9) @ G.T, k) == pytest.approx(own - any_two, abs=1e-6)


def test_counterparts() -> None:
    made = normalise(Q + 0.4 * vectors(23, 4))
    table = made @ Q.T
    right = sum(max(range(23), key=lambda j: row[j]) == i for i, row in enumerate(table.tolist()))
    assert right > 0 and c.counterpart_recall(table) == pytest.approx(right / 23)
    assert c.counterpart_recall(torch.ones(5, 5)) == 0.0
    want = -(made - Q).square().sum(dim=1).mean().item()
    assert c.counterpart_alignment(table) == pytest.approx(want, rel=1e-4)


def test_spread_rank_uniformity_and_overlap() -> None:
    cosines = [float(a @ b) for a in Q for b in Q]
    assert s.spread(Q) == pytest.approx(1 - sum(cosines) / 23**2, rel=1e-5)
    singular = np.linalg.svd(Q.double().numpy(), compute_uv=False)
    assert s.effective_rank(Q) == pytest.approx(math.exp(entropy(singular.tolist())), rel=1e-6)
    assert s.effective_rank(Q[:5]) <= 5 and s.effective_rank(torch.ones(6, 3)) == pytest.approx(1.0, abs=1e-5)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-2 * float((a - b).square().sum()))

    own_q = np.mean([kernel(a, b) for a, b in itertools.permutations(Q, 2)])
    own_g = np.mean([kernel(a, b) for a, b in itertools.permutations(G, 2)])
    assert s.uniformity(IN_Q) == pytest.approx(-math.log(own_q), rel=1e-4)
    between = np.mean([kernel(a, b) for a in Q for b in G])
    assert s.domain_overlap(IN_Q, IN_G, CROSS) == pytest.approx(-(own_q + own_g - 2 * between), abs=1e-6)
    moved = normalise(G + 2.0)
    assert s.domain_overlap(IN_Q, moved @ moved.T, Q @ moved.T) < s.domain_overlap(IN_Q, IN_G, CROSS) - 0.01


def sets(noise: float, gap: float) -> tuple[torch.Tensor, torch.Tensor]:
    centres = vectors(8, 0, 32)
    label = torch.arange(240) % 8
    q = centres[label] + noise * vectors(240, 5, 32)
    g = centres[label] + noise * vectors(240, 6, 32) + gap * vectors(1, 7, 32)
    return q, g


def test_better_embeddings_score_higher() -> None:
    good, bad = c.criteria(*sets(0.7, 0.0)), c.criteria(*sets(2.5, 1.0))
    # mutual_nn is about single images: noise within a category leaves it as it is. The others see no relevance.
    blind = {"mutual_nn", "snd", "snd_cross", "uniformity", "spread", "effective_rank"}
    for name in good.keys() - blind:
        assert good[name] > bad[name], name
    apart = c.criteria(*sets(0.7, 3.0))
    assert good["mutual_nn"] > apart["mutual_nn"] and good["domain_overlap"] > apart["domain_overlap"]
    assert good["snd"] < c.criteria(torch.ones(240, 32), torch.ones(240, 32))["snd"]  # as its description warns


def test_all_at_once_with_counterparts_and_limits() -> None:
    q, g = sets(0.7, 0.5)
    values = c.criteria(q, g, query_counterparts=q + 0.1, gallery_counterparts=g - 0.1)
    assert len(values) == 16 and all(isinstance(v, float) and math.isfinite(v) for v in values.values())
    assert values["counterpart_r1"] > 0.9 and not {k for k in c.criteria(q, g) if k.startswith("counterpart")}
    one = c.criteria(q, g, query_counterparts=q + 0.1)
    assert one["counterpart_r1"] == c.counterpart_recall(normalise(q + 0.1) @ normalise(q).T)
    assert c.criteria(q[::2], g[::3], limit=200) == c.criteria(q[::2], g[::3])
    thin = c.criteria(q, g, limit=100)
    assert abs(thin["cycle_consistency"] - values["cycle_consistency"]) < 0.2


def test_bad_input_is_named() -> None:
    with pytest.raises(IsthmusError, match="one counterpart an image"):
        c.criteria(Q, G, query_counterparts=Q[:4])
    with pytest.raises(IsthmusError, match="at least 2 gallery"):
        c.criteria(Q, G[:1])
    with pytest.raises(IsthmusError, match="diverged"):
        c.criteria(Q * float("nan"), G)


def test_a_thousand_images_take_well_under_a_second() -> None:
    q, g = vectors(1000, 1, 512), vectors(1000, 2, 512)
    times = []
    for _ in range(3):
        start = time.process_time()
        c.criteria(q, g, q + 0.1, g + 0.1)
        times.append(time.process_time() - start)
    assert min(times) < 2.0  # 0.3 s on one core; the slack is for a busy machine
