"""FTD: how all entities of a batch lie to each other. Kang et al., Topology Distillation, KDD 2021, arXiv:2106.08700."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.methods.base import Paper, Setting, method
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.topology import FullTopology

__all__ = ["FTD", "TOPOLOGY", "ftd"]

TOPOLOGY = Paper(
    key="kang2021topology",
    title="Topology Distillation for Recommender System",
    authors="Kang, SeongKu and Hwang, Junyoung and Kweon, Wonbin and Yu, Hwanjo",
    venue="KDD",
    year=2021,
    url="https://arxiv.org/abs/2106.08700",
)


class FTD(Settings):
    """Full Topology Distillation."""

    weight: float = Field(default=1e-3, ge=0)
    """Multiplies the sum over all pairs of the batch's entities; the base loss, summed, has weight 1."""
    layer: Literal["served"] | int = "served"
    """Which vectors of the student are compared: "served", or a table of NeuMF (0 = MF pair, 1 = MLP pair)."""
    teacher_layer: Literal["served"] | int = "served"
    """Which vectors of the teacher."""


@method("ftd", settings=FTD, paper=TOPOLOGY)
def ftd(c: FTD, s: Setting) -> list[Pass]:
    """Full Topology Distillation: transfers the cosines of all pairs of entities."""
    teacher = s.need_teacher("ftd")
    term = FullTopology(layer=c.layer, teacher_layer=c.teacher_layer)
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), ftd=(c.weight, term)), teacher)]
