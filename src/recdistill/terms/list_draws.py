"""Draws from lists and outside of them, once an epoch for each row: what RRD calls interesting and uninteresting.

Letters: n rows, R list length, K near draws, L far draws, m rows of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from recdistill import rng
from recdistill.data.draws import outside
from recdistill.errors import UsageError, problem

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.data.draws import Taken
    from recdistill.terms.lists import TeacherLists

__all__ = ["Draw", "ListDraws", "check_draws"]

Draw = Literal["sampled", "top"]
_AT_ONCE = 1 << 11
"""Rows drawn for at a time when an epoch begins: what is drawn for them stays in a core's cache."""


def check_draws(
    name: str, *, near: int, far: int, depth: int, reach: int, sharpness: float, of: Literal["", "item_"] = ""
) -> None:
    """Refuse numbers that cannot be drawn by; `of` stands before the names of settings.

    Raises:
        UsageError: not 1 <= near <= reach <= depth, or far < 1, or sharpness <= 0.
    """
    if not 1 <= near <= reach <= depth:
        what = f"{name} needs 1 <= {of}near <= {of}reach <= {of}depth"
        raise UsageError(problem(what, f"{of}near={near}, {of}reach={reach}, {of}depth={depth}"))
    if far < 1 or sharpness <= 0:
        what = f"{name} needs {of}far >= 1 and {of}sharpness > 0"
        raise UsageError(problem(what, f"{of}far={far}, {of}sharpness={sharpness}"))


class ListDraws:
    """K of the head of each row's list, in its order, and L drawn uniformly from outside of list and training.

    A draw is a function of (seed, epoch, row), so it does not matter when: those met in earlier epochs are drawn when
    an epoch begins, others when they are met.
    """

    def __init__(
        self,
        lists: TeacherLists,
        taken: Taken,
        *,
        near: int,
        far: int,
        reach: int,
        sharpness: float,
        draw: Draw,
        seed: int,
        purpose: str = "",
    ) -> None:
        """Say what is drawn.

        Args:
            lists: each row's list (n, R).
            taken: what a row has, which is never far.
            near: K.
            far: L.
            reach: near draws are from the first `reach` of the list.
            sharpness: T; rank r (from 1) is drawn with weight `e^(-r / T)`, without replacement.
            draw: "sampled", or "top": the first K.
            seed: of the draws.
            purpose: tells the draws of one table from those of another.
        """
        device = taken.keys.device
        n_rows, self._depth = lists.items.shape
        self._lists, self._taken, self._near, self._far = lists, taken, near, far
        self._reach, self._sharpness, self._draw = min(reach, self._depth), sharpness, draw
        self._seed, self._purpose = seed, purpose
        self._drawn = torch.empty(n_rows, near + far, dtype=torch.int32, device=device)  # (n, K + L)
        self._drawn_in = torch.full((n_rows,), -1, dtype=torch.int32, device=device)  # (n,) the epoch of each draw
        self._epoch: int | None = None

    def begin(self, epoch: int) -> None:
        """Draw anew for everybody met, once an epoch."""
        if epoch != self._epoch:
            for some in self._lists.met.nonzero()[:, 0].split(_AT_ONCE):
                self.renew(some, epoch)
            self._epoch = epoch

    def stale(self, ids: Tensor, epoch: int) -> Tensor:
        """Those of `ids` (m,) without a draw of this epoch."""
        return ids[self._drawn_in[ids] != epoch]

    def of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) rows -> (m, K) near and (m, L) far as last drawn, int64; -1 = none."""
        drawn = self._drawn[ids].long()
        return drawn[:, : self._near], drawn[:, self._near :]

    def renew(self, rows: Tensor, epoch: int) -> None:
        """Draw for `rows` (m,), whose lists are there."""
        head = self._lists.items[rows, : self._reach]  # (m, reach)
        if self._draw == "top":
            near = head[:, : self._near]
        else:
            ranks = torch.arange(1, self._reach + 1, device=head.device, dtype=torch.float32)
            key = rng.key(self._seed, f"near{self._purpose}", epoch)
            weights = rng.gumbel(key, rows, self._reach) - ranks / self._sharpness
            weights.masked_fill_(head < 0, -torch.inf)
            chosen = weights.topk(min(self._near, self._reach), 1).indices.sort(1).values  # back in the list's order
            near = head.gather(1, chosen)
        key = rng.key(self._seed, f"far{self._purpose}", epoch)
        far = outside(key, rows, self._far, self._taken, more=self._lists.ordered[rows], distinct=True)
        self._drawn[rows, : near.shape[1]] = near
        self._drawn[rows, near.shape[1] : self._near] = -1  # a list shorter than K
        self._drawn[rows, self._near :] = far.to(torch.int32)
        self._drawn_in[rows] = epoch
