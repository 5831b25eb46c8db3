"""What is worth tuning of a method, and in which range: data beside its settings.

A range holds the values that a search may try; the search itself is in `recdistill.recipes.trials`. Keys are those of
the method's settings, dotted where they are nested: `{"weight": LogRange(1e-4, 1e-1)}`, `{"de.weight": ...}`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Choice", "LinearRange", "LogRange", "Range", "Value", "flat", "overlaid"]

Value = float | int | str


@dataclass(frozen=True, slots=True)
class _Between:
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def nearest(self, value: Value) -> float:
        """The value of the range that is closest."""
        return min(max(float(value), self.low), self.high)


@dataclass(frozen=True, slots=True)
class LogRange(_Between):
    """Numbers from `low` to `high`, both above 0, every factor as likely as any other: weights, rates, temperatures."""

    def __post_init__(self) -> None:
        """Refuse what is no range of positive numbers."""
        if not 0 < self.low < self.high < math.inf:
            raise UsageError(problem("A log range goes from above 0 up to more", (self.low, self.high)))

    @override
    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}, log"


@dataclass(frozen=True, slots=True)
class LinearRange(_Between):
    """Numbers from `low` to `high`, every step as likely as any other: shares, exponents."""

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        if not -math.inf < self.low < self.high < math.inf:
            raise UsageError(problem("A range goes from a number up to a greater one", (self.low, self.high)))

    @override
    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values without an order."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Refuse what leaves no choice."""
        if len(set(self.values)) < 2:
            raise UsageError(problem("A choice is among two values or more", self.values))

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def nearest(self, value: Value) -> Value:
        """The value itself, the first one where it is not among them."""
        return value if value in self.values else self.values[0]

    @override
    def __str__(self) -> str:
        return " or ".join(map(str, self.values))


Range = LogRange | LinearRange | Choice


def flat(settings: Mapping[str, object], keys: Mapping[str, Range]) -> dict[str, Value]:
    """The values that nested settings have at dotted keys.

    Raises:
        KeyError: there is no such key, or it holds a table.
    """
    found: dict[str, Value] = {}
    for key in keys:
        inner: object = settings
        for word in key.split("."):
            if not isinstance(inner, dict):
                raise KeyError(key)
            inner = inner[word]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(inner, float | int | str):
            raise KeyError(key)
        found[key] = inner
    return found


def overlaid(settings: Mapping[str, object], values: Mapping[str, Value]) -> dict[str, object]:
    """A copy of nested settings with other values at dotted keys."""
    out: dict[str, object] = {k: overlaid(v, {}) if isinstance(v, dict) else v for k, v in settings.items()}  # pyright: ignore[reportUnknownArgumentType]
    for key, value in values.items():
        *above, last = key.split(".")
        inner = out
        for word in above:
            inner = inner[word]  # pyright: ignore[reportAssignmentType]
            assert isinstance(inner, dict)  # noqa: S101 - a key of the settings
        inner[last] = value  # pyright: ignore[reportUnknownMemberType]
    return out
