"""Time as an argument: a clock says where training stands, a schedule is a function of the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clock", "Schedule", "constant", "exponential"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Where training stands. `epoch` and `step` count from 0; `step` restarts with every epoch."""

    epoch: int = 0
    step: int = 0


Schedule = Callable[[Clock], float]


def constant(value: float) -> Schedule:
    """The same value at every time."""
    return lambda _: value


def exponential(start: float, end: float, period: int, lag: int = 0) -> Schedule:
    """Exponential decay per epoch: `start * (end / start) ** ((epoch - lag) / period)`, kept within the two ends.

    DE-RRD's temperature is `exponential(1.0, 1e-10, 1000, lag=1)` (official code: epochs 0 and 1 both run at 1).

    Args:
        start: the value until epoch `lag`, > 0.
        end: the value from epoch `lag + period` on, > 0.
        period: epochs between the two, >= 1.
        lag: epochs before the decay begins, >= 0.
    """

    def at(clock: Clock) -> float:
        done = min(max(clock.epoch - lag, 0) / period, 1.0)
        return start * (end / start) ** done

    return at
