"""A table of shares as shades: SVG like the other charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from recdistill.report.charts import WIDTH, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["heat"]


def heat(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x_label: str = "",
    marked: Sequence[int] = (),
) -> Markup:
    """A table of shares in [0, 1] as shades of the accent, written in per cent where they are 1 or more.

    Args:
        values: one row for each of `rows`.
        rows: names at the left.
        columns: names above.
        title: read out by screen readers.
        x_label: above the names of columns.
        marked: for each column the row that is framed; none when empty.
    """
    left = 18 + 7.2 * max((len(name) for name in rows), default=0)
    wide, high, top = min(64.0, max(34.0, (WIDTH - left) / max(len(columns), 1))), 23.0, 40.0 if x_label else 24.0
    most = max(0.5, *(value for row in values for value in row)) if any(values) else 1.0
    parts = [Markup('<text class="name" x="{x:.1f}" y="13">{t}</text>').format(x=left, t=x_label)]
    for at, name in enumerate(columns):
        parts.append(
            Markup('<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{name}</text>').format(
                x=left + (at + 0.5) * wide, y=top - 7, name=name
            )
        )
    for down, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + down * high
        parts.append(
            Markup('<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="end">{name}</text>').format(
                x=left - 9, y=y + high / 2 + 4, name=name
            )
        )
        for across, value in enumerate(row):
            framed = " framed" if across < len(marked) and marked[across] == down else ""
            x, share = left + across * wide, value / most
            text = Markup("")
            if round(100 * value) >= 1:
                text = Markup('<text class="{c}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{v:.0f}</text>').format(
                    c="hot" if share > 0.55 else "tick", x=x + wide / 2, y=y + high / 2 + 4, v=100 * value
                )
            parts.append(
                Markup(
                    '<g><title>{about}</title><rect class="heat{framed}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" '
                    'height="{h:.1f}" rx="4" fill-opacity="{o:.3f}"/>{text}</g>'
                ).format(
                    about=f"{name}, {columns[across]}: {value:.1%}",
                    framed=framed,
                    x=x + 1.5,
                    y=y + 1.5,
                    w=wide - 3,
                    h=high - 3,
                    o=0.05 + 0.95 * share,
                    text=text,
                )
            )
    width, height = left + len(columns) * wide + 2, top + len(rows) * high + 2
    return svg(max(width, WIDTH), height, title, parts)
