"""A chart as a file of its own. Only browsers know CSS variables, so the values stand where a page has names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from recdistill.report.page import render

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["picture"]

_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VALUE = re.compile(r"(--\w+):\s*([^;]+);")
_DARK = "@media (prefers-color-scheme: dark)"


def picture(chart: Markup) -> str:
    """A chart as an SVG file, in the colours of a page, light or dark as its reader's system is."""
    head, _, body = chart.partition(">")
    width, height = head.split('"')[1].split()[2:]  # <svg viewBox="0 0 460 320" ...
    light, dark, rules = _read(render("chart.css.j2", None))
    rules += [(".card", "fill: var(--card);")]
    painted = [rule for rule in rules if "var(" in rule[1]]
    style = f"{_written(rules, light)}{_DARK} {{\n{_written(painted, dark)}}}"
    page = {"head": head, "body": body, "width": width, "height": height, "style": style}
    return render("picture.svg.j2", page)


def _read(css: str) -> tuple[dict[str, str], dict[str, str], list[tuple[str, str]]]:
    """The colours by day and by night, and the rules that use them."""
    night = css.index(_DARK)
    rules = [(where.strip(), what.strip()) for where, what in _RULE.findall(css.replace(f"{_DARK} {{", ""))]
    light = dict(_VALUE.findall(css[:night]))
    dark = dict(_VALUE.findall(css[night : css.index("}", night)]))
    own = [(where, what) for where, what in rules if where.endswith(":root") or "--c:" in what]
    return light, dark, [rule for rule in rules if rule not in own]


def _written(rules: list[tuple[str, str]], colours: dict[str, str]) -> str:
    """Each rule with its colours; one in the colour of a series once for every series, on it or inside."""
    series = [name for name in colours if re.fullmatch(r"--s\d", name)]
    out: list[str] = []
    for where, what in rules:
        for name in series if "var(--c)" in what else [None]:
            of = where if name is None else f".{name[2:]}{where}, .{name[2:]} {where}"
            known = colours if name is None else colours | {"--c": colours[name]}
            out.append(f"{of} {{ {re.sub(r'var[(](--[a-z0-9]+)[)]', lambda m, k=known: k[m[1]], what)} }}\n")
    return "".join(out)
