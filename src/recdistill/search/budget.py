"""A hard budget: read from a text, and the likeliest architecture that keeps it.

Letters: S cells, G architectures (1 or S), E edges, O operators.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from recdistill.errors import SettingsError, UsageError, nearest, problem
from recdistill.report.words import megabytes, milliseconds
from recdistill.search.sampling import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.search.cost import Costs
    from recdistill.search.sampling import Architecture

__all__ = ["Budget", "figure", "within"]

Of = Literal["latency", "bytes", "params", "macs"]

_UNITS: dict[str, tuple[Of, float]] = {
    "ns": ("latency", 1e-6), "us": ("latency", 1e-3), "ms": ("latency", 1.0), "s": ("latency", 1e3),
    "B": ("bytes", 1.0), "kB": ("bytes", 1e3), "MB": ("bytes", 1e6), "GB": ("bytes", 1e9),
    "KiB": ("bytes", 2.0**10), "MiB": ("bytes", 2.0**20), "GiB": ("bytes", 2.0**30),
    "params": ("params", 1.0), "kparams": ("params", 1e3), "Mparams": ("params", 1e6), "Gparams": ("params", 1e9),
    "macs": ("macs", 1.0), "kmacs": ("macs", 1e3), "Mmacs": ("macs", 1e6), "Gmacs": ("macs", 1e9),
}  # fmt: skip
_FORM = re.compile(
    r"\s*(?:(?P<of>[a-z]+)\s*=)?\s*(?P<number>[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-z]*)\s*"
)
_WHOLE: dict[Of, str] = {"bytes": "B", "params": "params", "macs": "macs"}
_BARE = {of: {short: short + whole for short in ("", "k", "M", "G")} for of, whole in _WHOLE.items()}
"""What a unit may be shortened to where the kind is said: "macs=20M"."""
_BISECTIONS = 80


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a student may cost."""

    of: Of
    most: float
    """In milliseconds, bytes, parameters or multiply-adds."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "2 ms", "5MB", "20 Mmacs"; "latency=2ms" says again what the unit says, "macs=20M" says it instead.

        Raises:
            SettingsError: it is no number with a unit, is not above 0, or says two things.
        """
        allowed = "a number and a unit, as in '2 ms', '5 MB', '300 kparams', '20 Mmacs'"
        found = _FORM.fullmatch(text)
        if found is None:
            raise SettingsError(problem("A budget cannot be read", text, allowed=allowed))
        of = _kind(found["of"], text, found["unit"])
        units = [unit for unit, (kind, _) in _UNITS.items() if of in (None, kind)]
        unit = found["unit"] if of is None else _BARE.get(of, {}).get(found["unit"], found["unit"])
        if not unit:
            raise SettingsError(problem("A budget needs a unit", text, allowed=units))
        known = _unit(unit)
        if known is None:
            what, near, remedy = f"Unknown unit {unit!r} of the budget {text!r}", nearest(unit, units), None
            if of is None and any(unit in short for short in _BARE.values()):
                near, remedy = None, f"Say what it is of: {' or '.join(f'{kind}={text.strip()}' for kind in _BARE)}"
            raise SettingsError(problem(what, near=near, allowed=units, remedy=remedy))
        kind, scale = _UNITS[known]
        if of not in (None, kind):
            what = f"The budget {text!r} says {of!r}, and {unit!r} is a unit of {kind!r}"
            raise SettingsError(problem(what, allowed=units))
        most = float(found["number"]) * scale
        if not (most > 0 and math.isfinite(most)):
            raise SettingsError(problem("A budget must be above 0 and finite", text))
        return cls(kind, most)

    def __str__(self) -> str:
        """As `parse` reads it."""
        unit = {"latency": "ms", "bytes": "B", "params": "params", "macs": "macs"}[self.of]
        return f"{self.most:g} {unit}"


def within(architecture: Architecture, costs: Costs, most: float) -> Choice:
    """The likeliest architecture that costs at most `most`, in the unit of `costs`.

    Maximises `sum log p` of operators and depth with a Lagrange multiplier found by bisection, then takes the best
    single changes that still fit; so it is optimal up to the last change. The depth, where it is searched, is tried one
    by one.

    Raises:
        UsageError: even the cheapest architecture costs more.
    """
    log_p = architecture.alpha.detach().double().cpu().log_softmax(-1)  # (G, E, O)
    depths: list[tuple[int, float]] = [(architecture.cells, 0.0)]
    if architecture.depth is not None:
        log_d = architecture.depth.detach().double().cpu().log_softmax(0).tolist()  # (S,)
        depths = [(1 + at, value) for at, value in enumerate(log_d)]
    best: tuple[float, Tensor, int] | None = None
    cheapest = math.inf
    for depth, chance in depths:
        shared = len(log_p) == 1
        some, times = (log_p, depth) if shared else (log_p[:depth], 1)
        price = times * log_p.new_tensor(costs.operators)  # (O,)
        left = most - costs.fixed - depth * costs.cell
        least = float(price.min()) * some.shape[0] * some.shape[1]
        cheapest = min(cheapest, most - left + least)
        if least > left * (1 + 1e-12) + 1e-12:
            continue
        paths = _likeliest(some, price, left)
        gone = log_p[len(some) :].max(-1).values.sum()  # cells that are not there hold what is likeliest
        score = chance + float(some.gather(-1, paths[..., None]).sum() + gone)
        if best is None or score > best[0]:
            best = (score, paths, depth)
    if best is None:
        what = f"No architecture keeps the budget of {figure(most, costs.unit)}: the cheapest costs "
        what += figure(cheapest, costs.unit)
        if costs.fixed > most:
            what += f", of which {figure(costs.fixed, costs.unit)} are not of cells: tables and scores of items"
        raise UsageError(problem(what, remedy="Raise the budget, or lower the width `dim` or the number of `cells`"))
    _, paths, depth = best
    rows = tuple(tuple((int(path),) for path in row) for row in paths.tolist())
    if len(rows) > 1:  # of cells that are not there, the likeliest
        rest = log_p[depth:].argmax(-1).tolist()
        rows += tuple(tuple((int(path),) for path in row) for row in rest)
    return Choice(rows, depths=() if architecture.depth is None else (depth,))


def _likeliest(log_p: Tensor, price: Tensor, left: float) -> Tensor:
    """(G, E, O), (O,) -> (G, E) operators."""

    def at(multiplier: float) -> Tensor:
        return (log_p - multiplier * price).argmax(-1)

    def spent(paths: Tensor) -> float:
        return float(price[paths].sum())

    slack = left * (1 + 1e-12) + 1e-12
    paths = at(0.0)
    if spent(paths) > slack:
        low, high = 0.0, 1.0
        scale = float(price.max() - price.min()) or 1.0
        while spent(at(high / scale)) > slack and high < 1e12:
            low, high = high, high * 2
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(at(middle / scale)) > slack else (low, middle)
        paths = at(high / scale)
        if spent(paths) > slack:  # prices that differ by nothing but rounding
            paths = torch.where(torch.ones_like(paths, dtype=torch.bool), int(price.argmin()), paths)
    while True:  # what is left over buys the change that gains most
        gain = log_p - log_p.gather(-1, paths[..., None])  # (G, E, O)
        fits = spent(paths) + price - price[paths][..., None] <= slack
        gain = gain.masked_fill(~fits, -math.inf)
        top = int(gain.argmax())
        if float(gain.flatten()[top]) <= 0:
            return paths
        paths = paths.clone()
        paths.view(-1)[top // gain.shape[-1]] = top % gain.shape[-1]


def figure(cost: float, unit: str) -> str:
    """A cost as people read it: "24.7 kB", "0.43 ms", "816 parameters", "20,000,000 multiply-adds"."""
    if unit in ("bytes", "ms"):
        return megabytes(cost) if unit == "bytes" else milliseconds(cost)
    return f"{cost:.3g} {unit}" if cost < 1e4 else f"{cost:,.0f} {unit}"


def _kind(said: str | None, text: str, unit: str) -> Of | None:
    """What a budget says it is of.

    Raises:
        SettingsError: there is no such budget.
    """
    kinds: dict[str, Of] = {each: each for each, _ in _UNITS.values()}
    if said is None:
        return None
    if said in kinds:
        return kinds[said]
    known = _unit(unit)
    what = f"The budget {text!r} says {said!r}"
    what += "" if known is None else f", and {unit!r} is a unit of {_UNITS[known][0]!r}"
    raise SettingsError(problem(what, near=nearest(said, kinds), allowed=sorted(kinds)))


def _unit(text: str) -> str | None:
    """The unit as it is written, or the only one that differs in case alone: "Ms" and "MS" are ms, "mb" is MB."""
    if text in _UNITS:
        return text
    folded = [each for each in _UNITS if each.casefold() == text.casefold()]
    return folded[0] if len(folded) == 1 else None
