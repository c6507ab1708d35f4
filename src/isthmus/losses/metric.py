"""Metric losses of data-free students: proxies that stand for classes, and pairs among queues of past vectors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.errors import IsthmusError

NO_CODE = -1


def proxy_anchor(
    embeddings: Tensor,
    codes: Tensor,
    proxies: Tensor,
    *,
    margin: float = 0.1,
    scale: float = 32.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Proxy Anchor: each class's proxy draws its images and pushes the others away, the hardest most.

    `1/|P+| sum_{p in P+} log(1 + sum_{x of p} exp(-a (s(x, p) - d))) + 1/|P| sum_{p in P} log(1 + sum_{x not of p}
    exp(a (s(x, p) + d)))` with cosines s, scale a and margin d (Kim et al., arXiv 2003.13911, eq. 4); P+ are the
    proxies with an image in the batch.

    Args:
        embeddings: (n, d), of any length.
        codes: (n,) int64 in [0, c), or -1 where the class is unknown: such an image is left out.
        proxies: (c, d), of any length; a teacher's class weights (a constant) or parameters.
        margin: d >= 0.
        scale: a > 0.
        valid: (c,) or (n, c) bool, the proxies that take part, or those that an image is compared with: where
            photos and sketches have classes of their own, an image says nothing about a class of the other side.

    Returns:
        A scalar >= 0; 0 where no image is left.

    Example:
        >>> eye = torch.eye(2)
        >>> round(float(proxy_anchor(eye, torch.tensor([0, 1]), eye, scale=1.0)), 4)
        1.0856
    """
    # Half-precision cosines, times 32 and then in an exponent, would be off by a tenth.
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = F.normalize(embeddings.float(), dim=1) @ F.normalize(proxies.float(), dim=1).T
    own = codes[:, None] == torch.arange(len(proxies), device=codes.device)[None]
    meets = (codes >= 0)[:, None].expand_as(own)
    if valid is not None:
        meets = meets & valid
    draws = _log_one_plus(-scale * (cosines - margin), own & meets)
    pushes = _log_one_plus(scale * (cosines + margin), ~own & meets)
    with_images, taking_part = (own & meets).any(0).sum(), meets.any(0).sum()
    return draws.sum() / with_images.clamp(min=1) + pushes.sum() / taking_part.clamp(min=1)


def _log_one_plus(exponents: Tensor, kept: Tensor) -> Tensor:
    """log(1 + sum over kept rows of exp), for each column."""
    one = exponents.new_zeros(1, exponents.shape[1])
    return torch.cat([one, exponents.masked_fill(~kept, -torch.inf)]).logsumexp(dim=0)


class SymmetricQueue:
    """Contrastive loss of photo-sketch pairs against the batch and the latest vectors of earlier steps.

    With k = [those of the batch, those of the queue] of the other modality,
    `(mean_i CE(p_i k_s / T, i) + mean_i CE(s_i k_p / T, i)) / 2`: a photo must find the sketch of its own z, and the
    sketch the photo. With class codes, others of the same class are no negatives. The batch's vectors get gradients
    on both sides, the queue's are constants. Each process has a queue of its own, of its own batches.

    Args:
        dim: width of a vector.
        length: how many pairs are remembered, >= 0; a batch larger than that leaves its last ones.
        temperature: T > 0.

    Example:
        >>> queue = SymmetricQueue(dim=2, length=4)
        >>> photos = sketches = torch.eye(2)
        >>> loss = queue.loss(photos, sketches)
        >>> queue.push(photos, sketches)
        >>> len(queue)
        2
    """

    def __init__(self, dim: int, length: int, temperature: float = 0.07) -> None:
        if dim < 1 or length < 0 or temperature <= 0:
            raise ValueError(f"no queue of width {dim}, length {length} and temperature {temperature}")
        self.dim, self.length, self.temperature = dim, length, temperature
        self.photos, self.sketches = torch.zeros(0, dim), torch.zeros(0, dim)
        #: (k, 2) int64: photo, sketch; -1 without
        self.codes = torch.zeros(0, 2, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.photos)

    def loss(
        self, photos: Tensor, sketches: Tensor, codes: Tensor | None = None, sketch_codes: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch; it doesn't enter the queue.

        Args:
            photos: (n, dim), unit length.
            sketches: (n, dim), unit length, of the same z row by row.
            codes: (n,) int64 class codes, -1 where unknown; None: every other vector is a negative.
            sketch_codes: (n,) those of the sketches, where they differ from the photos'.

        Returns:
            A scalar >= 0.
        """
        self._check(photos, sketches)
        pair_codes = _pair_codes(len(photos), photos.device, codes, sketch_codes)
        remembered = self.codes.to(photos.device)
        directions = (
            (photos, pair_codes[:, 0], sketches, self.sketches, pair_codes[:, 1], remembered[:, 1]),
            (sketches, pair_codes[:, 1], photos, self.photos, pair_codes[:, 0], remembered[:, 0]),
        )
        return 0.5 * sum(
            (
                self._direction(queries, own, torch.cat([keys.float(), past.to(keys.device)]), torch.cat([new, old]))
                for queries, own, keys, past, new, old in directions
            ),
            photos.new_zeros(()).float(),
        )

    def _direction(self, queries: Tensor, own: Tensor, keys: Tensor, theirs: Tensor) -> Tensor:
        with torch.autocast(queries.device.type, enabled=False):
            scores = queries.float() @ keys.T / self.temperature
        targets = torch.arange(len(queries), device=queries.device)
        alike = (own[:, None] == theirs[None]) & (own >= 0)[:, None]
        alike[targets, targets] = False
        return F.cross_entropy(scores.masked_fill(alike, -torch.inf), targets)

    @torch.no_grad()
    def push(
        self, photos: Tensor, sketches: Tensor, codes: Tensor | None = None, sketch_codes: Tensor | None = None
    ) -> None:
        """Remember a batch, and of all the latest `length` pairs; call it after the step's update."""
        self._check(photos, sketches)
        pair_codes = _pair_codes(len(photos), photos.device, codes, sketch_codes)
        self.photos = self._latest(self.photos, photos.detach().float())
        self.sketches = self._latest(self.sketches, sketches.detach().float())
        self.codes = self._latest(self.codes, pair_codes)

    def _latest(self, old: Tensor, new: Tensor) -> Tensor:
        joined = torch.cat([old.to(new.device), new])
        return joined[max(0, len(joined) - self.length) :].clone()

    def _check(self, photos: Tensor, sketches: Tensor) -> None:
        if photos.shape != sketches.shape or photos.ndim != 2 or photos.shape[1] != self.dim:
            raise ValueError(f"photos {tuple(photos.shape)}, sketches {tuple(sketches.shape)}, width {self.dim}")

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"photos": self.photos.clone(), "sketches": self.sketches.clone(), "codes": self.codes.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave; a shorter queue keeps the latest.

        Raises:
            IsthmusError: its vectors have another width.
        """
        parts: dict[str, Tensor] = {name: state[name] for name in ("photos", "sketches", "codes")}
        if parts["photos"].shape[1] != self.dim:
            raise IsthmusError(
                f"The checkpoint's queue holds vectors of width {parts['photos'].shape[1]}, the model makes "
                f"{self.dim}; resume with the settings that the run began with."
            )
        self.photos, self.sketches, self.codes = (
            part[max(0, len(part) - self.length) :].clone() for part in parts.values()
        )


def _pair_codes(n: int, device: torch.device, codes: Tensor | None, sketch_codes: Tensor | None) -> Tensor:
    """(n, 2) int64: photo, sketch."""
    if codes is None:
        if sketch_codes is not None:
            raise ValueError("sketch codes without photo codes")
        return torch.full((n, 2), NO_CODE, dtype=torch.int64, device=device)
    both = torch.stack([codes, codes if sketch_codes is None else sketch_codes], dim=1)
    if both.shape != (n, 2):
        raise ValueError(f"codes {tuple(both.shape)} for {n} pairs")
    return both.to(device=device, dtype=torch.int64)
