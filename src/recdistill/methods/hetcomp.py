"""HetComp: what several teachers agree on, from easy to hard. Kang et al., WWW 2023, arXiv:2303.01130.

The teachers are the members of an ensemble, each a trajectory of checkpoints where it has one (`recdistill.ensemble`,
`recdistill.trajectory`); any other teacher is one of one step, and the fine stage begins at once. The paper has no base
loss (`base = 0`); a published port adds it. Its observed items are ordered by the teachers, whose lists here leave
training items out: they are put above the rest and not ordered, `positives` of them a user and epoch. What an item at
rank r of a list is worth to the consensus, e^(-r / sharpness), is ours: the official code loads a "precomputed
importance for ensemble (Eq.8)" from a pickle that is not published.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.teachers.trajectory import courses
from recdistill.terms.consensus import Consensus

__all__ = ["HETCOMP", "HetComp", "hetcomp"]

HETCOMP = Paper(
    key="kang2023hetcomp",
    title="Distillation from Heterogeneous Models for Top-K Recommendation",
    authors="Kang, SeongKu and Kweon, Wonbin and Lee, Dongha and Lian, Jianxun and Xie, Xing and Yu, Hwanjo",
    venue="WWW",
    year=2023,
    url="https://arxiv.org/abs/2303.01130",
)


class HetComp(Settings):
    """Distillation from heterogeneous teachers, easy to hard."""

    weight: float = Field(default=1e-2, ge=0)
    """Multiplies the distillation term, summed over the distinct users of a batch."""
    base: float = Field(default=0.0, ge=0)
    """Multiplies the base loss; the paper has none."""
    fine: float = Field(default=0.5, ge=0)
    """Multiplies the term once the order counts."""
    near: int = Field(default=100, ge=1)
    """K, items a user that the teachers agree on; half of them, and again a tenth, are ordered in the fine stage."""
    positives: int = Field(default=10, ge=0)
    """Observed items a user and epoch."""
    sharpness: float = Field(default=10.0, gt=0)
    """The item at rank r of a teacher's list is worth e^(-r / sharpness) to the consensus."""
    period: int = Field(default=10, ge=1)
    """Epochs between looks at how near the student has come; the first is at epoch `period`."""
    patience: float = Field(default=1.05, gt=0)
    """alpha: a user's next step is taken when the student has come nearer by this factor, or moved away."""
    relax: float = Field(default=0.995, gt=0, le=1)
    """The factor is multiplied by this at every look."""
    settled: float = Field(default=0.995, gt=0, le=1)
    """Share of all users' steps that have to be taken before the order counts."""
    judged: int = Field(default=50, ge=1)
    """How much of the lists decides how near the student is."""
    rest: Literal["all", "sampled"] = "all"
    """Everything else is summed exactly, or over `far` drawn items, weighed up: cheaper, the more items there are."""
    far: int = Field(default=500, ge=1)
    """Items a user and epoch, where the rest is sampled."""


@method(
    "hetcomp",
    settings=HetComp,
    paper=HETCOMP,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-3, 1), "sharpness": LogRange(2, 60)},
)
def hetcomp(c: HetComp, s: Setting) -> list[Pass]:
    """HetComp: transfers what several teachers agree on, from their easy checkpoints to their last."""
    teacher = s.need_teacher("hetcomp")
    term = Consensus(
        courses(teacher),
        s.taken,
        s.n_users,
        near=c.near,
        positives=c.positives,
        fine=c.fine,
        sharpness=c.sharpness,
        period=c.period,
        patience=c.patience,
        relax=c.relax,
        settled=c.settled,
        judged=c.judged,
        rest=c.rest,
        far=c.far,
        seed=s.seed,
    )
    if c.base:
        return [Pass("distil", s.batches, Objective(base=(c.base, s.base), hetcomp=(c.weight, term)), teacher)]
    return [Pass("distil", s.batches, Objective(hetcomp=(c.weight, term)), teacher)]
