"""SynCDR and CDS: cross-domain retrieval from unpaired images (arXiv 2401.00420).

Two sets, A = [real S, syn(T->S)] and B = [real T, syn(S->T)], each with a memory bank of one slot an image:

    L = L_ID + L_CDM + 0.5 L_PPP(A) + 0.5 L_PPP(B)

CDS is the same without synthetic images and without L_PPP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.data.samplers import epoch_batches, local_part
from isthmus.data.training import TrainingData
from isthmus.errors import IsthmusError
from isthmus.losses import MemoryBank, cross_domain_matching, instance_discrimination, pseudo_positive_pairs
from isthmus.methods.base import Processes
from isthmus.methods.retrieval import RetrievalMethod
from isthmus.models.encoder import Model
from isthmus.models.modules import active_domain


@dataclass(frozen=True)
class Item:
    """An image of a set: its memory slot, and the images of the other domain that show the same."""

    row: Row
    slot: int
    counterparts: tuple[Row, ...] = ()


class Plan(NamedTuple):
    """One step: positions in A and in B, over all processes, and what the random draws depend on."""

    a: list[int]
    b: list[int]
    draw: tuple[int, ...]


class Batch(NamedTuple):
    """One process's share of a step: uint8 images (b, 3, h, w), slots (b,), counterparts (b, 3, h, w) or None."""

    images: tuple[Tensor, Tensor]
    slots: tuple[Tensor, Tensor]
    counterparts: tuple[Tensor | None, Tensor | None]


def build_sets(data: TrainingData, *, synthetic: bool, shared_slots: bool = False) -> tuple[list[Item], list[Item]]:
    """Sets A and B.

    Args:
        data: real rows and counterparts.
        synthetic: add counterparts to the sets (SynCDR); without, the sets are the real images (CDS).
        shared_slots: an ablation, the public code's collision: real and synthetic images of equal position in their
            lists share a slot, hence an instance label.
    """
    sets: list[list[Item]] = []
    for side in (0, 1):
        own, other = data.train[side], data.train[1 - side]
        if not synthetic:
            sets.append([Item(row, slot) for slot, row in enumerate(own)])
            continue
        one_way = not any(data.counterparts.get(row.id) for row in own)
        items: list[Item] = []
        for row in own:
            counterparts = tuple(data.counterparts.get(row.id, ()))
            if counterparts or one_way:
                items.append(Item(row, len(items), counterparts))
        made = [(part, row) for row in other for part in data.counterparts.get(row.id, ())]
        first = 0 if shared_slots else len(items)
        items += [Item(part, first + number, (row,)) for number, (part, row) in enumerate(made)]
        sets.append(items)
    return sets[0], sets[1]


class SynCDR(RetrievalMethod):
    """L_ID, L_CDM and L_PPP over two sets with a memory bank each."""

    name = "syncdr"
    uses_synthetic = True

    def __init__(
        self, config: RunConfig, model: Model, data: TrainingData, source: ImageSource, processes: Processes
    ) -> None:
        super().__init__(config, model, data, source, processes)
        loss = config.loss
        shared = loss.ablation == "shared-slots"
        self.sets = build_sets(data, synthetic=self.uses_synthetic, shared_slots=shared)
        for items, name in zip(self.sets, data.names, strict=True):
            if len(items) < 2 * processes.world:
                raise IsthmusError(f"Too few images to train on in '{name}': {len(items)}; add images.")
        # Each set's pairs take part only where it has counterparts, and only if the term is on.
        self.paired = tuple(bool(loss.pair_weight) and all(item.counterparts for item in items) for items in self.sets)
        self.banks = [
            MemoryBank(1 + max(item.slot for item in items), model.dim, loss.momentum).to(model.device)
            for items in self.sets
        ]
        self._latest: list[tuple[Tensor, Tensor]] = []

    def start(self) -> None:
        """Fill both banks from the initial encoder."""
        if not (self.config.loss.instance_weight or self.config.loss.matching_weight):
            return
        for side, items in enumerate(self.sets):
            for begin in range(0, len(items), 128):
                part = items[begin : begin + 128]
                views = torch.stack([self.source.test_view(item.row) for item in part])
                slots = torch.tensor([item.slot for item in part], device=self.device)
                self.banks[side].fill(slots, self.model.embed(views, side))

    def batch_sizes(self) -> tuple[int, int]:
        """Images of A and of B a step."""
        size, (a, b) = self.config.train.batch_size, (len(self.sets[0]), len(self.sets[1]))
        if not self.config.train.balance or self.uses_synthetic:
            return size, size
        # The recipe of CDS: half batches, as many as the larger domain has for one full batch of the smaller.
        large = size // 2 * max(2, 2 * max(a, b) // min(a, b))
        return (size, large) if b > a else (large, size)

    def epoch(self, number: int) -> Sequence[Plan]:
        """One pass over A, or `train.steps_per_epoch` steps; B is shuffled anew whenever it is through."""
        sizes, seed = self.batch_sizes(), self.config.seed
        steps = self.config.train.steps_per_epoch or max(1, len(self.sets[0]) // sizes[0])
        a, b = (
            epoch_batches(len(self.sets[side]), sizes[side], steps, seed=seed, epoch=number, name="AB"[side])
            for side in (0, 1)
        )
        return [Plan(x, y, (seed, number, step)) for step, (x, y) in enumerate(zip(a, b, strict=True))]

    def load(self, plan: Plan) -> Batch:
        """This process's share of the step; an image and its counterpart are augmented independently."""
        images: list[Tensor] = []
        slots: list[Tensor] = []
        counterparts: list[Tensor | None] = []
        for side, positions in enumerate((plan.a, plan.b)):
            items = [self.sets[side][i] for i in local_part(positions, self.processes.rank, self.processes.world)]
            images.append(self._views([item.row for item in items], "image", *plan.draw))
            slots.append(torch.tensor([item.slot for item in items]))
            if self.paired[side]:
                # One of several counterparts, a different one each epoch.
                rows = [item.counterparts[plan.draw[1] % len(item.counterparts)] for item in items]
                counterparts.append(self._views(rows, "counterpart", *plan.draw))
            else:
                counterparts.append(None)
        return Batch((images[0], images[1]), (slots[0], slots[1]), (counterparts[0], counterparts[1]))

    def _views(self, rows: list[Row], *draw: str | int) -> Tensor:
        return torch.stack([self.source.train_view(row, self.config.augment, *draw) for row in rows])

    def _forward(self, views: Tensor, domain: int) -> Tensor:
        # Batches stay apart, one pass each: joining them would mix the domains' batch statistics.
        images = self.model.preprocessing.normalise(views.to(self.device))
        if self.config.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with active_domain(self.model.encoder, domain):
            return self.network(images)  # type: ignore[no-any-return]

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted `instance`, `matching` and `pairs`; terms of weight 0 are not computed."""
        loss, rank = self.config.loss, self.processes.rank
        features = [self._forward(batch.images[side], side) for side in (0, 1)]
        slots = [batch.slots[side].to(self.device) for side in (0, 1)]
        banks = [bank.memory for bank in self.banks]
        terms: dict[str, Tensor] = {}
        if loss.instance_weight:
            each = [
                instance_discrimination(features[side], banks[side], slots[side], loss.instance_temperature)
                for side in (0, 1)
            ]
            terms["instance"] = loss.instance_weight * (each[0] + each[1]) / 2
        if loss.matching_weight:
            each = [
                cross_domain_matching(features[side], banks[1 - side], loss.matching_temperature, loss.matching_top)
                for side in (0, 1)
            ]
            terms["matching"] = loss.matching_weight * (each[0] + each[1])
        pairs: list[Tensor] = []
        for side in (0, 1):
            views = batch.counterparts[side]
            if views is not None:
                counterparts = self._forward(views, 1 - side)
                keys = self.processes.gather(features[side])
                targets = torch.arange(len(views), device=self.device) + rank * len(views)
                pairs.append(pseudo_positive_pairs(counterparts, keys, loss.pair_temperature, targets))
        if pairs:
            terms["pairs"] = loss.pair_weight * torch.stack(pairs).sum()
        if not terms:
            raise IsthmusError("All losses are switched off; set one of loss.*_weight above 0.")
        self._latest = [(slots[side], features[side].detach()) for side in (0, 1)]
        return terms

    def after_step(self) -> None:
        """Mix the step's features, of all processes, into their slots."""
        for bank, (slots, features) in zip(self.banks, self._latest, strict=True):
            bank.update(self.processes.gather_constant(slots), self.processes.gather_constant(features))

    def images_per_step(self) -> int:
        """Real and synthetic images, and counterparts where pairs take part."""
        sizes = (min(size, len(items)) for size, items in zip(self.batch_sizes(), self.sets, strict=True))
        return sum(size * (2 if paired else 1) for size, paired in zip(sizes, self.paired, strict=True))

    def state(self) -> dict[str, Any]:
        """The banks."""
        return {"banks": [bank.memory.cpu() for bank in self.banks]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the banks back."""
        for bank, memory in zip(self.banks, state["banks"], strict=True):
            bank.memory.copy_(memory)


class CDS(SynCDR):
    """SynCDR's base without synthetic images and without L_PPP (Kim et al., CDS, ICCV 2021)."""

    name = "cds"
    uses_synthetic = False
