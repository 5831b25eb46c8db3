"""Batches of a search: a part of the users, and every position or the last one alone.

Letters: Q histories a batch, T time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from typing_extensions import override

from recdistill import rng
from recdistill.data.sequences import SequenceBatches
from recdistill.errors import TrainingError, problem
from recdistill.query import Query

if TYPE_CHECKING:
    from recdistill.data.interactions import Interactions
    from recdistill.query import Batch
    from recdistill.search.space import Scored

__all__ = ["Part", "PartBatches"]

Part = Literal["all", "weights", "alpha"]


class PartBatches(SequenceBatches):
    """Next-item batches of those users whose hash falls into a part.

    Scored "last", a history ends at a place that is drawn anew in every epoch, and what follows it is the label: all
    prefixes in turn, each scored once, so that operators that look ahead have nothing to look at.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        length: int,
        size: int,
        part: Part = "all",
        share: float = 0.5,
        scored: Scored = "every",
        negatives: int = 0,
        every: bool = False,
        seed: int,
        device: torch.device,
    ) -> None:
        """As `SequenceBatches`; `share` in (0, 1) of the users are for alpha.

        Raises:
            UsageError: a size outside its range.
            TrainingError: no history is long enough, or none is in the part.
        """
        super().__init__(
            train, length=length, size=size, negatives=negatives, every=every, seed=rng.key(seed, part), device=device
        )
        self._scored: Scored = scored
        if part == "all":
            return
        chance = rng.uniform(rng.key(seed, "part of a user"), self._row, 1)[:, 0]
        mine = (chance < share) == (part == "alpha")
        if not bool(mine.any()):
            remedy = "Change the share of alpha's users, or search on one level"
            raise TrainingError(problem(f"No user is left to train {part} with", remedy=remedy))
        self._row, self._start, self._stop = self._row[mine], self._start[mine], self._stop[mine]

    @property
    @override
    def n_shown(self) -> int:
        """0 where only the "last" is scored: every epoch ends histories elsewhere."""
        return super().n_shown if self._scored == "every" else 0

    @override
    def _batch(self, some: torch.Tensor, epoch: int, key: int) -> Batch:
        if self._scored == "every":
            return super()._batch(some, epoch, key)
        start, stop = self._start[some], self._stop[some]  # (Q,), two items or more between them
        drawn = rng.uniform(rng.key(self._seed, "end of a history", epoch), start, 1)[:, 0]
        label = start + 1 + (drawn.double() * (stop - start - 1)).long()
        begin = torch.maximum(start, label - self._length)
        width = int((label - begin).max())
        place = label[:, None] - torch.arange(width, 0, -1, device=some.device)  # (Q, T)
        history = torch.where(place >= begin[:, None], self._items[place.clamp(min=0)].long(), -1)
        at = torch.stack([torch.arange(len(some), device=some.device), torch.full_like(some, width - 1)], 1)
        query = Query(self._row[some], history=history, at=at, key=key)
        return self._made(query, self._items[label].long(), label, epoch)
