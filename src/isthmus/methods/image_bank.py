"""The bank of generated images: pairs of a photo and a sketch of one z, kept within a memory limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from isthmus.errors import IsthmusError
from isthmus.methods.jitter import Jitter, jittered

SIDES = ("photo", "sketch")
OTHER_BYTES = 2 * 8 + 2 * 4 + 8  # codes, confidence and age of a pair
GAP = 2  # pixels between the pictures of a grid
PAPER, ABSENT = 255, 224


class Pairs(NamedTuple):
    """A batch of the bank.

    Attributes:
        photos: float32 (n, 3, size, size) in [0, 1].
        sketches: float32 (n, 3, size, size) in [0, 1], row by row of the same z.
        photo_codes: (n,) int64, -1 where unknown.
        sketch_codes: (n,) int64, -1 where unknown.
        confidence: (n, 2) float32, the photo's and the sketch's teacher's, NaN where unknown.
    """

    photos: Tensor
    sketches: Tensor
    photo_codes: Tensor
    sketch_codes: Tensor
    confidence: Tensor


class Coverage(NamedTuple):
    """What the bank holds of each class.

    Attributes:
        counts: (2, classes) int64, photos and sketches.
        confidence: (2, classes) float32, the teachers' mean confidence in them; NaN where none is known.
    """

    counts: Tensor
    confidence: Tensor


class ImageBank:
    """Generated pairs as bytes within a memory limit, for the encoders to train on.

    A full bank replaces its oldest pairs (`replace="oldest"`, the default): generators begin with noise and then
    follow the students, so that what they made long ago is what nobody needs any more, and a bank that is a window
    on the last steps forgets it by itself. `"reservoir"` keeps an even sample of all that was ever made (Vitter's
    algorithm R), which outlives a collapse of the generators, and keeps their first noise too.

    Args:
        limit_mb: memory for everything, in units of 2^20 bytes.
        size: side of the images.
        batch: pairs that must fit at least.
        replace: what a full bank gives up.
        seed: of the reservoir's draws.
        device: where the images are kept.

    Attributes:
        capacity: pairs that fit.
        seen: pairs that were ever added.

    Raises:
        IsthmusError: the limit is too small for a batch.

    Example:
        >>> bank = ImageBank(limit_mb=1, size=32)
        >>> bank.add(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 2]))
        >>> len(bank), bank.coverage(3).counts.tolist()
        (4, [[1, 2, 1], [1, 2, 1]])
    """

    def __init__(
        self,
        limit_mb: float,
        size: int,
        *,
        batch: int = 1,
        replace: Literal["oldest", "reservoir"] = "oldest",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.limit_mb, self.size, self.replace = limit_mb, size, replace
        self.pair_bytes = 2 * 3 * size * size + OTHER_BYTES
        self.capacity = int(limit_mb * 2**20 / self.pair_bytes)
        self._must_hold(max(1, batch))
        self.seen = 0
        self.device = torch.device(device)
        # Height, width and colours: a shifted view then copies whole pixels. Untouched pages cost no memory.
        self._images = torch.empty(2, self.capacity, size, size, 3, dtype=torch.uint8, device=device)
        self._codes = torch.empty(self.capacity, 2, dtype=torch.int64)
        self._confidence = torch.empty(self.capacity, 2)
        self._born = torch.empty(self.capacity, dtype=torch.int64)
        self._dice = torch.Generator().manual_seed(seed)

    @classmethod
    def of(cls, images: Tensor, codes: Tensor) -> ImageBank:
        """A full bank of images (2, n, size, size, 3) uint8, photos first, and their codes (n, 2)."""
        pairs, size = int(images.shape[1]), int(images.shape[2])
        # Half a byte more, so that rounding takes no pair away.
        made = cls((pairs * (2 * 3 * size * size + OTHER_BYTES) + 0.5) / 2**20, size)
        made._images.copy_(images)
        made._codes.copy_(codes)
        made._confidence.fill_(torch.nan)
        made._born.copy_(torch.arange(pairs))
        made.seen = pairs
        return made

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def _must_hold(self, pairs: int) -> None:
        if self.capacity < pairs:
            raise IsthmusError(
                f"data_free.bank_mb = {self.limit_mb:g} has room for {self.capacity} pairs of {self.size} px images, "
                f"a batch has {pairs}; set it to {math.ceil(pairs * self.pair_bytes / 2**20)} or more, or lower "
                "train.batch_size."
            )

    @torch.no_grad()
    def add(
        self,
        photos: Tensor,
        sketches: Tensor,
        codes: Tensor | None = None,
        *,
        sketch_codes: Tensor | None = None,
        confidence: Tensor | None = None,
    ) -> None:
        """Keep a batch, in place of others where the bank is full.

        Args:
            photos: (n, 3, size, size) float in [0, 1].
            sketches: (n, 3, size, size), row by row of the same z.
            codes: (n,) int64, the class code of both, or of the photos.
            sketch_codes: (n,) int64, where the sketches' differ.
            confidence: (n, 2), what the photo's and the sketch's teacher give the class, in [0, 1].

        Raises:
            IsthmusError: an image holds NaN or an infinity, or the batch is larger than the bank.
        """
        n, shape = len(photos), (len(photos), 3, self.size, self.size)
        if photos.shape != shape or sketches.shape != shape:
            raise ValueError(f"photos {tuple(photos.shape)}, sketches {tuple(sketches.shape)}, a bank of {self.size}")
        self._must_hold(n)
        if not bool((photos.float().sum() + sketches.float().sum()).isfinite()):
            raise IsthmusError("A generated image holds NaN or an infinity; lower the generators' learning rate.")
        slots, rows = self._places(n)
        for side, images in enumerate((photos, sketches)):
            pixels = images.permute(0, 2, 3, 1).to(self.device)[rows.to(self.device)]
            self._images[side, slots.to(self.device)] = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
        both = [codes, codes if sketch_codes is None else sketch_codes]
        parts = [torch.full((n,), -1) if part is None else part.cpu() for part in both]
        self._codes[slots] = torch.stack(parts, dim=1)[rows]
        known = torch.full((n, 2), torch.nan) if confidence is None else confidence.float().cpu()
        self._confidence[slots] = known[rows]
        self._born[slots] = self.seen + rows
        self.seen += n

    def _places(self, n: int) -> tuple[Tensor, Tensor]:
        """Slots, each once, and the row of the batch that goes into each."""
        numbers = torch.arange(self.seen, self.seen + n)
        if self.replace == "oldest":
            return numbers % self.capacity, torch.arange(n)
        # Also while the bank fills, so that the draws don't depend on how the pairs came in batches.
        drawn = (torch.rand(n, generator=self._dice, dtype=torch.float64) * (numbers + 1)).long()
        wanted = torch.where(numbers < self.capacity, numbers, drawn).tolist()
        last = {slot: row for row, slot in enumerate(wanted) if slot < self.capacity}
        return torch.tensor(list(last), dtype=torch.int64), torch.tensor(list(last.values()), dtype=torch.int64)

    def draw(self, n: int, dice: torch.Generator, jitter: Jitter | None = None) -> Pairs:
        """Random pairs, none twice before all have come; random changes of each image where asked.

        Args:
            n: how many.
            dice: a generator of the CPU; it alone decides.
            jitter: the changes.

        Returns:
            A batch, its images on the bank's device.
        """
        if not len(self):
            raise ValueError("nothing has been added to the bank")
        rounds = [torch.randperm(len(self), generator=dice) for _ in range(math.ceil(n / len(self)))]
        slots = torch.cat(rounds)[:n] if rounds else torch.empty(0, dtype=torch.int64)
        chosen = (self._images[side, slots.to(self.device)].permute(0, 3, 1, 2) for side in range(2))
        photos, sketches = (jittered(x, jitter, dice) if jitter else x.float() / 255 for x in chosen)
        codes = self._codes[slots].to(self.device)
        return Pairs(photos, sketches, codes[:, 0], codes[:, 1], self._confidence[slots].to(self.device))

    def coverage(self, classes: int) -> Coverage:
        """How many photos and sketches of each of `classes` codes the bank holds, and how sure the teachers are."""
        counts, means = torch.zeros(2, classes, dtype=torch.int64), torch.full((2, classes), torch.nan)
        for side in range(2):
            codes, sure = self._codes[: len(self), side], self._confidence[: len(self), side]
            known = (codes >= 0) & (codes < classes)
            counts[side] = torch.bincount(codes[known], minlength=classes)
            for code in set(codes[known].tolist()):
                means[side, code] = sure[codes == code].nanmean()
        return Coverage(counts, means)

    def grid(self, classes: Sequence[int], per_class: int, side: Literal["photo", "sketch"]) -> Tensor:
        """A picture of the newest images of each class, a row each.

        Args:
            classes: codes, from the top row on.
            per_class: images in a row; grey where there are fewer.
            side: of the pairs.

        Returns:
            uint8 (height, width, 3).
        """
        number, step = SIDES.index(side), self.size + GAP
        picture = torch.full((len(classes) * step - GAP, per_class * step - GAP, 3), PAPER, dtype=torch.uint8)
        newest = self._born[: len(self)].argsort(descending=True)
        for row, code in enumerate(classes):
            slots = newest[self._codes[newest, number] == code][:per_class].tolist()
            for column in range(per_class):
                cell = picture[row * step :, column * step :][: self.size, : self.size]
                cell.copy_(self._images[number, slots[column]]) if column < len(slots) else cell.fill_(ABSENT)
        return picture

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: as much as the bank's images."""
        held = slice(len(self))
        return {
            "seen": self.seen,
            "images": self._images[:, held].cpu().clone(),
            "codes": self._codes[held].clone(),
            "confidence": self._confidence[held].clone(),
            "born": self._born[held].clone(),
            "dice": self._dice.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave; from there on all goes as if there had been no stop.

        Raises:
            IsthmusError: it is that of a bank of another size.
        """
        images, seen = state["images"], int(state["seen"])
        if images.shape[2] != self.size or images.shape[1] != min(seen, self.capacity):
            raise IsthmusError(
                f"The checkpoint's bank holds {images.shape[1]} pairs of {images.shape[2]} px, this one has room for "
                f"{self.capacity} of {self.size} px; resume with the settings that the run began with."
            )
        self.seen = seen
        held = slice(len(self))
        self._images[:, held] = images.to(self.device)
        self._codes[held], self._confidence[held] = state["codes"], state["confidence"]
        self._born[held] = state["born"]
        self._dice.set_state(state["dice"])
