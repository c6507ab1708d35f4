"""Whether a linear classifier tells two domains apart by their features: what an adversarial loss should prevent."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.evaluate.intervals import mean_std

FEWEST = 8  # images a domain; below, a classifier says nothing
PENALTY = 1e-2  # of the classifier's squared weights, beside the mean loss on standardised features
LEVEL = 1.959964  # standard deviations of a 95 % interval


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson, 1927).

    Attributes:
        value: in [0, 1].
        low, high: the interval.
        n: of how many.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: float, n: int) -> Share:
        """`hits` of `n`.

        Example:
            >>> share = Share.of(50, 100)
            >>> share.value, round(share.low, 3), round(share.high, 3)
            (0.5, 0.404, 0.596)
        """
        if n == 0:
            return cls(math.nan, math.nan, math.nan, 0)
        value, square = hits / n, LEVEL**2
        middle = (value + square / (2 * n)) / (1 + square / n)
        reach = LEVEL / (1 + square / n) * math.sqrt(max(0.0, value * (1 - value)) / n + square / (4 * n * n))
        return cls(value, max(0.0, min(value, middle - reach)), min(1.0, max(value, middle + reach)), n)


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear domain classifier on frozen features: logistic regression, fitted to one half of each domain.

    Attributes:
        weight: (d,), on standardised features.
        bias: the constant.
        mean, scale: (d,), of the standardisation.
        accuracy: on the held-out halves, the mean of both domains' shares classified rightly.
        held_out: places of the source and of the target images it has not seen.
    """

    weight: Tensor
    bias: float
    mean: Tensor
    scale: Tensor
    accuracy: float
    held_out: tuple[Tensor, Tensor]

    def score(self, features: Tensor) -> Tensor:
        """Log odds (n,) of the target domain, for features (n, d)."""
        return (features.double() - self.mean) / self.scale @ self.weight + self.bias

    def share_target(self, features: Tensor) -> Share:
        """The share of images (n, d) that it takes for the target domain."""
        return Share.of(float((self.score(features) > 0).sum()), len(features))


@dataclass(frozen=True)
class Separability:
    """How well fresh linear probes tell two domains apart on images they have not seen.

    Attributes:
        accuracy: balanced accuracy, mean over halvings: .5 where they cannot, 1 where they always can.
        deviation: sample standard deviation over the halvings (NaN for one): of the draw of halves, not of the images.
        values: of each halving.
        n: images of either domain.
        n_groups: identities that the halves were made of; images without one count as one each.
        penalty: of the squared weights.
    """

    accuracy: float
    deviation: float
    values: tuple[float, ...]
    n: tuple[int, int]
    n_groups: int
    penalty: float


def separability(
    a: Tensor,
    b: Tensor,
    groups_a: Sequence[str | None] | None = None,
    groups_b: Sequence[str | None] | None = None,
    *,
    halvings: int = 10,
    seed: int = 0,
    penalty: float = PENALTY,
) -> Separability:
    """Balanced accuracy of fresh linear probes: trained on one half of held-out images, tested on the other.

    The halves are of identities, so a sketch and the photo it was drawn after are in the same half, and a probe that
    knew identities would gain nothing by it. Standardisation and weights come from the training half alone. Give
    features as they are or centred by training images: centred by their own mean, the halves err in opposite ways.

    Args:
        a: (n, d), frozen features of images of domain A, such as the test photos.
        b: (m, d), likewise of domain B.
        groups_a: n identities; None for an image without one, or for all.
        groups_b: m of them.
        halvings: random halvings, each with a probe of its own.
        seed: of the halvings.
        penalty: as in `domain_probe`; the default is fixed so that figures can be compared.

    Raises:
        IsthmusError: fewer than 8 images of a domain, other widths, values that are not finite, identities that do not
            fit the features, or a domain that is one single identity.

    Example:
        >>> found = separability(torch.randn(100, 4), torch.randn(100, 4) + 5, halvings=3)
        >>> found.accuracy, found.deviation
        (1.0, 0.0)
    """
    if halvings < 1:
        raise IsthmusError(f"{halvings} halvings give no figure; ask for at least one.")
    _check(a, b, "domain A", "domain B")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise IsthmusError("The features hold NaN or an infinity: leave the images out that could not be read.")
    groups = _groups(groups_a, len(a), 0), _groups(groups_b, len(b), 1)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(halvings):
        seen = halve(*groups, generator)
        probe = fit_probe(a[seen[0]], b[seen[1]], penalty)
        values.append(_balanced(probe, a[~seen[0]], b[~seen[1]]))
    n_groups = len({*groups[0], *groups[1]})
    return Separability(*mean_std(values), tuple(values), (len(a), len(b)), n_groups, penalty)


def halve(
    a: Sequence[Hashable], b: Sequence[Hashable], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A random half of the groups: which images of either domain belong to it, bool (n,) and (m,).

    Groups in both domains, in A alone and in B alone are halved separately, so that no half lacks a domain.

    Raises:
        IsthmusError: a half would have no image of a domain.
    """
    mine, theirs = set(a), set(b)
    chosen: set[Hashable] = set()
    odd = 0
    for stratum in (mine & theirs, mine - theirs, theirs - mine):
        # In the order of appearance: that of a set of texts changes with the process.
        names = [name for name in dict.fromkeys([*a, *b]) if name in stratum]
        order = torch.randperm(len(names), generator=generator).tolist()
        # Odd numbers are rounded up and down by turns, so that two single groups come apart.
        odd += len(names) % 2
        chosen |= {names[i] for i in order[: (len(names) + odd % 2) // 2]}
    halves = [torch.tensor([name in chosen for name in part]) for part in (a, b)]
    for name, half in zip(("A", "B"), halves, strict=True):
        if bool(half.all()) or not bool(half.any()):
            raise IsthmusError(f"The images of domain {name} are of too few identities to be halved; give more.")
    return halves[0], halves[1]


def domain_probe(source: Tensor, target: Tensor, *, seed: int = 0, penalty: float = PENALTY) -> Probe:
    """Fit a domain classifier to one half of the real images of both domains; the other half tells how good it is.

    Logistic regression, both domains with equal weight in all:
    min over w, b of mean over domains of mean softplus(-y (w x + b)) + penalty / 2 |w|^2, x standardised.

    Args:
        source: (n, d), features of real source images.
        target: (m, d), of real target images.
        seed: of the halves.
        penalty: on the weights.

    Raises:
        IsthmusError: a domain has fewer than 8 images.

    Example:
        >>> probe = domain_probe(torch.randn(100, 4), torch.randn(100, 4) + 5)
        >>> probe.accuracy, probe.share_target(torch.randn(100, 4) + 5).value
        (1.0, 1.0)
    """
    _check(source, target, "source", "target")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(x), generator=generator) for x in (source, target)]
    seen = [x[order[: len(order) // 2]] for x, order in zip((source, target), orders, strict=True)]
    held = [order[len(order) // 2 :] for order in orders]
    probe = fit_probe(seen[0], seen[1], penalty)
    accuracy = _balanced(probe, source[held[0]], target[held[1]])
    return Probe(probe.weight, probe.bias, probe.mean, probe.scale, accuracy, (held[0], held[1]))


def fit_probe(source: Tensor, target: Tensor, penalty: float = PENALTY) -> Probe:
    """Fit the classifier of `domain_probe` to all of these features; `accuracy` is NaN, `held_out` empty."""
    both = torch.cat([source.double(), target.double()])
    mean, scale = both.mean(0), both.std(0).clamp_min(1e-6)
    inputs = (both - mean) / scale
    signs = torch.cat([-torch.ones(len(source)), torch.ones(len(target))]).double()
    shares = torch.cat([torch.full((len(part),), 0.5 / len(part), dtype=torch.float64) for part in (source, target)])
    weight = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=100, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        margin = signs * (inputs @ weight[:-1] + weight[-1])
        value = (shares * torch.nn.functional.softplus(-margin)).sum() + penalty / 2 * weight[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    found = weight.detach()
    return Probe(found[:-1], float(found[-1]), mean, scale, math.nan, (torch.empty(0).long(), torch.empty(0).long()))


def _balanced(probe: Probe, source: Tensor, target: Tensor) -> float:
    wrong, right = probe.share_target(source).value, probe.share_target(target).value
    return (1 - wrong + right) / 2


def _check(a: Tensor, b: Tensor, name_a: str, name_b: str) -> None:
    if min(len(a), len(b)) < FEWEST:
        raise IsthmusError(
            f"{len(a)} {name_a} and {len(b)} {name_b} images are too few for a domain classifier: it takes {FEWEST} of "
            "each."
        )
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise IsthmusError(f"Features {tuple(a.shape)} and {tuple(b.shape)} differ in width; take one model's.")


def _groups(names: Sequence[str | None] | None, n: int, domain: int) -> list[Hashable]:
    if names is not None and len(names) != n:
        raise IsthmusError(f"{n} features with {len(names)} identities do not fit together; give one of each an image.")
    return [(domain, i) if name is None else name for i, name in enumerate(names or [None] * n)]
