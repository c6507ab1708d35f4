"""Agreement with people: of two photos, which did they find nearer to a sketch, and does the model say the same?"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isthmus.data.manifest import some_of
from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import bootstrap_intervals

COLUMNS = ("query_id", "nearer_id", "farther_id")


@dataclass(frozen=True, slots=True)
class Triplet:
    """People found gallery image `nearer` more like `query` than `farther`; `votes` of them, 1 where not told."""

    query: str
    nearer: str
    farther: str
    votes: float = 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of triplets whose order a model reproduces.

    Attributes:
        value: the share; a tie counts one half, so a guess and a constant embedding have .5.
        low, high: bootstrap 95 % interval over the queries, each with all its triplets; NaN without resamples.
        by_votes: the same share with each triplet counted as often as people voted for it.
        n_triplets: triplets counted.
        n_queries: of how many queries.
        n_ties: triplets whose two gallery images are equally similar.
        n_left_out: triplets with an id that is not among the images.
    """

    value: float
    low: float
    high: float
    by_votes: float
    n_triplets: int
    n_queries: int
    n_ties: int
    n_left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def text(self) -> str:
        """How many of what were counted, as a sentence."""
        return (
            f"{self.n_triplets} triplets of {self.n_queries} queries, {self.n_ties} ties counted one half; left out as "
            f"their ids are not among the images: {self.n_left_out}."
        )


def read_triplets(path: str | Path) -> list[Triplet]:
    """Read a CSV with the columns query_id, nearer_id, farther_id and, where there is one, votes; others are ignored.

    Raises:
        IsthmusError: no such file, no CSV in UTF-8, a column missing, an empty id, one gallery image against itself, or
            votes that are no positive number.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise IsthmusError(f"There is no file {path}; name a CSV with the columns {', '.join(COLUMNS)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IsthmusError(f"{path} can't be read as CSV in UTF-8 ({error}); make it anew.") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise IsthmusError(f"{path} has no column {absent[0]}; triplets need {', '.join(COLUMNS)}.")
        triplets = [_triplet(record, f"{path}, line {reader.line_num}") for record in reader]
    except csv.Error as error:
        raise IsthmusError(f"{path}, line {reader.line_num}, is no CSV ({error}); make it anew.") from None
    if not triplets:
        raise IsthmusError(f"{path} holds no triplet, only its heading; write a line for each.")
    return triplets


def _triplet(record: Mapping[str, Any], place: str) -> Triplet:
    query, nearer, farther = ((record[name] or "").strip() for name in COLUMNS)
    if not (query and nearer and farther):
        raise IsthmusError(f"{place}: an id is missing; give {', '.join(COLUMNS)}.")
    if nearer == farther:
        raise IsthmusError(f"{place}: nearer and farther are the same image {some_of([nearer])}; leave the line out.")
    said = (record.get("votes") or "1").strip()
    try:
        votes = float(said)
    except ValueError:
        votes = math.nan
    if not 0 < votes < math.inf:
        raise IsthmusError(f"{place}: votes is {some_of([said])}; write a number above 0 or leave the column out.")
    return Triplet(query, nearer, farther, votes)


def triplet_agreement(
    similarities: Tensor | NDArray[Any],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    triplets: Sequence[Triplet],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Agreement:
    """Share of triplets whose order the similarities reproduce.

    Triplets of one query are not independent, so the bootstrap draws queries with all their triplets.

    Args:
        similarities: (q, n), higher is nearer; a row of NaN stands for an image that could not be read.
        query_ids: q ids.
        gallery_ids: n ids.
        triplets: those with an id that is neither are left out and counted.
        bootstrap: resamples for the interval; 0 for none.
        seed: of the resamples.

    Raises:
        IsthmusError: sizes that do not fit, or no triplet is left.

    Example:
        >>> found = triplet_agreement(torch.tensor([[0.9, 0.1]]), ["s"], ["a", "b"], [Triplet("s", "a", "b")])
        >>> found.value, found.n_triplets, found.n_left_out
        (1.0, 1, 0)
    """
    table = torch.as_tensor(similarities)
    if table.shape != (len(query_ids), len(gallery_ids)):
        raise IsthmusError(
            f"Similarities {tuple(table.shape)} do not fit {len(query_ids)} queries and {len(gallery_ids)} gallery ids."
        )
    found = _places(query_ids, gallery_ids, triplets)
    asks, near, far = torch.from_numpy(found).T
    return _agreement(table[asks, near], table[asks, far], found, triplets, bootstrap, seed)


def embedding_agreement(
    query: Tensor | NDArray[Any],
    gallery: Tensor | NDArray[Any],
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    triplets: Sequence[Triplet],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Agreement:
    """`triplet_agreement` by cosine similarity of embeddings (q, d) and (n, d), without the table of all of them."""
    q, g = torch.as_tensor(query).double(), torch.as_tensor(gallery).double()
    if len(q) != len(query_ids) or len(g) != len(gallery_ids):
        raise IsthmusError(
            f"{len(q)} and {len(g)} embeddings do not fit {len(query_ids)} queries and {len(gallery_ids)} gallery ids."
        )
    read = [torch.isfinite(part).all(dim=1).tolist() for part in (q, g)]
    ids = [
        [name if ok else None for name, ok in zip(names, part, strict=True)]
        for names, part in zip((query_ids, gallery_ids), read, strict=True)
    ]
    found = _places(ids[0], ids[1], triplets)
    asks, near, far = torch.from_numpy(found).T
    g = torch.nn.functional.normalize(g, dim=1)  # a query's own length changes no order
    return _agreement((q[asks] * g[near]).sum(1), (q[asks] * g[far]).sum(1), found, triplets, bootstrap, seed)


def _places(
    query_ids: Sequence[str | None], gallery_ids: Sequence[str | None], triplets: Sequence[Triplet]
) -> NDArray[np.int64]:
    """(t, 3) places of query, nearer and farther; -1 for what is not there."""
    queries = {name: i for i, name in enumerate(query_ids) if name is not None}
    gallery = {name: i for i, name in enumerate(gallery_ids) if name is not None}
    rows = [(queries.get(t.query, -1), gallery.get(t.nearer, -1), gallery.get(t.farther, -1)) for t in triplets]
    return np.array(rows, dtype=np.int64).reshape(len(triplets), 3)


def _agreement(
    near: Tensor, far: Tensor, places: NDArray[np.int64], triplets: Sequence[Triplet], draws: int, seed: int
) -> Agreement:
    a, b = near.double().cpu().numpy(), far.double().cpu().numpy()
    kept = (places >= 0).all(axis=1) & np.isfinite(a) & np.isfinite(b)
    if not kept.any():
        example = some_of([triplets[0].query]) if triplets else "none"
        raise IsthmusError(
            f"None of the {len(triplets)} triplets names images that are measured here, the first asks with {example}: "
            "check the ids and the split."
        )
    votes = np.array([triplet.votes for triplet in triplets])[kept]
    hits = np.where(a == b, 0.5, (a > b).astype(np.float64))[kept]
    _, query = np.unique(places[kept, 0], return_inverse=True)
    sums, counts = np.bincount(query, hits), np.bincount(query).astype(np.float64)
    low = high = math.nan
    if draws:
        lows, highs = bootstrap_intervals(sums[:, None], counts[:, None], draws=draws, seed=seed)
        low, high = float(lows[0]), float(highs[0])
    return Agreement(
        value=float(hits.mean()),
        low=low,
        high=high,
        by_votes=float(np.average(hits, weights=votes)),
        n_triplets=len(hits),
        n_queries=len(counts),
        n_ties=int((a == b)[kept].sum()),
        n_left_out=len(triplets) - len(hits),
    )
