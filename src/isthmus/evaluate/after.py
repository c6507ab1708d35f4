"""What can follow a ranking, by name and settings: k-reciprocal encoding, query expansion, hubness correction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate.hubness import Vectors, csls_term, inverted_softmax_term
from isthmus.evaluate.rerank import KReciprocal

BankName = Literal["train", "val", "test"]
HUBNESS = ("csls", "inverted-softmax")
METHODS = ("k-reciprocal", "alpha-qe", *HUBNESS)


@dataclass(frozen=True, slots=True)
class AlphaQE:
    """Settings of alpha query expansion; the defaults are the paper's, for galleries with many images of each thing.

    Attributes:
        n: how many first hits are joined to the query.
        alpha: their cosine to this power is their weight.
    """

    n: int = 50
    alpha: float = 3.0

    def __post_init__(self) -> None:
        _whole("the query expansion's n", self.n)
        if not _is_number(self.alpha) or not 0 <= self.alpha <= 100:
            raise IsthmusError(f"The query expansion's alpha is {self.alpha}; give a number from 0 to 100.")

    transductive = False  # a query is expanded by the gallery, never by another query
    name = "alpha-qe"

    @property
    def text(self) -> str:
        """All settings in words."""
        return f"alpha query expansion, n={self.n}, alpha={self.alpha:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names of the command line."""
        return {"method": self.name, "n": self.n, "alpha": self.alpha, "transductive": False}


@dataclass(frozen=True, slots=True)
class Hubness:
    """Settings of a hubness correction; the defaults are those of the public code of CSLS (MUSE).

    Attributes:
        method: `"csls"` or `"inverted-softmax"`.
        k: nearest queries of the bank that an item is compared with (CSLS).
        beta: inverse temperature (inverted softmax).
        bank: the split of the query's domain whose images are the bank.
        size: a larger bank is thinned to this many images, by the hash of their ids.
        measured: the split that is measured. Where that is the bank, or the bank is the test split, the figures are
            transductive.
    """

    method: str = "csls"
    k: int = 10
    beta: float = 30.0
    bank: BankName = "train"
    size: int = 5000
    measured: str = "test"

    def __post_init__(self) -> None:
        if self.method not in HUBNESS:
            raise IsthmusError(f"{self.method} is no hubness correction; choose {' or '.join(HUBNESS)}.")
        _whole(f"{self.method}'s k", self.k)
        _whole(f"{self.method}'s size", self.size)
        if not _is_number(self.beta) or not 0 < self.beta <= 10_000:
            raise IsthmusError(f"{self.method}'s beta is {self.beta}; give a number above 0, up to 10000.")
        if self.bank not in get_args(BankName):
            raise IsthmusError(f"{self.method}'s bank is {self.bank}; choose train, val or test.")
        if self.bank == "test" != self.measured:
            raise IsthmusError(
                f"The test images have no part in figures of the split {self.measured}; use bank=train, bank=val or "
                "--split test."
            )

    @property
    def transductive(self) -> bool:
        """Whether the answer to a query depends on the other queries that are asked."""
        return self.bank in ("test", self.measured)

    @property
    def name(self) -> str:
        """What marks the corrected figures."""
        return self.method + (", transductive" if self.transductive else "")

    @property
    def text(self) -> str:
        """All settings in words."""
        how = f"CSLS, k={self.k}" if self.method == "csls" else f"inverted softmax, beta={self.beta:g}"
        if self.transductive:
            return f"{how}, transductive: the bank are the very queries that ask"
        return f"{how}, bank: {self.bank} images of the query's domain"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names of the command line."""
        own = {"k": self.k} if self.method == "csls" else {"beta": self.beta}
        return {
            "method": self.method, **own, "bank": self.bank, "size": self.size, "transductive": self.transductive
        }  # fmt: skip

    def term(self, gallery: Vectors, bank: Vectors, *, limit: int = 64 << 20) -> Tensor:
        """(n,) what each gallery item loses; see `isthmus.evaluate.hubness`."""
        if self.method == "csls":
            return csls_term(gallery, bank, self.k, limit=limit)
        return inverted_softmax_term(gallery, bank, self.beta, limit=limit)


After = KReciprocal | AlphaQE | Hubness


def settings_of(method: str | None, settings: Iterable[tuple[str, Any]], *, measured: str = "test") -> After | None:
    """What `--rerank METHOD --rerank-set KEY=VALUE` asks for.

    Args:
        method: one of `METHODS`, or None.
        settings: names and values.
        measured: the split that is measured.

    Raises:
        IsthmusError: an unknown method or setting, an impossible value, or settings without a method.

    Example:
        >>> settings_of("csls", [("k", 5)]).text
        "CSLS, k=5, bank: train images of the query's domain"
    """
    values = dict(settings)
    if method is None:
        if values:
            raise IsthmusError(f"--rerank-set has nothing to set without  --rerank {'|'.join(METHODS)}.")
        return None
    if method not in METHODS:
        raise IsthmusError(f"--rerank {method} is unknown; there is {', '.join(METHODS)}.")
    if method == "k-reciprocal":
        return KReciprocal.of(values)
    if method == "alpha-qe":
        return AlphaQE(**_only(method, values, ("n", "alpha")))
    own = "k" if method == "csls" else "beta"
    return Hubness(method, **_only(method, values, (own, "bank", "size")), measured=measured)


def _only(method: str, values: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    for name in values:
        if name not in known:
            raise IsthmusError(f"{method} has no setting '{name}'; it has {', '.join(known[:-1])} and {known[-1]}.")
    return dict(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _whole(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise IsthmusError(f"{what[0].upper()}{what[1:]} is {value}; give a whole number from 1 on.")
