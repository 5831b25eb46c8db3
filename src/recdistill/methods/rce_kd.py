"""RCE-KD: cross-entropy, rejuvenated: where the student already looks, and where only the teacher does. 2025.

The official code draws from the student's first items anew in every epoch; so does this. By what weight is `draw`:
"shared" is the paper's and that of every published configuration (`sample_rank: False`), "own" the code's other branch.
Its lists hold training items too; here, as everywhere, they do not. Its weight of 500 belongs to another scale of the
base loss.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.rejuvenated import Rejuvenated

__all__ = ["RCEKD", "RCE_KD", "rce_kd"]

RCE_KD = Paper(
    key="zhu2025rcekd",
    title="Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems",
    authors="Zhu, Zhangchi and Zhang, Wei",
    venue="arXiv preprint",
    year=2025,
    url="https://arxiv.org/abs/2509.20989",
)


class RCEKD(Settings):
    """Rejuvenated cross-entropy."""

    weight: float = Field(default=0.3, ge=0)
    """Multiplies the distillation term; the base loss, summed over the batch, has weight 1."""
    near: int = Field(default=50, ge=1)
    """K, first items of the teacher, and of the student, that are compared."""
    drawn: int = Field(default=50, ge=1)
    """L, items drawn from the student's list."""
    reach: int = Field(default=200, ge=1)
    """M, how much of the student's list they are drawn from."""
    draw: Literal["shared", "own"] = "shared"
    """The weight at rank r of the student's list: e^((1 + n_r) / sharpness), where n_r, at most 50, of the teacher's K
    items stand there or further down; or e^(-r / sharpness), by its own order alone."""
    sharpness: float = Field(default=10.0, gt=0)
    """How far these weights are apart: the smaller, the farther."""
    beta: float = Field(default=3.0, ge=0)
    """The part with the teacher's items weighs e^(-beta * share of them that was drawn)."""
    temperature: float = Field(default=1.0, gt=0)
    """Of both softmaxes."""
    period: int = Field(default=1, ge=1)
    """Epochs between two looks at the student's list, which ranks the whole catalogue."""

    @model_validator(mode="after")
    def _enough(self) -> RCEKD:
        if max(self.near, self.drawn) > self.reach:
            msg = f"near ({self.near}) and drawn ({self.drawn}) must be at most reach ({self.reach})"
            raise ValueError(msg)
        return self


@method(
    "rce-kd",
    settings=RCEKD,
    paper=RCE_KD,
    asks=[Kind.RANKS, Kind.SCORES],
    tuned={"weight": LogRange(1e-2, 1e1), "temperature": LogRange(0.2, 5)},
)
def rce_kd(c: RCEKD, s: Setting) -> list[Pass]:
    """Rejuvenated cross-entropy: transfers scores where the student looks, and where only the teacher does."""
    teacher = s.need_teacher("rce-kd")
    term = Rejuvenated(
        s.taken,
        s.n_users,
        near=c.near,
        drawn=c.drawn,
        reach=c.reach,
        draw=c.draw,
        sharpness=c.sharpness,
        beta=c.beta,
        temperature=c.temperature,
        period=c.period,
        seed=s.seed,
    )
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), rce=(c.weight, term)), teacher)]
