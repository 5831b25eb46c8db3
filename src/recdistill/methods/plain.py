"""Plain: the student's own loss and nothing else. What every distilled student has to beat."""

from __future__ import annotations

from recdistill.methods.base import Paper, Setting, method
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings

__all__ = ["BPR", "Plain", "plain"]

BPR = Paper(
    key="rendle2009bpr",
    title="BPR: Bayesian Personalized Ranking from Implicit Feedback",
    authors="Rendle, Steffen and Freudenthaler, Christoph and Gantner, Zeno and Schmidt-Thieme, Lars",
    venue="UAI",
    year=2009,
    url="https://arxiv.org/abs/1205.2618",
)


class Plain(Settings):
    """No distillation, no settings."""


@method("plain", settings=Plain, paper=BPR, asks=(), tuned={})
def plain(c: Plain, s: Setting) -> list[Pass]:
    """The base loss alone, no teacher."""
    del c
    return [Pass("train", s.batches, Objective(base=(1.0, s.base)))]
