"""Successive halving over methods: everybody gets a few trials, the better half goes on with more.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
algorithm 1, with a trial as the unit of its budget: every rung costs about the same, and halves who is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Rung", "better_half", "rungs"]


@dataclass(frozen=True, slots=True)
class Rung:
    """One round."""

    methods: int
    """How many are left in it."""
    each: int
    """How many trials each of them has at its end, those of earlier rungs counted."""


def rungs(methods: int, trials: int) -> list[Rung]:
    """How `trials` are shared among `methods`: no more in all, and at least one each.

    Raises:
        UsageError: there is no method, or fewer trials than methods.
    """
    if methods < 1:
        raise UsageError(
            problem("There is no method to tune", remedy="Name one beside 'plain', which always stands there")
        )
    if trials < methods:
        what = f"{methods} methods need at least as many trials"
        raise UsageError(problem(what, trials, remedy=f"Give --trials {methods} or more, or name fewer --methods"))
    rounds = max(1, math.ceil(math.log2(methods)))
    left, each, found = trials, 0, list[Rung]()
    for at in range(rounds):
        alive = math.ceil(methods / 2**at)
        more = max(left // (rounds - at) // alive, int(at == 0))
        each, left = each + more, left - more * alive
        found.append(Rung(alive, each))
    return found


def better_half(worth: Mapping[str, float | None], keep: int) -> list[str]:
    """The `keep` best by name, best first; of equals the earlier, and who has no number last."""
    return sorted(worth, key=lambda name: -math.inf if (value := worth[name]) is None else value, reverse=True)[:keep]
