"""A cell drawn: its input and nodes on a line, an operator on each edge, below them how the nodes are mixed and added.

As SVG for the page, as SVG that stands alone, and as text for a terminal. An edge without an operator is a faint dotted
line; a node that nothing reaches is faint too. Coordinates are pixels of the view box.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Drawn", "Kind", "Wire", "as_text", "draw", "standalone"]

Kind = Literal["attention", "conv", "pool", "skip", "none"]
_STYLE: dict[Kind, int] = {"attention": 5, "conv": 2, "pool": 4, "skip": 1, "none": 1}  # colours of the page's series
_LEFT, _STEP, _RADIUS = 36.0, 186.0, 17.0
_RISE = 62.0  # an edge over n nodes rises n - 1 times this
_CHAR = 7.3  # of the operators' fixed-width letters
_PILL = 24.0


@dataclass(frozen=True, slots=True)
class Wire:
    """One edge of a cell."""

    source: int
    """0 is the cell's input."""
    target: int
    operator: str
    kind: Kind
    chance: float | None = None
    """Of the operator at the end of the search, in [0, 1]."""
    about: str = ""
    """What the operator does; shown when pointed at."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A cell to draw."""

    title: str
    """Above it: "4 equal cells, one after the other"."""
    nodes: int
    """Without the input."""
    wires: Sequence[Wire]
    shares: Sequence[float] | None = None
    """What each node has of the sum, in [0, 1]; None where it is not trained yet."""

    @property
    def live(self) -> frozenset[int]:
        """The input, and the nodes that something reaches."""
        found = {0}
        for node in range(1, self.nodes + 1):
            if any(wire.target == node and wire.source in found and wire.kind != "none" for wire in self.wires):
                found.add(node)
        return frozenset(found)


def draw(cells: Sequence[Drawn], *, label: str) -> Markup:
    """The cells one below the other, in the page's colours.

    Args:
        cells: one for all, or one for each place in the chain.
        label: read out by screen readers.
    """
    width = max((_width(cell) for cell in cells), default=0.0)
    parts: list[Markup] = []
    top = 0.0
    for cell in cells:
        parts.append(Markup('<g transform="translate(0 {y:.1f})">{body}</g>').format(y=top, body=_cell(cell)))
        top += _height(cell) + 18
    return Markup(
        '<svg class="cell" viewBox="0 0 {w:.0f} {h:.0f}" role="img" aria-label="{label}">{body}</svg>'
    ).format(w=width, h=max(top - 18, 0), label=label, body=Markup("").join(parts))


def standalone(cells: Sequence[Drawn], *, label: str) -> str:
    """The same as a file of its own: it loads nothing, and follows the viewer's light or dark theme."""
    drawn = str(draw(cells, label=label))
    head, _, body = drawn.partition(">")
    opening = head.replace("<svg", _OPENING, 1)
    return f"{opening}><title>{Markup.escape(label)}</title><style>{_CSS}</style>{_GROUND}{body}\n"


def as_text(cell: Drawn) -> str:
    """The cell in lines: an edge each, and how the nodes are mixed."""
    name = {0: "input"} | {node: f"node {node}" for node in range(1, cell.nodes + 1)}
    longest = max((len(wire.operator) for wire in cell.wires), default=0)
    lines = [cell.title]
    for wire in cell.wires:
        there = "" if wire.chance is None else f"   {wire.chance:4.0%}"
        arrow = "\u00b7\u00b7" if wire.kind == "none" else "\u2500\u2500"
        lines.append(
            f"  {name[wire.source]:>6} {arrow} {wire.operator:<{longest}} {arrow}> {name[wire.target]}{there}".rstrip()
        )
    nodes = range(1, cell.nodes + 1)
    mixed = " + ".join(
        name[node] if cell.shares is None else f"{cell.shares[node - 1]:.2f} {name[node]}"
        for node in nodes
        if node in cell.live
    )
    return "\n".join([*lines, f"  output = input + ReLU(norm({mixed or 'constants'}))"])


def _x(node: int) -> float:
    return _LEFT + node * _STEP


def _axis(cell: Drawn) -> float:
    """Where the nodes stand: below the highest arc."""
    return 58 + _RISE * max((wire.target - wire.source - 1 for wire in cell.wires), default=0)


def _height(cell: Drawn) -> float:
    return _axis(cell) + 148


def _width(cell: Drawn) -> float:
    return _x(cell.nodes) + 384


def _cell(cell: Drawn) -> Markup:
    axis, live = _axis(cell), cell.live
    parts = [Markup('<text class="title" x="0" y="16">{title}</text>').format(title=cell.title)]
    order = sorted(cell.wires, key=lambda wire: (wire.kind != "none", wire.source in live))  # the faint ones below
    parts += [_wire(wire, axis, faint=wire.kind == "none" or wire.source not in live) for wire in order]
    parts += [_mix(cell, axis, live)]
    parts += [_node(node, axis, faint=node not in live) for node in range(cell.nodes + 1)]
    return Markup("").join(parts)


def _wire(wire: Wire, axis: float, *, faint: bool) -> Markup:
    span = wire.target - wire.source
    start, end = _x(wire.source) + (_RADIUS + 2), _x(wire.target) - (_RADIUS + 9)
    if wire.source == 0 and span == 1:
        start = _x(0) + 34
    if span == 1:
        path, y = f"M{start:.1f} {axis:.1f}L{end:.1f} {axis:.1f}", axis
    else:
        rise = _RISE * (span - 1)
        control = axis - rise / 0.75  # a cubic's top is at three quarters of its controls
        start, end = _x(wire.source) + 6, _x(wire.target) - 8
        low = axis - _RADIUS - 1
        control -= (axis - low) / 3
        bent = f"{start + 26:.1f} {control:.1f} {end - 26:.1f} {control:.1f}"
        path = f"M{start:.1f} {low:.1f}C{bent} {end:.1f} {low - 6:.1f}"
        y = axis - rise - 4
    middle = (start + end - 7) / 2 if span == 1 else (_x(wire.source) + _x(wire.target)) / 2
    about = f"{wire.source or 'input'} \u2192 {wire.target}: {wire.operator}" + (
        f", {wire.about}" if wire.about else ""
    )
    if wire.kind == "none":
        return Markup('<g class="wire faint s1"><title>{about}</title><path class="edge none" d="{d}"/></g>').format(
            about=about, d=path
        )
    half = (len(wire.operator) * _CHAR + 18) / 2
    chance = Markup("")
    if wire.chance is not None:
        chance = Markup('<text class="chance" x="{x:.1f}" y="{y:.1f}">{p:.0f} %</text>').format(
            x=middle, y=y + _PILL / 2 + 13, p=100 * wire.chance
        )
    return Markup(
        '<g class="wire s{s}{faint}"><title>{about}</title><path class="edge" d="{d}"/>{arrow}'
        '<rect class="pill" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.0f}" rx="12"/>'
        '<text class="operator" x="{m:.1f}" y="{t:.1f}">{name}</text>{chance}</g>'
    ).format(
        s=_STYLE[wire.kind],
        faint=" faint" if faint else "",
        about=about,
        d=path,
        arrow=_arrow(end, axis, down=False) if span == 1 else _arrow(end, axis - _RADIUS - 7, down=True),
        x=middle - half,
        y=y - _PILL / 2,
        w=2 * half,
        h=_PILL,
        m=middle,
        t=y + 4,
        name=wire.operator,
        chance=chance,
    )


def _node(node: int, axis: float, *, faint: bool) -> Markup:
    if node == 0:
        return _box(_x(0), axis, "input", half=34)
    return Markup(
        '<g class="node{faint}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.0f}"/>'
        '<text x="{x:.1f}" y="{t:.1f}">{name}</text></g>'
    ).format(faint=" faint" if faint else "", x=_x(node), y=axis, r=_RADIUS, t=axis + 4.5, name=node)


def _mix(cell: Drawn, axis: float, live: frozenset[int]) -> Markup:
    """The bus below the nodes: their weighted sum, norm and ReLU, and the input added to it."""
    bus, rest, last = axis + 74, axis + 122, _x(cell.nodes)
    half = 84.0
    middle = last + 42 + half
    plus = middle + half + 36
    nodes = [node for node in range(1, cell.nodes + 1) if node in live]
    parts: list[Markup] = []
    for node in nodes:
        share = "" if cell.shares is None else f"{cell.shares[node - 1]:.2f}"
        parts.append(
            Markup(
                '<path class="flow" d="M{x:.1f} {a:.1f}V{b:.1f}"/>'
                '<text class="share" x="{t:.1f}" y="{u:.1f}">{s}</text>'
            ).format(x=_x(node), a=axis + _RADIUS + 1, b=bus, t=_x(node) + 8, u=bus - 12, s=share)
        )
    if nodes:
        parts.append(
            Markup('<path class="flow" d="M{x:.1f} {y:.1f}H{e:.1f}"/>{arrow}').format(
                x=_x(nodes[0]), y=bus, e=middle - half - 7, arrow=_arrow(middle - half - 2, bus, down=False)
            )
        )
    parts += [
        _box(middle, bus, "sum, norm, ReLU", half=half),
        Markup('<path class="flow" d="M{x:.1f} {y:.1f}H{e:.1f}"/>{arrow}').format(
            x=middle + half, y=bus, e=plus - 19, arrow=_arrow(plus - 14, bus, down=False)
        ),
        Markup('<path class="flow" d="M{x:.1f} {a:.1f}V{r:.1f}H{p:.1f}V{b:.1f}"/>{arrow}').format(
            x=_x(0), a=axis + 17, r=rest, p=plus, b=bus + 20, arrow=_arrow(plus, bus + 14, down=None)
        ),
        Markup('<text class="share" x="{x:.1f}" y="{y:.1f}">the input is added</text>').format(
            x=_x(0) + 10, y=rest - 8
        ),
        Markup(
            '<g class="node"><circle cx="{x:.1f}" cy="{y:.1f}" r="13"/><text x="{x:.1f}" y="{t:.1f}">+</text></g>'
        ).format(x=plus, y=bus, t=bus + 5),
        Markup('<path class="flow" d="M{x:.1f} {y:.1f}H{e:.1f}"/>{arrow}').format(
            x=plus + 13, y=bus, e=plus + 30, arrow=_arrow(plus + 35, bus, down=False)
        ),
        _box(plus + 36 + 38, bus, "output", half=38),
    ]
    return Markup("").join(parts)


def _box(x: float, y: float, text: str, *, half: float) -> Markup:
    return Markup(
        '<g class="node"><rect x="{l:.1f}" y="{t:.1f}" width="{w:.1f}" height="34" rx="9"/>'
        '<text x="{x:.1f}" y="{b:.1f}">{text}</text></g>'
    ).format(l=x - half, t=y - 17, w=2 * half, x=x, b=y + 4.5, text=text)


def _arrow(x: float, y: float, *, down: bool | None) -> Markup:
    """A head whose point is at (x, y): to the right, down, or (None) up."""
    shape = "l-8-4v8Z" if down is False else "l-4-8h8Z" if down else "l-4 8h8Z"
    return Markup('<path class="head" d="M{x:.1f} {y:.1f}{shape}"/>').format(x=x, y=y, shape=shape)


_OPENING = '<svg xmlns="http://www.w3.org/2000/svg"'
_GROUND = '<rect class="ground" width="100%" height="100%"/>'
_LIGHT = {"card": "#ffffff", "ink": "#1d1f24", "soft": "#5d626d", "line": "#cfccc4"}
_DARK = {"card": "#191c23", "ink": "#e9e9ec", "soft": "#9fa5b1", "line": "#454b58"}
_SERIES = {1: ("#8b8f98", "#8d93a0"), 2: ("#0b6bcb", "#6cb6ff"), 4: ("#14804a", "#58d08c"), 5: ("#8a3ffc", "#c29bff")}
"""Of `_STYLE`: light, dark."""
_SHAPES = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.title { font-size: 13px; } .chance { font-size: 10.5px; text-anchor: middle; } .share { font-size: 11.5px; }
.edge, .flow { fill: none; stroke-width: 1.8; } .flow { stroke-width: 1.3; } .none { stroke-dasharray: 2 5; }
.pill { stroke-width: 1.4; } .node circle, .node rect { stroke-width: 1.6; }
.node text { font-size: 13px; font-weight: 600; text-anchor: middle; }
.operator { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12px; font-weight: 600;
  text-anchor: middle; }
.faint { opacity: 0.4; } .faint .none { opacity: 1; }
"""
_PAINT = Template("""
.ground, .pill, .node circle, .node rect { fill: $card; } .node circle, .node rect { stroke: $ink; }
.node text { fill: $ink; } .title, .chance, .share, .head { fill: $soft; } .flow { stroke: $soft; }
""")
_SERIES_PAINT = Template("""\
.s$s .edge, .s$s .pill { stroke: $c; } .s$s .head, .s$s .operator { fill: $c; }
""")


def _paint(colours: dict[str, str], theme: int) -> str:
    """Rules in literal colours: few programs but browsers know variables."""
    series = (_SERIES_PAINT.substitute(s=s, c=each[theme]) for s, each in _SERIES.items())
    return f"{_PAINT.substitute(colours)}{''.join(series)}.wire .none {{ stroke: {colours['line']}; }}\n"


_CSS = f"{_SHAPES}{_paint(_LIGHT, 0)}@media (prefers-color-scheme: dark) {{{_paint(_DARK, 1)}}}\n"
