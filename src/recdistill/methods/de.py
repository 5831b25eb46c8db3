"""DE: experts rebuild the teacher's vectors from the student's. Kang et al., DE-RRD, CIKM 2020, arXiv:2012.04357.

Where paper and official code differ, the code is the default and the paper a field: `norm`. What the code does and the
paper does not say (1e-10 inside the logarithm, halves for the items' two roles, tau = 1 in epochs 0 and 1) is done.
The two halves are drawn in one call over the union of items: equal in expectation to the code's two calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recdistill.clock import exponential
from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method, width
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.expert_match import ExpertMatch

if TYPE_CHECKING:
    from recdistill.objective import Term
    from recdistill.query import Side

__all__ = ["DE", "DE_RRD", "de", "expert_terms"]

DE_RRD = Paper(
    key="kang2020derrd",
    title="DE-RRD: A Knowledge Distillation Framework for Recommender System",
    authors="Kang, SeongKu and Hwang, Junyoung and Kweon, Wonbin and Yu, Hwanjo",
    venue="CIKM",
    year=2020,
    url="https://arxiv.org/abs/2012.04357",
)


class DE(Settings):
    """Distillation Experts."""

    weight: float = Field(default=1e-2, ge=0)
    """Multiplies the distillation terms; the base loss, summed over the batch, has weight 1."""
    experts: int = Field(default=30, ge=1)
    """M, experts for users and again for items."""
    tau_start: float = Field(default=1.0, gt=0)
    """Temperature of the selection in epochs 0 and 1."""
    tau_end: float = Field(default=1e-10, gt=0)
    """Temperature at epoch `tau_epochs` + 1; early stopping ends long before."""
    tau_epochs: int = Field(default=1000, ge=1)
    """Epochs of exponential decay between the two. The official code ties it to the most epochs there can be."""
    norm: Literal["squared", "plain"] = "squared"
    """ "squared" as the official code, "plain" as the paper's formula prints."""
    layer: Literal["served"] | int = "served"
    """Which vectors of the student are matched: "served", or a table of NeuMF (0 = MF pair, 1 = MLP pair)."""
    teacher_layer: Literal["served"] | int = "served"
    """Which vectors of the teacher they are matched with; of NeuMF "served" are both pairs, one after the other."""
    dropped: float = Field(default=1e-3, ge=0, lt=1)
    """Share of an entity's expert weight that may be left out to ask fewer experts; 0 asks all of them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the experts' large products while every expert is asked; "bfloat16" is faster where the CPU or GPU has it."""


def expert_terms(c: DE, s: Setting, *, roles: Literal["half", "once"] = "half") -> dict[str, tuple[float, Term]]:
    """DE's two terms, users and items, with their weight; `roles` as in `ExpertMatch`."""
    teacher = s.need_teacher("de")

    def term(side: Side) -> ExpertMatch:
        return ExpertMatch(
            side,
            student_dim=width(s, s.student, side, c.layer),
            teacher_dim=width(s, teacher, side, c.teacher_layer),
            temperature=exponential(c.tau_start, c.tau_end, c.tau_epochs, lag=1),
            experts=c.experts,
            layer=c.layer,
            teacher_layer=c.teacher_layer,
            norm=c.norm,
            dropped=c.dropped,
            precision=c.precision,
            roles=roles,
            seed=s.seed,
        )

    return {"de_users": (c.weight, term("user")), "de_items": (c.weight, term("item"))}


@method("de", settings=DE, paper=DE_RRD, asks=[Kind.VECTORS], tuned={"weight": LogRange(1e-4, 1e-1)})
def de(c: DE, s: Setting) -> list[Pass]:
    """Distillation Experts: transfers the teacher's vectors."""
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), **expert_terms(c, s)), s.teacher)]
