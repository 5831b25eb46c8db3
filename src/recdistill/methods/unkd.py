"""UnKD: the teacher's order within groups of like popularity. Chen et al., WSDM 2023, arXiv:2211.14729.

A teacher's scores favour what is popular, and so does a student that learns them; within a group of like popularity
there is nothing of that to learn. Groups are cut at equal shares of the total popularity; a published port fills them
one by one, which differs by an item at each cut. It draws both items of a pair until all pairs differ; here each pair
is drawn again by itself.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.stratified import StratifiedPairs

__all__ = ["UNKD", "UnKD", "unkd"]

UNKD = Paper(
    key="chen2023unkd",
    title="Unbiased Knowledge Distillation for Recommendation",
    authors="Chen, Gang and Chen, Jiawei and Feng, Fuli and Zhou, Sheng and He, Xiangnan",
    venue="WSDM",
    year=2023,
    url="https://arxiv.org/abs/2211.14729",
)


class UnKD(Settings):
    """Unbiased Knowledge Distillation."""

    weight: float = Field(default=0.5, ge=0)
    """Multiplies the distillation term; the base loss, summed over the batch, has weight 1."""
    groups: int = Field(default=4, ge=1)
    """G, groups of items of equal total popularity."""
    pairs: int = Field(default=40, ge=1)
    """Pairs a user and epoch, over all groups; a user's part of the loss is their mean."""
    lean: float = Field(default=0.0, ge=0)
    """0 shares pairs out evenly; more gives groups of less popular items more, by (greatest + least - own)^lean."""
    depth: int = Field(default=5000, ge=1)
    """How much of the teacher's list is divided into groups; it is asked for once in a run."""
    reach: int = Field(default=100, ge=1)
    """How much of each group's part of the list is kept."""
    sharpness: float = Field(default=20.0, gt=0)
    """The item at rank r of a group is drawn with weight e^(-r / sharpness)."""

    @model_validator(mode="after")
    def _enough(self) -> UnKD:
        if self.groups > self.pairs:
            msg = f"groups ({self.groups}) must be at most pairs ({self.pairs})"
            raise ValueError(msg)
        return self


@method(
    "unkd",
    settings=UnKD,
    paper=UNKD,
    asks=[Kind.RANKS],
    tuned={"weight": LogRange(1e-2, 1e1), "sharpness": LogRange(2, 100)},
)
def unkd(c: UnKD, s: Setting) -> list[Pass]:
    """Unbiased distillation: transfers the ranking within groups of like popularity."""
    teacher = s.need_teacher("unkd")
    term = StratifiedPairs(
        s.taken,
        s.n_users,
        groups=c.groups,
        pairs=c.pairs,
        lean=c.lean,
        depth=c.depth,
        reach=c.reach,
        sharpness=c.sharpness,
        seed=s.seed,
    )
    return [Pass("distil", s.batches, Objective(base=(1.0, s.base), unkd=(c.weight, term)), teacher)]
