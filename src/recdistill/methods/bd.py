"""BD: teacher and student learn together, each from the other. Kweon et al., Bidirectional Distillation, WWW 2021.

Two passes over the same batches: the student's, with the teacher as it is, and the teacher's, with the student as it
is; neither asks the other for a gradient. The teacher that learns is a copy, so that what was given stays as it was.
The paper starts both from trained models, refreshes ranks over all items every tenth epoch, and takes the item that is
drawn as the negative of the base loss too; here the student starts as it is built, ranks are those of the step among
`candidates`, so that a run which is killed goes on with equal draws, and the base loss has its own negatives.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.teachers.live import Live, Peer
from recdistill.terms.mutual import MutualLabels

if TYPE_CHECKING:
    from recdistill.clock import Clock, Schedule

__all__ = ["BD", "BD_PAPER", "bd"]

BD_PAPER = Paper(
    key="kweon2021bd",
    title="Bidirectional Distillation for Top-K Recommender System",
    authors="Kweon, Wonbin and Kang, SeongKu and Yu, Hwanjo",
    venue="WWW",
    year=2021,
    url="https://arxiv.org/abs/2106.02870",
)


class BD(Settings):
    """Bidirectional Distillation."""

    weight: float = Field(default=0.5, ge=0)
    """Multiplies what the student learns from the teacher; the base loss, summed over the batch, has weight 1."""
    teacher_weight: float = Field(default=0.5, ge=0)
    """Multiplies what the teacher learns from the student."""
    steep: float = Field(default=1e-2, gt=0)
    """An item that the student ranks n places above the teacher is drawn for it with weight tanh(steep n)."""
    teacher_steep: float = Field(default=1e-4, gt=0)
    """An item that the teacher ranks n places above the student is drawn for it with weight e^(teacher_steep n)."""
    candidates: int = Field(default=50, ge=1)
    """Items a user drawn uniformly at every step, which both rank."""
    drawn: int = Field(default=2, ge=1)
    """Items a user whose probabilities are transferred."""
    temperature: float = Field(default=5.0, gt=0)
    """A label is sigmoid(the other's score / temperature)."""
    start: int = Field(default=0, ge=0)
    """First epoch in which they learn from each other."""

    @model_validator(mode="after")
    def _enough(self) -> BD:
        if self.drawn > self.candidates:
            msg = f"drawn ({self.drawn}) must be at most candidates ({self.candidates})"
            raise ValueError(msg)
        return self


@method(
    "bd",
    settings=BD,
    paper=BD_PAPER,
    asks=[Kind.SCORES, Kind.WEIGHTS],
    tuned={"weight": LogRange(1e-2, 5), "temperature": LogRange(1, 20)},
)
def bd(c: BD, s: Setting) -> list[Pass]:
    """Bidirectional distillation: a teacher that goes on learning, from its student too."""
    teacher = s.need_teacher("bd")

    def from_start(weight: float) -> Schedule:
        def at(clock: Clock) -> float:
            return weight if clock.epoch >= c.start else 0.0

        return at

    def labels(purpose: str, form: Literal["tanh", "exp"], steep: float) -> MutualLabels:
        return MutualLabels(
            s.taken,
            form=form,
            steep=steep,
            candidates=c.candidates,
            drawn=c.drawn,
            temperature=c.temperature,
            purpose=purpose,
            seed=s.seed,
        )

    down = Objective(base=(1.0, s.base), bd=(from_start(c.weight), labels("down", "tanh", c.steep)))
    if not isinstance(teacher, Live):  # the loop refuses it, with all that is missing
        return [Pass("student", s.batches, down, teacher)]
    model = deepcopy(teacher.model).requires_grad_(requires_grad=True)
    up = Objective(base=(1.0, s.base), bd=(from_start(c.teacher_weight), labels("up", "exp", c.teacher_steep)))
    batches = s.batches if s.batches_of is None else s.batches_of(model)
    return [
        Pass("student", s.batches, down, Peer(model)),
        Pass("teacher", batches, up, Peer(s.student), learner=model),
    ]
