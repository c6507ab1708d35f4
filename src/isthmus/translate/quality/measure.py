"""The quality gate: is a translation fit to train on? Three figures, each with a verdict and its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from isthmus.data.manifest import Manifest, Row
from isthmus.errors import IsthmusError
from isthmus.evaluate.probe import Share, domain_probe
from isthmus.io import stable_hash
from isthmus.translate.quality.content import Content, content_kept
from isthmus.translate.quality.faults import MOST, Faults, find_faults
from isthmus.translate.quality.features import Features
from isthmus.translate.quality.shift import Frechet, frechet_figure
from isthmus.translate.quality.verdicts import Verdict, judge_content, judge_faults, judge_shift

BACKBONE, IMAGE_SIZE = "mobilenetv2_100", 128
LIMIT = 2000  # images a domain whose features are taken


@dataclass(frozen=True)
class Shift:
    """How near counterparts are to the target domain.

    Attributes:
        frechet: distances before and after.
        accuracy: of a domain classifier on held-out real images, the mean over both domains.
        source_taken: share of held-out source images that it takes for the target: before.
        made_taken: share of their counterparts: after.
    """

    frechet: Frechet
    accuracy: float
    source_taken: Share
    made_taken: Share


@dataclass(frozen=True)
class Quality:
    """What was found out about a set of counterparts.

    Attributes:
        images: counterparts there are.
        sampled: pairs whose features were taken.
        targets: target images whose features were taken.
        backbone, weights, image_size: the network that looked.
        shift, content: figures 1 and 2; None where they could not be measured.
        faults: figure 3.
        missing: figure -> why it could not be measured, a sentence that says what to give.
    """

    images: int
    sampled: int
    targets: int
    backbone: str
    weights: str
    image_size: int
    shift: Shift | None
    content: Content | None
    faults: Faults
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdicts(self) -> tuple[Verdict, Verdict, Verdict]:
        """The three figures, judged: shift, content, faults."""
        return (
            judge_shift(self.shift, self.missing.get("shift", "")),
            judge_content(self.content, self.missing.get("content", "")),
            judge_faults(self.faults),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it, verdicts included; what is not a number is None."""
        names = ("shift", "content", "faults")
        verdicts = {name: asdict(verdict) for name, verdict in zip(names, self.verdicts, strict=True)}
        return dict(_plain({**asdict(self), "verdicts": verdicts}))


def measure_quality(
    source: Manifest,
    made: Manifest,
    target: Manifest | None = None,
    *,
    weights: str = "pretrained",
    backbone: str = BACKBONE,
    image_size: int = IMAGE_SIZE,
    limit: int = LIMIT,
    seed: int = 0,
    progress: bool = True,
) -> Quality:
    """Judge counterparts by domain shift closed, content kept, and faults.

    Features are those of a frozen network, for at most `limit` seeded pairs and target images; faults are looked for in
    all pairs (20,000 at most). Only `target` needs no labels; labels of the source are used for figure 2 where there
    are some.

    Args:
        source: holds the images that the counterparts were made from.
        made: counterparts, whose `source_id` names their source.
        target: real images of the target domain; None leaves figure 1 out.
        weights: `"pretrained"`, `"random"` or a checkpoint of `backbone`; where they can't be had, figures 1 and 2 say
            so and figure 3 is there.
        backbone: a timm network.
        image_size: side of its input.
        limit: pairs and target images at most.
        seed: of samples and splits.
        progress: show progress on standard error.

    Raises:
        IsthmusError: no counterpart, or a counterpart whose source is not in `source`.

    Example:
        >>> quality = measure_quality(photos, made, sketches, weights="mobilenetv2.safetensors")    # doctest: +SKIP
        >>> quality.shift.frechet.closed.mean, quality.verdicts[0].grade                            # doctest: +SKIP
        (0.9, 'good')
    """
    counterparts = list(made.select(real=False))
    if not counterparts:
        raise IsthmusError("There is no counterpart to judge: the table holds no image with a source_id.")
    pairs = [(source.by_id(str(row.source_id)), row) for row in counterparts]
    faults = find_faults(_sample(pairs, MOST, seed), progress=progress)
    chosen = _sample(pairs, limit, seed)
    # Twice as many target images as pairs: the distances need one half as reference and one as floor.
    most = min(limit, 2 * len(chosen))
    real = _sample([(row, row) for row in target.select(real=True)], most, seed) if target is not None else []
    missing: dict[str, str] = {}
    shift: Shift | None = None
    content: Content | None = None
    sampled = targets = 0
    try:
        network = Features(backbone, weights, image_size)
    except IsthmusError as error:
        missing = dict.fromkeys(("shift", "content"), _no_weights(backbone, weights, error))
    else:
        one = network.of([row for row, _ in chosen], "features of the source", progress=progress)
        two = network.of([row for _, row in chosen], "features of the counterparts", progress=progress)
        like = network.of([row for row, _ in real], "features of the target", progress=progress) if real else None
        read = one.isfinite().all(1) & two.isfinite().all(1)
        labels = [row.label for (row, _), kept in zip(chosen, read.tolist(), strict=True) if kept]
        one, two, sampled = one[read], two[read], int(read.sum())
        wanted: list[str | None] = []
        if like is not None:
            legible = like.isfinite().all(1)
            wanted = [row.label for (row, _), kept in zip(real, legible.tolist(), strict=True) if kept]
            like, targets = like[legible], int(legible.sum())
        try:
            content = content_kept(one, two, source_labels=labels, target=like, target_labels=wanted)
        except IsthmusError as error:
            missing["content"] = str(error)
        shift, missing["shift"] = _shift(one, two, like, seed)
    missing = {name: why for name, why in missing.items() if why}
    return Quality(
        len(pairs), sampled, targets, backbone, weights, image_size, shift, content, faults, missing
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shift(source: Tensor, made: Tensor, target: Tensor | None, seed: int) -> tuple[Shift | None, str]:
    if target is None:
        return None, "Real images of the target domain are needed: give --target NAME=PATH."
    try:
        frechet = frechet_figure(source, made, target, seed=seed)
        probe = domain_probe(source, target, seed=seed)
    except IsthmusError as error:
        return None, str(error)
    held = probe.held_out[0]
    return Shift(frechet, probe.accuracy, probe.share_target(source[held]), probe.share_target(made[held])), ""


def _sample(pairs: Sequence[tuple[Row, Row]], most: int, seed: int) -> list[tuple[Row, Row]]:
    """At most so many, chosen by a hash of their ids, in the order of these."""
    kept = list(pairs)
    if len(kept) > most:
        kept = sorted(kept, key=lambda pair: stable_hash("quality", seed, pair[1].id))[:most]
    return sorted(kept, key=lambda pair: pair[1].id)


def _no_weights(backbone: str, weights: str, error: IsthmusError) -> str:
    if weights == "pretrained":
        return f"The weights of {backbone} can't be had here: give a checkpoint of it with --report-weights FILE."
    return f"--report-weights: {error}"
