"""From which score on a hit is a match, and how probable: kept beside the model as `calibration.json`.

It is no part of the model's fingerprint: catalogs stay valid whether there is one or not. It names the fingerprint, so
that no catalog of another model uses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import IsthmusError
from isthmus.io import atomic_write_json

FILE = "calibration.json"
FORMAT = 1
SETTINGS = ("plain", "centred")
MEND = "make it anew with  isthmus calibrate RUN"


@dataclass(frozen=True, slots=True)
class Part:
    """The calibration of one direction under one setting.

    Attributes:
        query, item: domains of the query and of the items.
        setting: `centred` or `plain`.
        threshold: a score of at least this is a match.
        fmr: share of the validation impostor pairs that reach it, and `fmr_high` the upper end of its 95 % interval.
        fnmr: share of the validation genuine pairs that miss it.
        slope, bias: of the log-odds of a match where both kinds of pairs are equally frequent.
        prior: share of matches among pairs that probabilities hold for.
        genuine, impostor: how many validation pairs there were.
    """

    query: str
    item: str
    setting: str
    threshold: float
    fmr: float
    fmr_high: float
    fnmr: float
    slope: float
    bias: float
    prior: float
    genuine: int
    impostor: int

    def probability(self, score: float, prior: float | None = None) -> float:
        """The probability that a pair of this score is a match: `1 / (1 + exp(-(slope s + bias + logit(prior))))`.

        Args:
            score: a cosine.
            prior: share of matches among all pairs, in (0, 1); the calibration's own if None.

        Example:
            >>> part = Part("sketch", "photo", "plain", 0.5, 1e-3, 2e-3, 0.2, 10.0, -5.0, 0.5, 100, 9900)
            >>> part.probability(0.5), round(part.probability(0.5, prior=0.01), 6)
            (0.5, 0.01)
        """
        share = self.prior if prior is None else prior
        odds = self.slope * score + self.bias + math.log(share) - math.log1p(-share)
        return 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds))


@dataclass(frozen=True)
class Calibration:
    """What validation images taught about a model's scores.

    Attributes:
        model: its fingerprint.
        domains: the query domain and the gallery domain.
        by: what a match is: the same `"label"` or `"identity"`.
        rate: the wanted share of impostor pairs that pass as matches.
        centring: whether the model centres by itself.
        centres: whether it has means to centre with; without them centred and plain are one.
        images: validation images of both domains.
        parts: one for each direction and setting.

    Example:
        >>> calibration = Calibration.load("runs/pacs")                                     # doctest: +SKIP
        >>> calibration.part("sketch", "photo").threshold                                   # doctest: +SKIP
        0.412
    """

    model: str
    domains: tuple[str, str]
    by: str
    rate: float
    centring: bool
    centres: bool
    images: tuple[int, int]
    parts: tuple[Part, ...]

    def part(self, query: str, item: str, centring: bool | None = None) -> Part | None:
        """The part for a query and an item of these domains, centred as said or as the model does; None for none."""
        centred = (self.centring if centring is None else centring) and self.centres
        setting = "centred" if centred else "plain"
        for part in self.parts:
            if (part.query, part.item, part.setting) == (query, item, setting):
                return part
        return None

    def save(self, folder: str | Path) -> None:
        """Write `calibration.json` into a model folder, whole or not at all."""
        atomic_write_json(Path(folder) / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: str | Path) -> Calibration | None:
        """The calibration of a model folder, or of a run folder that holds one; None where there is none.

        It may be for another model than the folder's by now: compare `model` with its fingerprint.

        Raises:
            IsthmusError: the file is damaged or of another version.
        """
        place = Path(folder)
        file = (place / "model" if (place / "model" / "config.json").is_file() else place) / FILE
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise IsthmusError(f"{file} can't be read ({error.strerror or error}); check it, or {MEND}.") from error
        return cls.parse(content, str(file))

    @classmethod
    def parse(cls, content: bytes, name: str = FILE) -> Calibration:
        """The calibration that a file's content is.

        Raises:
            IsthmusError: as `load`; `name` is the file's.
        """
        try:
            values = json.loads(content)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise IsthmusError(f"{name} is not of a kind that this version reads; {MEND}.")
            return _checked(values)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise IsthmusError(f"{name} is damaged ({error}); {MEND}.") from error


def _checked(values: dict[str, Any]) -> Calibration:
    parts = tuple(Part(**_typed(part)) for part in values["parts"])
    domains = _two(values["domains"])
    for part in parts:
        numbers = (part.threshold, part.fmr, part.fmr_high, part.fnmr, part.slope, part.bias, part.prior)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("a number is not finite")
        if not (0 < part.prior < 1 and part.slope >= 0 and all(0 <= x <= 1 for x in numbers[1:4])):
            raise ValueError("a number is out of range")
        if part.setting not in SETTINGS or not {part.query, part.item} <= set(domains):
            raise ValueError("a part is of no setting or domain")
    rate, (first, second) = float(values["rate"]), _two(values["images"])
    if not 0 < rate < 1 or not all(isinstance(values[name], str) for name in ("model", "by")):
        raise ValueError("its rate or its model is none")
    flags = values["centring"], values["centres"]
    if not all(isinstance(flag, bool) for flag in flags) or not all(isinstance(name, str) for name in domains):
        raise ValueError("its domains or settings are none")
    return Calibration(values["model"], domains, values["by"], rate, *flags, (int(first), int(second)), parts)


def _typed(part: dict[str, Any]) -> dict[str, Any]:
    names = ("query", "item", "setting")
    if not all(isinstance(part[name], str) for name in names):
        raise ValueError("a part has no names")
    counts = {name: int(part[name]) for name in ("genuine", "impostor")}
    kept = {name: float(value) for name, value in part.items() if name not in (*names, *counts)}
    return {**{name: part[name] for name in names}, **kept, **counts}


def _two(values: Sequence[Any]) -> tuple[Any, Any]:
    first, second = values
    return first, second
