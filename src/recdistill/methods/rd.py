"""RD: the head of the teacher's list as extra positives. Tang & Wang, Ranking Distillation, KDD 2018, arXiv:1809.07428.

The paper weighs base and distillation (1 - a) and a, and makes the two weights of an item sum to 1 over the list; its
official code gives the base weight 1 and leaves the products as they are: `normalise = "none"`. Both see one item at a
time; here every distinct user of a batch counts once.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.rank_weighted import RankWeighted

__all__ = ["RD", "RD_PAPER", "rd"]

RD_PAPER = Paper(
    key="tang2018rd",
    title="Ranking Distillation: Learning Compact Ranking Models With High Performance for Recommender System",
    authors="Tang, Jiaxi and Wang, Ke",
    venue="KDD",
    year=2018,
    url="https://arxiv.org/abs/1809.07428",
)


class RD(Settings):
    """Ranking Distillation."""

    weight: float = Field(default=1.0, ge=0)
    """Multiplies the distillation term; the base loss, summed over the batch, has weight 1."""
    near: int = Field(default=10, ge=1)
    """K, items of the teacher's list that count as positives."""
    sharpness: float = Field(default=1.0, gt=0)
    """lambda: the item at rank r (from 1) weighs e^(-r / lambda), normalised to sum 1."""
    steep: float = Field(default=0.1, gt=0)
    """mu: an item the student ranks n places lower than the teacher weighs tanh(mu n)."""
    sampled: int = Field(default=100, ge=1)
    """D, items drawn to estimate the student's rank of an item."""
    start: int = Field(default=10, ge=0)
    """First epoch in which the student's rank counts; before, positions alone weigh."""
    normalise: Literal["one", "none"] = "one"
    """ "one": a user's weights sum to 1 (paper); "none": the two weights are multiplied as they are (official code)."""


@method(
    "rd",
    settings=RD,
    paper=RD_PAPER,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-2, 1e1), "sharpness": LogRange(0.3, 10)},
)
def rd(c: RD, s: Setting) -> list[Pass]:
    """Ranking Distillation: the teacher's first items are extra positives."""
    teacher = s.need_teacher("rd")
    term = RankWeighted(
        s.taken,
        s.n_users,
        near=c.near,
        sharpness=c.sharpness,
        steep=c.steep,
        sampled=c.sampled,
        start=c.start,
        normalise=c.normalise,
        seed=s.seed,
    )
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), rd=(c.weight, term)), teacher)]
