"""IR-RRD: RRD and its mirror image over items. Kang et al., Item-side ranking regularized distillation, Inf. Sci. 2021.

`L = L_base + w L_RRD + w_i L_IR`. The defaults are those of the official code, whose term takes every item that occurs
among the draws of the batch's users, not the batch's positives (`items`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.methods.rrd import RRD, ranking_term
from recdistill.objective import Objective, Pass
from recdistill.terms.item_ranking import ItemRanking
from recdistill.terms.lists import best_users

__all__ = ["IRRRD", "IR_RRD", "ir_rrd"]

IR_RRD = Paper(
    key="kang2021irrrd",
    title="Item-side ranking regularized distillation for recommender system",
    authors="Kang, SeongKu and Hwang, Junyoung and Kweon, Wonbin and Yu, Hwanjo",
    venue="Information Sciences",
    year=2021,
    url="https://doi.org/10.1016/j.ins.2021.08.060",
)


class IRRRD(RRD):
    """Item-side ranking regularised distillation: the settings of RRD, and those of the items' side."""

    item_weight: float = Field(default=5e-4, ge=0)
    """Multiplies the items' term."""
    item_near: int = Field(default=20, ge=1)
    """Interesting users an item: they keep the teacher's order."""
    item_far: int = Field(default=20, ge=1)
    """Uninteresting users an item: kept below, never ordered."""
    item_sharpness: float = Field(default=10.0, gt=0)
    """The user at rank r (from 1) of an item's list is drawn with weight e^(-r / item_sharpness)."""
    item_depth: int = Field(default=500, ge=1)
    """How much of an item's list of users is never uninteresting."""
    item_reach: int = Field(default=128, ge=1)
    """Interesting users are drawn from the first `item_reach` of the list."""
    items: Literal["drawn", "positives"] = "drawn"
    """Whose lists a step takes: "drawn", of all items among the draws of its users (official code); or "positives"."""
    most: int = Field(default=0, ge=0)
    """The most items a step, drawn at random and weighed up to all of them; 0 takes all."""


@method(
    "ir-rrd",
    settings=IRRRD,
    paper=IR_RRD,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-4, 1e-1), "item_weight": LogRange(1e-5, 1e-2)},
)
def ir_rrd(c: IRRRD, s: Setting) -> list[Pass]:
    """RRD and its item side: also ranks users for items as the teacher does."""
    teacher = s.need_teacher("ir-rrd")
    users = ranking_term(c, s)
    items = ItemRanking(
        users,
        lambda: best_users(teacher, s.taken, s.n_users, c.item_depth, depth=c.depth),
        s.taken,
        near=c.item_near,
        far=c.item_far,
        depth=c.item_depth,
        reach=c.item_reach,
        sharpness=c.item_sharpness,
        draw=c.draw,
        items=c.items,
        most=c.most,
        seed=s.seed,
    )
    objective = Objective(base=(1.0, s.base), rrd=(c.weight, users), ir=(c.item_weight, items))
    return [Pass("distil", s.batches, objective, teacher)]
