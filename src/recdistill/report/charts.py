"""Small SVG charts without a library: a scatter with intervals, and lines over epochs.

Colours are CSS classes (`s0`, `s1`, ...), so a chart follows the page's light or dark theme; series also differ by
marker and dash. Every text is escaped. Coordinates are pixels of the view box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SHAPES", "WIDTH", "Line", "Point", "front", "lines", "scatter", "svg", "ticks"]


WIDTH = 460
"""Of a chart's view box; it stands about this wide on the page, so that its texts have the page's size."""


@dataclass(frozen=True, slots=True)
class Point:
    """One system of a scatter."""

    name: str
    x: float
    y: float
    low: float
    high: float
    """The interval of y."""
    style: int
    """Colour and marker, 0 to 7."""
    about: str = ""
    """Shown when pointed at."""
    quiet: bool = False
    """Small, without its name and interval: one of many of a kind."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series over epochs."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int
    mark: float | None = None
    """The x of the best epoch."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a chart draws, and how values become pixels."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False
    log_y: bool = False

    def px(self, value: float) -> float:
        return self.left + _share(value, self.x, log=self.log_x) * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        return (
            self.height - self.bottom - _share(value, self.y, log=self.log_y) * (self.height - self.top - self.bottom)
        )


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_unit: Sequence[str] = (),
    fronted: bool = False,
    limit: tuple[float, str] | None = None,
) -> Markup:
    """Quality against cost: x on a log scale, y with its interval; better is up and left.

    Args:
        points: one a system; x above 0.
        title: read out by screen readers.
        x_label: under the axis.
        y_label: above the axis.
        x_unit: names for powers of 1000 of x ("B", "kB", "MB"); none for plain numbers.
        fronted: draw the steps of the Pareto front.
        limit: an x that is not to be passed, above 0, and its name: a line from top to bottom.
    """
    xs = [p.x for p in points] + ([] if limit is None else [limit[0]])
    lows, highs = [p.y if p.quiet else p.low for p in points], [p.y if p.quiet else p.high for p in points]
    pad = max(max(highs) - min(lows), 1e-4) * 0.12
    span = max(max(xs) / min(xs), 1.6)
    frame = _Frame(
        width=WIDTH,
        height=320,
        left=46,
        right=96,
        top=32,
        bottom=46,
        x=(min(xs) / span**0.12, max(xs) * span**0.12),
        y=(max(min(lows) - pad, 0), max(highs) + pad),
        log_x=True,
    )
    parts = [_grid_y(frame), _ticks_x(frame, _powers(*frame.x), x_unit), _names(frame, x_label, y_label)]
    if fronted:
        parts.append(_steps(frame, front([(p.x, p.y) for p in points])))
    parts += [] if limit is None else [_limit(frame, *limit)]
    parts += [_small(frame, p) for p in points if p.quiet]
    named = [p for p in points if not p.quiet]
    for group in _near([frame.px(p.x) for p in named], within=32):
        parts += _labelled(frame, [named[n] for n in group])
    return svg(frame.width, frame.height, title, parts)


def front(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, quality), those that nothing cheaper or as cheap beats or equals, cheapest first."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(set(places), key=lambda place: (place[0], -place[1])):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found


def lines(
    series: Sequence[Line], *, title: str, x_label: str, y_label: str, log_y: bool = False, small: bool = False
) -> Markup:
    """Series over epochs or seconds, named at their right end; empty when there is nothing to draw.

    Args:
        series: with `log_y`, values that are not above 0 are left out.
        title: read out by screen readers.
        x_label: below the axis.
        y_label: above the axis.
        log_y: for loss terms of very different size.
        small: a panel among others.
    """
    kept = [(line, [(x, y) for x, y in zip(line.x, line.y, strict=True) if y > 0 or not log_y]) for line in series]
    kept = [(line, places) for line, places in kept if places]
    if not kept:
        return Markup("")
    every = [place for _, places in kept for place in places]
    low, high = min(y for _, y in every), max(y for _, y in every)
    pad = max(high - low, 1e-6) * 0.08
    frame = _Frame(
        width=340 if small else WIDTH,
        height=220 if small else 320,
        left=46,
        right=max(82.0, 18 + 8 * max(len(line.name) for line, _ in kept)) if any(line.name for line, _ in kept) else 18,
        top=32,
        bottom=46,
        x=(min(x for x, _ in every), max(x for x, _ in every)),
        y=(low / 1.3, high * 1.3) if log_y else (low if low >= 0 and low < pad else low - pad, high + pad),
        log_y=log_y,
    )
    parts = [
        _grid_y(frame),
        _ticks_x(frame, [v for v in ticks(*frame.x) if v == int(v)]),
        _names(frame, x_label, y_label),
    ]
    ends = _apart([frame.py(places[-1][1]) for _, places in kept], frame, gap=15)
    for (line, places), label_y in zip(kept, ends, strict=True):
        path = "L".join(f"{frame.px(x):.1f} {frame.py(y):.1f}" for x, y in _thinned(places))
        marks = [_marker(frame.px(x), frame.py(y), line.style) for x, y in places if x == line.mark]
        parts.append(
            Markup(
                '<g class="s{s}"><title>{name}</title><path class="line d{s}" d="M{path}"/>{marks}'
                '<text class="label" x="{x:.1f}" y="{y:.1f}">{name}</text></g>'
            ).format(
                s=line.style % 8,
                name=line.name,
                path=path,
                marks=Markup("").join(marks),
                x=frame.width - frame.right + 12,
                y=label_y + 4,
            )
        )
    return svg(frame.width, frame.height, title, parts)


def ticks(low: float, high: float, about: int = 8) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) within [low, high]; about `about` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * base for factor in (1, 2, 5, 10) if factor * base >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _share(value: float, ends: tuple[float, float], *, log: bool) -> float:
    low, high = ends
    if high == low:
        return 0.5
    return math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)


def _near(xs: Sequence[float], *, within: float) -> list[list[int]]:
    """Indices in groups: neighbours from left to right that are at most `within` apart."""
    groups: list[list[int]] = []
    for here in sorted(range(len(xs)), key=lambda n: xs[n]):
        if groups and xs[here] - xs[groups[-1][-1]] <= within:
            groups[-1].append(here)
        else:
            groups.append([here])
    return groups


def _labelled(frame: _Frame, group: Sequence[Point]) -> list[Markup]:
    """Points at about the same x: nudged apart sideways, their names in one column at their right."""
    group = sorted(group, key=lambda p: (p.x, p.y))
    across = [frame.px(group[0].x)]
    for point in group[1:]:
        across.append(max(frame.px(point.x), across[-1] + 9))
    shift = (across[-1] - frame.px(group[-1].x)) / 2
    across = [x - shift for x in across]
    drawn: list[Markup] = []
    for point, x, label_y in zip(group, across, _apart([frame.py(p.y) for p in group], frame, gap=17), strict=True):
        drawn.append(
            Markup(
                '<g class="s{s}"><title>{about}</title>'
                '<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
                '<path class="leader" d="M{x:.1f} {y:.1f}L{x2:.1f} {ly:.1f}"/>{mark}'
                '<text class="label" x="{x3:.1f}" y="{ly4:.1f}">{name}</text></g>'
            ).format(
                s=point.style % 8,
                about=point.about or point.name,
                x=x,
                a=frame.py(point.low),
                b=frame.py(point.high),
                y=frame.py(point.y),
                mark=_marker(x, frame.py(point.y), point.style),
                x2=across[-1] + 16,
                ly=label_y,
                x3=across[-1] + 19,
                ly4=label_y + 4,
                name=point.name,
            )
        )
    return drawn


def _small(frame: _Frame, point: Point) -> Markup:
    return Markup(
        '<g class="s{s}"><title>{about}</title><path class="mark quiet" '
        'transform="translate({x:.1f} {y:.1f}) scale(0.62)" d="{d}"/></g>'
    ).format(
        s=point.style % 8,
        about=point.about or point.name,
        x=frame.px(point.x),
        y=frame.py(point.y),
        d=SHAPES[point.style % 8],
    )


def _limit(frame: _Frame, x: float, name: str) -> Markup:
    return Markup(
        '<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
        '<text class="limit-name" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{name}</text>'
    ).format(x=frame.px(x), a=frame.top, b=frame.height - frame.bottom, y=frame.top - 6, name=name)


def _steps(frame: _Frame, places: Sequence[tuple[float, float]]) -> Markup:
    """The staircase of a front, on to the right end."""
    path = f"M{frame.px(places[0][0]):.1f} {frame.py(places[0][1]):.1f}" if places else ""
    for x, y in places[1:]:
        path += f"H{frame.px(x):.1f}V{frame.py(y):.1f}"
    return (
        Markup('<path class="front" d="{d}H{r:.1f}"/>').format(d=path, r=frame.width - frame.right)
        if path
        else Markup("")
    )


def _apart(wanted: Sequence[float], frame: _Frame, *, gap: float) -> list[float]:
    """Heights near the wanted ones, at least `gap` apart, inside the frame where there is room."""
    low, high = frame.top + 4, frame.height - frame.bottom - 3
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    placed = list(wanted)
    for before, here in pairwise(order):
        placed[here] = max(placed[here], placed[before] + gap)
    limit = high
    for here in reversed(order):
        placed[here] = max(min(placed[here], limit), low)
        limit = placed[here] - gap
    return placed


def _thinned(places: Sequence[tuple[float, float]], most: int = 400) -> Sequence[tuple[float, float]]:
    step = max(1, math.ceil(len(places) / most))
    return [*places[:-1:step], places[-1]]


def _powers(low: float, high: float) -> list[float]:
    """Ticks of a log scale: powers of ten, with 2 and 5 between them where the range is short."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**n for n in range(first, last + 1) for f in factors if low <= f * 10.0**n <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 7)]
    return ticks(low, high, 4)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:g}"


def _unit(value: float, units: Sequence[str]) -> str:
    if not units:
        return _number(value)
    power = min(max(int(math.log(max(value, 1), 1000) + 1e-9), 0), len(units) - 1)
    return f"{value / 1000**power:g} {units[power]}"


def _grid_y(frame: _Frame) -> Markup:
    values = _powers(*frame.y) if frame.log_y else ticks(*frame.y)
    line = Markup(
        '<line class="grid" x1="{l:.1f}" x2="{r:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text class="tick" x="{t:.1f}" y="{b:.1f}" text-anchor="end">{v}</text>'
    )
    return Markup("").join(
        line.format(
            l=frame.left,
            r=frame.width - frame.right,
            y=frame.py(v),
            t=frame.left - 8,
            b=frame.py(v) + 4,
            v=_number(v),
        )
        for v in values
    )


def _ticks_x(frame: _Frame, values: Sequence[float], units: Sequence[str] = ()) -> Markup:
    one = Markup(
        '<line class="stroke" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
        '<text class="tick" x="{x:.1f}" y="{t:.1f}" text-anchor="middle">{v}</text>'
    )
    floor = frame.height - frame.bottom
    return Markup("").join(
        one.format(x=frame.px(v), a=floor, b=floor + 5, t=floor + 18, v=_unit(v, units)) for v in values
    )


def _names(frame: _Frame, x_label: str, y_label: str) -> Markup:
    right, floor = frame.width - frame.right, frame.height - frame.bottom
    return Markup(
        '<line class="axis" x1="{left}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        '<text class="name" x="0" y="14">{y}</text>'
        '<text class="name" x="{right}" y="{foot}" text-anchor="end">{x}</text>'
    ).format(left=frame.left, right=right, floor=floor, y=y_label, x=x_label, foot=frame.height - 6)


SHAPES = (
    "M-6-6H6V6H-6Z",  # square: the teacher
    "M0-7.5L7.5 0L0 7.5L-7.5 0Z",  # diamond: the plain student
    "M0-6.5A6.5 6.5 0 1 1 0 6.5A6.5 6.5 0 1 1 0-6.5Z",  # circle
    "M0-7.5L7 5.5H-7Z",  # triangle
    "M0 7.5L7-5.5H-7Z",  # triangle, down
    "M-2.5-7H2.5V-2.5H7V2.5H2.5V7H-2.5V2.5H-7V-2.5H-2.5Z",  # cross
    "M-7-3L0-7.5L7-3V3L0 7.5L-7 3Z",  # hexagon
    "M0-8L2-2.5L8-2.5L3.2 1.2L5 7L0 3.5L-5 7L-3.2 1.2L-8-2.5L-2-2.5Z",  # star
)


def _marker(x: float, y: float, style: int) -> Markup:
    return Markup('<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{d}"/>').format(
        x=x, y=y, d=SHAPES[style % 8]
    )


def svg(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """A picture of these parts; `title` is read out by screen readers."""
    return Markup('<svg viewBox="0 0 {w:g} {h:g}" role="img" aria-label="{title}">{body}</svg>').format(
        w=width, h=height, title=title, body=Markup("").join(parts)
    )
