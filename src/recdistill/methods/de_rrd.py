"""DE-RRD: both at once. Kang et al., CIKM 2020, arXiv:2012.04357.

`L = L_base + w_DE L_DE + w_RRD L_RRD`. The official repository has no joint script; the weights are those of its two.
"""

from __future__ import annotations

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Setting, method
from recdistill.methods.de import DE, DE_RRD, expert_terms
from recdistill.methods.ranges import LogRange
from recdistill.methods.rrd import RRD, ranking_term
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings

__all__ = ["Both", "de_rrd"]


class Both(Settings):
    """Distillation Experts and Relaxed Ranking Distillation."""

    de: DE = DE()
    """The experts' part."""
    rrd: RRD = RRD()
    """The ranking's part."""


@method(
    "de-rrd",
    settings=Both,
    paper=DE_RRD,
    asks=[Kind.RANKS, Kind.VECTORS],
    tuned={"de.weight": LogRange(1e-4, 1e-1), "rrd.weight": LogRange(1e-4, 1e-1)},
)
def de_rrd(c: Both, s: Setting) -> list[Pass]:
    """DE and RRD together: vectors and ranking."""
    teacher = s.need_teacher("de-rrd")
    terms = expert_terms(c.de, s)
    objective = Objective(base=(1.0, s.base), **terms, rrd=(c.rrd.weight, ranking_term(c.rrd, s)))
    return [Pass("distil", s.batches, objective, teacher)]
