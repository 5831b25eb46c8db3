"""RRD: the teacher's list, relaxed. Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357 ("URRD" in the official code).

`draw = "top"` is the authors' later advice (README of the official repository, February 2023): take the head of the
list as it is instead of sampling from it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Setting, method
from recdistill.methods.de import DE_RRD
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.relaxed_ranking import RelaxedRanking

__all__ = ["RRD", "ranking_term", "rrd"]


class RRD(Settings):
    """Relaxed Ranking Distillation."""

    weight: float = Field(default=1e-3, ge=0)
    """Multiplies the distillation term; the base loss, summed over the batch, has weight 1."""
    near: int = Field(default=40, ge=1)
    """K, interesting items a user: they keep the teacher's order."""
    far: int = Field(default=40, ge=1)
    """L, uninteresting items a user: kept below, never ordered."""
    sharpness: float = Field(default=10.0, gt=0)
    """T: the item at rank r (from 1) is drawn with weight e^(-r / T)."""
    depth: int = Field(default=500, ge=1)
    """How much of the teacher's list is never uninteresting."""
    reach: int = Field(default=128, ge=1)
    """Interesting items are drawn from the first `reach` of the list."""
    draw: Literal["sampled", "top"] = "sampled"
    """ "sampled" as published; "top", the first `near` of the list, as the authors advise since 2023."""


def ranking_term(c: RRD, s: Setting) -> RelaxedRanking:
    """RRD's term over the batch's distinct users."""
    return RelaxedRanking(
        s.taken,
        s.n_users,
        near=c.near,
        far=c.far,
        depth=c.depth,
        reach=c.reach,
        sharpness=c.sharpness,
        draw=c.draw,
        seed=s.seed,
    )


@method(
    "rrd",
    settings=RRD,
    paper=DE_RRD,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-4, 1e-1), "sharpness": LogRange(2, 60)},
)
def rrd(c: RRD, s: Setting) -> list[Pass]:
    """Relaxed Ranking Distillation: transfers the teacher's ranking."""
    teacher = s.need_teacher("rrd")
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), rrd=(c.weight, ranking_term(c, s))), teacher)]
