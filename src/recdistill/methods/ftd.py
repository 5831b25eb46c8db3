"""FTD: how all entities of a batch lie to each other. Kang et al., KDD 2021, arXiv:2106.08700."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method, width
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.topology import FullTopology

if TYPE_CHECKING:
    from recdistill.knowledge.view import Knows, Layer
    from recdistill.models.base import Recommender

__all__ = ["FTD", "TOPOLOGY", "check_one_width", "ftd"]

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


def check_one_width(s: Setting, layer: Layer, teacher_layer: Layer) -> None:
    """Users are compared with items, so the vectors of both have to be of one width.

    Raises:
        UsageError: those of the student's two sides are not, or those of the teacher's; or there is no such layer.
    """
    wrong: list[str] = []
    sides: list[tuple[str, Recommender | Knows, Layer]] = [
        ("student", s.student, layer),
        ("teacher", s.need_teacher("ftd"), teacher_layer),
    ]
    for who, of, which in sides:
        user, item = width(s, of, "user", which), width(s, of, "item", which)
        if user != item:
            wrong.append(f"the {who} has users of {user} and items of {item} dims")
    if wrong:
        remedy = "Match the two sides apart: 'de', 'fitnet' or 'freqd'"
        what = "A topology compares users with items, whose vectors must be of one width"
        raise UsageError(problem(what, "; ".join(wrong), remedy=remedy))


@method("ftd", settings=FTD, paper=TOPOLOGY, asks=[Kind.VECTORS], tuned={"weight": LogRange(1e-5, 1e-1)})
def ftd(c: FTD, s: Setting) -> list[Pass]:
    """Full Topology Distillation: transfers the cosines of all pairs of entities."""
    teacher = s.need_teacher("ftd")
    check_one_width(s, c.layer, c.teacher_layer)
    term = FullTopology(layer=c.layer, teacher_layer=c.teacher_layer)
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), ftd=(c.weight, term)), teacher)]
