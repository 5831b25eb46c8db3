"""HTD: the topology within and between groups of entities. Kang et al., KDD 2021, arXiv:2106.08700.

`L = L_base + w [ g L_TD + (1 - g) L_GA ]`: L_GA is DE, whose selection, without noise, also assigns the groups; an item
counts once in it, whatever its roles. Where the paper's formula and the official code differ, the code is the default
and the paper a field: `pairs` and `own`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recdistill.knowledge.view import Kind
from recdistill.methods.base import Setting, method
from recdistill.methods.de import DE, expert_terms
from recdistill.methods.ftd import TOPOLOGY, check_one_width
from recdistill.methods.ranges import LinearRange, LogRange
from recdistill.objective import Objective, Pass
from recdistill.settings import Settings
from recdistill.terms.expert_match import ExpertMatch
from recdistill.terms.topology import GroupTopology

__all__ = ["HTD", "htd"]


class HTD(Settings):
    """Hierarchical Topology Distillation."""

    weight: float = Field(default=1e-3, ge=0)
    """Multiplies topology and group assignment together; the base loss, summed over the batch, has weight 1."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """g: the topology has weight g, the experts that learn the groups 1 - g."""
    groups: int = Field(default=30, ge=1)
    """K, groups of users and again of items."""
    pairs: Literal["positive", "all"] = "positive"
    """Pairs within a group: "positive" leaves out those whose teacher cosine is not (official code), "all" (paper)."""
    own: Literal["kept", "left-out"] = "kept"
    """Whether an entity is compared with its own group's prototype: "kept" (official code), "left-out" (paper)."""
    level: Literal["entity", "prototype"] = "entity"
    """Prototypes are compared with entities, Group(P, e), or with each other, Group(P, P)."""
    tau_start: float = Field(default=1.0, gt=0)
    """Temperature of the selection in epochs 0 and 1."""
    tau_end: float = Field(default=1e-10, gt=0)
    """Temperature at epoch `tau_epochs` + 1."""
    tau_epochs: int = Field(default=1000, ge=1)
    """Epochs of exponential decay between the two."""
    layer: Literal["served"] | int = "served"
    """Which vectors of the student are compared: "served", or a table of NeuMF (0 = MF pair, 1 = MLP pair)."""
    teacher_layer: Literal["served"] | int = "served"
    """Which vectors of the teacher."""
    dropped: float = Field(default=1e-3, ge=0, lt=1)
    """Share of an entity's expert weight that may be left out to ask fewer experts; 0 asks all of them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the experts' large products while every expert is asked."""


@method(
    "htd",
    settings=HTD,
    paper=TOPOLOGY,
    asks=[Kind.VECTORS],
    tuned={"weight": LogRange(1e-5, 1e-1), "balance": LinearRange(0.1, 0.9)},
)
def htd(c: HTD, s: Setting) -> list[Pass]:
    """Hierarchical Topology Distillation: transfers cosines within groups, and to the groups' prototypes."""
    teacher = s.need_teacher("htd")
    check_one_width(s, c.layer, c.teacher_layer)
    shared = c.model_dump(include=set(DE.model_fields) - {"weight"})
    experts = expert_terms(DE(weight=c.weight * (1 - c.balance), experts=c.groups, **shared), s, roles="once")
    (_, users), (_, items) = experts["de_users"], experts["de_items"]
    assert isinstance(users, ExpertMatch)  # noqa: S101 - what `expert_terms` makes
    assert isinstance(items, ExpertMatch)  # noqa: S101
    topology = GroupTopology(
        users,
        items,
        pairs=c.pairs,
        own=c.own,
        level=c.level,
        layer=c.layer,
        teacher_layer=c.teacher_layer,
    )
    objective = Objective(base=(1.0, s.base), htd=(c.weight * c.balance, topology), **experts)
    return [Pass("distil", s.batches, objective, teacher)]
