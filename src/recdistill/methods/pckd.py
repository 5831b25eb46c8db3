"""PCKD: experts that keep what the student prefers. Zhu & Zhang, TKDE 2025, arXiv:2311.04549.

`L = L_base + w (L_DE + a R)`: DE, and a regulariser for its experts alone: of a few items, the inner products of
projected vectors must order as those of the vectors themselves. Every distinct user of a batch counts once; the
official code counts a user once for each of its interactions, and its teacher's lists hold training items, where ours
do not. The paper's other form of R, by pairs of items, is not offered.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.de import DE, expert_terms
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.preference import PreferenceConsistency

__all__ = ["PCKD", "PCKD_PAPER", "pckd"]

PCKD_PAPER = Paper(
    key="zhu2025pckd",
    title="Preference-Consistent Knowledge Distillation for Recommender System",
    authors="Zhu, Zhangchi and Zhang, Wei",
    venue="IEEE Transactions on Knowledge and Data Engineering",
    year=2025,
    url="https://arxiv.org/abs/2311.04549",
)


class PCKD(DE):
    """Preference-consistent distillation: the settings of DE, and those of the regulariser."""

    alpha: float = Field(default=0.1, ge=0)
    """The regulariser's weight within the distillation."""
    drawn: int = Field(default=5, ge=2)
    """Items a user and epoch whose order is kept."""
    depth: int = Field(default=100, ge=2)
    """How much of the teacher's list they are drawn from."""
    sharpness: float = Field(default=10.0, gt=0)
    """The item at rank r is drawn with weight e^(-r / sharpness)."""
    temperature: float = Field(default=0.1, gt=0)
    """Of both softmaxes."""

    @model_validator(mode="after")
    def _enough(self) -> PCKD:
        if self.drawn > self.depth:
            msg = f"drawn ({self.drawn}) must be at most depth ({self.depth})"
            raise ValueError(msg)
        return self


@method(
    "pckd",
    settings=PCKD,
    paper=PCKD_PAPER,
    asks=[Kind.RANKS, Kind.VECTORS],
    tuned={"weight": LogRange(1e-4, 1e-1), "alpha": LogRange(1e-2, 1)},
)
def pckd(c: PCKD, s: Setting) -> list[Pass]:
    """Preference-consistent distillation: transfers vectors through experts that keep preferences."""
    teacher = s.need_teacher("pckd")
    experts = expert_terms(c, s)
    (_, users), (_, items) = experts["de_users"], experts["de_items"]
    assert isinstance(users, ExpertMatch)  # noqa: S101 - what `expert_terms` makes
    assert isinstance(items, ExpertMatch)  # noqa: S101
    keep = PreferenceConsistency(
        users,
        items,
        s.taken,
        s.n_users,
        drawn=c.drawn,
        depth=c.depth,
        sharpness=c.sharpness,
        temperature=c.temperature,
        layer=c.layer,
        teacher_layer=c.teacher_layer,
        seed=s.seed,
    )
    objective = Objective(base=(1.0, s.base), **experts, preference=(c.weight * c.alpha, keep))
    return [Pass("distil", s.batches, objective, teacher)]
