"""AdaRec's distillation: embeddings, hidden layers by transport, logits. Chen et al., 2021, arXiv:2107.07173.

`L = (1 - g) CE + g (L_emb + L_hid + L_logit)`, of any sequential student and teacher; the search of the student's cells
minimises the same (see `recdistill.search`). The paper's body is not at hand in text: "official code" is what its
repository does. Where it errs, the default is what it meant, and `COMPAT` is what it does: its divergences have their
arguments swapped (so they are KL(student || teacher)), and are summed over the positions of a history, beside a
cross-entropy that is a mean over real ones. Its base loss is "cross-entropy". The official sums have padding in them
too; here padding has no logits, its states are zeros, and a batch ends with its longest history: on histories that fill
their length the two are one.

Letters: S student layers, T teacher layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import nn

from recdistill.data.sequences import SequenceBatches
from recdistill.knowledge.view import Kind
from recdistill.losses.kl import Direction
from recdistill.methods.base import Paper, Setting, method
from recdistill.methods.ranges import LinearRange, LogRange
from recdistill.models.memory import Memory
from recdistill.models.sequential import Sequential
from recdistill.objective import Objective, Pass
from recdistill.query import Query
from recdistill.settings import Settings
from recdistill.teachers.live import Live
from recdistill.terms.embedding_match import EmbeddingMatch
from recdistill.terms.layer_match import LayerMatch, Mapping, Opposite
from recdistill.terms.logit_match import LogitMatch
from recdistill.terms.positions import Per, Positions
from recdistill.terms.transport import Attention

if TYPE_CHECKING:
    from recdistill.clock import Schedule
    from recdistill.knowledge.view import Knows
    from recdistill.models.base import Recommender
    from recdistill.objective import Batches, Term
    from recdistill.runtime import How

__all__ = ["ADAREC", "COMPAT", "AdaRec", "adarec", "asks", "distillation", "remember", "shape"]

ADAREC = Paper(
    key="chen2021adarec",
    title="Scene-adaptive Knowledge Distillation for Sequential Recommendation via Differentiable Architecture Search",
    authors="Chen, Lei and Yuan, Fajie and Yang, Jiaxi and Yang, Min and Li, Chengming",
    venue="arXiv preprint",
    year=2021,
    url="https://arxiv.org/abs/2107.07173",
)

COMPAT: dict[str, Any] = {
    "direction": "reverse",
    "attention": "published",
    "teacher_costs": "opposite",
    "positions": "all",
    "per": "history",
}
"""Settings of the official code."""


class AdaRec(Settings):
    """Embeddings, hidden layers and logits of a sequential teacher."""

    weight: float = Field(default=0.5, ge=0, le=1)
    """g: the loss is (1 - g) times the base loss, plus g times the distillation."""
    embedding: float = Field(default=1.0, ge=0)
    """Of the embedding's part of the distillation; 0 leaves it out."""
    hidden: float = Field(default=1.0, ge=0)
    """Of the hidden layers' part."""
    logits: float = Field(default=1.0, ge=0)
    """Of the logits' part."""
    mapping: Mapping = "emd"
    """Which student layer learns from which teacher layer: "emd" solves for it every step, the others are fixed."""
    direction: Direction = "forward"
    """ "forward" KL(teacher || student), or "reverse" (official code)."""
    attention: Attention = "relative"
    """How the masses of layers follow their costs: "relative", "published", "bert-emd" or "none"."""
    teacher_costs: Opposite = "same"
    """What the teacher's masses follow: the costs themselves, or those of the "opposite" direction (official code)."""
    positions: Positions = "asked"
    """Positions of embeddings and hidden layers: "asked" leaves padding out, "all" does not (official code)."""
    per: Per = "position"
    """Mean over positions, or sum over the positions of a "history" (official code)."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the logits."""
    best: int = Field(default=0, ge=0)
    """Logits are matched over this many items of the teacher's greatest scores at each position; 0 = all items."""
    memory: float = Field(default=2.0, ge=0)
    """GiB that a teacher trained here may take to keep what it makes of all histories, so that each is read once."""


def distillation(
    c: AdaRec, *, student: Recommender, teacher: Knows, how: How, seed: int, layers: int | None = None
) -> dict[str, tuple[float | Schedule, Term]]:
    """AdaRec's three terms with their weights, those of weight 0 left out.

    Args:
        c: the settings.
        student: who learns.
        teacher: who is asked.
        how: how the base loss beside them is reduced.
        seed: of the projections.
        layers: S, the most layers a student may have; what it has now when None.
    """
    device = next(student.parameters()).device  # the teacher is asked there too
    (students, width), (teachers, wide) = shape(student, device), shape(teacher, device)
    terms: dict[str, tuple[float | Schedule, Term]] = {}
    if c.embedding:
        embedding = EmbeddingMatch(width, wide, positions=c.positions, how=how, seed=seed)
        terms["embedding"] = (c.weight * c.embedding, embedding)
    if c.hidden:
        hidden = LayerMatch(
            width,
            wide,
            students=layers or students,
            teachers=teachers,
            mapping=c.mapping,
            direction=c.direction,
            attention=c.attention,
            teacher_costs=c.teacher_costs,
            positions=c.positions,
            per=c.per,
            how=how,
            seed=seed,
        )
        terms["hidden"] = (c.weight * c.hidden, hidden)
    if c.logits:
        n, tau = student.n_items, c.temperature
        logits = LogitMatch(n, direction=c.direction, temperature=tau, best=c.best, per=c.per, how=how)
        terms["logits"] = (c.weight * c.logits, logits)
    return terms


def asks(c: AdaRec) -> frozenset[Kind]:
    """What the parts that are not left out ask of a teacher."""
    kinds = {Kind.STATES: c.embedding or c.hidden, Kind.SCORES: c.logits}
    return frozenset(kind for kind, part in kinds.items() if part)


@method(
    "adarec",
    settings=AdaRec,
    paper=ADAREC,
    asks=asks,
    tuned={"weight": LinearRange(0.1, 0.9), "temperature": LogRange(0.5, 5)},
)
def adarec(c: AdaRec, s: Setting) -> list[Pass]:
    """AdaRec's distillation: transfers embeddings, hidden layers and logits between sequential models."""
    teacher = s.need_teacher("adarec")
    remember(teacher, s.batches, most=c.memory)
    terms = distillation(c, student=s.student, teacher=teacher, how=s.base.how, seed=s.seed)
    return [Pass("distil", s.batches, Objective(base=(1 - c.weight, s.base), **terms), teacher)]


def remember(teacher: Knows, batches: Batches, *, most: float) -> None:
    """Let a frozen model read the histories of `batches` once, where that takes at most `most` GiB."""
    if not isinstance(teacher, Live) or not isinstance(teacher.model, Sequential):
        return
    model = teacher.model
    if not isinstance(batches, SequenceBatches) or not 0 < Memory.bytes_of(model, batches.n_shown) <= most * 2**30:
        return
    if any(history.shape[1] > model.length for history in batches.shown()):
        return  # the loop refuses it, with a remedy
    if model.memory is None or any(model.memory.recall(history) is None for history in batches.shown()):
        model.memory = Memory(model, batches.shown())


def shape(of: Recommender | Knows, device: torch.device) -> tuple[int, int]:
    """(layers, width) of its states; (1, 1) of who has none, whom the loop refuses before its first step."""
    if Kind.STATES not in of.provides:
        return 1, 1
    training = isinstance(of, nn.Module) and of.training
    if isinstance(of, nn.Module):
        of.eval()
    nobody, history = (torch.full(size, value, device=device) for size, value in (((1,), -1), ((1, 1), 0)))
    with torch.no_grad():
        states = of.view(Query(nobody, history=history)).states()
    if isinstance(of, nn.Module):
        of.train(training)
    return states.shape[0] - 1, states.shape[3]
