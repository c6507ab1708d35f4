"""What a benchmark runs on and with: splits, settings, and the configuration of each single run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from isthmus.benchmark.rows import Variant
from isthmus.config import RunConfig
from isthmus.config.ihda import IhdaConfig
from isthmus.data.loading import ImageSource
from isthmus.data.manifest import Manifest
from isthmus.data.paired import read_paired_data
from isthmus.data.transforms import Preprocessing
from isthmus.errors import IsthmusError
from isthmus.methods.base import Processes
from isthmus.methods.ihda_batches import SOURCE, TARGET, Batches

# What shapes step 2 alone: runs that differ in nothing else share their step 1.
STEP_2 = (
    "source_batch", "images_per_identity", "attribute_weight", "entropy_weight", "consistency_weight", "domain_weight",
    "source_identity_weight", "anchors", "triplet_from", "entropy", "consistency", "unit_domain", "reversal",
    "reversal_gamma", "reversal_steps",
)  # fmt: skip


@dataclass(frozen=True)
class Split:
    """One split: a table of pairs (train, test, perhaps val, both domains) and a table of the source.

    Attributes:
        name: for file names and the table.
        pairs, source: the tables.
        first: the pairs that step 1 is told of (it learns nothing from them); None: `pairs`. Give one for several sizes
            of a split, and they share their step 1.
    """

    name: str
    pairs: Path
    source: Path
    first: Path | None = None

    @cached_property
    def rows(self) -> Manifest:
        """The table of pairs."""
        return Manifest.load(self.pairs)

    @cached_property
    def source_rows(self) -> Manifest:
        """The table of the source."""
        return Manifest.load(self.source)


@dataclass(frozen=True)
class Budget:
    """Optimisation steps of both steps of IHDA on a split.

    Example:
        >>> Budget(20, 4, 10, 6).total
        140
    """

    source_epochs: int
    source_steps: int
    epochs: int
    steps: int

    @property
    def total(self) -> int:
        """What a baseline gets too."""
        return self.source_epochs * self.source_steps + self.epochs * self.steps

    def alone(self) -> tuple[int, int]:
        """Epochs and steps an epoch of a run of `total` steps in one stage, as many epochs as both stages have or near.

        Example:
            >>> Budget(20, 4, 10, 6).alone()
            (28, 5)
        """
        wanted = self.source_epochs + self.epochs
        fitting = [epochs for epochs in range(1, self.total + 1) if self.total % epochs == 0]
        epochs = min(fitting, key=lambda count: abs(math.log(count / wanted)))
        return epochs, self.total // epochs


@dataclass(frozen=True)
class Protocol:
    """Splits and common settings.

    Attributes:
        splits: at least one.
        query, gallery, source: the domains' names in the tables.
        preset: of the method ihda.
        settings: over the preset.
        harmful: attributes that only the row `harmful` learns.
    """

    splits: tuple[Split, ...]
    query: str
    gallery: str
    source: str
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    harmful: tuple[str, ...] = ()

    def check(self) -> None:
        """Read every table once, so that what is wrong with one is said before hours of training.

        Raises:
            IsthmusError: a table, a domain, a split or an attribute is not there, or as `read_paired_data` says.
        """
        for split in self.splits:
            for path, rows, names in (
                (split.pairs, split.rows, (self.query, self.gallery)),
                (split.source, split.source_rows, (self.source,)),
            ):
                for name in names:
                    if name not in rows.domains:
                        raise IsthmusError(
                            f"{path} has no images of '{name}' (it has: {', '.join(rows.domains)}); name its domains "
                            "with --query-domain-name, --gallery-domain-name and --source-domain-name."
                        )
            for name in (self.query, self.gallery):
                if not len(split.rows.select(domain=name, split="test")):
                    raise IsthmusError(f"{split.pairs} has no test images of '{name}'; write a split that has some.")
            known = {name for row in split.source_rows for name in row.attributes or ()}
            for name in self.harmful:
                if name not in known:
                    raise IsthmusError(
                        f"--harmful names '{name}', which {split.source} hasn't (it has: {', '.join(sorted(known))}); "
                        "correct the name."
                    )

    def base(self, split: Split, seed: int, *, harmful: bool = False) -> RunConfig:
        """The settings of IHDA itself, both steps in one run."""
        layer: dict[str, Any] = {
            "method": "ihda",
            "seed": seed,
            "data.query": {"name": self.query, "train": str(split.pairs)},
            "data.gallery": {"name": self.gallery, "train": str(split.pairs)},
            "data.source": {"name": self.source, "train": str(split.source)},
        }
        config = RunConfig.build(self.preset, layer, dict(self.settings))
        if config.method != "ihda" or config.ihda.stages != "both" or config.ihda.start is not None:
            raise IsthmusError("The benchmark sets method, ihda.stages and ihda.start itself; leave them out of --set.")
        changes: dict[str, Any] = {"ihda.attributes": self._attributes(config.ihda.attributes, harmful)}
        if config.train.select in ("auto", "last") and not sets(self.settings, "data.holdout"):
            changes["data.holdout"] = 0.0  # nothing is chosen by held-out pairs, so all of them can be learned from
        return RunConfig.build(self.preset, config.model_dump(), changes)

    def _attributes(self, named: list[str], harmful: bool) -> list[str]:
        positive = [name for name in named if not name.startswith("-")]
        if harmful:
            return named + [name for name in self.harmful if positive and name not in positive]
        if positive:
            return [name for name in named if name not in self.harmful]
        return named + [f"-{name}" for name in self.harmful]

    def budget(self, split: Split) -> Budget:
        """Steps that IHDA itself takes on a split; each row and baseline takes as many."""
        config = self.base(split, 0)
        data = read_paired_data(config.data, seed=0, attributes=config.ihda.attributes, unpaired=config.ihda.unpaired)
        half = (0.5, 0.5, 0.5)
        stages = [(SOURCE, config.ihda.source_epochs), (TARGET, config.train.epochs)]
        batches = Batches(config, data, ImageSource(Preprocessing((8, 8), (8, 8), half, half)), Processes(), stages)
        first = config.ihda.source_epochs
        return Budget(first, len(batches.epoch(0)), config.train.epochs, len(batches.epoch(first)))

    def step_1(self, split: Split, seed: int, variant: Variant) -> RunConfig:
        """Step 1 alone, with nothing but what step 1 looks at."""
        changes = {name: value for name, value in variant.settings.items() if name != "ihda.ablation"}
        base = self.base(split, seed, harmful=variant.harmful).model_dump()
        config = RunConfig.build(self.preset, base, changes)
        kept = {name: value for name, value in config.ihda if name not in STEP_2}
        ablation = [name for name in config.ihda.ablation if name == "source-rate"]
        config.ihda = IhdaConfig(**{**kept, "stages": "source", "ablation": ablation})
        config.train.select = "last"  # step 2 goes on from the last epoch, as it does within one run
        if split.first is not None:
            for domain in (config.data.query, config.data.gallery):
                assert domain is not None
                domain.train = str(split.first)
        return config

    def run(self, variant: Variant, split: Split, seed: int, budget: Budget, pairs: Path) -> RunConfig:
        """The configuration of a row; of one with `kind` both its step 2, for which `ihda.start` is still to be set."""
        changes: dict[str, Any] = dict(variant.settings)
        tables: dict[str, Any] = {
            "data.query": {"name": self.query, "train": str(pairs)},
            "data.gallery": {"name": self.gallery, "train": str(pairs)},
        }
        base = self.base(split, seed, harmful=variant.harmful).model_dump()
        if variant.kind == "frozen":
            for section in ("ihda", "loss", "cut"):
                base.pop(section)
            base["data"]["source"] = None
            return RunConfig.build("default", base, tables, {"method": "pretrained", "preset": "default"})
        if not variant.source:
            base["data"]["source"] = None
            changes["ihda.attributes"] = []
        if "ihda.ablation" in changes:
            changes["ihda.ablation"] = [*base["ihda"]["ablation"], *changes["ihda.ablation"]]
        if variant.kind == "both":
            changes |= {"ihda.stages": "target", "train.steps_per_epoch": budget.steps}
            return RunConfig.build(self.preset, base, tables, changes)
        epochs, steps = budget.alone()
        before = budget.steps if variant.kind == "target" else budget.source_steps
        warm = base["train"]["warmup_steps"] or round(base["train"]["warmup_epochs"] * before)
        from_ = "triplet_from" if variant.kind == "target" else "source_triplet_from"
        changes |= {
            "ihda.stages": variant.kind,
            "train.epochs" if variant.kind == "target" else "ihda.source_epochs": epochs,
            "train.steps_per_epoch": steps,
            "train.warmup_steps": warm,
            "train.warmup_epochs": 0.0,
            f"ihda.{from_}": round(base["ihda"][from_] * before / steps),
        }
        return RunConfig.build(self.preset, base, tables, changes)


def sets(settings: Mapping[str, Any], name: str) -> bool:
    head, _, tail = name.partition(".")
    return name in settings or (isinstance(settings.get(head), Mapping) and tail in settings[head])
