"""FreqD: what is smooth over the graph comes first. Zhu & Zhang, A Frequency Perspective, KDD 2025, arXiv:2411.10676.

Both sides are smoothed over who occurs together before they are compared, so that low frequencies weigh more. The
official projection is the mean of small networks with dropout; here it is linear, or has one hidden layer (`hidden`).
The published run files lack most keys: neighbours, smoothing and weight are not the authors'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method, width
from recdistill.methods.ranges import LinearRange, LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.low_pass import LowPass

if TYPE_CHECKING:
    from recdistill.query import Side

__all__ = ["FREQD", "FreqD", "freqd"]

FREQD = Paper(
    key="zhu2025freqd",
    title="Exploring Feature-based Knowledge Distillation for Recommender System: A Frequency Perspective",
    authors="Zhu, Zhangchi and Zhang, Wei",
    venue="KDD",
    year=2025,
    url="https://arxiv.org/abs/2411.10676",
)


class FreqD(Settings):
    """Frequency-weighted distillation of vectors."""

    weight: float = Field(default=1e-2, ge=0)
    """Multiplies the distillation terms, users and items; the base loss, summed over the batch, has weight 1."""
    neighbours: int = Field(default=10, ge=1)
    """Edges from each entity to those it occurs with most, before the graph is made symmetric."""
    smooth: float = Field(default=0.5, ge=0, le=1)
    """alpha: an entity counts 1 - alpha, its neighbours alpha; 0 compares as `fitnet` does."""
    keep: float = Field(default=1.0, gt=0, le=1)
    """Chance that an edge is there in a step."""
    hidden: int = Field(default=0, ge=0)
    """Width of a hidden layer of the projection; 0 = linear."""
    match: Literal["squared", "cosine"] = "squared"
    """Squared distance, or 1 - cosine."""
    layer: Literal["served"] | int = "served"
    """Which vectors of the student are matched: "served", or a table of NeuMF (0 = MF pair, 1 = MLP pair)."""
    teacher_layer: Literal["served"] | int = "served"
    """Which vectors of the teacher they are matched with."""


@method(
    "freqd",
    settings=FreqD,
    paper=FREQD,
    asks=[Kind.VECTORS],
    tuned={"weight": LogRange(1e-4, 1), "smooth": LinearRange(0.1, 0.9)},
)
def freqd(c: FreqD, s: Setting) -> list[Pass]:
    """FreqD: transfers vectors smoothed over what occurs together."""
    teacher = s.need_teacher("freqd")

    def term(side: Side) -> LowPass:
        return LowPass(
            side,
            s.taken,
            student_dim=width(s, s.student, side, c.layer),
            teacher_dim=width(s, teacher, side, c.teacher_layer),
            neighbours=c.neighbours,
            smooth=c.smooth,
            keep=c.keep,
            hidden=c.hidden,
            match=c.match,
            layer=c.layer,
            teacher_layer=c.teacher_layer,
            seed=s.seed,
        )

    objective = Objective(
        base=(1.0, s.base), freqd_users=(c.weight, term("user")), freqd_items=(c.weight, term("item"))
    )
    return [Pass("distil", s.batches, objective, teacher)]
