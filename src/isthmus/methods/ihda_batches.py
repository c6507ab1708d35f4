"""The batches of IHDA: P identities with K images a domain, and source images beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from isthmus.config import RunConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Row
from isthmus.data.paired import PairedData, identity_of
from isthmus.data.samplers import epoch_batches, local_part, pick
from isthmus.errors import IsthmusError
from isthmus.methods.base import Processes, place_of

SOURCE, TARGET = "source", "target"


class Plan(NamedTuple):
    """One step, over all processes.

    Attributes:
        stage: `SOURCE` (step 1) or `TARGET` (step 2).
        identities: positions in the target's identities; empty in step 1.
        source: positions in the source's groups, in step 1, or rows, in step 2.
        draw: what the random draws depend on.
        step: from 0 on, in its stage.
        steps: of the stage.
    """

    stage: str
    identities: list[int]
    source: list[int]
    draw: tuple[int, ...]
    step: int
    steps: int


class Labelled(NamedTuple):
    """uint8 images (n, 3, h, w), identities (n,) with -1 where unknown, attributes (n, a) with NaN where unknown."""

    views: Tensor
    identities: Tensor
    attributes: Tensor


class Batch(NamedTuple):
    """One process's share of a step; in step 2 `query[i]` and `gallery[i]` show the same identity."""

    plan: Plan
    query: Labelled | None
    gallery: Labelled | None
    source: Labelled | None


class Batches:
    """Draws and reads the steps' images.

    Args:
        config: the run's settings.
        data: pairs and source.
        source: reads and augments.
        processes: this process among all.
        stages: name and epochs of each stage.
    """

    def __init__(
        self,
        config: RunConfig,
        data: PairedData,
        source: ImageSource,
        processes: Processes,
        stages: Sequence[tuple[str, int]],
    ) -> None:
        self.config, self.data, self.source, self.processes = config, data, source, processes
        self.stages = stages
        # Images that could not be read may have left an identity in one domain only.
        self.identities = sorted(set.intersection(*({str(identity_of(row)) for row in rows} for rows in data.train)))
        self.images = [_by_identity(rows, self.identities) for rows in data.train]
        named = [identity_of(row) for row in data.source]
        self.source_identities = sorted({name for name in named if name is not None})
        code = {name: n for n, name in enumerate(self.source_identities)}
        self.source_codes = [-1 if name is None else code[name] for name in named]
        groups: dict[str, list[int]] = {}
        for position, name in enumerate(named):
            groups.setdefault(f"identity {name}" if name is not None else f"image {position}", []).append(position)
        #: source rows by identity; a row without one is a group of its own
        self.groups = list(groups.values())
        settings, world = config.ihda, processes.world
        self.per_group = settings.source_images if self.source_identities else 1
        for name, value, by in (
            ("train.batch_size", config.train.batch_size, settings.images_per_identity),
            ("ihda.source_step_batch", settings.source_step_batch, self.per_group),
            ("ihda.source_batch", settings.source_batch, 1),
        ):
            if value < 2 * by * world:
                raise IsthmusError(
                    f"{name} = {value} holds fewer than two identities of {by} images each for each of {world} "
                    f"processes, so a batch has no negatives; make it {2 * by * world} at least."
                )
        self.pairs_a_step = min(config.train.batch_size // settings.images_per_identity, len(self.identities))
        if self.pairs_a_step < 2 * world:
            raise IsthmusError(
                f"{len(self.identities)} identities are too few for {world} processes: a batch has no negatives; add "
                "pairs, or train with fewer processes."
            )
        if config.data.source is not None and len(self.groups) < 2 * world:
            raise IsthmusError(
                f"The source '{config.data.source.name}' has readable images of {len(self.groups)} identities, too few "
                f"for {world} processes: a batch has no negatives; add images to it."
            )

    def epoch(self, number: int) -> list[Plan]:
        """The steps of an epoch; the longer of both loaders sets their number, the shorter is shuffled anew."""
        at, first = place_of(number, [epochs for _, epochs in self.stages])
        stage, epochs = self.stages[at]
        seed, fixed = self.config.seed, self.config.train.steps_per_epoch
        if stage == SOURCE:
            size = self.config.ihda.source_step_batch // self.per_group
            steps = fixed or max(1, len(self.groups) // size)
            source = epoch_batches(len(self.groups), size, steps, seed=seed, epoch=number, name="source groups")
            target: list[list[int]] = [[] for _ in range(steps)]
        else:
            size, beside = self.pairs_a_step, self.config.ihda.source_batch
            lengths = [len(self.identities) // size]
            if self.data.source:
                lengths.append(len(self.data.source) // beside)
            longest = min if "short-epoch" in self.config.ihda.ablation else max
            steps = fixed or max(1, longest(lengths))
            target = epoch_batches(len(self.identities), size, steps, seed=seed, epoch=number, name="pairs")
            source = [[] for _ in range(steps)]
            if self.data.source:
                source = epoch_batches(len(self.data.source), beside, steps, seed=seed, epoch=number, name="source")
        done = (number - first) * steps
        return [Plan(stage, target[n], source[n], (seed, number, n), done + n, epochs * steps) for n in range(steps)]

    def load(self, plan: Plan) -> Batch:
        """This process's share; every view is augmented by itself."""
        rank, world = self.processes.rank, self.processes.world
        mine = local_part(plan.source, rank, world)
        if plan.stage == SOURCE:
            views = [
                (self.groups[group][at], n)
                for group in mine
                for n, at in enumerate(pick(len(self.groups[group]), self.per_group, group, *plan.draw))
            ]
        else:
            views = [(row, 0) for row in mine]
        source = self._source(views, plan.draw) if views else None
        if plan.stage == SOURCE:
            return Batch(plan, None, None, source)
        wanted = local_part(plan.identities, rank, world)
        query, gallery = (self._target(side, wanted, plan.draw) for side in (0, 1))
        return Batch(plan, query, gallery, source)

    def _target(self, side: int, identities: list[int], draw: tuple[int, ...]) -> Labelled:
        views, codes = [], []
        for identity in identities:
            rows = self.images[side][identity]
            each = self.config.ihda.images_per_identity
            for n, at in enumerate(pick(len(rows), each, side, identity, *draw)):
                share = self.config.ihda.drawn if side else 0.0
                views.append(self.source.train_view(rows[at], self.config.augment, "target", n, *draw, drawn=share))
                codes.append(identity)
        nothing = torch.full((len(codes), len(self.data.attributes)), float("nan"))
        return Labelled(torch.stack(views), torch.tensor(codes), nothing)

    def _source(self, positions: list[tuple[int, int]], draw: tuple[int, ...]) -> Labelled:
        rows = [self.data.source[at] for at, _ in positions]
        views = [
            self.source.train_view(row, self.config.augment, "source", n, *draw, drawn=self.config.ihda.drawn)
            for row, (_, n) in zip(rows, positions, strict=True)
        ]
        values = [[(row.attributes or {}).get(name, float("nan")) for name in self.data.attributes] for row in rows]
        codes = torch.tensor([self.source_codes[at] for at, _ in positions])
        return Labelled(torch.stack(views), codes, torch.tensor(values).reshape(len(rows), -1))


def _by_identity(rows: list[Row], identities: list[str]) -> list[list[Row]]:
    images: dict[str, list[Row]] = {name: [] for name in identities}
    for row in rows:
        if (name := str(identity_of(row))) in images:
            images[name].append(row)
    return list(images.values())
