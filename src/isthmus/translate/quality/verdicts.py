"""What the figures mean: a grade, a sentence, and the threshold it was judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isthmus.evaluate.probe import Share
from isthmus.translate.quality.content import Content
from isthmus.translate.quality.faults import Faults

if TYPE_CHECKING:
    from isthmus.translate.quality.measure import Shift

Grade = Literal["good", "fair", "poor", "unknown"]

CLOSED_GOOD, CLOSED_FAIR = 0.5, 0.2  # share of the Fréchet distance above its floor
TAKEN_GOOD = 0.5  # share of counterparts that the classifier takes for the target
TELLS_APART = 0.75  # balanced accuracy below which the classifier is no judge
# Sketches that people drew after the photos reach .75 with MobileNetV2 at 128 px (400 pairs of Sketchy).
NEARER_GOOD, NEARER_FAIR = 0.75, 0.6
FAULTS_FAIR = 0.01
FEW = 50  # images; below, a figure is a hint


@dataclass(frozen=True)
class Verdict:
    """One figure, judged.

    Attributes:
        title: of the figure.
        grade: `good`, `fair`, `poor`, or `unknown` where it could not be measured.
        value: the figure itself, short.
        words: the verdict in a sentence.
        threshold: what it was judged by.
    """

    title: str
    grade: Grade
    value: str
    words: str
    threshold: str


def percent(value: float) -> str:
    """A share as people write it.

    Example:
        >>> percent(0.0375), percent(0.5)
        ('3.8 %', '50 %')
    """
    if math.isnan(value):
        return "–"
    text = f"{100 * value:.1f}" if abs(value) < 0.0995 else f"{100 * value:.0f}"
    return f"{text.removesuffix('.0')} %"


def interval(share: Share) -> str:
    """A share with its interval: `27 % (23–32 %)`."""
    return f"{percent(share.value)} ({percent(share.low).removesuffix(' %')}–{percent(share.high)})"


def judge_shift(shift: Shift | None, why: str = "") -> Verdict:
    """The first figure: is the shift between the domains closed?"""
    title = "Domain shift closed"
    threshold = (
        f"Good: at least {percent(CLOSED_GOOD)} of the Fréchet distance closed and {percent(TAKEN_GOOD)} of the "
        f"counterparts taken for the target; poor: less than {percent(CLOSED_FAIR)} closed."
    )
    if shift is None:
        return Verdict(title, "unknown", "not measured", why, threshold)
    closed, taken = shift.frechet.closed.mean, shift.made_taken.value
    value = f"{percent(closed)} (± {percent(shift.frechet.closed.deviation)})"
    hint = f" Only {shift.frechet.n} images a side: a hint." if shift.frechet.n < FEW else ""
    if math.isnan(closed):
        words = "The sources are no farther from the target's images than these are from each other: little to close"
        return Verdict(title, "unknown", "no shift found", f"{words}, or too few images.{hint}", threshold)
    if shift.accuracy < TELLS_APART:
        words = f"The network hardly tells the two domains apart (right in {percent(shift.accuracy)}): little to close."
        return Verdict(title, "unknown", value, words + hint, threshold)
    seen = f"a domain classifier takes {percent(taken)} of the counterparts for the target"
    grade: Grade
    if closed < 0:
        grade, words = "poor", f"The counterparts are farther from the target than their sources; {seen}."
    elif closed < CLOSED_FAIR:
        grade, words = "poor", f"Hardly any of the shift is closed; {seen}."
    elif closed >= CLOSED_GOOD and taken >= TAKEN_GOOD:
        grade, words = "good", f"Most of the shift is closed; {seen}."
    else:
        grade, words = "fair", f"A part of the shift is closed; {seen}."
    return Verdict(title, grade, value, words + hint, threshold)


def judge_content(content: Content | None, why: str = "") -> Verdict:
    """The second figure: do counterparts still show what their sources show?"""
    title = "Content kept"
    threshold = (
        f"Good: the own source is nearer than another one in at least {percent(NEARER_GOOD)} of comparisons (what "
        f"sketches drawn by people after photos reach); poor: less than {percent(NEARER_FAIR)}; chance: 50 %."
    )
    if content is None:
        return Verdict(title, "unknown", "not measured", why, threshold)
    nearer = content.nearer
    found = f"{percent(content.rank1.value)} find their own source first (chance {percent(content.chance)})"
    if content.category is not None and content.category_chance is not None:
        found += f", {percent(content.category.value)} its category (chance {percent(content.category_chance)})"
    grade: Grade
    if nearer.value >= NEARER_FAIR and nearer.low <= 0.5:
        grade, words = "unknown", f"Too few images to tell, chance lies within the interval: {found}."
    elif nearer.value >= NEARER_GOOD:
        grade, words = "good", f"The counterparts show what their sources show: {found}."
    elif nearer.value >= NEARER_FAIR:
        grade, words = "fair", f"The content is kept in part: {found}."
    else:
        grade, words = "poor", f"Little of the content is left, or this network can't see it: {found}."
    hint = f" Only {nearer.n} images: a hint." if nearer.n < FEW else ""
    return Verdict(title, grade, interval(nearer), words + hint, threshold)


def judge_faults(faults: Faults) -> Verdict:
    """The third figure: are there counterparts that can't be used?"""
    threshold = f"Good: none; poor: more than {percent(FAULTS_FAIR)} of the counterparts."
    kinds = [
        (len(faults.blank), "blank"),
        (len(faults.unchanged), "unchanged"),
        (len(faults.repeated), "alike although their sources differ"),
        (len(faults.unreadable), "unreadable"),
    ]
    count = len({*faults.found, *faults.unreadable})
    grade: Grade = "good" if count == 0 else "fair" if count <= FAULTS_FAIR * faults.images else "poor"
    value = f"{count} of {faults.images}"
    if count == 0:
        words = f"No blank, unchanged or repeated counterpart among {faults.images}."
    else:
        words = ", ".join(f"{number} {name}" for number, name in kinds if number) + f" among {faults.images}"
        if faults.largest > 2:
            words += f"; one picture stands for {faults.largest} sources"
        words = f"{words}."
    return Verdict("Unusable counterparts", grade, value, words, threshold)
