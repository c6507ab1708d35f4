"""The page of a quality report: one file that loads nothing, with verdicts, figures and pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.data.images import ImageError, load_image
from isthmus.data.manifest import Row
from isthmus.evaluate.probe import Share
from isthmus.translate.base import TranslatorChoice
from isthmus.translate.quality.content import Content
from isthmus.translate.quality.measure import Quality, Shift
from isthmus.translate.quality.shift import Spread
from isthmus.translate.quality.verdicts import interval, percent

LISTED = 200  # names of a list; the rest is in the JSON


@dataclass(frozen=True)
class Bar:
    """A row of a figure: name, value as text, length and interval as shares of the full length, and its role."""

    name: str
    text: str
    length: float
    low: float | None = None
    high: float | None = None
    role: str = "other"


@dataclass(frozen=True)
class Figure:
    """Bars with a heading and what they mean."""

    title: str
    note: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Card:
    """A pair of pictures."""

    source: str
    made: str
    name: str
    reason: str


def render(
    title: str,
    quality: Quality,
    pairs: Sequence[tuple[Row, Row]],
    suspects: Sequence[tuple[Row, Row]],
    *,
    choice: TranslatorChoice,
    failed: Mapping[str, str],
) -> str:
    """The page as text.

    Args:
        title: heading.
        quality: what was measured.
        pairs: (source, counterpart) to show.
        suspects: faulty ones to show before the others.
        choice: the translator, whose settings are listed.
        failed: id -> reason of the images that were left out.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("isthmus.translate.quality", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # A file name need not be valid Unicode, a page has to be.
    environment.filters["valid"] = lambda value: str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    reasons = quality.faults.found
    return environment.get_template("page.html.j2").render(
        title=title,
        quality=quality,
        verdicts=quality.verdicts,
        figures=[*_shift_figures(quality.shift), *_content_figures(quality.content)],
        facts=_facts(quality),
        suspects=[_card(a, b, reasons.get(b.id, "")) for a, b in suspects],
        more_suspects=len(reasons) - len(suspects),
        pairs=[_card(a, b, reasons.get(b.id, "")) for a, b in pairs],
        choice=choice,
        failed=list(failed.items())[:LISTED],
        more_failed=max(0, len(failed) - LISTED),
    )


def _shift_figures(shift: Shift | None) -> list[Figure]:
    if shift is None:
        return []
    frechet = shift.frechet
    top = max(frechet.before.mean, frechet.after.mean, frechet.floor.mean) * 1.05 or 1.0

    def distance(name: str, value: Spread, role: str) -> Bar:
        low, high = value.mean - value.deviation, value.mean + value.deviation
        digits = 0 if top >= 100 else 2  # features of other networks are of another scale
        text = f"{value.mean:,.{digits}f} ± {value.deviation:.{digits}f}"
        return Bar(name, text, value.mean / top, low / top, high / top, role)

    return [
        Figure(
            "Fréchet distance to the target domain",
            f"Shorter is nearer. All between samples of {frechet.n} images, mean and standard deviation over "
            f"{frechet.draws} random splits of the target. The floor is the distance of two halves of the target: what "
            "samples of this size show without any shift. Where the domains show different things, even perfect "
            "counterparts stay above it.",
            (
                distance("source images (before)", frechet.before, "before"),
                distance("counterparts (after)", frechet.after, "after"),
                distance("target images (floor)", frechet.floor, "other"),
            ),
        ),
        Figure(
            "Taken for the target domain by a classifier",
            f"A linear classifier, fitted to real images of both domains and right in {percent(shift.accuracy)} of "
            "real images it has not seen. It judges pairs whose sources it has not seen either.",
            (
                _share("source images (before)", shift.source_taken, "before"),
                _share("counterparts (after)", shift.made_taken, "after"),
            ),
        ),
    ]


def _content_figures(content: Content | None) -> list[Figure]:
    if content is None:
        return []
    figures = [
        Figure(
            "Own source found",
            f"Cosine of features less their domain's mean, among {content.gallery} source images. The first bar does "
            "not depend on how many they are.",
            (
                _share("own source nearer than another", content.nearer, "after"),
                Bar("chance", "50 %", 0.5),
                _share("own source nearest of all", content.rank1, "after"),
                Bar("chance", percent(content.chance), content.chance),
            ),
        )
    ]
    if content.category is not None and content.category_chance is not None and content.category_ceiling is not None:
        bars = [
            _share("counterparts", content.category, "after"),
            Bar("chance", percent(content.category_chance), content.category_chance),
            _share("the source images themselves", content.category_ceiling, "other"),
        ]
        if content.category_target is not None:
            bars.insert(2, _share("real target images", content.category_target, "other"))
        note = (
            "Share whose nearest source image, their own left out, is of the same category. The source images "
            "themselves show what the network can do at best"
        )
        note += ", real target images what it makes of the other domain." if content.category_target else "."
        figures.append(Figure("Category of the nearest source image", note, tuple(bars)))
    return figures


def _share(name: str, share: Share, role: str) -> Bar:
    return Bar(name, interval(share), share.value, share.low, share.high, role)


def _facts(quality: Quality) -> list[tuple[str, str]]:
    faults = quality.faults
    facts = [
        ("counterparts", f"{quality.images}, of which {faults.images} were looked at for faults"),
        ("blank", str(len(faults.blank))),
        ("look like their own source", str(len(faults.unchanged))),
        ("look like another counterpart, although their sources differ", str(len(faults.repeated))),
        ("most frequent picture", f"made for {faults.largest} sources" if faults.largest > 1 else "none repeats"),
        ("can't be read", str(len(faults.unreadable))),
        ("dark pixels, median", percent(faults.ink)),
        ("sides", f"{faults.shortest_side} to {faults.longest_side} pixels"),
    ]
    if faults.blank_sources:
        facts.append(("blank sources, of whose counterparts nothing is asked", str(faults.blank_sources)))
    if quality.sampled:
        network = f"{quality.backbone} at {quality.image_size} px, {quality.weights} weights, frozen"
        if quality.weights not in ("pretrained", "random"):
            network = f"{quality.backbone} at {quality.image_size} px, weights from {quality.weights}, frozen"
        facts.append(("looked at by", network))
        facts.append(("seeded sample", f"{quality.sampled} pairs, {quality.targets} target images"))
    return facts


def _card(source: Row, made: Row, reason: str) -> Card:
    return Card(_inline(source.path), _inline(made.path), source.id, reason)


def _inline(path: str) -> str:
    try:
        image = load_image(path, min_side=192)
    except ImageError:
        return ""
    image.thumbnail((256, 256))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
