"""What Mult-VAE minimises, over the whole catalogue and exactly. Liang et al., WWW 2018, arXiv:1802.05814, eq. 7.

Letters: Q users, I items, d dims, n interactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import override

from recdistill.errors import UsageError, problem
from recdistill.knowledge.view import Kind
from recdistill.losses.cross_entropy import log_partition
from recdistill.models.vae import VAEView
from recdistill.objective import Term
from recdistill.query import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from recdistill.clock import Clock
    from recdistill.data.csr import Csr
    from recdistill.knowledge.view import View
    from recdistill.query import Batch

__all__ = ["Multinomial"]

_CHUNK = 512


class Multinomial(Term):
    """`-sum_i x_i log softmax(s)_i + beta KL(q(z) || N(0, 1))` of each user, x the user's row at length 1.

    beta grows with every step, `min(most, step / over)`, as in CCD's official code; the divergence is complete, with
    the constant that code lacks.
    """

    of_student: ClassVar[frozenset[Kind]] = frozenset({Kind.SCORES})
    _begin: Tensor
    _items: Tensor
    _everything: Tensor

    def __init__(self, rows: Csr, *, steps: int, most: float = 0.2, over: float = 200_000) -> None:
        """Take the rows to be found (U x I), and how many steps an epoch has."""
        super().__init__()
        held = {"begin": rows.indptr, "items": rows.indices, "everything": np.arange(rows.n_columns)}
        for name, value in held.items():
            self.register_buffer(f"_{name}", torch.from_numpy(value.astype(np.int64)), persistent=False)
        self.memory: nn.Module | None = None
        """Pseudo-labels that the rows are encoded with, kept with a run's state."""
        self._steps, self._most, self._over = steps, most, over

    @override
    def forward(self, student: View, teacher: View | None, batch: Batch, clock: Clock) -> Rows:
        del teacher
        if not isinstance(student, VAEView):
            remedy = "Use the base loss 'cross-entropy' for other models"
            raise UsageError(problem("The likelihood with a divergence is of Mult-VAE", student.source, remedy=remedy))
        users = batch.query.row  # (Q,), each once
        drawn = student.drawn()
        vectors, table = drawn.vectors(), drawn.entities("item", self._everything)
        start = self._begin[users]
        count = self._begin[users + 1] - start  # (Q,)
        offsets = count.cumsum(0) - count
        place = torch.arange(int(count.sum()), device=users.device) + torch.repeat_interleave(start - offsets, count)
        total = F.embedding_bag(self._items[place], table, offsets, mode="sum")  # (Q, d) sums of the row's items
        scale = count.clamp(min=1).float().rsqrt()
        partition = log_partition(vectors, table, chunk=_CHUNK)  # (Q,)
        likelihood = scale * (count * partition - (vectors * total).sum(1))
        beta = min(self._most, (clock.epoch * self._steps + clock.step) / self._over)
        return Rows(likelihood + beta * _divergence(*student.posterior()), of="users")


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(Q, d), (Q, d) -> (Q,) KL(N(mean, variance) || N(0, 1))."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)
