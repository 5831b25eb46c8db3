"""FitNet-style projection: the student's vectors, projected, against the teacher's. Romero et al., ICLR 2015.

A control for everything that transfers vectors: one map for all entities, where DE has experts. A published port for
recommenders draws entities uniformly (`entities = "uniform"`) and projects through a hidden layer (`hidden`); the
Topology Distillation paper's baseline takes those of the batch, which is the default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method, width
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.projection_match import ProjectionMatch

if TYPE_CHECKING:
    from recdistill.query import Side

__all__ = ["FITNET", "FitNet", "fitnet"]

FITNET = Paper(
    key="romero2015fitnets",
    title="FitNets: Hints for Thin Deep Nets",
    authors="Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo "
    "and Bengio, Yoshua",
    venue="ICLR",
    year=2015,
    url="https://arxiv.org/abs/1412.6550",
)


class FitNet(Settings):
    """Projection of the student's vectors."""

    weight: float = Field(default=1e-2, ge=0)
    """Multiplies the distillation terms, users and items; the base loss, summed over the batch, has weight 1."""
    hidden: int = Field(default=0, ge=0)
    """Width of a hidden layer of the projection; 0 = linear."""
    lengths: Literal["kept", "unit"] = "kept"
    """ "unit" compares directions alone."""
    entities: Literal["batch", "uniform"] = "batch"
    """Whose vectors a step compares: those of the batch, or as many drawn uniformly from all."""
    layer: Literal["served"] | int = "served"
    """Which vectors of the student are matched: "served", or a table of NeuMF (0 = MF pair, 1 = MLP pair)."""
    teacher_layer: Literal["served"] | int = "served"
    """Which vectors of the teacher they are matched with."""


@method("fitnet", settings=FitNet, paper=FITNET, asks=[Kind.VECTORS], tuned={"weight": LogRange(1e-4, 1)})
def fitnet(c: FitNet, s: Setting) -> list[Pass]:
    """FitNet: transfers the teacher's vectors by one projection."""
    teacher = s.need_teacher("fitnet")

    def term(side: Side, rows: int) -> ProjectionMatch:
        return ProjectionMatch(
            side,
            student_dim=width(s, s.student, side, c.layer),
            teacher_dim=width(s, teacher, side, c.teacher_layer),
            rows=rows,
            hidden=c.hidden,
            lengths=c.lengths,
            entities=c.entities,
            layer=c.layer,
            teacher_layer=c.teacher_layer,
            seed=s.seed,
        )

    users, items = term("user", s.n_users), term("item", s.taken.n_items)
    objective = Objective(base=(1.0, s.base), fit_users=(c.weight, users), fit_items=(c.weight, items))
    return [Pass("distil", s.batches, objective, teacher)]
