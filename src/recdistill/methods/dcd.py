"""DCD: correct what the student errs about, both ways. Lee & Kim, Dual Correction, CIKM 2021, arXiv:2109.03459.

RRD's loss, whose two groups are what the student under-estimates and over-estimates within the teacher's list. The
paper computes the student's ranks every third epoch, over lists of 500; here they are computed at every step from the
student as it is, so that a run which is killed goes on with equal draws, over lists of `depth`. A published port leaves
the under-estimated items in random order; here they are in the teacher's, as the loss needs. Its main script and so its
weights are not published: those below are RRD's and IR-RRD's.
"""

from __future__ import annotations

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.dual_correction import ItemCorrection, UserCorrection
from recdistill.terms.lists import best_users

__all__ = ["DCD", "DCD_PAPER", "dcd"]

DCD_PAPER = Paper(
    key="lee2021dcd",
    title="Dual Correction Strategy for Ranking Distillation in Top-N Recommender System",
    authors="Lee, Youngjune and Kim, Kee-Eung",
    venue="CIKM",
    year=2021,
    url="https://arxiv.org/abs/2109.03459",
)


class DCD(Settings):
    """Dual Correction Distillation."""

    weight: float = Field(default=1e-3, ge=0)
    """Multiplies the users' term; the base loss, summed over the batch, has weight 1."""
    item_weight: float = Field(default=5e-4, ge=0)
    """Multiplies the items' term; 0 leaves it out."""
    near: int = Field(default=40, ge=1)
    """Under-estimated items a user: they keep the teacher's order."""
    far: int = Field(default=40, ge=1)
    """Over-estimated items a user: kept below, never ordered."""
    depth: int = Field(default=200, ge=1)
    """How much of the teacher's list is looked at; of an item's list of users as much."""
    steep: float = Field(default=0.1, gt=0)
    """e: an item that the student ranks n places too low or too high is drawn with weight tanh(e n)."""
    item_near: int = Field(default=20, ge=1)
    """Under-estimated users an item."""
    item_far: int = Field(default=20, ge=1)
    """Over-estimated users an item."""


@method(
    "dcd",
    settings=DCD,
    paper=DCD_PAPER,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-4, 1e-1), "item_weight": LogRange(1e-5, 1e-2)},
)
def dcd(c: DCD, s: Setting) -> list[Pass]:
    """Dual correction: transfers the ranking where the student errs about it."""
    teacher = s.need_teacher("dcd")
    users = UserCorrection(s.taken, s.n_users, near=c.near, far=c.far, depth=c.depth, steep=c.steep, seed=s.seed)
    terms = {"dcd_users": (c.weight, users)}
    if c.item_weight:
        items = ItemCorrection(
            lambda: best_users(teacher, s.taken, s.n_users, c.depth, depth=c.depth),
            near=c.item_near,
            far=c.item_far,
            steep=c.steep,
            seed=s.seed,
        )
        return [
            Pass("distil", s.batches, Objective(base=(1.0, s.base), **terms, dcd_items=(c.item_weight, items)), teacher)
        ]
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), **terms), teacher)]
