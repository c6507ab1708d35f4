"""Criteria that need no label, to choose an epoch: which of a run's checkpoints retrieves best across the domains?

Every function returns one float, and higher is better for each. They compare checkpoints of one run on the same images;
none is a score to report, and values of different data sets mean nothing side by side. Functions of a table take
`cross`, the cosine similarities (n, m) of n queries and m gallery items, or `inside`, those of one domain (n, n).
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate.spread import domain_overlap, effective_rank, spread, uniformity
from isthmus.ops import normalise, similarity


def soft_density(table: Tensor, temperature: float = 0.05, *, skip_self: bool = False) -> float:
    """`snd`, soft neighbourhood density: mean entropy of softmax(row / temperature) (Saito et al., ICCV 2021, eq. 2-3).

    High where an item has many near neighbours, as in tight clusters. The original measures inside one domain
    (`skip_self=True` leaves out the diagonal); across domains it asks the same of the other domain's items. A collapsed
    network has the highest value of all, so look at `effective_rank` beside it.

    Returns:
        In [0, log(columns)].

    Example:
        >>> round(soft_density(torch.zeros(2, 8)), 4)  # log 8
        2.0794
    """
    logits = table / temperature
    if skip_self:
        logits = logits.clone().fill_diagonal_(float("-inf"))
    log_p = logits.log_softmax(dim=1)
    return -float((log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=1).mean())


def mutual_neighbours(cross: Tensor) -> float:
    """Mutual nearest neighbours between the domains, over the smaller domain's size, in [0, 1].

    A pair counts where each is the other's strictly nearest item, so a collapsed network has 0.

    Example:
        >>> mutual_neighbours(torch.tensor([[0.9, 0.1], [0.8, 0.2]]))
        0.5
    """
    forth, back = cross.argmax(dim=1), cross.argmax(dim=0)
    value = cross.amax(dim=1)
    alone = (cross == value[:, None]).sum(dim=1).eq(1) & (cross[:, forth] == value).sum(dim=0).eq(1)
    mutual = alone & (back[forth] == torch.arange(len(cross), device=cross.device))
    return float(mutual.sum()) / min(cross.shape)


def cycle_consistency(cross: Tensor, k: int = 5) -> float:
    """Share of queries that come back: query -> nearest gallery item -> among its k nearest queries; [0, 1].

    After the cycle idea of Haeusser et al. (2017) and Dwibedi et al. (2019). Ties count against coming back.
    """
    value, forth = cross.max(dim=1)
    rivals = (cross[:, forth] >= value).sum(dim=0)  # the query itself is one of them
    return float((rivals <= k).float().mean())


def low_hubness(cross: Tensor, k: int = 10) -> float:
    """Minus the skewness of how often each gallery item is among the k first hits (Radovanovic et al., JMLR 2010).

    Near 0 where all items are found about equally often; far below where a few hubs answer every query.
    """
    counts = _occurrences(cross, k)
    centred = counts - counts.mean()
    deviation = centred.square().mean().sqrt()
    return -float((centred**3).mean() / deviation**3) if deviation > 0 else 0.0


def hit_entropy(cross: Tensor, k: int = 10) -> float:
    """Entropy of the distribution of first hits over the gallery, over its maximum: 1 when all are found alike."""
    p = _occurrences(cross, k)
    p = p / p.sum()
    return float(torch.special.entr(p).sum()) / max(1e-12, float(torch.tensor(float(len(p))).log()))


def top_contrast(cross: Tensor, k: int = 10) -> float:
    """How far the k first hits stand out: (their mean - row mean) / row deviation, mean over queries.

    A query-performance predictor without relevance data, as NQC (Shtok et al., 2012) normalised per query.
    """
    best = cross.topk(min(k, cross.shape[1]), dim=1).values.mean(dim=1)
    return float(((best - cross.mean(dim=1)) / cross.std(dim=1).clamp(min=1e-4)).mean())


def hit_coherence(cross: Tensor, inside: Tensor, k: int = 10) -> float:
    """Whether a query's k hits resemble one another: their mean mutual similarity as a z-score among all gallery pairs.

    The cluster hypothesis (van Rijsbergen, 1979): relevant items are alike, so hits that have nothing in common are
    partly wrong. `inside` (m, m) are the gallery's own similarities.
    """
    hits = _hits(cross, k)
    count, m = hits.shape[1], len(inside)
    if count < 2:
        return 0.0
    among = inside[hits[:, :, None], hits[:, None, :]].sum(dim=(1, 2)) - inside.diagonal()[hits].sum(dim=1)
    pairs = inside[~torch.eye(m, dtype=torch.bool, device=inside.device)]
    return float((among.mean() / (count * (count - 1)) - pairs.mean()) / pairs.std().clamp(min=1e-4))


def neighbour_consensus(cross: Tensor, inside: Tensor, k: int = 10) -> float:
    """Share of their k hits that a query and its k nearest fellow queries have in common, beyond that of any two.

    Queries alike in their own domain should find the same items in the other. `inside` (n, n) are the queries' own
    similarities. Taking off the average over all pairs makes a collapsed network score 0.
    """
    n = len(cross)
    if n < 3:
        return 0.0
    member = _members(cross, k)
    shared = member @ member.T / min(k, cross.shape[1])
    near = inside.clone().fill_diagonal_(float("-inf")).topk(min(k, n - 1), dim=1).indices
    return float(shared.gather(1, near).mean() - (shared.sum() - shared.diagonal().sum()) / (n * (n - 1)))


def counterpart_recall(table: Tensor) -> float:
    """R@1 of real images asked for by their counterparts: row i's nearest is column i, strictly; in [0, 1].

    Biased by the translator: it rewards knowing again what the translator keeps, and a network trained on counterparts
    can learn its habits (a fixed palette, a line width) that no real query has.

    Args:
        table: (n, n), row i the counterpart of real image i, column j real image j.
    """
    others = table.clone().fill_diagonal_(float("-inf")).amax(dim=1)
    return float((table.diagonal() > others).float().mean())


def counterpart_alignment(table: Tensor) -> float:
    """Minus the mean squared distance of an image and its counterpart (Wang and Isola, ICML 2020), in [-4, 0].

    Biased by the translator, and 0 when collapsed: read it beside `uniformity`.
    """
    return float((2 * table.diagonal() - 2).mean())


def counterpart_agreement(cross: Tensor, counterpart: Tensor, k: int = 10) -> float:
    """Share of an image's k hits that its counterpart finds too, beyond that of an image and any counterpart.

    The counterpart has the look of the domain that is searched, so its hits lack the domain gap.

    Args:
        cross: (n, m), real images against the other domain.
        counterpart: (n, m), their counterparts against the same items.
    """
    n = len(cross)
    shared = _members(cross, k) @ _members(counterpart, k).T / min(k, cross.shape[1])
    own = shared.diagonal().mean()
    return float(own - (shared.sum() - shared.diagonal().sum()) / (n * (n - 1))) if n > 1 else 0.0


@torch.no_grad()
def criteria(
    query: Tensor,
    gallery: Tensor,
    query_counterparts: Tensor | None = None,
    gallery_counterparts: Tensor | None = None,
    *,
    limit: int = 2000,
) -> dict[str, float]:
    """All criteria at once; of each that has a direction, the mean of both.

    Args:
        query: (n, d) embeddings of real images of the query domain, any length.
        gallery: (m, d) of the gallery domain.
        query_counterparts: (n, d); row i is query i translated into the gallery domain's look.
        gallery_counterparts: (m, d) likewise.
        limit: of a larger set, this many evenly spaced items take part, so that time and memory stay bounded.

    Returns:
        Name -> value, higher is better; `counterpart_...` only where counterparts are given.

    Raises:
        IsthmusError: fewer than 2 items a domain, shapes that do not fit, or NaN.

    Example:
        >>> values = criteria(torch.eye(3), torch.eye(3), query_counterparts=torch.eye(3))
        >>> values["mutual_nn"], values["counterpart_r1"]
        (1.0, 1.0)
    """
    q, qc = _prepare(query, query_counterparts, limit, "query")
    g, gc = _prepare(gallery, gallery_counterparts, limit, "gallery")
    cross, in_q, in_g = similarity(q, g), similarity(q, q), similarity(g, g)
    back = cross.T.contiguous()

    def both(forth: float, back: float) -> float:
        return (forth + back) / 2

    values = {
        "snd": both(soft_density(in_q, skip_self=True), soft_density(in_g, skip_self=True)),
        "snd_cross": both(soft_density(cross), soft_density(back)),
        "mutual_nn": mutual_neighbours(cross),
        "cycle_consistency": both(cycle_consistency(cross), cycle_consistency(back)),
        "low_hubness": both(low_hubness(cross), low_hubness(back)),
        "hit_entropy": both(hit_entropy(cross), hit_entropy(back)),
        "top_contrast": both(top_contrast(cross), top_contrast(back)),
        "hit_coherence": both(hit_coherence(cross, in_g), hit_coherence(back, in_q)),
        "neighbour_consensus": both(neighbour_consensus(cross, in_q), neighbour_consensus(back, in_g)),
        "domain_overlap": domain_overlap(in_q, in_g, cross),
        "uniformity": both(uniformity(in_q), uniformity(in_g)),
        "spread": both(spread(q), spread(g)),
        "effective_rank": both(effective_rank(q), effective_rank(g)),
    }
    found: dict[str, list[float]] = {}
    for real, counterpart, table, other in ((q, qc, cross, g), (g, gc, back, q)):
        if counterpart is not None:
            own = similarity(counterpart, real)
            found.setdefault("counterpart_r1", []).append(counterpart_recall(own))
            found.setdefault("counterpart_alignment", []).append(counterpart_alignment(own))
            agreement = counterpart_agreement(table, similarity(counterpart, other))
            found.setdefault("counterpart_agreement", []).append(agreement)
    return values | {name: sum(parts) / len(parts) for name, parts in found.items()}


def _prepare(real: Tensor, counterparts: Tensor | None, limit: int, name: str) -> tuple[Tensor, Tensor | None]:
    if counterparts is not None and counterparts.shape != real.shape:
        raise IsthmusError(
            f"The {name} counterparts have the shape {tuple(counterparts.shape)} and the real images "
            f"{tuple(real.shape)}; give one counterpart an image, in the same order."
        )
    if len(real) < 2:
        raise IsthmusError(f"The criteria need at least 2 {name} images, not {len(real)}; validate on more.")
    at = torch.linspace(0, len(real) - 1, min(limit, len(real)), dtype=torch.float64, device=real.device).round().long()
    parts = [normalise(x[at].float()) for x in (real, counterparts) if x is not None]
    if not all(bool(x.isfinite().all()) for x in parts):
        raise IsthmusError(f"An embedding of the {name} images holds NaN or an infinity; the run has diverged.")
    return parts[0], parts[1] if len(parts) > 1 else None


def _hits(cross: Tensor, k: int) -> Tensor:
    return cross.topk(min(k, cross.shape[1]), dim=1).indices


def _members(cross: Tensor, k: int) -> Tensor:
    """(n, m) ones where a gallery item is among a query's k hits."""
    return torch.zeros_like(cross).scatter_(1, _hits(cross, k), 1.0)


def _occurrences(cross: Tensor, k: int) -> Tensor:
    return _members(cross, k).sum(dim=0).double()
