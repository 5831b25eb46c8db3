"""Distillation of logits over the whole catalogue, or over items that are named.

Hinton et al., 2015, arXiv:1503.02531; AdaRec's third term, Chen et al., arXiv:2107.07173.

Letters: n answers of a view, I items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.kl import kl
from recdistill.losses.linear_kl import linear_kl
from recdistill.objective import Term
from recdistill.terms.positions import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.knowledge.view import View
    from recdistill.losses.kl import Direction
    from recdistill.losses.linear_kl import Linear
    from recdistill.query import Batch, Rows
    from recdistill.runtime import How
    from recdistill.terms.positions import Per

__all__ = ["LogitMatch"]

_ROOM = 1 << 28
"""Scores of a model that exist at a time (1 GiB of float32)."""


class LogitMatch(Term):
    """`KL` of the two softmaxes over all items, or over the teacher's best, for each answer of the views.

    Over all items, scores that are products of vectors exist for some rows at a time. Others it holds as (n, I) where
    that is little; where it is not it goes through the catalogue in parts, twice, and again for the gradient.
    """

    of_teacher: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})

    def __init__(
        self,
        n_items: int,
        *,
        direction: Direction = "forward",
        temperature: float = 1.0,
        best: int = 0,
        per: Per = "position",
        how: How = "mean",
    ) -> None:
        """Compare over items 0..I-1.

        Args:
            n_items: I.
            direction: "forward" KL(teacher || student), or "reverse" (AdaRec's official code).
            temperature: of both softmaxes, > 0.
            best: how many items of the teacher's greatest scores the softmaxes are over; 0 = all.
            per: what a row is.
            how: the mean over rows, or their sum beside a base loss that is summed.

        Raises:
            UsageError: the temperature is not above 0.
        """
        super().__init__()
        self.how = how
        if temperature <= 0:
            raise UsageError(problem("The temperature of logits must be above 0", temperature))
        self._items = torch.arange(n_items)
        self._direction: Direction = direction
        self._temperature = temperature
        self._best = best if 0 < best < n_items else 0
        self._per: Per = per

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del clock
        assert teacher is not None  # noqa: S101 - the loop has checked it
        self._items = self._items.to(batch.query.row.device)
        asked = len(batch.query) if batch.query.at is None else len(batch.query.at)  # n
        with torch.no_grad():
            theirs = None if self._best else teacher.linear()
        ours = None if theirs is None else student.linear()
        if theirs is not None and ours is not None:
            ours, theirs = self._among(ours, "student"), self._among(theirs, "teacher")
            value = linear_kl(ours, theirs, direction=self._direction, temperature=self._temperature)
        elif not self._best and asked * len(self._items) > _ROOM:
            value = self._in_parts(student, teacher, size=max(1, _ROOM // asked))
        else:
            with torch.no_grad():
                items, target = teacher.best(self._best) if self._best else (self._items, None)
                target = teacher.scores_among(items) if target is None else target
            scores = student.scores(items) if self._best else student.scores_among(items)
            value = kl(scores, target, direction=self._direction, temperature=self._temperature)
        return rows(value, batch.query, "asked", self._per, self.how)

    def _among(self, linear: Linear, whose: str) -> Linear:
        n = len(self._items)
        if len(linear.items) < n:
            remedy = "Train both on one log, or give the teacher's vectors or scores as a file, which is matched by ids"
            raise UsageError(
                problem(f"The {whose} knows too few items", len(linear.items), allowed=f"{n} or more", remedy=remedy)
            )
        return linear.first(n)

    def _in_parts(self, student: View, teacher: View, *, size: int) -> Tensor:
        """(n,) as `kl` has it over the whole catalogue, `size` items at a time."""
        tau, parts = self._temperature, self._items.split(size)
        student.scores_among(self._items[:1])  # histories are encoded here, once, not in every part

        def partition(view: View, part: Tensor) -> Tensor:
            return (view.scores_among(part) / tau).logsumexp(1)

        with torch.no_grad():
            of_teacher = torch.stack([partition(teacher, part) for part in parts]).logsumexp(0)[:, None]
        of_student = torch.stack([_again(partition, student, part) for part in parts]).logsumexp(0)[:, None]  # (n, 1)

        def apart(part: Tensor, of_student: Tensor) -> Tensor:
            with torch.no_grad():
                t = teacher.scores_among(part) / tau - of_teacher
            s = student.scores_among(part) / tau - of_student
            over, under = (t, s) if self._direction == "forward" else (s, t)
            return (over.exp() * (over - under)).sum(1)

        value = torch.zeros_like(of_student[:, 0])
        for part in parts:
            value = value + _again(apart, part, of_student)
        return value * tau**2


def _again(function: Callable[..., Tensor], *of: Any) -> Tensor:  # noqa: ANN401
    """`function(*of)`, computed again in the backward pass instead of kept."""
    return checkpoint(function, *of, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportReturnType]
