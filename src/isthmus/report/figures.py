"""Figures as inline SVG: no plotting library, colours from the page's CSS, so that dark mode and print follow.

Every function returns `Markup` that is safe to put into a page: all names are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

COLOURS = 6  # .c0 to .c5 in the page's style sheet


@dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes:
        name: for the legend.
        x, y: points, of equal number; points that are not finite are left out.
        dashed: for references such as chance.
        colour: 0 to 5; None takes the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    colour: int | None = None

    def style(self, position: int) -> str:
        """The class in the style sheet."""
        return "reference" if self.dashed else _colour(self.colour, position)


@dataclass(frozen=True)
class Bar:
    """One bar: a value with its interval, a mark for comparison (chance), a colour and whether it stands back."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    mark: float | None = None
    colour: int | None = None
    pale: bool = False


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: `0.5`, `12k`, `3e-05`.

    Example:
        >>> short(0.5), short(12000)
        ('0.5', '12k')
    """
    if value and abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def lines(
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    title: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = (0.0, 1.0),
    log_x: bool = False,
) -> Markup:
    """Lines over a grid, with a legend below.

    Args:
        series: at least one point among them; lines without points are left out.
        x_label, y_label: axes.
        title: read out by screen readers.
        x_range, y_range: None fits the values.
        log_x: logarithmic x axis (x > 0).

    Returns:
        `<figure>` markup; empty where there is no point to draw.
    """
    kept: list[tuple[Line, list[tuple[float, float]]]] = []
    for line in series:
        points = [
            (float(x), float(y))
            for x, y in zip(line.x, line.y, strict=True)
            if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)
        ]
        if points:
            kept.append((line, points))
    if not kept:
        return Markup("")
    scale = math.log10 if log_x else float
    xs = [scale(x) for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points]
    x0, x1 = x_range or (min(xs), max(xs))
    y0, y1 = y_range if y_range else _roomy(min(ys), max(ys))
    if x1 <= x0:
        x0, x1 = x0 - 0.5, x1 + 0.5
    width, height, left, right, top, bottom = 420.0, 270.0, 46.0, 10.0, 10.0, 40.0
    across, down = width - left - right, height - top - bottom

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * across

    def py(y: float) -> float:
        return top + (1 - (min(max(y, y0), y1) - y0) / (y1 - y0)) * down

    parts = [
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">',
        '<g class="grid">',
    ]
    for value in ticks(y0, y1):
        parts.append(f'<path d="M{left:g} {py(value):.1f}H{width - right:g}"/>')
        parts.append(f'<text x="{left - 6:g}" y="{py(value) + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in _decades(x0, x1) if log_x else ticks(x0, x1, 6):
        place = px(scale(value)) if log_x else px(value)
        parts.append(f'<path d="M{place:.1f} {top:g}V{height - bottom:g}"/>')
        parts.append(f'<text x="{place:.1f}" y="{height - bottom + 14:g}" text-anchor="middle">{short(value)}</text>')
    parts.append(
        f'<text class="axis" x="{left + across / 2:.0f}" y="{height - 6:g}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="axis" transform="translate(12 {top + down / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text></g>"
    )
    for index, (line, points) in enumerate(kept):
        style = line.style(index)
        path = "L".join(f"{px(scale(x)):.1f} {py(y):.1f}" for x, y in points)
        if len(points) == 1:
            x, y = points[0]
            parts.append(f'<circle class="dot {style}" cx="{px(scale(x)):.1f}" cy="{py(y):.1f}" r="3"/>')
        parts.append(f'<path class="line {style}" d="M{path}"/>')
    parts.append("</svg>")
    legend = "".join(
        f'<span class="key {line.style(index)}">{escape(line.name)}</span>' for index, (line, _) in enumerate(kept)
    )
    caption = f'<figcaption><b>{escape(title)}</b><span class="legend">{legend}</span></figcaption>'
    return Markup(f'<figure class="plot">{caption}{"".join(parts)}</figure>')


def bars(rows: Sequence[Bar], *, title: str, top: float | None = None) -> Markup:
    """Horizontal bars with intervals: an HTML list, so that names wrap and stay readable on a phone.

    Args:
        rows: values in [0, top].
        title: heading of the figure.
        top: the value of a full bar; None takes the largest value or interval, rounded up to a tenth.

    Returns:
        `<figure>` markup; empty without rows.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return Markup("")
    if top is None:
        reach = [
            edge for row in rows for edge in (row.value, row.interval[1] if row.interval else 0.0, row.mark or 0.0)
        ]
        top = max(0.1, math.ceil(max(reach) * 10 - 1e-9) / 10)

    def share(value: float) -> str:
        return f"{min(max(value / top, 0.0), 1.0) * 100:.2f}"

    items = []
    for index, row in enumerate(rows):
        whisker = mark = ""
        label = f"{row.value:.3f}"
        if row.interval and all(math.isfinite(edge) for edge in row.interval):
            low, high = row.interval
            whisker = (
                f'<path class="whisker" d="M{share(low)} 5H{share(high)}M{share(low)} 2.5V7.5M{share(high)} 2.5V7.5"/>'
            )
            label += f" <small>{low:.3f}–{high:.3f}</small>"
        if row.mark is not None and math.isfinite(row.mark):
            mark = f'<path class="mark" d="M{share(row.mark)} 0V10"/>'
        style = _colour(row.colour, index) + (" pale" if row.pale else "")
        items.append(
            f'<li><span class="name">{escape(row.name)}</span>'
            f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="track" width="100" height="10"/>'
            f'<rect class="fill {style}" width="{share(row.value)}" height="10"/>{mark}{whisker}</svg>'
            f'<span class="value">{label}</span></li>'
        )
    note = ""
    if any(row.mark is not None for row in rows):
        note = ' <small class="muted">upright line: chance</small>'
    caption = f"<figcaption><b>{escape(title)}</b>{note}</figcaption>"
    return Markup(f'<figure class="bars">{caption}<ul>{"".join(items)}</ul></figure>')


def _colour(chosen: int | None, position: int) -> str:
    return f"c{(position if chosen is None else chosen) % COLOURS}"


def _roomy(low: float, high: float) -> tuple[float, float]:
    if high <= low:
        room = abs(low) * 0.1 or 0.5
        return low - room, high + room
    room = (high - low) * 0.05
    return low - room, high + room


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two logarithms; 1, 10, ... where they are far apart."""
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    values = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    return [value for value in values if low - 1e-9 <= math.log10(value) <= high + 1e-9]
