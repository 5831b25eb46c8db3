"""CD: the teacher's scores as soft labels. Lee et al., Collaborative Distillation, ICDM 2019, arXiv:1911.05276.

The paper draws from a ranking of all items that a user does not have, anew in every epoch, by the student's ranks
(student-guided) or the teacher's. Here, at every step, `candidates` of them are drawn first and ranked, so that no
ranking of a whole catalogue is ever made: with candidates = the number of items it is the paper's draw. A published
port draws two of the first 3,000, nearly uniformly.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.soft_labels import SoftLabels

__all__ = ["CD", "CD_PAPER", "cd"]

CD_PAPER = Paper(
    key="lee2019cd",
    title="Collaborative Distillation for Top-N Recommendation",
    authors="Lee, Jae-woong and Choi, Minjin and Lee, Jongwuk and Shim, Hyunjung",
    venue="ICDM",
    year=2019,
    url="https://arxiv.org/abs/1911.05276",
)


class CD(Settings):
    """Collaborative Distillation."""

    weight: float = Field(default=0.1, ge=0)
    """Multiplies the distillation term; the base loss, summed over the batch, has weight 1."""
    guide: Literal["student", "teacher"] = "student"
    """Whose ranking decides which items are drawn; the paper finds the student's better."""
    candidates: int = Field(default=200, ge=1)
    """Items a user drawn uniformly at every step, from which the guide chooses."""
    drawn: int = Field(default=20, ge=1)
    """Items a user whose scores are transferred."""
    sharpness: float = Field(default=10.0, ge=0)
    """gamma: place j of n candidates is drawn with weight e^(-gamma j / n); 0 draws uniformly."""
    temperature: float = Field(default=2.0, gt=0)
    """T1: a label is sigmoid((teacher's score + shift) / T1)."""
    shift: float = 0.0
    """T2, added to the teacher's scores."""

    @model_validator(mode="after")
    def _enough(self) -> CD:
        if self.drawn > self.candidates:
            msg = f"drawn ({self.drawn}) must be at most candidates ({self.candidates})"
            raise ValueError(msg)
        return self


@method(
    "cd",
    settings=CD,
    paper=CD_PAPER,
    asks=[Kind.SCORES],
    tuned={"weight": LogRange(1e-3, 1), "temperature": LogRange(0.5, 10)},
)
def cd(c: CD, s: Setting) -> list[Pass]:
    """Collaborative Distillation: the teacher's scores are soft labels of drawn items."""
    teacher = s.need_teacher("cd")
    term = SoftLabels(
        s.taken,
        guide=c.guide,
        candidates=c.candidates,
        drawn=c.drawn,
        sharpness=c.sharpness,
        temperature=c.temperature,
        shift=c.shift,
        seed=s.seed,
    )
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), cd=(c.weight, term)), teacher)]
